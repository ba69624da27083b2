//! Reads TOML tables key by key. A key is valid because somebody asked for it, so the list of valid keys in a message
//! can't differ from what is read.

use super::{
    problem::{self, listed, quoted},
    report::{Report, Span},
};
use std::{collections::BTreeMap, sync::Arc};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A text and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The text.
    pub(super) text: &'a str,
    /// Where it stands.
    pub(super) span: Span,
}

/// A value and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    /// The value.
    pub(super) value: &'a DeValue<'a>,
    /// Where it stands.
    pub(super) span: Span,
}

impl<'a> Node<'a> {
    fn new(spanned: &'a Spanned<DeValue<'a>>) -> Self {
        Self { value: spanned.get_ref(), span: spanned.span().into() }
    }

    /// What the value is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// Notes that something else should stand here.
    pub(super) fn expected(&self, report: &mut Report<'_>, what: &str, wanted: &str, help: Option<&str>) {
        let message = format!("{what} must be {wanted}, not {}", self.kind());
        match help {
            Some(help) => report.error_help(self.span, message, help),
            None => report.error(self.span, message),
        }
    }

    /// The text, or a note that there is none.
    pub(super) fn text(&self, report: &mut Report<'_>, what: &str) -> Option<Text<'a>> {
        match self.value {
            DeValue::String(text) => Some(Text { text, span: self.span }),
            _ => {
                self.expected(report, what, "a text", None);
                None
            }
        }
    }

    /// The integer, if it is one.
    pub(super) fn integer(&self, report: &mut Report<'_>, what: &str) -> Option<i64> {
        let DeValue::Integer(integer) = self.value else {
            self.expected(report, what, "an integer", None);
            return None;
        };
        let parsed = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if parsed.is_none() {
            report.error(self.span, format!("{what} is too large"));
        }
        parsed
    }

    /// The elements of a list.
    pub(super) fn list(&self, report: &mut Report<'_>, what: &str) -> Option<Vec<Node<'a>>> {
        match self.value {
            DeValue::Array(elements) => Some(elements.iter().map(Node::new).collect()),
            _ => {
                self.expected(report, what, "a list", None);
                None
            }
        }
    }

    /// The table, to be read key by key.
    pub(super) fn table(&self, report: &mut Report<'_>, about: impl Into<String>) -> Option<Table<'a>> {
        let about = about.into();
        match self.value {
            DeValue::Table(entries) => {
                Some(Table { about, span: self.span, entries, asked: Vec::new(), refused: Vec::new() })
            }
            _ => {
                self.expected(report, &about, "a table", None);
                None
            }
        }
    }
}

/// A table being read.
pub(super) struct Table<'a> {
    /// What it is, for messages: "plan `free`".
    pub(super) about: String,
    /// Where it begins.
    pub(super) span: Span,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(super) fn document(entries: &'a DeTable<'a>) -> Self {
        Self { about: "the catalog".to_owned(), span: Span::default(), entries, asked: Vec::new(), refused: Vec::new() }
    }

    /// The same table, whose problems as a whole are told at `span`: the name it was given.
    pub(super) fn at(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// What a key of this table is called in a message.
    pub(super) fn what(&self, key: &str) -> String {
        format!("`{key}` of {}", self.about)
    }

    /// Where the name of a thing in a section stands, if it is there.
    pub(super) fn name_span(&self, section: &str, name: &str) -> Option<Span> {
        let things = self.entries.get(section)?.get_ref().as_table()?;
        things.get_key_value(name).map(|(name, _)| name.span().into())
    }

    /// The value of a key, which is valid from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.asked.push(key);
        self.entries.get(key).map(Node::new)
    }

    /// Where a key stands, if it is there.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.entries.get_key_value(key).map(|(key, _)| key.span().into())
    }

    /// Refuses a key that people may expect here, and says where it belongs instead.
    pub(super) fn refuse(&mut self, report: &mut Report<'_>, key: &'static str, message: &str, help: &str) {
        self.refused.push(key);
        if let Some(span) = self.key_span(key) {
            report.error_help(span, message, help);
        }
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, report: &mut Report<'_>, key: &'static str, help: &str) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            report.error_help(self.span, format!("{} has no `{key}`", self.about), help);
        }
        node
    }

    /// A text.
    pub(super) fn text(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<Text<'a>> {
        let node = self.get(key)?;
        node.text(report, &self.what(key))
    }

    /// A text for people: not empty, without control characters, at most `max` characters.
    pub(super) fn prose(&mut self, report: &mut Report<'_>, key: &'static str, max: usize) -> Option<Arc<str>> {
        let text = self.text(report, key)?;
        prose(report, text, &self.what(key), max)
    }

    /// True or false.
    pub(super) fn boolean(&mut self, report: &mut Report<'_>, key: &'static str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(Node { value: DeValue::Boolean(value), .. }) => *value,
            Some(node) => {
                node.expected(report, &self.what(key), "true or false", None);
                default
            }
        }
    }

    /// An integer between two bounds.
    pub(super) fn integer(&mut self, report: &mut Report<'_>, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let node = self.get(key)?;
        let what = self.what(key);
        let value = node.integer(report, &what)?;
        if !(min..=max).contains(&value) {
            report.error(node.span, format!("{what} must be between {min} and {max}"));
            return None;
        }
        Some(value)
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(report, key)?;
        one_of(report, text, &self.what(key), words)
    }

    /// A list; empty if the key is absent.
    pub(super) fn list(&mut self, report: &mut Report<'_>, key: &'static str) -> Vec<Node<'a>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        if let DeValue::Table(_) = node.value {
            let help = format!("write a list: {key} = [{{ ... }}], or [[{key}]] above each");
            node.expected(report, &self.what(key), "a list", Some(&help));
            return Vec::new();
        }
        node.list(report, &self.what(key)).unwrap_or_default()
    }

    /// A table of named things; empty if the key is absent. `noun` is what one of them is called.
    pub(super) fn named(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
        noun: &str,
    ) -> Vec<(Text<'a>, Node<'a>)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let DeValue::Table(entries) = node.value else {
            let help = format!("write a table for each: [{key}.NAME]");
            node.expected(report, &format!("`{key}`"), &format!("a table of {noun}s by name"), Some(&help));
            return Vec::new();
        };
        entries
            .iter()
            .map(|(name, value)| (Text { text: name.get_ref(), span: name.span().into() }, Node::new(value)))
            .collect()
    }

    /// Every key and value, whatever they are called.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (Text<'a>, Node<'a>)> + use<'a> {
        self.entries
            .iter()
            .map(|(name, value)| (Text { text: name.get_ref(), span: name.span().into() }, Node::new(value)))
    }

    /// Ends the reading: keys nobody asked for are unknown.
    pub(super) fn finish(&self, report: &mut Report<'_>) {
        for key in self.entries.keys() {
            let (name, span) = (key.get_ref().as_ref(), Span::from(key.span()));
            if self.asked.contains(&name) || self.refused.contains(&name) {
                continue;
            }
            if problem::looks_secret(name) {
                report.error_veiled(
                    span,
                    format!(
                        "{} must not be written into {}: secrets stay out of the catalog",
                        quoted(name),
                        self.about
                    ),
                    "name an environment variable that holds it (for a JWT secret: `secret_env = \"NAME\"`)",
                );
                continue;
            }
            let message = format!("unknown key {} in {}", quoted(name), self.about);
            report.unknown(span, message, "valid keys", name, self.asked.iter().copied());
        }
    }
}

