//! `[snapshots]`: when days are closed, how long they are kept, and where the values of meters come from that Tidegate
//! does not count itself.

use super::{
    keys,
    problem::quoted,
    query::Query,
    report::Report,
    table::{Declared, Node, Table, Text, resolve},
};
use domain::{catalog::Meter, cron::Cron, id::MeterKey, time::Zone};
use engine::ports::SNAPSHOT_DAYS_MIN;
use std::{collections::BTreeMap, sync::Arc};

/// When days are closed where the catalog does not say.
const SCHEDULE: &str = "0 2 * * *";
const KEEP_DAYS: i64 = 400;
const KEEP_DAYS_MAX: i64 = 3_660;
const SOURCES_MAX: usize = 32;
const QUERY_MAX_CHARS: usize = 10_000;
const TIMEOUT_MS: i64 = 60_000;
const ROWS_MAX: i64 = 1_000_000;
const TENANT: &str = "{tenant}";
const DAY: &str = "{day}";

/// What `[snapshots]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRules {
    /// When the previous day is closed; `None`: only when asked.
    pub schedule: Option<Cron>,
    /// In which time zone the schedule is read. (Days are UTC days whatever it is.)
    pub zone: Zone,
    /// How many days are kept.
    pub keep_days: i32,
    /// Where values are asked for, by name.
    pub sources: BTreeMap<Arc<str>, Source>,
    /// How the value of a meter is had; meters without one are the ledger's own.
    pub collectors: BTreeMap<MeterKey, Collector>,
}

/// A database or service of the customer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// Where it is. May be a secret.
    pub url: Setting,
    /// What is sent as `Authorization`, to services over HTTP.
    pub authorization: Option<Setting>,
    /// How long one question may take, milliseconds.
    pub timeout_ms: u64,
    /// How many rows an answer may have.
    pub rows_max: usize,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A database on PostgreSQL.
    Postgres,
    /// An SQLite file.
    Sqlite,
    /// Redis, or what speaks its protocol.
    Redis,
    /// A service that answers in JSON.
    Http,
}

/// A value that stands here, or is looked up where secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// It stands here: it is no secret.
    Plain(Arc<str>),
    /// In this variable of the environment.
    Environment(Arc<str>),
    /// In this file.
    File(Arc<str>),
}

/// How the value of one meter is had for all tenants at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// How.
    pub how: How,
    /// Whether tenants that the answer does not name stand at 0; otherwise they get no row.
    pub missing_is_zero: bool,
    /// The largest value that is believed.
    pub value_max: i64,
}

/// See [`Collector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A query with the columns `tenant_id` and `value`.
    Query {
        /// Whom to ask.
        source: Arc<str>,
        /// What.
        query: Query,
    },
    /// Keys of Redis, one for each tenant.
    Keys {
        /// Whom to ask.
        source: Arc<str>,
        /// What they are called.
        pattern: KeyPattern,
    },
    /// JSON from a path.
    Get {
        /// Whom to ask.
        source: Arc<str>,
        /// Path and query, in which `{day}` stands for the day.
        path: Arc<str>,
    },
    /// Nothing is asked: what was recorded by the API stands.
    Pushed,
}

/// The name of a key with a place for the tenant and perhaps for the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: Arc<str>,
}

impl KeyPattern {
    /// What stands before and after the tenant in the keys of a day (written `YYYY-MM-DD`).
    pub fn around(&self, day: &str) -> (String, String) {
        let (before, after) = self.text.split_once(TENANT).unwrap_or((&self.text, ""));
        (before.replace(DAY, day), after.replace(DAY, day))
    }
}

impl Collector {
    /// Whether it can tell the value at the end of any day, and not only what it is now.
    pub fn knows_days(&self) -> bool {
        match &self.how {
            How::Query { query, .. } => query.knows_days(),
            How::Keys { pattern, .. } => pattern.text.contains(DAY),
            How::Get { path, .. } => path.contains(DAY),
            How::Pushed => true,
        }
    }
}

