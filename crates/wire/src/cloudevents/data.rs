//! What is wanted of an event's `data`, found in one walk over its JSON. Everything else is skipped, but not unread:
//! nesting has the parser's limit, and strings must be UTF-8.

use crate::v1::amount::{Amount, AmountError};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed},
};
use std::{borrow::Cow, fmt};

/// How many values one walk can look for.
pub(super) const WANTS_MAX: usize = 64;

/// A value that is looked for: the decoded parts of its JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want(Vec<Box<str>>);

impl Want {
    /// From a JSON pointer (RFC 6901).
    pub(super) fn of_pointer(pointer: &str) -> Self {
        let parts = pointer.split('/').skip(1);
        Self(parts.map(|part| part.replace("~1", "/").replace("~0", "~").into()).collect())
    }
    /// A member at the top.
    pub(super) fn of_member(name: &str) -> Self {
        Self(vec![name.into()])
    }
    /// Whether it is the whole of the data.
    pub(super) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Found<'a> {
    /// Nothing.
    #[default]
    Absent,
    /// A number that is an integer.
    Amount(i64),
    /// A number that is no amount.
    NoAmount(AmountError),
    /// A string.
    Text(Cow<'a, str>),
    /// Null.
    Null,
    /// Something else.
    Other,
    /// The same member twice.
    Repeated,
}

/// Walks over `data`. `found` has a place for each of `wants`, of which there are at most [`WANTS_MAX`].
pub(super) fn walk<'a>(data: &'a str, wants: &[Want], found: &mut [Found<'a>]) -> Result<(), serde_json::Error> {
    let wanted = if wants.len() >= WANTS_MAX { u64::MAX } else { (1 << wants.len()) - 1 };
    let mut deserializer = serde_json::Deserializer::from_str(data);
    Walk { wants, found, wanted, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()
}

struct Walk<'w, 'a> {
    wants: &'w [Want],
    found: &'w mut [Found<'a>],
    /// One bit for each want whose path leads here.
    wanted: u64,
    depth: usize,
}

impl<'a> Walk<'_, 'a> {
    /// The wants that lead into the member `name` of this value.
    fn leading_into(&self, name: &str) -> u64 {
        let mut inside = 0;
        let mut rest = self.wanted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.wants[index].0.get(self.depth).is_some_and(|part| **part == *name) {
                inside |= 1 << index;
            }
        }
        inside
    }

    /// Notes a value for every want that ends here.
    fn note(&mut self, value: Found<'a>) {
        let mut rest = self.wanted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.wants[index].0.len() == self.depth {
                self.found[index] = value.clone();
            }
        }
    }

    fn mark_repeated(&mut self, wants: u64) {
        let mut rest = wants;
        while rest != 0 {
            self.found[rest.trailing_zeros() as usize] = Found::Repeated;
            rest &= rest - 1;
        }
    }

    fn deeper(&mut self, wanted: u64) -> Walk<'_, 'a> {
        Walk { wants: self.wants, found: self.found, wanted, depth: self.depth + 1 }
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> de::Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_map<A: de::MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.note(Found::Other);
        let (mut seen, mut repeated) = (0, 0);
        while let Some(name) = map.next_key::<Name<'a>>()? {
            let inside = self.leading_into(&name.0);
            repeated |= seen & inside;
            seen |= inside;
            if inside == 0 {
                map.next_value::<Skip>()?;
            } else {
                map.next_value_seed(self.deeper(inside))?;
            }
        }
        self.mark_repeated(repeated);
        Ok(())
    }
    fn visit_seq<A: de::SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.note(Found::Other);
        for index in 0usize.. {
            let inside = if self.wanted == 0 { 0 } else { self.leading_into(&index.to_string()) };
            let more = if inside == 0 {
                seq.next_element::<Skip>()?.is_some()
            } else {
                seq.next_element_seed(self.deeper(inside))?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.note(Found::Other);
        Ok(())
    }
    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.note(of_amount(Amount::from_i64(number)));
        Ok(())
    }
    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.note(of_amount(i64::try_from(number).map_err(|_| AmountError::TooLarge).and_then(Amount::from_i64)));
        Ok(())
    }
    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.note(of_amount(Amount::from_f64(number)));
        Ok(())
    }
    fn visit_borrowed_str<E>(mut self, text: &'a str) -> Result<(), E> {
        self.note(Found::Text(Cow::Borrowed(text)));
        Ok(())
    }
    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.note(Found::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }
    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.note(Found::Null);
        Ok(())
    }
}

fn of_amount<'a>(amount: Result<Amount, AmountError>) -> Found<'a> {
    match amount {
        Ok(amount) => Found::Amount(amount.0),
        Err(error) => Found::NoAmount(error),
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> de::Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// A value nobody wants. Unlike serde's `IgnoredAny`, it is bound by the parser's limit on nesting.
pub(super) struct Skip;

impl<'de> Deserialize<'de> for Skip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Skip)
    }
}

impl<'de> de::Visitor<'de> for Skip {
    type Value = Skip;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Skip, A::Error> {
        while map.next_entry::<Skip, Skip>()?.is_some() {}
        Ok(Skip)
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Skip, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(Skip)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_str<E>(self, _: &str) -> Result<Skip, E> {
        Ok(Skip)
    }
    fn visit_unit<E>(self) -> Result<Skip, E> {
        Ok(Skip)
    }
}
