//! Connections to one upstream, HTTP/1.1, kept for the next request.
//!
//! A connection is driven by whoever uses it: by the request while the head is awaited, by the response's body after
//! that. No task of its own, so nothing crosses threads, and what is dropped is closed.

use crate::{
    body::RequestBody,
    dial::{self, DialError, Dialer, Stream},
};
use http::{HeaderValue, Request, Response, Uri, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use wire::catalog;

/// The largest response head, and how much of a body is held at once.
const BUFFER_MAX_BYTES: usize = 64 * 1024;
/// Idle connections kept for one upstream, and for how long: less than the five seconds after which the impatient
/// servers (Node.js, uvicorn) close theirs, since a request that meets a closing connection fails.
const IDLE_MAX: usize = 1024;
const IDLE_MAX_AGE: Duration = Duration::from_secs(4);

/// One upstream.
pub(crate) struct Upstream {
    pub(crate) rules: catalog::Upstream,
    /// What stands in `Host`.
    pub(crate) authority: HeaderValue,
    /// Put in front of every path.
    prefix: Option<String>,
    dialer: Dialer,
    idle: Mutex<VecDeque<(Instant, Line)>>,
}

/// A connection to an upstream, and the way to put requests on it.
pub(crate) struct Line {
    sender: SendRequest<RequestBody>,
    /// `None` when the connection is over.
    connection: Option<Connection<Stream, RequestBody>>,
    /// Whether it served a request before.
    reused: bool,
}

/// Why there is no response.
pub(crate) enum SendError {
    /// The request was not put on the connection: here it is again.
    NotSent(Box<Request<RequestBody>>),
    /// The upstream broke off; the request may have reached it.
    Broken(hyper::Error),
    /// The upstream took too long.
    Timeout,
}

impl Upstream {
    pub(crate) fn new(rules: &catalog::Upstream, dialer: &Dialer) -> Result<Self, String> {
        let authority = HeaderValue::from_str(dial::authority(&rules.url)).map_err(|error| error.to_string())?;
        if authority.is_empty() {
            return Err("its URL names no host".into());
        }
        let prefix = rules.url.path().trim_end_matches('/');
        Ok(Self {
            authority,
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            rules: rules.clone(),
            dialer: match &rules.ca_file {
                Some(ca_file) => Dialer::trusting(ca_file)?,
                None => dialer.clone(),
            },
            idle: Mutex::default(),
        })
    }

    /// Where a request for this path and query goes. The path is the client's own, to the letter.
    pub(crate) fn target(&self, path: Option<&PathAndQuery>) -> Option<Uri> {
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        match &self.prefix {
            None => Some(Uri::from(path)),
            Some(prefix) => format!("{prefix}{path}").parse().ok(),
        }
    }

    /// A connection that is ready: one that was kept, or a new one.
    pub(crate) async fn line(&self) -> Result<Line, DialError> {
        loop {
            let Some((since, mut line)) = self.idle.lock().pop_back() else { return self.new_line().await };
            if since.elapsed() < IDLE_MAX_AGE && poll_fn(|cx| Poll::Ready(line.is_ready(cx))).await {
                line.reused = true;
                return Ok(line);
            }
        }
    }

    async fn new_line(&self) -> Result<Line, DialError> {
        let (sender, connection) = self.handshake().await?;
        Ok(Line { sender, connection: Some(connection), reused: false })
    }

    /// A connection of its own, for a request that may turn it into a tunnel.
    pub(crate) async fn handshake(
        &self,
    ) -> Result<(SendRequest<RequestBody>, Connection<Stream, RequestBody>), DialError> {
        let timeout = Duration::from_millis(self.rules.connect_timeout_ms);
        let stream = self.dialer.dial(&self.rules.url, timeout).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_MAX_BYTES);
        builder.handshake(stream).await.map_err(|error| DialError::Failed(error.into()))
    }

    /// How long a response head may take.
    pub(crate) fn response_timeout(&self) -> Option<Duration> {
        self.rules.response_timeout_ms.map(Duration::from_millis)
    }

    fn keep(&self, line: Line) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push_back((Instant::now(), line));
        }
    }

    /// Closes connections that nobody needed for a while.
    pub(crate) fn sweep(&self) {
        let mut closed = Vec::new();
        let mut idle = self.idle.lock();
        while idle.front().is_some_and(|(since, _)| since.elapsed() >= IDLE_MAX_AGE) {
            closed.extend(idle.pop_front());
        }
        drop(idle);
    }
}

impl Line {
    /// Lets the connection do what it can, and says whether it can take a request.
    fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Lets the connection do what it can.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(result) = std::pin::Pin::new(connection).poll(cx)
        {
            if let Err(error) = result {
                tracing::debug!(%error, "the connection to the upstream broke");
            }
            self.connection = None;
        }
    }

    /// Whether a request that was not sent may be tried on another connection: this one was old.
    pub(crate) fn was_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of the response. `body_sent` tells when the timeout begins to run.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        body_sent: impl Fn() -> bool,
        timeout: Option<Duration>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut reply = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let mut timer = None;
        let reply = poll_fn(|cx| {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            if let Some(open) = connection
                && std::pin::Pin::new(open).poll(cx).is_ready()
            {
                // Dropped, it hands back what it did not send.
                *connection = None;
            }
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            if let Some(timeout) = timeout.filter(|_| body_sent()) {
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                return timer.as_mut().poll(cx).map(|()| None);
            }
            Poll::Pending
        });
        match reply.await {
            None => Err(SendError::Timeout),
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(request) => SendError::NotSent(Box::new(request)),
                None => SendError::Broken(error.into_error()),
            }),
        }
    }

    /// The response is over: keeps the connection for the next request if it is ready for one, and closes it if not.
    pub(crate) fn finish(mut self, upstream: &Arc<Upstream>, cx: &mut Context<'_>) {
        if self.is_ready(cx) {
            upstream.keep(self);
        }
    }
}
