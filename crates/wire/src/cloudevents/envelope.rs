//! The attributes of an event, read in one pass. Reading never fails on a shape: what is wrong is noted in the
//! envelope, so that one event of a batch can't spoil another.

use super::{BATCH_MAX, data::Skip};
use crate::{
    problem::Problem,
    rescue::{self, sentence},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// An attribute that must be a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Text<'a> {
    /// Not given, or null.
    #[default]
    Absent,
    /// Given.
    Given(Cow<'a, str>),
    /// Given, but not as a string.
    Wrong,
}

/// What is wrong with an event as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not an object.
    NotAnObject,
    /// It names an attribute twice.
    Repeated(&'static str),
}

/// An event as it was sent. Extension attributes are skipped.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// `specversion`.
    pub specversion: Text<'a>,
    /// `id`.
    pub id: Text<'a>,
    /// `source`.
    pub source: Text<'a>,
    /// `type`.
    pub event_type: Text<'a>,
    /// `subject`: the tenant.
    pub subject: Text<'a>,
    /// `time`.
    pub time: Text<'a>,
    /// `data`, not yet read.
    pub data: Option<&'a RawValue>,
    /// Whether the data was sent as `data_base64`, which is not JSON.
    pub has_base64: bool,
    /// What is wrong with it as a whole.
    pub fault: Option<Fault>,
}

/// Reads a body that holds one event.
///
/// # Errors
/// A problem (400) where the body is not UTF-8 or not JSON.
pub fn read_one(body: &[u8]) -> Result<Envelope<'_>, Problem> {
    read_json(utf8(body)?)
}

/// Reads a body that holds an array of events; with `or_one`, a single event too.
///
/// # Errors
/// A problem where the body is not UTF-8 or not JSON (400), not an array (422), or too long an array (413).
pub fn read_batch(body: &[u8], or_one: bool) -> Result<Batch<'_>, Problem> {
    let text = utf8(body)?;
    let first = text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first();
    if or_one && first == Some(&b'{') {
        return read_json(text).map(|envelope| Batch::One(Box::new(envelope)));
    }
    if first.is_some_and(|byte| matches!(byte, b'{' | b'"')) {
        return Err(rescue::INVALID_BODY.problem("A batch must be a JSON array of events."));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // An event takes at least a hundred bytes; a small body must not reserve much.
    let capacity = (text.len() / 100).min(BATCH_MAX);
    let mut events = Many { envelopes: Vec::with_capacity(capacity), too_many: false };
    let read = events.by_ref().deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if events.too_many {
        return Err(rescue::BATCH_TOO_LARGE.problem(format!("A batch may hold at most {BATCH_MAX} events; split it.")));
    }
    match read {
        Ok(()) => Ok(Batch::Many(events.envelopes)),
        Err(error) => Err(json_problem(&error)),
    }
}

/// What a body held.
#[derive(Debug)]
pub enum Batch<'a> {
    /// One event that was not in an array.
    One(Box<Envelope<'a>>),
    /// An array of events.
    Many(Vec<Envelope<'a>>),
}

/// The body as text.
///
/// # Errors
/// A problem (400) where it is not UTF-8.
pub fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body)
        .map_err(|error| rescue::MALFORMED_JSON.problem(format!("The body is not valid UTF-8: {error}.")))
}

fn read_json<'a>(text: &'a str) -> Result<Envelope<'a>, Problem> {
    serde_json::from_str(text).map_err(|error| json_problem(&error))
}

/// What a JSON error is answered with: 400 where it is no JSON, 422 where it is JSON of another shape.
pub fn json_problem(error: &serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => rescue::INVALID_BODY.problem(sentence(&error.to_string())),
        _ => rescue::MALFORMED_JSON.problem(sentence(&error.to_string())),
    }
}

struct Many<'a> {
    envelopes: Vec<Envelope<'a>>,
    too_many: bool,
}

impl<'a> Many<'a> {
    fn by_ref(&mut self) -> ManyRef<'_, 'a> {
        ManyRef(self)
    }
}

struct ManyRef<'m, 'a>(&'m mut Many<'a>);

impl<'a> DeserializeSeed<'a> for ManyRef<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> de::Visitor<'a> for ManyRef<'_, 'a> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array of events")
    }
    fn visit_seq<A: de::SeqAccess<'a>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(envelope) = events.next_element()? {
            if self.0.envelopes.len() == BATCH_MAX {
                self.0.too_many = true;
                return Err(de::Error::custom("too many events"));
            }
            self.0.envelopes.push(envelope);
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl EnvelopeVisitor {
    fn no_object<'a>() -> Envelope<'a> {
        Envelope { fault: Some(Fault::NotAnObject), ..Envelope::default() }
    }
}

impl<'de> de::Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        let mut seen = [false; Attribute::COUNT];
        while let Some(attribute) = map.next_key::<Attribute>()? {
            if attribute != Attribute::Extension && std::mem::replace(&mut seen[attribute as usize], true) {
                envelope.fault = Some(Fault::Repeated(attribute.name()));
            }
            match attribute {
                Attribute::SpecVersion => envelope.specversion = map.next_value()?,
                Attribute::Id => envelope.id = map.next_value()?,
                Attribute::Source => envelope.source = map.next_value()?,
                Attribute::Type => envelope.event_type = map.next_value()?,
                Attribute::Subject => envelope.subject = map.next_value()?,
                Attribute::Time => envelope.time = map.next_value()?,
                Attribute::Data => envelope.data = Some(map.next_value()?),
                Attribute::DataBase64 => {
                    envelope.has_base64 = true;
                    map.next_value::<Skip>()?;
                }
                Attribute::Extension => {
                    map.next_value::<Skip>()?;
                }
            }
        }
        Ok(envelope)
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Envelope<'de>, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(Self::no_object())
    }
    fn visit_bool<E>(self, _: bool) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
    fn visit_i64<E>(self, _: i64) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
    fn visit_u64<E>(self, _: u64) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
    fn visit_str<E>(self, _: &str) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
    fn visit_unit<E>(self) -> Result<Envelope<'de>, E> {
        Ok(Self::no_object())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    SpecVersion,
    Id,
    Source,
    Type,
    Subject,
    Time,
    Data,
    DataBase64,
    Extension,
}

impl Attribute {
    const COUNT: usize = 8;
    const NAMES: [&'static str; Self::COUNT] =
        ["specversion", "id", "source", "type", "subject", "time", "data", "data_base64"];

    fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or("an extension")
    }
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl de::Visitor<'_> for AttributeVisitor {
    type Value = Attribute;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute's name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Attribute, E> {
        Ok(match name {
            "specversion" => Attribute::SpecVersion,
            "id" => Attribute::Id,
            "source" => Attribute::Source,
            "type" => Attribute::Type,
            "subject" => Attribute::Subject,
            "time" => Attribute::Time,
            "data" => Attribute::Data,
            "data_base64" => Attribute::DataBase64,
            _ => Attribute::Extension,
        })
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Owned(text.to_owned())))
    }
    fn visit_unit<E>(self) -> Result<Text<'de>, E> {
        Ok(Text::Absent)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(Text::Wrong)
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
        while map.next_entry::<Skip, Skip>()?.is_some() {}
        Ok(Text::Wrong)
    }
}
