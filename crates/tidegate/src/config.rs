//! Settings: flags and `TIDEGATE_<SECTION>_<KEY>` variables, turned into meaning in one place.

use crate::{
    cli::{LedgerArgs, LogArgs, ServeArgs},
    kept,
    secret::Secret,
};
use anyhow::{Context, bail};
use engine::{HistoryKept, ports::Retention};
use http::Uri;
use std::{
    fmt,
    path::{Path, PathBuf},
};
use wire::cors::CorsOrigins;
use workers::collect::{self, Allowed};

/// Where things are when nobody says otherwise.
pub const GATEWAY_LISTEN: &str = "127.0.0.1:8080";
/// See [`GATEWAY_LISTEN`].
pub const API_LISTEN: &str = "127.0.0.1:8081";
/// See [`GATEWAY_LISTEN`].
pub const API_URL: &str = "http://127.0.0.1:8081";
/// See [`GATEWAY_LISTEN`].
pub const LEDGER_URL: &str = "sqlite:tidegate.db";

/// Every variable the program reads. One that is close to these but not among them is probably a slip, and said so.
pub const VARIABLES: &[&str] = &[
    "TIDEGATE_CATALOG_FILE",
    "TIDEGATE_GATEWAY_LISTEN",
    "TIDEGATE_GATEWAY_UPSTREAM",
    "TIDEGATE_API_LISTEN",
    "TIDEGATE_API_METRICS",
    "TIDEGATE_API_CORS_ORIGINS",
    "TIDEGATE_API_URL",
    "TIDEGATE_API_KEY",
    "TIDEGATE_API_KEY_FILE",
    "TIDEGATE_LEDGER_URL",
    "TIDEGATE_LEDGER_URL_FILE",
    "TIDEGATE_LEDGER_DEDUPE",
    "TIDEGATE_LEDGER_JOURNAL",
    "TIDEGATE_LEDGER_DENIALS",
    "TIDEGATE_LEDGER_HISTORY",
    "TIDEGATE_LEDGER_HISTORY_QUARTERS",
    "TIDEGATE_LEDGER_HISTORY_MINUTES",
    "TIDEGATE_LEDGER_SPOOL",
    "TIDEGATE_LEDGER_OUTAGE_AFTER",
    "TIDEGATE_SNAPSHOTS_VARIABLES",
    "TIDEGATE_SNAPSHOTS_SECRETS",
    "TIDEGATE_SNAPSHOTS_SQLITE",
    "TIDEGATE_ADMIN_KEY",
    "TIDEGATE_ADMIN_KEY_FILE",
    "TIDEGATE_DRAIN_TIMEOUT",
    "TIDEGATE_LOG_FORMAT",
    "TIDEGATE_LOG_LEVEL",
];

/// A setting that can't be what it is. The program ends with code 2.
#[derive(Debug)]
pub struct WrongSetting(pub String);

impl fmt::Display for WrongSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for WrongSetting {}

/// Which ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A database on PostgreSQL. The URL may hold a password.
    Postgres(Secret),
    /// Memory; gone when the process ends.
    Memory,
}

impl LedgerUrl {
    /// Reads `sqlite:PATH`, `postgres://...` or `memory:`.
    ///
    /// # Errors
    /// [`WrongSetting`] for anything else.
    pub fn parse(text: &str) -> Result<Self, WrongSetting> {
        match text.split_once(':') {
            Some(("memory", "" | "//")) => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
                Ok(Self::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path))))
            }
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(Secret::new(text))),
            // A URL that is misspelt may hold a password all the same.
            other => Err(WrongSetting(format!(
                "a ledger of the kind {:?} is not known; write sqlite:PATH, e.g. {LEDGER_URL}, postgres://..., or memory:",
                other.map_or("", |(kind, _)| kind)
            ))),
        }
    }

    /// The ledger that arguments and variables name.
    ///
    /// # Errors
    /// As [`LedgerUrl::parse`].
    pub fn of(args: &LedgerArgs) -> anyhow::Result<Self> {
        // The variable is read as a secret: it may be in a file.
        let of_variable = match given(args.ledger_url.as_deref()) {
            Some(_) => None,
            None => secret("TIDEGATE_LEDGER_URL", None)?,
        };
        let url = given(args.ledger_url.as_deref()).or(of_variable.as_ref().map(Secret::expose)).unwrap_or(LEDGER_URL);
        Ok(Self::parse(url)?)
    }

    /// Whether other nodes may write to it as well.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            LedgerUrl::Postgres(_) => f.write_str("postgres://[secret]"),
            LedgerUrl::Memory => f.write_str("memory:"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines there are.
    pub level: String,
}

