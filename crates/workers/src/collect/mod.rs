//! The values of meters that Tidegate does not count itself, asked of the customer's databases and services: one question a
//! meter, for all tenants. What is asked can't change anything there, is given a time limit, and is read row by row, so
//! that a bad row spoils its own tenant only. Where a source is, and with which password, is no part of any error.

mod allowed;
mod http;
mod postgres;
mod redis;
mod sqlite;
mod tls;

pub use allowed::{Allowed, VARIABLES};

use domain::day::Day;
use std::time::Duration;
use wire::catalog::{Collector, How, SnapshotRules, Source, SourceKind};

/// The value of one tenant, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The tenant, as the source calls it.
    pub tenant: String,
    /// The value, in the meter's smallest unit.
    pub value: Result<i64, String>,
}

/// The longest name of a tenant that is read: one byte more than any may have.
const TENANT_MAX_BYTES: usize = domain::id::NAME_MAX_BYTES + 1;

/// The longest reason that is told, in characters: a server's own words may be as many as it likes.
const REASON_MAX_CHARS: usize = 1_000;

/// Asks for a meter.
///
/// # Errors
/// Why nothing can be believed: a source that this node does not allow, no answer in time, a broken query, more rows than
/// there may be.
pub async fn collect(
    allowed: &Allowed,
    rules: &SnapshotRules,
    collector: &Collector,
    day: Day,
) -> Result<Vec<Row>, String> {
    let (How::Query { source: name, .. } | How::Keys { source: name, .. } | How::Get { source: name, .. }) =
        &collector.how
    else {
        return Ok(Vec::new());
    };
    let source = rules.sources.get(name).ok_or_else(|| format!("there is no source {name:?}"))?;
    let limit = Duration::from_millis(source.timeout_ms);
    match tokio::time::timeout(limit, ask(allowed, source, &collector.how, day)).await {
        Ok(rows) => rows.map_err(|reason| reason.chars().take(REASON_MAX_CHARS).collect()),
        Err(_) => Err(late(source)),
    }
}

fn late(source: &Source) -> String {
    format!("no answer within {} ms", source.timeout_ms)
}

async fn ask(allowed: &Allowed, source: &Source, how: &How, day: Day) -> Result<Vec<Row>, String> {
    let url = allowed.read(&source.url)?;
    match (how, source.kind) {
        (How::Query { query, .. }, SourceKind::Postgres) => postgres::ask(&url, source, query, day).await,
        (How::Query { query, .. }, SourceKind::Sqlite) => {
            sqlite::ask(allowed.sqlite_file(&url)?, source, query, day).await
        }
        (How::Keys { pattern, .. }, SourceKind::Redis) => {
            let (before, after) = pattern.around(&day.to_string());
            redis::ask(&url, source, &before, &after).await
        }
        (How::Get { path, .. }, SourceKind::Http) => {
            let authorization = source.authorization.as_ref().map(|setting| allowed.read(setting)).transpose()?;
            http::ask(&url, authorization.as_deref(), source, path, day).await
        }
        _ => Err("the source is of another kind".into()),
    }
}

/// Takes rows until there are too many.
#[derive(Debug)]
struct Rows {
    rows: Vec<Row>,
    max: usize,
}

impl Rows {
    fn new(source: &Source) -> Self {
        Self { rows: Vec::new(), max: source.rows_max }
    }

    fn push(&mut self, tenant: &str, value: Result<i64, String>) -> Result<(), String> {
        if self.rows.len() >= self.max {
            return Err(format!("there are more than {} rows (raise `rows_max` if that is right)", self.max));
        }
        let mut end = tenant.len().min(TENANT_MAX_BYTES);
        while !tenant.is_char_boundary(end) {
            end -= 1;
        }
        self.rows.push(Row { tenant: tenant[..end].to_owned(), value });
        Ok(())
    }
}

/// An integer as databases write it: `35`, or `35.000` where a sum is of another type.
fn integer(text: &str) -> Result<i64, String> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_whole = fraction.bytes().all(|byte| byte == b'0');
    whole.parse().ok().filter(|_| is_whole).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is no whole number")
    })
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, value) in [("35", 35), (" 35\n", 35), ("35.000", 35), ("-3", -3), ("0", 0)] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for text in ["", "35.5", "1e3", "NaN", "9223372036854775808", "12 34", ".", "0x10"] {
            assert!(integer(text).is_err(), "{text}");
        }
    }
}
