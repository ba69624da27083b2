//! Making a streamed chat request ask for its usage: one member is put into the JSON as it was written, and nothing
//! else is touched.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny},
};
use serde_json::value::RawValue;
use std::ops::Range;

/// A change to a text: these bytes give way to this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which bytes.
    pub range: Range<usize>,
    /// What stands there instead.
    pub text: &'static str,
}

impl Edit {
    /// The text with the change.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let before = text.get(..self.range.start).unwrap_or_default();
        let after = text.get(self.range.end..).unwrap_or_default();
        [before, self.text.as_bytes(), after].concat()
    }
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow, default, deserialize_with = "as_written")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    stream_options: Option<&'a RawValue>,
    messages: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct StreamOptions<'a> {
    #[serde(borrow, default, deserialize_with = "as_written")]
    include_usage: Option<&'a RawValue>,
}

/// `null` is something that was written, too.
fn as_written<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some).map_err(D::Error::custom)
}

/// What makes this request ask for its usage. `None` where it asks for it already, is not streamed, is no chat or
/// completion, or is no JSON that can be read in one way only.
pub fn include_usage(body: &[u8]) -> Option<Edit> {
    let chat: Chat<'_> = serde_json::from_slice(body).ok()?;
    let is_streamed = chat.stream.is_some_and(|stream| stream.get() == "true");
    if !is_streamed || (chat.messages.is_none() && chat.prompt.is_none()) {
        return None;
    }
    let Some(options) = chat.stream_options else {
        let after_brace = body.iter().position(|byte| *byte == b'{')? + 1;
        return Some(insertion(after_brace, "\"stream_options\":{\"include_usage\":true},"));
    };
    if options.get() == "null" {
        return Some(Edit { range: place(body, options)?, text: "{\"include_usage\":true}" });
    }
    let known: StreamOptions<'_> =
        serde_json::from_str(options.get()).ok().filter(|_| options.get().starts_with('{'))?;
    match known.include_usage {
        Some(value) if value.get() == "true" => None,
        Some(value) => Some(Edit { range: place(body, value)?, text: "true" }),
        None => {
            let after_brace = place(body, options)?.start + 1;
            let is_empty = options.get().get(1..)?.trim_start().starts_with('}');
            let text = if is_empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
            Some(insertion(after_brace, text))
        }
    }
}

fn insertion(at: usize, text: &'static str) -> Edit {
    Edit { range: at..at, text }
}

/// Where a value stands in the text that it was read from.
fn place(body: &[u8], value: &RawValue) -> Option<Range<usize>> {
    let start = (value.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let range = start..start.checked_add(value.get().len())?;
    (body.get(range.clone())? == value.get().as_bytes()).then_some(range)
}

#[cfg(test)]
#[path = "include_tests.rs"]
mod tests;