const KINDS: &[(&str, SourceKind)] = &[
    ("postgres", SourceKind::Postgres),
    ("sqlite", SourceKind::Sqlite),
    ("redis", SourceKind::Redis),
    ("http", SourceKind::Http),
];

const MISSING: &[(&str, bool)] = &[("zero", true), ("skip", false)];

/// Reads the section; without one, days are closed at two in the morning and every meter is the ledger's own.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>, meters: &Declared<Meter>) -> SnapshotRules {
    let mut rules = SnapshotRules {
        schedule: Cron::parse(SCHEDULE).ok(),
        zone: Zone::utc(),
        keep_days: KEEP_DAYS as i32,
        sources: BTreeMap::new(),
        collectors: BTreeMap::new(),
    };
    let Some(mut table) = document.get("snapshots").and_then(|node| node.table(report, "`snapshots`")) else {
        return rules;
    };
    let table = &mut table;
    if let Some(text) = table.text(report, "schedule") {
        rules.schedule = schedule(report, text);
    }
    if let Some(text) = table.text(report, "timezone") {
        let zone = Zone::named(text.text);
        if zone.is_none() {
            report.error_help(
                text.span,
                format!("{} is no time zone", quoted(text.text)),
                "write e.g. \"Europe/Madrid\"",
            );
        }
        rules.zone = zone.unwrap_or(rules.zone);
    }
    let keep_days = table.integer(report, "keep_days", i64::from(SNAPSHOT_DAYS_MIN), KEEP_DAYS_MAX);
    rules.keep_days = keep_days.unwrap_or(KEEP_DAYS) as i32;
    let sources: Declared<Source> = table
        .named(report, "sources", "source")
        .into_iter()
        .map(|(name, node)| (name.text.to_owned(), source(report, name, node).map(Arc::new)))
        .collect();
    keys::at_most(report, table.key_span("sources"), "sources", sources.len(), SOURCES_MAX);
    for (name, node) in table.named(report, "meters", "meter") {
        let meter = resolve(report, name, "meter", meters);
        let collector = collector(report, name, node, &sources);
        if let (Some(meter), Some(collector)) = (meter, collector) {
            rules.collectors.insert(meter.key.clone(), collector);
        }
    }
    table.finish(report);
    let sources = sources.into_iter().filter_map(|(name, source)| Some((name.into(), Arc::unwrap_or_clone(source?))));
    rules.sources = sources.collect();
    rules
}

fn schedule(report: &mut Report<'_>, text: Text<'_>) -> Option<Cron> {
    if text.text == "off" {
        return None;
    }
    let read = Cron::parse(text.text);
    if let Err(why) = &read {
        let help = "write e.g. \"0 2 * * *\" for two in the morning, or \"off\"";
        report.error_help(text.span, format!("`schedule`: {why}"), help);
    }
    read.ok()
}

fn source(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>) -> Option<Source> {
    let mut table = node.table(report, keys::about("source", name))?.at(name.span);
    let help = "write kind = \"postgres\", \"sqlite\", \"redis\" or \"http\"";
    let node = table.required(report, "kind", help);
    let text = node.and_then(|node| node.text(report, "`kind` of a source"));
    let kind = text.and_then(|text| super::table::one_of(report, text, "`kind` of a source", KINDS));
    let url = setting(report, &mut table, ["url", "url_env", "url_file"]);
    if url.is_none() && !["url", "url_env", "url_file"].iter().any(|key| table.key_span(key).is_some()) {
        let help =
            "write url_env = \"TIDEGATE_SOURCE_APP\" (a variable), url_file (a file), or url where it is no secret";
        report.error_help(table.span, format!("{} does not say where it is", table.about), help);
    }
    let authorization = setting(report, &mut table, ["", "authorization_env", "authorization_file"]);
    let timeout_ms = keys::duration_ms(report, &mut table, "timeout", 100..=3_600_000).unwrap_or(TIMEOUT_MS);
    let rows_max = table.integer(report, "rows_max", 1, 100_000_000).unwrap_or(ROWS_MAX);
    table.finish(report);
    let (kind, url) = (kind?, url?);
    Some(Source { kind, url, authorization, timeout_ms: timeout_ms as u64, rows_max: rows_max as usize })
}

