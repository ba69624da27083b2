//! Errors as RFC 9457 problem details, `application/problem+json`.
//!
//! The `type` is `urn:problem-type:tidegate:<code>`: stable, and owned by nobody's domain. `code` is its last part,
//! for clients that switch on a word. `title` never changes for a code; `detail` says what happened this time and what
//! to do about it. Everything else is an extension member.

use http::{HeaderValue, Response, StatusCode, header};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::borrow::Cow;

/// The media type of every error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What every `type` begins with; the code follows.
pub const TYPE_PREFIX: &str = "urn:problem-type:tidegate:";

/// One kind of problem: what all its occurrences share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The stable word.
    pub code: &'static str,
    /// The HTTP status it is answered with.
    pub status: u16,
    /// For people; the same for every occurrence.
    pub title: &'static str,
}

impl Kind {
    /// An occurrence, with a sentence that says what to do.
    pub fn problem(&self, detail: impl Into<String>) -> Problem {
        Problem {
            status: self.status,
            code: Cow::Borrowed(self.code),
            title: Cow::Borrowed(self.title),
            detail: detail.into(),
            retry_after_s: None,
            members: Vec::new(),
        }
    }
}

/// An error, ready for the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable word; the last part of `type`.
    pub code: Cow<'static, str>,
    /// For people; the same for every problem of this code.
    pub title: Cow<'static, str>,
    /// What happened this time, and what to do.
    pub detail: String,
    /// Seconds after which a repeat is worth it; also sent as `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// Extension members, in order.
    pub members: Vec<(Cow<'static, str>, Value)>,
}

impl Problem {
    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.members.push((name.into(), value.into()));
        self
    }

    /// Says when a repeat is worth it.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The body.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and JSON values: nothing here can fail to serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The whole answer: status, media type, `Retry-After`, never cached.
    pub fn to_response(&self) -> Response<Vec<u8>> {
        let mut response = Response::new(self.to_json());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("{TYPE_PREFIX}{}", self.code))?;
        map.serialize_entry("title", &self.title)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("detail", &self.detail)?;
        if let Some(seconds) = self.retry_after_s {
            map.serialize_entry("retry_after_s", &seconds)?;
        }
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The shape of a problem, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = Problem, title = "Problem")]
#[allow(dead_code)]
pub struct ProblemSchema {
    /// `urn:problem-type:tidegate:<code>`.
    #[schema(example = "urn:problem-type:tidegate:unknown_tenant")]
    r#type: String,
    /// The same for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The stable word to switch on.
    #[schema(example = "unknown_tenant")]
    code: String,
    /// What happened this time, and what to do.
    detail: String,
    /// Seconds after which a repeat is worth it.
    retry_after_s: Option<u64>,
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