impl LogSettings {
    /// Reads flags and variables.
    ///
    /// # Errors
    /// [`WrongSetting`] for an unknown format.
    pub fn of(args: &LogArgs) -> Result<Self, WrongSetting> {
        let format = match given(args.log_format.as_deref()) {
            None | Some("human") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            Some(other) => {
                return Err(WrongSetting(format!("TIDEGATE_LOG_FORMAT is {other:?}; it may be human or json")));
            }
        };
        Ok(Self { format, level: given(args.log_level.as_deref()).unwrap_or("info").to_owned() })
    }
}

/// Everything a node is told, apart from the catalog.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The catalog file.
    pub catalog: PathBuf,
    /// Where the gateway listens; `None` is not at all.
    pub gateway_listen: Option<String>,
    /// The upstream of requests that no route sends elsewhere.
    pub gateway_upstream: Option<Uri>,
    /// Where the API listens.
    pub api_listen: String,
    /// Which ledger.
    pub ledger: LedgerUrl,
    /// Whether the catalog file is put in force on every node, where there may be many.
    pub apply: bool,
    /// The first admin key.
    pub admin_key: Option<Secret>,
    /// How long things are kept.
    pub retention: Retention,
    /// How long history is kept, by resolution.
    pub history_kept: HistoryKept,
    /// Where what passes while PostgreSQL is away is kept.
    pub spool: Option<PathBuf>,
    /// How long a request that may pass then waits for PostgreSQL, in milliseconds.
    pub outage_after_ms: u64,
    /// How long requests in flight may take to end after SIGTERM, in milliseconds.
    pub drain_ms: u64,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Whether tests may move the clock.
    pub test_clock: bool,
    /// Whether `/metrics` needs no key.
    pub metrics_open: bool,
    /// Which web pages may call from a browser.
    pub cors_origins: CorsOrigins,
    /// What of this node a catalog may name as a source of snapshots.
    pub sources: Allowed,
}