/// A value that stands in one of three places: plainly, in a variable, in a file.
fn setting(report: &mut Report<'_>, table: &mut Table<'_>, places: [&'static str; 3]) -> Option<Setting> {
    let texts = places.map(|key| if key.is_empty() { None } else { table.text(report, key) });
    let mut given = texts.iter().enumerate().filter_map(|(place, text)| Some((place, (*text)?)));
    let (place, text) = given.next()?;
    if let Some((other, second)) = given.next() {
        let message = format!("`{}` and `{}` are both given: one suffices", places[place], places[other]);
        report.error(second.span, message);
        return None;
    }
    if text.text.is_empty() || text.text.len() > 1_000 {
        report.error(text.span, format!("`{}` must have 1 to 1000 characters", places[place]));
        return None;
    }
    let value: Arc<str> = text.text.into();
    match place {
        0 if text.text.contains('@') || text.text.contains("password") => {
            let message = format!("`{}` holds credentials: secrets stay out of the catalog", places[0]);
            report.error_veiled(text.span, message, "name a variable that holds it: url_env = \"TIDEGATE_SOURCE_APP\"");
            None
        }
        0 => Some(Setting::Plain(value)),
        1 => Some(Setting::Environment(value)),
        _ => Some(Setting::File(value)),
    }
}

fn collector(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>, sources: &Declared<Source>) -> Option<Collector> {
    let mut table = node.table(report, keys::about("collector", name))?.at(name.span);
    let missing_is_zero = table.word(report, "missing", MISSING).unwrap_or(true);
    let value_max = table.integer(report, "value_max", 0, i64::MAX).unwrap_or(domain::catalog::AMOUNT_MAX);
    let help = "write source = \"NAME\" of [snapshots.sources.NAME], or source = \"pushed\"";
    let text = table.required(report, "source", help).and_then(|node| node.text(report, "`source` of a collector"));
    let how = text.and_then(|text| match text.text {
        "pushed" => Some(How::Pushed),
        _ => {
            let source = resolve(report, text, "source", sources)?;
            how(report, &mut table, text, source)
        }
    });
    table.finish(report);
    Some(Collector { how: how?, missing_is_zero, value_max })
}

fn how(report: &mut Report<'_>, table: &mut Table<'_>, name: Text<'_>, source: &Source) -> Option<How> {
    let source_name: Arc<str> = name.text.into();
    let (key, help) = match source.kind {
        SourceKind::Postgres | SourceKind::Sqlite => {
            ("query", "write query = \"SELECT tenant_id, count(*) AS value FROM products GROUP BY tenant_id\"")
        }
        SourceKind::Redis => ("keys", "write keys = \"usage:{tenant}:api_calls:{day}\""),
        SourceKind::Http => ("path", "write path = \"/usage?day={day}\""),
    };
    let node = table.required(report, key, help)?;
    let text = node.text(report, &table.what(key))?;
    if text.text.trim().is_empty() || text.text.len() > QUERY_MAX_CHARS {
        report.error(text.span, format!("`{key}` must have 1 to {QUERY_MAX_CHARS} characters"));
        return None;
    }
    match source.kind {
        SourceKind::Postgres | SourceKind::Sqlite => {
            let query = Query::new(text.text.trim().trim_end_matches(';'), source.kind);
            Some(How::Query { source: source_name, query })
        }
        SourceKind::Redis if text.text.matches(TENANT).count() == 1 => {
            Some(How::Keys { source: source_name, pattern: KeyPattern { text: text.text.into() } })
        }
        SourceKind::Redis => {
            report.error_help(text.span, "`keys` must hold {tenant} once", help);
            None
        }
        SourceKind::Http if text.text.starts_with('/') && !text.text.contains(['#', ' ']) => {
            Some(How::Get { source: source_name, path: text.text.into() })
        }
        SourceKind::Http => {
            report.error_help(text.span, "`path` must begin with /", help);
            None
        }
    }
}
