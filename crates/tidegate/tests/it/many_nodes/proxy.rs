//! What is between a node and PostgreSQL: it cuts connections, holds bytes back, and refuses, when it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::broadcast,
};

/// A way to a server.
#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    state: Arc<State>,
}

struct State {
    cut: broadcast::Sender<()>,
    refuses: AtomicBool,
    delay_ms: AtomicU64,
}

impl Proxy {
    /// A way to `server`, an address with a port.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State { cut: broadcast::channel(1).0, refuses: false.into(), delay_ms: 0.into() };
        let proxy = Self { address, state: Arc::new(state) };
        let state = proxy.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !state.refuses.load(Ordering::SeqCst) {
                    tokio::spawn(carry(client, server.clone(), state.clone()));
                }
            }
        });
        proxy
    }

    /// Cuts every connection there is, whatever is on its way.
    pub fn cut(&self) {
        let _ = self.state.cut.send(());
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Holds back each piece that passes from now on, either way.
    pub fn delay_ms(&self, delay_ms: u64) {
        self.state.delay_ms.store(delay_ms, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: String, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, &state) => {}
        () = pass(from_server, to_client, &state) => {}
        _ = cut.recv() => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let delay_ms = state.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
