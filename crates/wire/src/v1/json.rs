//! JSON written by hand, where it is written a hundred thousand times a second.

use serde::Serialize;

/// JSON in the making. Names of members are written as they stand, with comma and colon.
pub(super) struct Json(pub(super) Vec<u8>);

impl Json {
    /// Punctuation and names.
    pub(super) fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A member that is one of our own words, in which nothing needs an escape.
    pub(super) fn word(&mut self, name: &str, word: &str) {
        self.raw(name);
        self.0.push(b'"');
        self.raw(word);
        self.0.push(b'"');
    }

    /// A member that is a string from outside.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
        if plain { self.word(name, text) } else { self.value(name, text) }
    }

    /// A member that is a number or null.
    pub(super) fn number(&mut self, name: &str, number: Option<i64>) {
        self.value(name, &number);
    }

    /// A member that is anything.
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.raw(name);
        // Strings, numbers and objects of them: nothing here can fail to serialise.
        let written = serde_json::to_writer(&mut self.0, value);
        debug_assert!(written.is_ok());
    }
}
