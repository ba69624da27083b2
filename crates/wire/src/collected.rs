//! What a service answers that is asked for a meter of all tenants: a list of `{"tenant_id", "value"}`, or an object of
//! values by tenant. It is read row by row: the whole is never held.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::{fmt, io::Read};

/// Takes a tenant and its value: a number as it is written, or nothing where it is none.
///
/// # Errors
/// Why no more is read.
pub type TakeRow<'a> = &'a mut dyn FnMut(&str, Option<String>) -> Result<(), String>;

/// Reads an answer.
///
/// # Errors
/// Why it can't be read, or what `take` said.
pub fn read(answer: impl Read, take: TakeRow<'_>) -> Result<(), String> {
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_reader(answer);
    let rows = Rows { take, refused: &mut refused };
    let outcome = rows.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (refused, outcome) {
        (Some(why), _) => Err(why),
        (None, Err(error)) => Err(format!("its answer can't be read: {error}")),
        (None, Ok(())) => Ok(()),
    }
}

struct Rows<'a, 'b> {
    take: TakeRow<'a>,
    refused: &'b mut Option<String>,
}

impl Rows<'_, '_> {
    fn row<E: Error>(&mut self, tenant: &str, value: &Value) -> Result<(), E> {
        (self.take)(tenant, number(value)).map_err(|why| {
            *self.refused = Some(why);
            E::custom("refused")
        })
    }
}

fn number(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// One row of a list. One that is of another shape is nobody's.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Row {
        tenant_id: String,
        #[serde(default)]
        value: Value,
    },
    Other(IgnoredAny),
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of {\"tenant_id\", \"value\"}, or an object of values by tenant")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element()? {
            match item {
                Item::Row { tenant_id, value } => self.row(&tenant_id, &value)?,
                Item::Other(_) => self.row("", &Value::Null)?,
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((tenant, value)) = map.next_entry::<String, Value>()? {
            self.row(&tenant, &value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::read;

    fn told(text: &str) -> Result<String, String> {
        let mut rows = Vec::new();
        let mut take = |tenant: &str, value: Option<String>| {
            rows.push(format!("{tenant}={}", value.as_deref().unwrap_or("?")));
            if rows.len() > 3 { Err("too many".to_owned()) } else { Ok(()) }
        };
        read(text.as_bytes(), &mut take)?;
        Ok(rows.join(" "))
    }

    #[test]
    fn answers_are_read_in_both_shapes() {
        for (text, rows) in [
            (r#"[{"tenant_id":"a","value":1},{"value":"2","tenant_id":"b","more":{}}]"#, "a=1 b=2"),
            (r#" {"a":1,"b":-2.5,"c":null} "#, "a=1 b=-2.5 c=?"),
            (r#"[{"tenant_id":"a"},{"tenant_id":7,"value":1},[3]]"#, "a=? =? =?"),
            ("[]", ""),
            ("{}", ""),
        ] {
            assert_eq!(told(text).as_deref(), Ok(rows), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        for (text, why) in [
            ("7", "a list of {\"tenant_id\", \"value\"}, or an object of values by tenant"),
            ("", "EOF"),
            ("{\"a\":1", "EOF"),
            ("{\"a\":1} x", "trailing characters"),
            ("<html>", "expected value"),
            (r#"{"a":1,"b":1,"c":1,"d":1,"e":1"#, "too many"),
        ] {
            let told = told(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(told(&format!("{}1", "[".repeat(100_000))).is_err());
    }
}
