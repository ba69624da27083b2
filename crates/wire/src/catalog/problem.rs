//! What is wrong with a catalog, said so that it can be put right: where, what, and what would help.

use std::{fmt, sync::Arc};

/// Something wrong in a catalog file, or (as a warning) allowed but probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to [`super::load`].
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would help, if anything is known to.
    pub help: Option<String>,
    /// The line it is about; none where it may show a secret.
    pub excerpt: Option<Excerpt>,
}

/// A line of the file, with the part a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, shortened around the marked part, without control characters.
    pub text: String,
    /// How many characters come before the marked part.
    pub indent: usize,
    /// How many characters are marked.
    pub width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help, excerpt } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if let Some(Excerpt { text, indent, width }) = excerpt {
            let number = line.to_string();
            let gutter = number.len();
            write!(f, "\n{:gutter$} |\n{number} | {text}\n{:gutter$} | {:indent$}", "", "", "")?;
            for _ in 0..*width {
                f.write_str("^")?;
            }
            if let Some(help) = help {
                write!(f, "\n{:gutter$} = help: {help}", "")?;
            }
        } else if let Some(help) = help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Text from the file, quoted for a message: shortened, and without anything that could steer a terminal.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_MAX).map(printable).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The character, or a stand-in for one that does not print as one visible cell.
pub(super) fn printable(c: char) -> char {
    let steers = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match c {
        '\t' => ' ',
        c if c.is_control() || steers => '\u{fffd}',
        c => c,
    }
}

/// Words quoted and joined for a message: `a`, `b` and `c`.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED_MAX: usize = 30;
    let words: Vec<&str> = words.into_iter().collect();
    let mut shown: Vec<String> = words.iter().take(LISTED_MAX).map(|word| quoted(word)).collect();
    if words.len() > LISTED_MAX {
        shown.push(format!("{} more", words.len() - LISTED_MAX));
    }
    match shown.pop() {
        None => String::new(),
        Some(only) if shown.is_empty() => only,
        Some(last) => format!("{} and {last}", shown.join(", ")),
    }
}

/// The candidate a word was probably meant to be.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const COMPARED_MAX: usize = 64;
    if word.len() > COMPARED_MAX {
        return None;
    }
    let lower = word.to_lowercase().replace(['-', ' '], "_");
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase().replace('-', "_"));
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= COMPARED_MAX)
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (word.len().min(candidate.len()) / 3).max(1))
        .filter(|(distance, candidate)| *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether a key seems to hold a secret.
pub(super) fn looks_secret(key: &str) -> bool {
    const NAMES: [&str; 8] =
        ["secret", "password", "passwd", "private_key", "api_key", "apikey", "admin_key", "credential"];
    let key = key.to_lowercase();
    let named = key.ends_with("token") || NAMES.iter().any(|name| key.contains(name));
    named && !key.ends_with("_env") && !key.ends_with("_file")
}

/// Whether a line gives a value to a key that seems to hold a secret.
pub(super) fn line_may_hold_secret(line: &str) -> bool {
    let key = |part: &str| {
        let part = part.trim_end().trim_end_matches(['"', '\'']);
        let start = part.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).map_or(0, |at| at + 1);
        part.get(start..).is_some_and(looks_secret)
    };
    line.split('=').any(key)
}