/// A text for people: not empty, without control characters, at most `max` characters.
pub(super) fn prose(report: &mut Report<'_>, text: Text<'_>, what: &str, max: usize) -> Option<Arc<str>> {
    if text.text.trim().is_empty() {
        report.error_help(text.span, format!("{what} is empty"), "leave the key out instead");
        return None;
    }
    if text.text.chars().any(|c| c.is_control() && c != '\n') {
        report.error(text.span, format!("{what} holds control characters"));
        return None;
    }
    if text.text.chars().count() > max {
        report.error(text.span, format!("{what} is longer than {max} characters"));
        return None;
    }
    Some(text.text.into())
}

/// The meaning of a word, or a note of which words there are.
pub(super) fn one_of<T: Copy>(
    report: &mut Report<'_>,
    text: Text<'_>,
    what: &str,
    words: &[(&'static str, T)],
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text.text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known = words.iter().map(|(word, _)| *word);
        let help = match problem::closest(text.text, known.clone()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("write one of {}", listed(known)),
        };
        report.error_help(text.span, format!("{what} can't be {}", quoted(text.text)), help);
    }
    found
}

/// Things the catalog declares, by name. `None` stands for one that was declared with problems: it may be referred to
/// without a second complaint.
pub(super) type Declared<T> = BTreeMap<String, Option<Arc<T>>>;

/// What a name refers to. `None` if it refers to nothing (noted) or to something with problems (noted where it is).
pub(super) fn resolve<'d, T>(
    report: &mut Report<'_>,
    name: Text<'_>,
    noun: &str,
    declared: &'d Declared<T>,
) -> Option<&'d Arc<T>> {
    match declared.get(name.text) {
        Some(found) => found.as_ref(),
        None => {
            let message = format!("unknown {noun} {}", quoted(name.text));
            report.unknown(name.span, message, &format!("{noun}s"), name.text, declared.keys().map(String::as_str));
            None
        }
    }
}
