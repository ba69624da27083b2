//! What a response reports about itself, read from a copy of its bytes as they pass: bytes in, [`Usage`] out.
//!
//! [`Tap`] undoes the encoding and reads either events ([`EventReader`]) or one JSON document ([`UsageScan`]). Each
//! keeps a bounded part of what passed, however the bytes are cut into chunks, and none ever fails the response: what
//! can't be read has reported nothing. [`include_usage`] makes a request ask for the report, [`EventEditor`] takes what only
//! that brought out of the stream again, puts events in between others, and ends a stream between two.

mod decode;
mod events;
mod flow;
mod include;
mod json;

pub use decode::Encoding;
pub use events::{Boundaries, EVENT_HELD_MAX_BYTES, EventReader, EventScan};
pub use flow::{EventEditor, EventFlow, StreamHandle};
pub use include::{Edit, include_usage};
pub use json::UsageScan;

use decode::Decoder;
use http::{HeaderMap, header};

/// What a model's answer says it used, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// `prompt_tokens`, or `input_tokens`.
    pub prompt_tokens: Option<i64>,
    /// `completion_tokens`, or `output_tokens`.
    pub completion_tokens: Option<i64>,
    /// `total_tokens`.
    pub total_tokens: Option<i64>,
}

impl Usage {
    /// All tokens: as reported, else the sum of both kinds.
    pub fn total(&self) -> Option<i64> {
        self.total_tokens.or_else(|| self.prompt_tokens?.checked_add(self.completion_tokens?))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/event-stream`.
    Events,
    /// `application/json`, or a type that ends in `+json`.
    Json,
}

impl Format {
    /// The format that a head announces; `None` for any other.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next()?.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/event-stream" => Some(Self::Events),
            "application/json" => Some(Self::Json),
            other if other.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads what a body reports, chunk by chunk.
#[derive(Debug)]
pub struct Tap(Decoder);

impl Tap {
    /// A tap for the body under this head; `None` where it is of a type or encoding that nothing is read from.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Some(Self::new(Format::of(headers)?, Encoding::of(headers)?))
    }

    /// A tap for a body of this format and encoding.
    pub fn new(format: Format, encoding: Encoding) -> Self {
        let reader = match format {
            Format::Events => Reader::Events(EventReader::default()),
            Format::Json => Reader::Json(UsageScan::default()),
        };
        Self(Decoder::new(encoding, reader))
    }

    /// The next bytes of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    /// What was reported last. `ended` says that nothing follows: then an event that no blank line closed counts too.
    pub fn usage(&mut self, ended: bool) -> Option<Usage> {
        match self.0.reader_mut() {
            Reader::Events(events) if ended => events.finish(),
            Reader::Events(events) => events.usage(),
            Reader::Json(json) => json.usage(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Reader {
    Events(EventReader),
    Json(UsageScan),
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Events(events) => events.feed(bytes),
            Self::Json(json) => json.feed(bytes),
        }
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