impl Settings {
    /// Reads flags, variables and the files they name.
    ///
    /// # Errors
    /// Where one of them can't be what it is: a sentence that says which and what it may be.
    pub fn of(args: &ServeArgs) -> anyhow::Result<Self> {
        let day_ms = domain::time::DAY_MS;
        let duration = |name, text: &Option<String>, default_ms: i64| match given(text.as_deref()) {
            None => Ok(default_ms),
            Some(text) => parse_duration_ms(text).map_err(|problem| WrongSetting(format!("{name}: {problem}"))),
        };
        let retention = Retention {
            dedupe_ms: duration("TIDEGATE_LEDGER_DEDUPE", &args.dedupe, 35 * day_ms)?,
            journal_ms: duration("TIDEGATE_LEDGER_JOURNAL", &args.journal, 400 * day_ms)?,
            denials_ms: duration("TIDEGATE_LEDGER_DENIALS", &args.denials, 90 * day_ms)?,
            history_ms: duration("TIDEGATE_LEDGER_HISTORY", &args.history, 400 * day_ms)?,
        };
        if retention.journal_ms < retention.dedupe_ms {
            bail!(WrongSetting(
                "TIDEGATE_LEDGER_JOURNAL is shorter than TIDEGATE_LEDGER_DEDUPE: the journal must outlive the ids that are bound in it"
                    .into()
            ));
        }
        let set = |name, text: &Option<String>| given(text.as_deref()).map(|_| duration(name, text, 0)).transpose();
        let history_kept = kept::of(
            set("TIDEGATE_LEDGER_HISTORY_MINUTES", &args.history_minutes)?,
            set("TIDEGATE_LEDGER_HISTORY_QUARTERS", &args.history_quarters)?,
            retention.history_ms,
        )
        .map_err(WrongSetting)?;
        let drain_ms = duration("TIDEGATE_DRAIN_TIMEOUT", &args.drain_timeout, 30_000)?;
        let outage_after_ms = duration("TIDEGATE_LEDGER_OUTAGE_AFTER", &args.outage_after, 1_000)?;
        if outage_after_ms < 100 {
            let least = "TIDEGATE_LEDGER_OUTAGE_AFTER is too short: commits take their time; give at least 100ms";
            bail!(WrongSetting(least.into()));
        }
        let api_listen = given(args.api_listen.as_deref()).unwrap_or(API_LISTEN);
        let metrics_open = match given(args.metrics.as_deref()) {
            // Figures name no tenant, but a business can be read from them: open by default on the machine itself alone.
            None => is_loopback(api_listen),
            Some("open") => true,
            Some("key") => false,
            Some(other) => bail!(WrongSetting(format!("TIDEGATE_API_METRICS is {other:?}; it may be open or key"))),
        };
        let cors_origins = CorsOrigins::parse(given(args.cors_origins.as_deref()).unwrap_or_default())
            .map_err(|problem| WrongSetting(format!("TIDEGATE_API_CORS_ORIGINS: {problem}")))?;
        let gateway_listen = given(args.gateway_listen.as_deref()).unwrap_or(GATEWAY_LISTEN);
        let ledger = LedgerUrl::of(&args.ledger)?;
        if args.test_clock && ledger.is_shared() {
            bail!(WrongSetting(
                "--test-clock moves this node's clock alone, and a node whose clock differs from the database's refuses to \
                 serve; use it with sqlite: or memory:"
                    .into()
            ));
        }
        let sources = sources(args, &ledger)?;
        Ok(Self {
            catalog: args.config.clone(),
            gateway_listen: (gateway_listen != "off").then(|| gateway_listen.to_owned()),
            gateway_upstream: given(args.gateway_upstream.as_deref())
                .map(|text| parse_upstream("TIDEGATE_GATEWAY_UPSTREAM", text))
                .transpose()?,
            api_listen: api_listen.to_owned(),
            ledger,
            apply: args.apply,
            admin_key: secret("TIDEGATE_ADMIN_KEY", given(args.admin_key_file.as_deref()))?,
            retention,
            history_kept,
            spool: args.spool.clone().filter(|path| !path.as_os_str().is_empty()),
            outage_after_ms: u64::try_from(outage_after_ms).unwrap_or(0),
            drain_ms: u64::try_from(drain_ms).unwrap_or(0),
            log: LogSettings::of(&args.log)?,
            test_clock: args.test_clock,
            metrics_open,
            cors_origins,
            sources,
        })
    }

