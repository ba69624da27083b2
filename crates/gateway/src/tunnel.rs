//! WebSockets: bytes both ways, until one side ends it or the gateway closes.

use crate::{
    admit::Ticket,
    afterwards::Afterwards,
    body::{RequestBody, ResponseBody},
    forward::{self, Failure},
    frames::{self, Frames},
    gateway::{Peer, Running},
    scrub,
    server::Phase,
    session::Stream,
    upstream::Upstream,
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is copied at once, each way.
const COPY_BYTES: usize = 16 * 1024;

/// What a client is told whose time is over.
const CUT_REASON: &str = "the session has reached its limit";

/// How long the other side may take to close after that.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Asks the upstream to switch protocols, and tunnels if it does. If not, its answer is passed on like any other.
pub(crate) async fn open(
    running: &Running,
    peer: &Arc<Peer>,
    upstream: &Arc<Upstream>,
    request: Request<RequestBody>,
    mut ticket: Ticket,
    client: OnUpgrade,
) -> Response<ResponseBody> {
    let (mut sender, connection) = match upstream.handshake().await {
        Ok(pair) => pair,
        Err(error) => return forward::failed(running, upstream, &Failure::Unreachable(error), ticket.metered).await,
    };
    let driver = tokio::spawn(connection.with_upgrades());
    // Until the response is there, the connection ends with the request that it was made for.
    let guard = AbortOnDrop(Some(driver));
    if let Some(metered) = &mut ticket.metered {
        metered.on_its_way(true);
    }
    let sending = sender.send_request(request);
    let reply = match upstream.response_timeout() {
        None => sending.await.map_err(Failure::Broken),
        Some(timeout) => match tokio::time::timeout(timeout, sending).await {
            Ok(reply) => reply.map_err(Failure::Broken),
            Err(_) => Err(Failure::Timeout),
        },
    };
    let mut response = match reply {
        Ok(response) => response,
        Err(failure) => return forward::failed(running, upstream, &failure, ticket.metered).await,
    };
    let protocol = response.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
    let asked_for = protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asked_for {
        return forward::failed(running, upstream, &Failure::Unasked, ticket.metered).await;
    }
    let upstream_side = hyper::upgrade::on(&mut response);
    let (parts, incoming) = response.into_parts();
    let afterwards = match forward::settled_head(running, &parts, ticket.metered.as_mut()).await {
        Ok(afterwards) => afterwards,
        Err(answer) => return *answer,
    };
    guard.release();
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = Response::new(ResponseBody::detached(incoming, afterwards));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        forward::finish_head(response.headers_mut(), ticket.metered.as_ref());
        // What was asked to be a tunnel and is none is a response like any other.
        let session = ticket.metered.as_mut().and_then(|metered| metered.session.take());
        forward::watch_events(&mut response, false, session);
        return response;
    }
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    forward::finish_head(response.headers_mut(), ticket.metered.as_ref());
    scrub::ask_for_websocket(response.headers_mut());
    let mut phase = running.phase.clone();
    let peer = peer.clone();
    let session = ticket.metered.and_then(|mut metered| metered.session.take());
    tokio::spawn(async move {
        // Holds the client's place among the connections, and its session, for as long as the tunnel lives.
        let (_peer, session) = (peer, session);
        let stream = session.as_ref().map(|session| session.stream().clone());
        let cut = async {
            match &stream {
                None => std::future::pending().await,
                Some(stream) => {
                    stream.cut().await;
                    tokio::time::sleep(CLOSE_MAX).await;
                }
            }
        };
        tokio::select! {
            () = tunnel(client, upstream_side, afterwards, stream.clone()) => {}
            () = cut => {}
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
        }
    });
    response
}

async fn tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    afterwards: Option<Box<Afterwards>>,
    session: Option<Arc<Stream>>,
) {
    let (client, upstream) = match tokio::try_join!(client, upstream) {
        Ok(sides) => sides,
        Err(error) => return tracing::debug!(%error, "the tunnel was not opened"),
    };
    let mut client = TokioIo::new(client);
    let session = session.map(Limited::new);
    let mut upstream = Counted { io: TokioIo::new(upstream), afterwards, session };
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, COPY_BYTES, COPY_BYTES).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "the tunnel broke");
    }
}

/// Aborts a task unless it is released.
struct AbortOnDrop<T>(Option<tokio::task::JoinHandle<T>>);

impl<T> AbortOnDrop<T> {
    fn release(mut self) {
        self.0 = None;
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Counts what the upstream sends.
struct Counted {
    io: TokioIo<Upgraded>,
    afterwards: Option<Box<Afterwards>>,
    session: Option<Limited>,
}

/// A tunnel whose time may be over: then it is closed between two frames.
struct Limited {
    stream: Arc<Stream>,
    frames: Frames,
    told: Pin<Box<dyn Future<Output = ()> + Send>>,
    closed: bool,
}

impl Limited {
    fn new(stream: Arc<Stream>) -> Self {
        let watched = stream.clone();
        let told = Box::pin(async move { watched.cut().await });
        Self { stream, frames: Frames::default(), told, closed: false }
    }

    /// Whether the time is over. If not, the task is woken when it is.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.is_cut() || self.told.as_mut().poll(cx).is_ready()
    }
}

impl Counted {
    fn poll_counted(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if let Some(afterwards) = &mut self.afterwards {
            afterwards.count(read.len());
        }
        if let Some(session) = &mut self.session {
            session.frames.pass(read);
        }
        result
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(session) = &mut this.session else { return this.poll_counted(cx, buffer) };
        if session.closed {
            return Poll::Ready(Ok(()));
        }
        if !session.poll_cut(cx) {
            return this.poll_counted(cx, buffer);
        }
        let close = frames::close(CUT_REASON);
        if session.frames.at_boundary() {
            if buffer.remaining() < close.len() {
                // What is there is passed on first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buffer.put_slice(&close);
            session.closed = true;
            return Poll::Ready(Ok(()));
        }
        // No further than to the end of this frame.
        let mut rest = buffer.take(session.frames.to_boundary());
        let result = this.poll_counted(cx, &mut rest);
        let read = rest.filled().len();
        // What was read through it is initialized.
        let filled = rest.filled().to_vec();
        debug_assert_eq!(filled.len(), read, "all of it was read just now");
        buffer.put_slice(&filled);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
