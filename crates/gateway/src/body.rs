//! Bodies on their way through. Nothing is collected: a frame is handed on as it came.

use crate::{
    afterwards::Afterwards,
    ahead::{Ahead, PeekPart},
    client_io::ClientState,
    observe::Report,
    session::SessionGuard,
    settle::Measure,
    tap::EventEditor,
    upstream::{Line, Upstream},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Sleep;

/// How long an upstream may leave `Expect: 100-continue` unanswered before the body is sent all the same.
const CONTINUE_MAX: Duration = Duration::from_secs(1);

/// What a client sends.
pub(crate) struct RequestBody {
    /// What was read of it already.
    ahead: VecDeque<Frame<Bytes>>,
    /// Its part of what may be held back.
    budget: Option<PeekPart>,
    incoming: Option<Incoming>,
    gate: Option<Pin<Box<ContinueGate>>>,
    measure: Option<Arc<Measure>>,
    client: Option<Arc<ClientState>>,
    sent: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    pub(crate) fn new(
        ahead: Ahead,
        incoming: Incoming,
        measure: Option<Arc<Measure>>,
        mut client: Option<Arc<ClientState>>,
    ) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        if !ahead.frames.is_empty()
            && incoming.is_none()
            && let Some(client) = client.take()
        {
            client.body_ended();
        }
        Self { ahead: ahead.frames, budget: ahead.budget, incoming, gate: None, measure, client, sent: None }
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.incoming.is_none()
    }

    /// Holds the body back until the upstream asks for it.
    pub(crate) fn wait_for(&mut self, signal: Arc<ContinueSignal>) {
        if !self.is_empty() {
            self.gate = Some(Box::pin(ContinueGate { signal, patience: None }));
        }
    }

    /// Becomes true when the body was sent, or is not sent any more.
    pub(crate) fn watch_end(&mut self) -> Arc<AtomicBool> {
        let empty = self.is_empty();
        self.sent.get_or_insert_with(|| Arc::new(AtomicBool::new(empty))).clone()
    }

    fn end(&mut self) {
        self.incoming = None;
        self.measure = None;
        if let Some(client) = self.client.take() {
            client.body_ended();
        }
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::Release);
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        match (&self.incoming, &self.client) {
            (Some(incoming), _) if incoming.is_end_stream() => self.end(),
            // Broken off: what the client still sends is nobody's.
            (Some(_), Some(client)) => client.linger(),
            _ => {}
        }
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::Release);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            std::task::ready!(gate.as_mut().poll_open(cx));
            this.gate = None;
        }
        // Counted when it was read.
        if let Some(frame) = this.ahead.pop_front() {
            if this.ahead.is_empty() {
                this.budget = None;
            }
            if this.is_empty() {
                this.end();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
        if let (Some(Ok(frame)), Some(measure)) = (&frame, &this.measure) {
            measure.count(frame.data_ref().map_or(0, Bytes::len));
        }
        let ended = frame.is_none() || this.incoming.as_ref().is_some_and(Incoming::is_end_stream);
        if ended {
            this.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self.ahead.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }
}

/// Told when the upstream says `100 Continue`.
#[derive(Default)]
pub(crate) struct ContinueSignal {
    given: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl ContinueSignal {
    /// An informational response came.
    pub(crate) fn informed(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.given.store(true, Ordering::Release);
            if let Some(waker) = self.waiting.lock().take() {
                waker.wake();
            }
        }
    }
}

struct ContinueGate {
    signal: Arc<ContinueSignal>,
    patience: Option<Pin<Box<Sleep>>>,
}

impl ContinueGate {
    fn poll_open(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.signal.given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *this.signal.waiting.lock() = Some(cx.waker().clone());
        if this.signal.given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_MAX))).as_mut().poll(cx)
    }
}

/// Why a body is not there whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The upstream broke off.
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    /// Its session has reached its limit.
    #[error("the session has reached its limit")]
    Cut,
}

/// What a client gets.
pub(crate) struct ResponseBody {
    source: Source,
    editor: Option<Box<EventEditor>>,
    afterwards: Option<Box<Afterwards>>,
    session: Option<Box<SessionGuard>>,
    report: Option<Report>,
}

enum Source {
    Ended,
    /// Ours, whole.
    Own(Bytes),
    /// The upstream's, on a connection that this body drives.
    Relayed(Box<Relayed>),
    /// The upstream's, on a connection that something else drives.
    Detached(Incoming),
}

struct Relayed {
    incoming: Incoming,
    line: Option<Line>,
    upstream: Arc<Upstream>,
}

