//! A query of somebody else's database, and the places in which it names the end of the day. What stands in texts, quoted
//! names and comments means itself, and is left as it is.

use super::SourceKind;
use std::sync::Arc;

/// What a query names when it can tell the value at the end of any day.
pub const DAY_END: &str = ":day_end";

/// A query, and where [`DAY_END`] stands in it as a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    sql: Arc<str>,
    day_ends: Arc<[usize]>,
}

impl Query {
    /// Reads a query as a kind of source would.
    pub fn new(sql: &str, kind: SourceKind) -> Self {
        let dialect = if kind == SourceKind::Sqlite { Dialect::Sqlite } else { Dialect::Postgres };
        Self { sql: sql.into(), day_ends: day_ends(sql, dialect).into() }
    }

    /// The query as it was written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Whether it can tell the value at the end of any day.
    pub fn knows_days(&self) -> bool {
        !self.day_ends.is_empty()
    }

    /// The query with another name for the end of the day.
    pub fn with_day_end(&self, name: &str) -> String {
        let mut written = String::with_capacity(self.sql.len());
        let mut from = 0;
        for &at in &*self.day_ends {
            written.push_str(&self.sql[from..at]);
            written.push_str(name);
            from = at + DAY_END.len();
        }
        written.push_str(&self.sql[from..]);
        written
    }
}

/// What decides where a text, a name or a comment ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Postgres,
    Sqlite,
}

/// Where the parameter stands. (`::day_end` is a cast.)
fn day_ends(sql: &str, dialect: Dialect) -> Vec<usize> {
    let bytes = sql.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let skipped = quoted_bytes(&bytes[..at], &bytes[at..], dialect);
        if skipped > 0 {
            at += skipped;
        } else if is_parameter(&bytes[..at], &bytes[at..]) {
            found.push(at);
            at += DAY_END.len();
        } else {
            at += 1;
        }
    }
    found
}

fn is_parameter(before: &[u8], rest: &[u8]) -> bool {
    let Some(after) = rest.strip_prefix(DAY_END.as_bytes()) else { return false };
    before.last() != Some(&b':') && !after.first().is_some_and(|next| is_of_name(*next))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// How many bytes belong to a text, a quoted name or a comment that begins here; 0 where none does. One that has no end
/// goes on to the end of the query.
fn quoted_bytes(before: &[u8], rest: &[u8], dialect: Dialect) -> usize {
    match (rest, dialect) {
        ([b'\'', ..], Dialect::Postgres) if has_escapes(before) => escaped_text_bytes(rest),
        ([quote @ (b'\'' | b'"'), ..], _) | ([quote @ b'`', ..], Dialect::Sqlite) => doubled_bytes(rest, *quote),
        ([b'[', ..], Dialect::Sqlite) => through(rest, b"]"),
        ([b'-', b'-', ..], _) => rest.iter().position(|byte| is_line_end(*byte, dialect)).unwrap_or(rest.len()),
        ([b'/', b'*', ..], Dialect::Postgres) => nested_comment_bytes(rest),
        ([b'/', b'*', ..], Dialect::Sqlite) => 2 + through(&rest[2..], b"*/"),
        ([b'$', ..], Dialect::Postgres) if !before.last().is_some_and(|last| is_of_name(*last)) => dollar_bytes(rest),
        _ => 0,
    }
}

fn is_line_end(byte: u8, dialect: Dialect) -> bool {
    byte == b'\n' || byte == b'\r' && dialect == Dialect::Postgres
}

/// Whether the text that follows is one of those in which `\` takes the next character's meaning: `E'...'`.
fn has_escapes(before: &[u8]) -> bool {
    let Some((b'e' | b'E', earlier)) = before.split_last() else { return false };
    !earlier.last().is_some_and(|last| is_of_name(*last))
}

/// Through the first occurrence, or to the end.
fn through(rest: &[u8], end: &[u8]) -> usize {
    rest.windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| at + end.len())
}

/// A text or a name in which the quote itself is written twice. (Two that touch are read as two: nothing stands between.)
fn doubled_bytes(rest: &[u8], quote: u8) -> usize {
    1 + through(&rest[1..], &[quote])
}

/// `E'...'`, with what continues it: another text that follows after the end of a line.
fn escaped_text_bytes(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'\'' if rest.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => {
                let space = rest[at + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let next = at + 1 + space;
                let is_continued = rest[at + 1..next].iter().any(|byte| is_line_end(*byte, Dialect::Postgres));
                if !is_continued || rest.get(next) != Some(&b'\'') {
                    return at + 1;
                }
                at = next + 1;
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// PostgreSQL's comments may stand in one another.
fn nested_comment_bytes(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// `$$...$$` or `$tag$...$tag$`; 0 where it is no such text.
fn dollar_bytes(rest: &[u8]) -> usize {
    let tag_bytes = rest[1..].iter().take_while(|byte| is_of_name(**byte) && **byte != b'$').count();
    let is_tag = !rest[1..].first().is_some_and(u8::is_ascii_digit) && rest.get(1 + tag_bytes) == Some(&b'$');
    if !is_tag {
        return 0;
    }
    let tag = &rest[..tag_bytes + 2];
    tag.len() + through(&rest[tag.len()..], tag)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
