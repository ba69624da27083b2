//! Changing a stream of events on its way: taking events out, putting others in between, ending it, never in the middle
//! of one. What is passed on always ends between two events, because the beginning of an event is kept back until the
//! event is whole (a client acts on whole events only, so nobody waits for anything). One that is too large to be kept
//! back passes as it comes.

use super::{
    Boundaries, EVENT_HELD_MAX_BYTES, EventScan,
    events::{after_last_blank_line, may_report, may_report_at_seam},
};
use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// How many events may wait to be put in, each at most [`EVENT_HELD_MAX_BYTES`] long.
const WAITING_MAX: usize = 16;

/// Cuts a stream into events and takes out those that are there for their usage alone, if it is told to.
#[derive(Debug, Default)]
pub struct EventFlow {
    boundaries: Boundaries,
    /// The beginning of an event that is not there whole.
    held: Vec<u8>,
    /// The end of what was passed on lies in an event too large to be held.
    in_large: bool,
    strips_usage: bool,
}

impl EventFlow {
    /// `strips_usage`: whether chunks of a chat with `"choices": []` and a `usage` are taken out.
    pub fn new(strips_usage: bool) -> Self {
        Self { strips_usage, ..Self::default() }
    }

    /// Whether what was passed on ends between two events.
    pub fn at_boundary(&self) -> bool {
        !self.in_large
    }

    /// Takes the next bytes, and gives what may be passed on.
    pub fn feed(&mut self, bytes: &Bytes) -> Bytes {
        let mut copied: Option<Vec<u8>> = None;
        // What is passed on and not copied yet, and where the next event begins.
        let (mut start, mut at) = (0, 0);
        if let Some(end) = self.plain_end(bytes) {
            if !self.held.is_empty() {
                copied = Some(self.take_held(end));
            }
            self.boundaries = Boundaries::default();
            self.in_large = false;
            at = end;
        }
        while let Some(length) = self.boundaries.next(&bytes[at..]) {
            let end = at + length;
            if self.is_taken_out(&bytes[at..end]) {
                copied.get_or_insert_default().extend_from_slice(&bytes[start..at]);
                start = end;
                self.held = Vec::new();
            } else if !self.held.is_empty() {
                copied = Some(std::mem::take(&mut self.held));
            }
            self.in_large = false;
            at = end;
        }
        if self.in_large || self.held.len() + bytes.len() - at > EVENT_HELD_MAX_BYTES {
            self.in_large = true;
            if !self.held.is_empty() {
                copied = Some(std::mem::take(&mut self.held));
            }
            at = bytes.len();
        }
        self.held.extend_from_slice(&bytes[at..]);
        match copied {
            None => bytes.slice(start..at),
            Some(mut copied) => {
                copied.extend_from_slice(&bytes[start..at]);
                copied.into()
            }
        }
    }

    /// The quick way through what is passed on as it is: where the last event ends, if none before may be taken out.
    fn plain_end(&self, bytes: &[u8]) -> Option<usize> {
        let held = &self.held;
        let reports = || may_report_at_seam(held, bytes) || may_report(bytes) || may_report(held);
        if self.strips_usage && reports() { None } else { after_last_blank_line(bytes) }
    }

    /// What was kept back, with room for so much more.
    fn take_held(&mut self, more: usize) -> Vec<u8> {
        let mut held = std::mem::take(&mut self.held);
        held.reserve_exact(more);
        held
    }

    /// The stream is over: what was kept back is passed on.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// Whether the event that ends with these bytes is taken out.
    fn is_taken_out(&self, end: &[u8]) -> bool {
        if !self.strips_usage || self.in_large || (self.held.is_empty() && !may_report(end)) {
            return false;
        }
        let mut scan = EventScan::default();
        scan.feed(&self.held);
        scan.feed(end);
        scan.is_usage_only()
    }
}

/// Speaks into a stream of events from outside.
#[derive(Debug, Clone, Default)]
pub struct StreamHandle(Arc<Mutex<Inbox>>);

#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Bytes>,
    /// Whether the stream ends after them.
    cut: bool,
    ended: bool,
    waiting: Option<Waker>,
}

impl StreamHandle {
    /// Puts a whole event (with its blank line) in, between two others. `false` where the stream has ended or is about
    /// to, too many events wait already, or this one is too large: then it is not sent.
    pub fn notify(&self, event: Bytes) -> bool {
        self.say(event, false)
    }

    /// Ends the stream cleanly after this event, which follows the last one that was passed on whole. Of the one that
    /// is under way nothing is seen. `false` where the stream has ended or is about to.
    pub fn cut(&self, event: Bytes) -> bool {
        self.say(event, true)
    }

    fn say(&self, event: Bytes, cut: bool) -> bool {
        let mut inbox = self.0.lock();
        let has_room = inbox.events.len() < WAITING_MAX && event.len() <= EVENT_HELD_MAX_BYTES;
        if inbox.ended || inbox.cut || !(has_room || cut) {
            return false;
        }
        inbox.events.push(event);
        inbox.cut = cut;
        if let Some(waker) = inbox.waiting.take() {
            waker.wake();
        }
        true
    }

    /// What is to be put in now, and whether the stream ends with it. Where there is nothing, the task is woken when
    /// there is.
    fn poll(&self, cx: &Context<'_>) -> Option<(Bytes, bool)> {
        let mut inbox = self.0.lock();
        if inbox.events.is_empty() {
            if !inbox.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inbox.waiting = Some(cx.waker().clone());
            }
            return None;
        }
        let events = std::mem::take(&mut inbox.events);
        inbox.ended = inbox.cut;
        Some((events.concat().into(), inbox.cut))
    }
}

/// Edits the frames of a response body.
#[derive(Debug)]
pub struct EventEditor {
    flow: EventFlow,
    handle: Option<StreamHandle>,
    /// Follows what was kept back.
    trailers: Option<Frame<Bytes>>,
    source_ended: bool,
}

impl EventEditor {
    /// Edits by these rules, and by what is said through the handle.
    pub fn new(flow: EventFlow, handle: Option<StreamHandle>) -> Self {
        Self { flow, handle, trailers: None, source_ended: false }
    }

    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        self.source_ended && self.flow.held.is_empty() && self.trailers.is_none()
    }

    /// The next frame for the client, made of those that `source` gives. After `None` the source is to be dropped: it
    /// may not have ended.
    pub fn poll_frame<E>(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            if let Some(said) = self.handle.as_ref().filter(|_| self.flow.at_boundary() && !self.source_ended)
                && let Some((events, cut)) = said.poll(cx)
            {
                if cut {
                    self.flow.held = Vec::new();
                    self.source_ended = true;
                }
                return Poll::Ready(Some(Ok(Frame::data(events))));
            }
            if self.source_ended {
                let rest = self.flow.finish();
                let rest = if rest.is_empty() { self.trailers.take() } else { Some(Frame::data(rest)) };
                return Poll::Ready(rest.map(Ok));
            }
            let frame = match std::task::ready!(source(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.flow.held = Vec::new();
                    self.source_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.source_ended = true;
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let passed = self.flow.feed(&data);
                    if !passed.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(passed))));
                    }
                }
                Err(trailers) => {
                    self.trailers = Some(trailers);
                    self.source_ended = true;
                }
            }
        }
    }
}

impl Drop for EventEditor {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            let mut inbox = handle.0.lock();
            inbox.ended = true;
            inbox.events = Vec::new();
            inbox.waiting = None;
        }
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
