//! Looking at a request body before it goes on, within a bound.

use crate::{
    admit::Metered,
    tap::{self, Format},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;

/// What was read of a request body before it goes on. The rest is still where it came from.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// As they came.
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    /// Whether nothing follows.
    is_whole: bool,
    /// Whether it was looked at.
    was_read: bool,
}

impl Ahead {
    /// Reads until the body ends or is longer than `max_bytes`.
    async fn read(incoming: &mut Incoming, max_bytes: usize) -> Result<Self, hyper::Error> {
        let (mut frames, mut bytes) = (VecDeque::new(), 0);
        while bytes <= max_bytes {
            let Some(frame) = incoming.frame().await else {
                return Ok(Self { frames, is_whole: true, was_read: true });
            };
            let frame = frame?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
            frames.push_back(frame);
        }
        Ok(Self { frames, is_whole: incoming.is_end_stream() && bytes <= max_bytes, was_read: true })
    }

    /// Reads a JSON body, if it is no larger than may be looked at.
    ///
    /// # Errors
    /// The client broke off.
    pub(crate) async fn peek(request: &mut Request<Incoming>, max_bytes: usize) -> Result<Self, hyper::Error> {
        let is_json = Format::of(request.headers()) == Some(Format::Json);
        let is_packed = request.headers().contains_key(header::CONTENT_ENCODING);
        let is_small = request.body().size_hint().lower() <= max_bytes as u64;
        if !is_json || is_packed || !is_small {
            return Ok(Self::default());
        }
        // The client is asked for its body by reading it.
        request.headers_mut().remove(header::EXPECT);
        Self::read(request.body_mut(), max_bytes).await
    }

    /// How much was read, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum()
    }

    /// A text or number in a JSON body (RFC 6901).
    pub(crate) fn field(&self, pointer: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.whole()?).ok()?;
        match body.pointer(pointer)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// All bytes of a body that is there whole.
    fn whole(&self) -> Option<Bytes> {
        let mut parts = self.frames.iter().filter_map(Frame::data_ref);
        let first = parts.next().filter(|_| self.is_whole)?;
        let rest: Vec<&Bytes> = parts.collect();
        if rest.is_empty() {
            return Some(first.clone());
        }
        let all: Vec<u8> = std::iter::once(first).chain(rest).flatten().copied().collect();
        Some(all.into())
    }

    /// The same trailers after other bytes.
    fn replace(&mut self, bytes: Vec<u8>) {
        self.frames.retain(Frame::is_trailers);
        self.frames.push_front(Frame::data(bytes.into()));
    }
}

/// Makes a streamed chat ask for its usage, where its body is no larger than may be looked at.
///
/// # Errors
/// The client broke off.
pub(crate) async fn ask_for_usage(
    request: &mut Request<Incoming>,
    ahead: &mut Ahead,
    metered: &mut Metered,
) -> Result<(), hyper::Error> {
    if !ahead.was_read && request.method() == Method::POST {
        *ahead = Ahead::peek(request, metered.reading.body_peek_max_bytes).await?;
        if let Some(measure) = &metered.request_measure {
            measure.count(ahead.bytes());
        }
    }
    let Some(body) = ahead.whole() else { return Ok(()) };
    if let Some(edit) = tap::include_usage(&body) {
        let edited = edit.apply(&body);
        if request.headers().contains_key(header::CONTENT_LENGTH) {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(edited.len()));
        }
        ahead.replace(edited);
        metered.strips_usage = true;
    }
    Ok(())
}
