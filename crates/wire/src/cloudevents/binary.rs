//! Binary mode: attributes in `ce-*` headers, percent-encoded, and the data as the body.

use super::envelope::{Envelope, Text, json_problem, utf8};
use crate::{problem::Problem, rescue};
use http::HeaderMap;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The event that headers and body make together.
///
/// # Errors
/// A problem (400) where a header is given twice or can't be decoded, or where the body is not JSON.
pub fn binary_envelope<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Envelope<'a>, Problem> {
    let data = match utf8(body)?.trim() {
        "" => None,
        text => Some(serde_json::from_str::<&RawValue>(text).map_err(|error| json_problem(&error))?),
    };
    Ok(Envelope {
        specversion: attribute(headers, "ce-specversion")?,
        id: attribute(headers, "ce-id")?,
        source: attribute(headers, "ce-source")?,
        event_type: attribute(headers, "ce-type")?,
        subject: attribute(headers, "ce-subject")?,
        time: attribute(headers, "ce-time")?,
        data,
        has_base64: false,
        fault: None,
    })
}

fn attribute<'a>(headers: &'a HeaderMap, name: &str) -> Result<Text<'a>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(Text::Absent) };
    if values.next().is_some() {
        return Err(rescue::INVALID_REQUEST.problem(format!("The header {name} is given more than once.")));
    }
    let text = std::str::from_utf8(value.as_bytes()).ok().and_then(percent_decoded);
    match text {
        Some(text) => Ok(Text::Given(text)),
        None => Err(rescue::INVALID_REQUEST.problem(format!("The header {name} is not percent-encoded UTF-8."))),
    }
}

/// Text with every `%XX` decoded; `None` where what follows a `%` is no hexadecimal pair, or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    // The HTTP binding also allows (and older senders use) double quotes around a value.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}
