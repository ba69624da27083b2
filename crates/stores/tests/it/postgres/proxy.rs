//! A small TCP proxy that cuts connections where a test wants it.

use super::run;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// The next thing a client says is not passed on; everything is cut from then on.
    CutRequest,
    /// The next thing a client says is passed on, the answer is not; everything is cut from then on.
    CutReply,
    /// Nothing passes, nobody is let in.
    Closed,
    /// Connections stay, and nothing is ever heard on them again, whatever comes after; nor on those that are made now.
    Silent,
}

/// The proxy.
pub struct Proxy {
    pub port: u16,
    mode: Arc<Mutex<Mode>>,
    /// Counts up when every connection is to be cut.
    cuts: watch::Sender<u64>,
    /// Counts up when every connection falls silent.
    silences: watch::Sender<u64>,
}

impl Proxy {
    pub fn to(address: String) -> Self {
        let (cuts, cut) = watch::channel(0);
        let (silences, silence) = watch::channel(0);
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let listener = run(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let of_connections = (mode.clone(), cuts.clone());
        run(async move {
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    if *of_connections.0.lock() == Mode::Closed {
                        continue;
                    }
                    let (address, control) = (address.clone(), of_connections.clone());
                    let (cut, mut silence) = (cut.clone(), silence.clone());
                    silence.mark_unchanged();
                    if *control.0.lock() == Mode::Silent {
                        silence.mark_changed();
                    }
                    tokio::spawn(async move { pass(client, &address, (cut, silence), control).await });
                }
            });
        });
        Self { port, mode, cuts, silences }
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
        if mode == Mode::Closed {
            self.cuts.send_modify(|cuts| *cuts += 1);
        }
        if mode == Mode::Silent {
            self.silences.send_modify(|silences| *silences += 1);
        }
    }

    pub fn mode(&self) -> Mode {
        *self.mode.lock()
    }
}

type Control = (Arc<Mutex<Mode>>, watch::Sender<u64>);

async fn pass(
    mut client: TcpStream,
    address: &str,
    (mut cut, mut silence): (watch::Receiver<u64>, watch::Receiver<u64>),
    control: Control,
) {
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    cut.mark_unchanged();
    let (mut said, mut answered) = ([0; 65536], [0; 65536]);
    let mut cuts_reply = false;
    loop {
        tokio::select! {
            biased;
            _ = cut.changed() => return,
            _ = silence.changed() => return std::future::pending().await,
            read = client.read(&mut said) => {
                let Ok(length @ 1..) = read else { return };
                let mode = *control.0.lock();
                if mode == Mode::CutRequest {
                    return close(&control);
                }
                cuts_reply = mode == Mode::CutReply;
                if server.write_all(&said[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if cuts_reply {
                    return close(&control);
                }
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn close(control: &Control) {
    *control.0.lock() = Mode::Closed;
    control.1.send_modify(|cuts| *cuts += 1);
}
