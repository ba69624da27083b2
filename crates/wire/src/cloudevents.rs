//! CloudEvents 1.0 over HTTP: structured, batch and binary, and the same attributes as plain JSON.
//!
//! The body is read once, strings are borrowed from it, and no event of a batch can spoil another: what is not JSON
//! refuses the whole body, what is JSON of the wrong shape refuses that event alone.

mod binary;
mod data;
mod envelope;
mod reader;

pub use binary::binary_envelope;
pub use envelope::{Batch, Envelope, Fault, Text, json_problem, read_batch, read_one, utf8};
pub use reader::Reader;

use crate::{problem::Problem, rescue};

/// How many events a batch may hold.
pub const BATCH_MAX: usize = 10_000;

/// How an event arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/cloudevents+json`: one event, attributes and data in one object.
    Structured,
    /// `application/cloudevents-batch+json`: an array of them, which may be empty.
    Batch,
    /// `ce-*` headers, and the data as the body.
    Binary,
    /// `application/json`: an object or an array of objects with the same attributes, `specversion` and `source` being
    /// optional.
    Plain,
}

impl Form {
    /// The form of a request, from its `Content-Type` and whether it has a `ce-specversion` header.
    ///
    /// # Errors
    /// A problem (415) where the media type is none of those that are accepted.
    pub fn of(content_type: Option<&str>, has_ce_headers: bool) -> Result<Self, Problem> {
        let content_type = content_type.unwrap_or_default();
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let media_type = media_type.trim().to_ascii_lowercase();
        if !charset_is_utf8(parameters) {
            return Err(rescue::UNSUPPORTED_MEDIA_TYPE.problem("Send the body in UTF-8."));
        }
        // "application/cloudevents" begins both names: the longer one is asked first.
        match media_type.as_str() {
            "application/cloudevents-batch+json" => Ok(Form::Batch),
            "application/cloudevents+json" => Ok(Form::Structured),
            other if has_ce_headers && is_json(other) => Ok(Form::Binary),
            "application/json" => Ok(Form::Plain),
            _ => Err(rescue::UNSUPPORTED_MEDIA_TYPE
                .problem("Send application/cloudevents+json, application/cloudevents-batch+json or application/json.")),
        }
    }
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.is_empty() || media_type.ends_with("+json")
}

/// Whether the parameters of a media type name no character set, or UTF-8.
pub fn charset_is_utf8(parameters: &str) -> bool {
    parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .all(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"))
}

#[cfg(test)]
#[path = "cloudevents_tests.rs"]
mod tests;