    /// The settings in force, for people and without secrets, one `NAME=value` a line.
    pub fn shown(&self) -> String {
        let listen = self.gateway_listen.as_deref().unwrap_or("off");
        let upstream = self.gateway_upstream.as_ref().map(Uri::to_string).unwrap_or_default();
        let format = if self.log.format == LogFormat::Json { "json" } else { "human" };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let admin_key = if self.admin_key.is_some() { "[secret]" } else { "" };
        [
            ("TIDEGATE_CATALOG_FILE", self.catalog.display().to_string()),
            ("TIDEGATE_GATEWAY_LISTEN", listen.to_owned()),
            ("TIDEGATE_GATEWAY_UPSTREAM", upstream),
            ("TIDEGATE_API_LISTEN", self.api_listen.clone()),
            ("TIDEGATE_API_METRICS", if self.metrics_open { "open" } else { "key" }.to_owned()),
            ("TIDEGATE_API_CORS_ORIGINS", self.cors_origins.to_string()),
            ("TIDEGATE_LEDGER_URL", self.ledger.to_string()),
            ("TIDEGATE_LEDGER_DEDUPE", format!("{}s", self.retention.dedupe_ms / 1000)),
            ("TIDEGATE_LEDGER_JOURNAL", format!("{}s", self.retention.journal_ms / 1000)),
            ("TIDEGATE_LEDGER_DENIALS", format!("{}s", self.retention.denials_ms / 1000)),
            ("TIDEGATE_LEDGER_HISTORY", format!("{}s", self.retention.history_ms / 1000)),
            ("TIDEGATE_LEDGER_HISTORY_QUARTERS", format!("{}s", self.history_kept.quarters_ms / 1000)),
            ("TIDEGATE_LEDGER_HISTORY_MINUTES", format!("{}s", self.history_kept.minutes_ms / 1000)),
            ("TIDEGATE_LEDGER_SPOOL", path(&self.spool)),
            ("TIDEGATE_LEDGER_OUTAGE_AFTER", format!("{}ms", self.outage_after_ms)),
            ("TIDEGATE_SNAPSHOTS_VARIABLES", self.sources.variables.clone()),
            ("TIDEGATE_SNAPSHOTS_SECRETS", path(&self.sources.secrets)),
            ("TIDEGATE_SNAPSHOTS_SQLITE", path(&self.sources.sqlite)),
            ("TIDEGATE_ADMIN_KEY", admin_key.to_owned()),
            ("TIDEGATE_DRAIN_TIMEOUT", format!("{}ms", self.drain_ms)),
            ("TIDEGATE_LOG_FORMAT", format.to_owned()),
            ("TIDEGATE_LOG_LEVEL", self.log.level.clone()),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
    }
}

/// What of this node a catalog may name as a source of snapshots.
fn sources(args: &ServeArgs, ledger: &LedgerUrl) -> Result<Allowed, WrongSetting> {
    let directory = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    Ok(Allowed {
        variables: source_variables(given(args.snapshots_variables.as_deref()).unwrap_or(collect::VARIABLES))?,
        secrets: directory(&args.snapshots_secrets),
        sqlite: directory(&args.snapshots_sqlite),
        ledger: if let LedgerUrl::Sqlite(path) = ledger { Some(path.clone()) } else { None },
    })
}

/// How the names of variables begin that a catalog may name: never the node's own.
fn source_variables(beginning: &str) -> Result<String, WrongSetting> {
    let own = VARIABLES.iter().find(|own| own.starts_with(beginning));
    own.map_or(Ok(beginning.to_owned()), |own| {
        Err(WrongSetting(format!(
            "TIDEGATE_SNAPSHOTS_VARIABLES is {beginning:?}: a catalog could name {own}, which is the node's own; write \
             e.g. {}",
            collect::VARIABLES
        )))
    })
}

/// A value that was really given: compose files and manifests set variables to nothing where they mean "not set".
pub fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// A secret from the variable `name`, or from the file that `file` (or the variable `name_FILE`) names.
///
/// # Errors
/// Where both are given, or the file can't be read.
pub fn secret(name: &str, file: Option<&str>) -> anyhow::Result<Option<Secret>> {
    let value = std::env::var(name).ok();
    let variable_file = std::env::var(format!("{name}_FILE")).ok();
    match (given(value.as_deref()), file.or(given(variable_file.as_deref()))) {
        (Some(_), Some(_)) => bail!(WrongSetting(format!("{name} and {name}_FILE are both set; set one of them"))),
        (Some(value), None) => Ok(Some(Secret::new(value))),
        (None, Some(file)) => Secret::read(Path::new(file)).map(Some).with_context(|| format!("{name}_FILE")),
        (None, None) => Ok(None),
    }
}

/// A length of time such as `500ms`, `60s`, `15m`, `12h` or `35d`, in milliseconds.
///
/// # Errors
/// A sentence, where it is not one.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[digits_end..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => domain::time::DAY_MS,
        _ => return Err(format!("{text:?} is not a length of time; write a number and ms, s, m, h or d, e.g. 90s")),
    };
    let number = text[..digits_end].parse::<i64>().ok().and_then(|number| number.checked_mul(unit_ms));
    number.ok_or_else(|| format!("{text:?} is not a length of time that can be counted"))
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a server listens; `name` is what to put right if it is not that.
///
/// # Errors
/// [`WrongSetting`].
pub fn parse_upstream(name: &str, text: &str) -> Result<Uri, WrongSetting> {
    let wrong =
        || WrongSetting(format!("{name} is {text:?}; write where your server listens, e.g. http://127.0.0.1:3000"));
    let uri = text.parse::<Uri>().map_err(|_| wrong())?;
    let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    if known_scheme && uri.host().is_some() && uri.query().is_none() { Ok(uri) } else { Err(wrong()) }
}

/// Variables that look like ours but are not: probably slips.
pub fn unknown_variables() -> Vec<String> {
    let sections = [
        "TIDEGATE_GATEWAY_",
        "TIDEGATE_API_",
        "TIDEGATE_LEDGER_",
        "TIDEGATE_ADMIN_",
        "TIDEGATE_LOG_",
        "TIDEGATE_SNAPSHOTS_",
    ];
    let name = |name: std::ffi::OsString| name.into_string().ok();
    std::env::vars_os()
        .filter_map(|(variable, _)| name(variable))
        .filter(|name| sections.iter().any(|section| name.starts_with(section)))
        .filter(|name| !VARIABLES.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
