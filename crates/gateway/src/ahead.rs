//! Looking at a request body before it goes on, within a bound.

mod budget;

pub(crate) use budget::{PeekBudget, PeekPart};

use crate::{
    admit::Metered,
    answer,
    body::ResponseBody,
    tap::{self, Format},
};
use budget::Full;
use bytes::Bytes;
use domain::id::TenantId;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use std::{borrow::Cow, collections::VecDeque, time::Duration};
use wire::rescue;

/// How long a body may take that is looked at.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a frame takes beside its bytes.
const FRAME_BYTES: usize = 256;

/// Why a body could not be looked at.
#[derive(Debug)]
pub(crate) enum NotPeeked {
    /// The client broke off.
    BrokeOff,
    /// It took too long.
    TooSlow,
    /// Too much is held back already.
    Full(Full),
}

impl From<Full> for NotPeeked {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl From<NotPeeked> for Box<Response<ResponseBody>> {
    fn from(why: NotPeeked) -> Self {
        Box::new(answer::problem(&match why {
            NotPeeked::BrokeOff => rescue::INVALID_REQUEST.problem("The body of the request broke off."),
            NotPeeked::TooSlow => rescue::REQUEST_TIMEOUT.problem("The body of the request took too long to arrive."),
            NotPeeked::Full(Full::ForAll) => rescue::OVERLOADED
                .problem("Too many bodies of requests are being looked at; send yours again in a moment.")
                .retry_after(1),
            NotPeeked::Full(Full::ForTenant) => rescue::TOO_MANY_IN_FLIGHT
                .problem("Too many bodies of your requests are being looked at; send this one again in a moment.")
                .retry_after(1),
        }))
    }
}

/// What was read of a request body before it goes on. The rest is still where it came from.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// As they came.
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    /// Whether nothing follows.
    is_whole: bool,
    /// Whether it was looked at.
    was_read: bool,
    /// Its part of the budget.
    pub(crate) budget: Option<PeekPart>,
}

impl Ahead {
    /// Reads until the body ends or is longer than `max_bytes`.
    async fn read(incoming: &mut Incoming, max_bytes: usize, part: PeekPart) -> Result<Self, NotPeeked> {
        let mut ahead = Self { was_read: true, ..Self::default() };
        let part = ahead.budget.insert(part);
        let mut bytes = 0;
        while bytes <= max_bytes {
            let Some(frame) = incoming.frame().await else {
                ahead.is_whole = true;
                return Ok(ahead);
            };
            let frame = frame.map_err(|_| NotPeeked::BrokeOff)?;
            let length = frame.data_ref().map_or(0, Bytes::len);
            part.take(length + FRAME_BYTES)?;
            bytes += length;
            ahead.frames.push_back(frame);
        }
        ahead.is_whole = incoming.is_end_stream() && bytes <= max_bytes;
        Ok(ahead)
    }

    /// Reads a JSON body, if it is no larger than may be looked at.
    ///
    /// # Errors
    /// The client broke off or is too slow, or too much is held back already.
    pub(crate) async fn peek(
        request: &mut Request<Incoming>,
        max_bytes: usize,
        budget: &PeekBudget,
        tenant: &TenantId,
    ) -> Result<Self, NotPeeked> {
        let is_json = Format::of(request.headers()) == Some(Format::Json);
        let is_packed = request.headers().contains_key(header::CONTENT_ENCODING);
        let is_small = request.body().size_hint().lower() <= max_bytes as u64;
        if !is_json || is_packed || !is_small {
            return Ok(Self::default());
        }
        // The client is asked for its body by reading it.
        request.headers_mut().remove(header::EXPECT);
        let read = Self::read(request.body_mut(), max_bytes, budget.part(tenant, max_bytes));
        tokio::time::timeout(PATIENCE, read).await.map_err(|_| NotPeeked::TooSlow)?
    }

    /// How much was read, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum()
    }

    /// What a JSON body says, if all of it was looked at.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.whole()?).ok()
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

/// A text, number or truth value in a JSON body (RFC 6901).
pub(crate) fn field<'a>(body: &'a Value, pointer: &str) -> Option<Cow<'a, str>> {
    match body.pointer(pointer)? {
        Value::String(text) => Some(Cow::Borrowed(text)),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(Cow::Owned(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Makes a streamed chat ask for its usage, where its body is no larger than may be looked at.
///
/// # Errors
/// As [`Ahead::peek`].
pub(crate) async fn ask_for_usage(
    request: &mut Request<Incoming>,
    ahead: &mut Ahead,
    metered: &mut Metered,
    budget: &PeekBudget,
    tenant: &TenantId,
) -> Result<(), NotPeeked> {
    if !ahead.was_read && request.method() == Method::POST {
        *ahead = Ahead::peek(request, metered.reading.body_peek_max_bytes, budget, tenant).await?;
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
