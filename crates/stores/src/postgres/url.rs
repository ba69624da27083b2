//! Settings, all of them in the URL.

use super::errors::unopenable;
use engine::ports::LedgerError;
use std::{path::PathBuf, str::FromStr, time::Duration};
use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

/// How the server's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Not at all: whoever can redirect the connection can read it.
    Anybody,
    /// Against the system's authorities, name included.
    System,
    /// Against the authorities in a file, name included.
    File(PathBuf),
}

/// What the URL says.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// For the driver. (It shows no password.)
    pub(super) config: Config,
    pub(super) trust: Trust,
    pub(super) schema: String,
    pub(super) pool_max: usize,
    pub(super) statement_timeout: Duration,
    /// Whether there is a pooler in between that gives each transaction another session.
    pub(super) pgbouncer: bool,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgreSQL cuts names after 63 bytes; a copy on its way adds `_copying`.
const SCHEMA_MAX_BYTES: usize = 54;
const POOL_MAX: usize = 8;
const POOL_LEAST: usize = 4;

/// Reads a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
pub(super) fn parse(url: &str) -> Result<Settings, LedgerError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut ours = Ours::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decoded(value).ok_or_else(|| bad(key, "it is not UTF-8"))?;
        if !ours.take(key, &value)? {
            rest.push(pair);
        }
    }
    let url = match rest.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", rest.join("&")),
    };
    // The driver's own message may quote parts of the URL, a mistyped password among them.
    let mut config = Config::from_str(&url).map_err(|_| {
        unopenable(
            "the PostgreSQL URL can't be read; it looks like postgres://user:password@host:5432/database?sslmode=\
             verify-full, with characters such as @ : / # % in a password written as %40 %3A %2F %23 %25",
        )
    })?;
    ours.finish(&mut config)
}

#[derive(Default)]
struct Ours {
    sslmode: Option<String>,
    root: Option<Trust>,
    schema: Option<String>,
    pool_max: Option<usize>,
    statement_timeout: Option<Duration>,
    pgbouncer: bool,
}

impl Ours {
    /// Whether the parameter is one of ours, not the driver's.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, LedgerError> {
        match key {
            "sslmode" => self.sslmode = Some(value.to_owned()),
            "sslrootcert" if value == "system" => self.root = Some(Trust::System),
            "sslrootcert" => self.root = Some(Trust::File(value.into())),
            "schema" => {
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                let begins = value.bytes().next().is_some_and(|first| !first.is_ascii_digit());
                if !begins || value.len() > SCHEMA_MAX_BYTES || !value.bytes().all(fits) {
                    return Err(bad(key, "give lower-case letters, digits and _, at most 54"));
                }
                self.schema = Some(value.to_owned());
            }
            "pool_max" => {
                let number = value.parse().ok().filter(|number| (POOL_LEAST..=1_000).contains(number));
                self.pool_max = Some(number.ok_or_else(|| bad(key, "give a number from 4 to 1000"))?);
            }
            "statement_timeout" => {
                let ms = value.parse().ok().filter(|ms| (100..=600_000).contains(ms));
                let ms = ms.ok_or_else(|| bad(key, "give milliseconds, from 100 to 600000"))?;
                self.statement_timeout = Some(Duration::from_millis(ms));
            }
            // The driver is always told so: a node that can't write is of no use.
            "target_session_attrs" if matches!(value, "read-write" | "primary") => {}
            "target_session_attrs" => return Err(bad(key, "a node has to write: give read-write, or leave it out")),
            "pgbouncer" => {
                self.pgbouncer = value.parse().map_err(|_| bad(key, "give true or false"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, config: &mut Config) -> Result<Settings, LedgerError> {
        // Who names authorities wants them asked: without `sslmode` that is verify-full.
        let unsaid = if self.root.is_some() { "verify-full" } else { "prefer" };
        let (mode, trust) = match (self.sslmode.as_deref().unwrap_or(unsaid), self.root) {
            ("disable", None) => (SslMode::Disable, Trust::Anybody),
            ("prefer", None) => (SslMode::Prefer, Trust::Anybody),
            ("disable" | "prefer", Some(_)) => {
                return Err(bad("sslmode", "nothing is checked so; leave it out, or give verify-full"));
            }
            // As in libpq: a certificate is checked when there is one to check it with.
            ("require", None) => (SslMode::Require, Trust::Anybody),
            ("verify-full", None) => (SslMode::Require, Trust::System),
            ("require" | "verify-full", Some(trust)) => (SslMode::Require, trust),
            _ => return Err(bad("sslmode", "give disable, prefer, require or verify-full")),
        };
        config.ssl_mode(mode).target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("tidegate");
        }
        config.keepalives_idle(Duration::from_secs(15));
        let (hosts, ports) = (config.get_hosts().len(), config.get_ports().len());
        if hosts == 0 {
            return Err(unopenable("the PostgreSQL URL names no host"));
        }
        if ports > 1 && ports != hosts {
            return Err(unopenable("the PostgreSQL URL names some ports, but not one for each host"));
        }
        let statement_timeout = self.statement_timeout.unwrap_or(Duration::from_secs(10));
        if !self.pgbouncer {
            // A statement whose caller has given up ends by itself. The committer sets its own.
            let before = config.get_options().map(|options| format!("{options} ")).unwrap_or_default();
            config.options(format!("{before}-c statement_timeout={}", statement_timeout.as_millis()));
        }
        Ok(Settings {
            config: config.clone(),
            trust,
            schema: self.schema.unwrap_or_else(|| "tidegate".to_owned()),
            pool_max: self.pool_max.unwrap_or(POOL_MAX),
            statement_timeout,
            pgbouncer: self.pgbouncer,
        })
    }
}

fn bad(key: &str, why: &str) -> LedgerError {
    unopenable(format_args!("`{key}` in the PostgreSQL URL: {why}"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten();
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
