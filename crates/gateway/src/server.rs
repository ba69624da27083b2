//! The listener: accepts connections, tells HTTP/1.1 from h2, bounds what a client may cost, drains on shutdown.

use crate::{
    body::ResponseBody,
    client_io::{ClientIo, ClientState},
    gateway::{Gateway, Peer},
};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};

/// What every h2 connection begins with.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams one h2 connection may have open.
const H2_STREAMS_MAX: u32 = 256;
/// How often idle upstream connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// The pause after a failed accept: the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections that were told to close may take over it, and settlements over theirs.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Gateway {
    /// Serves the listener until `shutdown` resolves, then drains: no new connections, requests in flight may end
    /// within the drain deadline, what is left is closed, and what is owed is settled.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.options.connections_max.min(Semaphore::MAX_PERMITS)));
        let mut sweep = time::interval(SWEEP_EVERY);
        let mut shutdown = pin!(shutdown);
        loop {
            let accepting = async {
                let place = places.clone().acquire_owned().await.ok();
                (listener.accept().await, place)
            };
            tokio::select! {
                () = &mut shutdown => break,
                _ = sweep.tick() => self.sweep(),
                accepted = accepting => match accepted {
                    (Ok((stream, address)), Some(place)) => {
                        tokio::spawn(self.clone().connection(stream, address, place));
                    }
                    (Err(error), _) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                    (Ok(_), None) => break,
                },
            }
        }
        drop(listener);
        self.drain(&places).await;
    }

    async fn drain(&self, places: &Semaphore) {
        let all = self.options.connections_max.min(Semaphore::MAX_PERMITS) as u32;
        self.phase.send_replace(Phase::Draining);
        // Connections hold their places, and so do tunnels when their connections are gone.
        if time::timeout(self.options.drain_max, places.acquire_many(all)).await.is_err() {
            tracing::warn!("requests were still in flight at the drain deadline; they are cut off");
        }
        self.phase.send_replace(Phase::Closing);
        let _ = time::timeout(LAST_WORDS, places.acquire_many(all)).await;
        if time::timeout(LAST_WORDS, self.settled()).await.is_err() {
            tracing::error!("charges were still to be settled when the gateway stopped");
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let ip = address.ip().to_canonical();
        let mut phase = self.phase.subscribe();
        let beginning = tokio::select! {
            beginning = time::timeout(self.options.header_timeout, begins_with_preface(&stream)) => beginning,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        let Ok(Some(is_h2)) = beginning else { return };
        if is_h2 {
            let peer = Arc::new(Peer { ip, client: None, _place: place });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(H2_STREAMS_MAX)
                .max_header_list_size(self.options.head_max_bytes as u32)
                .keep_alive_interval(self.options.header_timeout)
                .keep_alive_timeout(self.options.header_timeout);
            let service = service_fn(move |request| respond(self.clone(), peer.clone(), request));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            run(connection, phase, |connection| connection.graceful_shutdown()).await;
        } else {
            let client = ClientState::new();
            let peer = Arc::new(Peer { ip, client: Some(client.clone()), _place: place });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.options.header_timeout)
                .max_buf_size(self.options.head_max_bytes.max(8192));
            let service = service_fn(move |request| respond(self.clone(), peer.clone(), request));
            let connection = builder.serve_connection(ClientIo::new(stream, client), service).with_upgrades();
            run(connection, phase, |connection| connection.graceful_shutdown()).await;
        }
    }
}

/// How far the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// No new requests; those in flight may end.
    Draining,
    /// Whatever is still open is cut off.
    Closing,
}

/// Drives a connection to its end, or until the gateway closes.
async fn run<C>(connection: C, mut phase: watch::Receiver<Phase>, last_request: impl FnOnce(Pin<&mut C>))
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let glance = phase.clone();
    let ended = {
        let mut draining = pin!(phase.wait_for(|phase| *phase >= Phase::Draining));
        let mut looked = false;
        // The connection is polled many times for every request, and the phase changes twice in a gateway's life: it is
        // looked at closely the first time, which says whom to wake, and when it did change. That comes before the
        // connection, which may use up what a task may do in one go, and then it would not be said whom to wake.
        poll_fn(|cx| {
            if !looked || glance.has_changed().unwrap_or(true) {
                looked = true;
                if draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
            }
            connection.as_mut().poll(cx).map(Some)
        })
        .await
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            last_request(connection.as_mut());
            tokio::select! {
                biased;
                ended = connection => ended,
                _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}

async fn respond(
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    Ok(gateway.answer(&peer, request).await)
}

/// Whether the client speaks h2 from the start. `None` when it hung up before saying enough.
async fn begins_with_preface(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; H2_PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let length = stream.peek(&mut first).await.ok().filter(|length| *length > 0)?;
        if first[..length] != H2_PREFACE[..length] {
            return Some(false);
        }
        if length == H2_PREFACE.len() {
            return Some(true);
        }
        // What is peeked stays readable, so there is nothing to be woken by. Seldom, and less and less often.
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