impl ResponseBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self { source: Source::Ended, editor: None, afterwards: None, session: None, report: None }
    }

    /// Bytes of ours.
    pub(crate) fn own(bytes: Vec<u8>) -> Self {
        let source = if bytes.is_empty() { Source::Ended } else { Source::Own(bytes.into()) };
        Self { source, editor: None, afterwards: None, session: None, report: None }
    }

    /// An upstream's body on its pooled connection.
    pub(crate) async fn relayed(
        incoming: Incoming,
        line: Line,
        upstream: Arc<Upstream>,
        afterwards: Option<Box<Afterwards>>,
    ) -> Self {
        if incoming.is_end_stream() {
            let mut line = Some(line);
            std::future::poll_fn(|cx| {
                if let Some(line) = line.take() {
                    line.finish(&upstream, cx);
                }
                Poll::Ready(())
            })
            .await;
            return Self::empty();
        }
        let source = Source::Relayed(Box::new(Relayed { incoming, line: Some(line), upstream }));
        Self { source, editor: None, afterwards, session: None, report: None }
    }

    /// An upstream's body on a connection that runs by itself.
    pub(crate) fn detached(incoming: Incoming, afterwards: Option<Box<Afterwards>>) -> Self {
        let source = if incoming.is_end_stream() { Source::Ended } else { Source::Detached(incoming) };
        Self { source, editor: None, afterwards, session: None, report: None }
    }

    /// Edits the events of this body. Nothing of it was read yet.
    pub(crate) fn edit(&mut self, editor: EventEditor) {
        if !matches!(self.source, Source::Ended) {
            self.editor = Some(Box::new(editor));
        }
    }

    /// Holds a session for as long as this body lasts.
    pub(crate) fn run_in(&mut self, session: Box<SessionGuard>) {
        if !matches!(self.source, Source::Ended) {
            self.session = Some(session);
        }
    }

    /// Whether its time is over; a stream of events is ended by an event of its own, if that can be in time.
    fn must_break(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.stream().must_break(self.editor.is_some()))
    }

    /// As [`ResponseBody::must_break`]. If not, the task is woken when it must.
    fn poll_break(&self, cx: &Context<'_>) -> bool {
        self.session.as_ref().is_some_and(|session| session.stream().poll_break(self.editor.is_some(), cx))
    }

    /// Reports the request as finished when this body is.
    pub(crate) fn report(&mut self, report: Report) {
        self.report = Some(report);
    }

    fn end(&mut self) {
        self.source = Source::Ended;
        self.editor = None;
        self.afterwards = None;
        self.session = None;
        self.report = None;
    }
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The first look says that a frame is wanted, the connection reads it, the second look takes it.
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some(line) = &mut self.line
        {
            line.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let ended = matches!(frame, Poll::Ready(None)) || frame.is_ready() && self.incoming.is_end_stream();
        if ended && let Some(line) = self.line.take() {
            line.finish(&self.upstream, cx);
        }
        frame
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Ended => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Relayed(relayed) => relayed.poll_frame(cx),
            Self::Detached(incoming) => Pin::new(incoming).poll_frame(cx),
        }
    }

    /// Whether nothing follows the frame that was given last.
    fn has_ended(&self) -> bool {
        match self {
            Self::Own(_) | Self::Ended => true,
            Self::Relayed(relayed) => relayed.line.is_none() && relayed.incoming.is_end_stream(),
            Self::Detached(incoming) => incoming.is_end_stream(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if matches!(this.source, Source::Ended) {
            return Poll::Ready(None);
        }
        if this.must_break() {
            this.end();
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        let (source, afterwards) = (&mut this.source, &mut this.afterwards);
        let mut read = |cx: &mut Context<'_>| {
            let frame = source.poll_frame(cx);
            if let (Some(afterwards), Poll::Ready(Some(Ok(frame)))) = (afterwards.as_mut(), &frame) {
                afterwards.feed(frame.data_ref().map_or(&[], |data| data));
            }
            frame
        };
        let frame = match &mut this.editor {
            None => read(cx),
            Some(editor) => editor.poll_frame(cx, read),
        };
        let frame = match frame {
            Poll::Pending if this.poll_break(cx) => {
                this.end();
                return Poll::Ready(Some(Err(BodyError::Cut)));
            }
            frame => std::task::ready!(frame).map(|frame| frame.map_err(BodyError::from)),
        };
        if let (Some(Ok(frame)), Some(report)) = (&frame, &mut this.report) {
            report.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        let ended = match &this.editor {
            None => this.source.has_ended(),
            Some(editor) => editor.is_over(),
        };
        if ended || !matches!(frame, Some(Ok(_))) {
            this.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        if self.editor.is_some() {
            return SizeHint::default();
        }
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Relayed(relayed) => relayed.incoming.size_hint(),
            Source::Detached(incoming) => incoming.size_hint(),
        }
    }
}
