//! The API's listener: bounded connections, bounded patience, and an end that waits for answers in flight.

use anyhow::Context;
use axum::response::Response;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections at once.
const CONNECTIONS_MAX: usize = 10_000;
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;

/// Binds an address; `:0` takes a free port.
///
/// # Errors
/// A sentence that says which setting to change.
pub async fn bind(address: &str, setting: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is taken by another program; stop it, or set {setting} to another address")
        }
        _ => anyhow::anyhow!("{setting} is {address}, where this program can't listen: {error}"),
    })?;
    let bound = listener.local_addr().context("a listener without an address")?;
    Ok((listener, bound))
}

/// Serves until `shutdown` ends, then waits for answers in flight, at most `drain`.
pub async fn serve<H, F>(listener: TcpListener, handler: H, shutdown: impl Future<Output = ()>, drain: Duration)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(HEAD_PATIENCE);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = &mut shutdown => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    pause_if_exhausted(&error).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = connections.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            // What a client does to its own connection is not news.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the API ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!("some answers of the API did not end in time and were cut");
    }
}

/// Without descriptors, `accept` fails at once and for ever: waits a little, so that the loop doesn't spin.
async fn pause_if_exhausted(error: &io::Error) {
    let of_the_client = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !of_the_client.contains(&error.kind()) {
        tracing::warn!(%error, "the API can't accept connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
