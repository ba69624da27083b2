//! The command line: what may be said. What it means is in `config` and `commands`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What `--help` says after everything else.
const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 it did not work, or problems were found; 2 the command line or a setting is wrong.

Commands that ask or change something talk to the running node: TIDEGATE_API_URL (default http://127.0.0.1:8081) and
TIDEGATE_API_KEY. Settings of `serve` are listed by `tidegate serve --help` and in docs/operations.md.";

/// Meters what each tenant of a SaaS uses, and decides in the request path what its plan allows.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway and the API
    Serve(Box<ServeArgs>),
    /// Run everything with a sample upstream, example tenants and some traffic, and say what to try
    Demo(DemoArgs),
    /// Write a commented starter catalog that observes and refuses nothing
    Init(InitArgs),
    /// Check a catalog file; problems are shown with file, line and column
    CheckConfig(CheckConfigArgs),
    /// Put a catalog in force on every node; list, show and compare those that were
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make a short-lived token of one tenant, for browsers
    Token(TokenArgs),
    /// List, show and change tenants
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Show what a tenant uses now, beside its limits
    Usage(UsageArgs),
    /// List a tenant's open sessions, and end one
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// List requests that were refused
    Denials(DenialsArgs),
    /// Explain one denial
    Explain(ExplainArgs),
    /// Show the newest lines of the journal
    Events(EventsArgs),
    /// Write what tenants used, by day or otherwise, into a file
    Export(Box<crate::commands::export::ExportArgs>),
    /// Take tenants, opening balances and daily history over from CSV
    Import(crate::commands::import::ImportArgs),
    /// Close a day: write down what every meter of every tenant stood at, or used. Again: the same rows
    Snapshot(SnapshotArgs),
    /// Say when meters will reach their limits
    Forecast(ForecastArgs),
    /// What other plans would have done with the history there is: who would have been refused, and what revenue moves
    Simulate(crate::commands::simulate::SimulateArgs),
    /// Make every account anew from the journal, and compare; nothing is changed
    Verify(VerifyArgs),
    /// Copy the ledger into a file, also while a node writes to it
    Backup(BackupArgs),
    /// Move a ledger that no node runs on to another store: SQLite to PostgreSQL, or back
    Copy(crate::commands::copy::CopyArgs),
}

/// Where the ledger is.
#[derive(Debug, Clone, Args)]
pub struct LedgerArgs {
    /// Where the ledger is: `sqlite:PATH`, `postgres://...` or `memory:` [default: sqlite:tidegate.db]. A URL with a
    /// password belongs into TIDEGATE_LEDGER_URL, or a file that TIDEGATE_LEDGER_URL_FILE names
    #[arg(long = "ledger", value_name = "URL")]
    pub ledger_url: Option<String>,
}

/// Settings of a node. Every one is a flag and a variable; an empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The catalog: meters, plans, routes
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CATALOG_FILE", default_value = "tidegate.toml")]
    pub config: PathBuf,
    /// Where the gateway listens, or `off` [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_GATEWAY_LISTEN")]
    pub gateway_listen: Option<String>,
    /// Where requests go that no route of the catalog sends elsewhere, e.g. http://127.0.0.1:3000
    #[arg(long = "upstream", value_name = "URL", env = "TIDEGATE_GATEWAY_UPSTREAM")]
    pub gateway_upstream: Option<String>,
    /// Where the API listens [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_API_LISTEN")]
    pub api_listen: Option<String>,
    /// Who may read /metrics of the API: `open` is everyone, `key` an admin or read key [default: open while the API
    /// listens on this machine alone, else key]
    #[arg(long, value_name = "open|key", env = "TIDEGATE_API_METRICS")]
    pub metrics: Option<String>,
    /// Which web pages may call the API (and read the gateway's own answers) from a browser: exact origins, separated
    /// by commas, e.g. `https://app.example.com` [default: none]
    #[arg(long, value_name = "ORIGINS", env = "TIDEGATE_API_CORS_ORIGINS")]
    pub cors_origins: Option<String>,
    /// Where the ledger is.
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// With a ledger on PostgreSQL: put the catalog file in force on every node, at start and on SIGHUP. Without it this
    /// node follows the catalog in the ledger, and the file counts only while the ledger has none
    #[arg(long)]
    pub apply: bool,
    /// A file that holds the first admin key (or the key itself in TIDEGATE_ADMIN_KEY). With neither, and no admin key
    /// in the ledger, a key is made and shown once
    #[arg(long, value_name = "FILE", env = "TIDEGATE_ADMIN_KEY_FILE")]
    pub admin_key_file: Option<String>,
    /// How long an id stays bound to what was accepted under it [default: 35d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_DEDUPE")]
    pub dedupe: Option<String>,
    /// How long entries stay in the journal before they are cut behind a sealed opening balance [default: 400d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_JOURNAL")]
    pub journal: Option<String>,
    /// How long denials can be explained [default: 90d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_DENIALS")]
    pub denials: Option<String>,
    /// How long history is kept by days, and totals of closed windows [default: 400d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_HISTORY")]
    pub history: Option<String>,
    /// How long history is kept by quarters of an hour, of which hours are made, and days of every time zone
    /// [default: 95d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_HISTORY_QUARTERS")]
    pub history_quarters: Option<String>,
    /// How long history is kept by minutes [default: 2d]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_HISTORY_MINUTES")]
    pub history_minutes: Option<String>,
    /// How the names of variables begin that the catalog may name for its snapshot sources: what this node has in other
    /// variables stays with the node [default: TIDEGATE_SOURCE_]
    #[arg(long, value_name = "PREFIX", env = "TIDEGATE_SNAPSHOTS_VARIABLES")]
    pub snapshots_variables: Option<String>,
    /// The directory below which the catalog may name files of secrets for its snapshot sources [default: none]
    #[arg(long, value_name = "DIRECTORY", env = "TIDEGATE_SNAPSHOTS_SECRETS")]
    pub snapshots_secrets: Option<PathBuf>,
    /// The directory below which the catalog may name SQLite files as snapshot sources [default: none]
    #[arg(long, value_name = "DIRECTORY", env = "TIDEGATE_SNAPSHOTS_SQLITE")]
    pub snapshots_sqlite: Option<PathBuf>,
    /// With a ledger on PostgreSQL: the file in which this node keeps what limits with outage = "open" let through while
    /// PostgreSQL is away. Its own, and on a disk that outlives the node
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LEDGER_SPOOL")]
    pub spool: Option<PathBuf>,
    /// How long a request under such limits waits for PostgreSQL before that counts as an outage [default: 1s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LEDGER_OUTAGE_AFTER")]
    pub outage_after: Option<String>,
    /// How long requests in flight may take to end after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<String>,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArgs,
    /// Let POST /api/v1/test/clock move the clock ahead. For tests only
    #[arg(long)]
    pub test_clock: bool,
    /// Print the settings in force, without secrets, and stop
    #[arg(long)]
    pub print_settings: bool,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How log lines look on stderr: `human` or `json` [default: human]
    #[arg(long, value_name = "FORMAT", env = "TIDEGATE_LOG_FORMAT")]
    pub log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,gateway=debug` [default: info]
    #[arg(long, value_name = "LEVEL", env = "TIDEGATE_LOG_LEVEL")]
    pub log_level: Option<String>,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Which example
    #[arg(value_enum, default_value_t = Example::Chat)]
    pub example: Example,
    /// Where the gateway listens; if the port is taken, a free one is used
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub gateway_listen: String,
    /// Where the API listens; if the port is taken, a free one is used
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub api_listen: String,
    /// No traffic in the background
    #[arg(long)]
    pub quiet: bool,
}

/// The examples that come with the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Example {
    /// An AI chat product: messages, conversation time, documents
    Chat,
    /// Software for bakeries: products, forecasts, API calls
    Bakery,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The file to write, or the directory to write `tidegate.toml` into
    #[arg(value_name = "FILE|DIR", default_value = "tidegate.toml")]
    pub target: PathBuf,
    /// Where your own server listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    pub upstream: String,
}

/// Arguments of `check-config`.
#[derive(Debug, Clone, Args)]
pub struct CheckConfigArgs {
    /// The catalog to check
    #[arg(value_name = "FILE", default_value = "tidegate.toml", env = "TIDEGATE_CATALOG_FILE")]
    pub file: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Which node is asked, and how the answer looks.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// The node's API [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL", env = "TIDEGATE_API_URL", global = true)]
    pub api_url: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Closing a day.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 every meter of every tenant; 1 some are lacking, and named; 2 nothing could be done."
)]
pub struct SnapshotArgs {
    /// The UTC day, as YYYY-MM-DD [default: yesterday]
    #[arg(long, value_name = "DAY")]
    pub day: Option<String>,
    /// Only this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Ask and count everything, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the values of each tenant
    #[arg(long, short)]
    pub verbose: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What can be done with catalogs.
#[derive(Debug, Clone, Subcommand)]
pub enum CatalogCommand {
    /// Check a catalog file and put it in force, whole, on every node
    Apply {
        /// The catalog
        #[arg(value_name = "FILE", default_value = "tidegate.toml")]
        file: PathBuf,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the versions that were put in force, newest first
    List {
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show a version's text; without one, that of the version in force
    Show {
        /// The version
        version: Option<u32>,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Have a tenant decided by one version, whatever is put in force later
    Pin {
        /// Its id
        tenant: String,
        /// The version
        #[arg(required_unless_present = "unpin", conflicts_with = "unpin")]
        version: Option<u32>,
        /// Follow the catalog in force again
        #[arg(long)]
        unpin: bool,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what a file would change
    Diff {
        /// The catalog
        #[arg(value_name = "FILE", default_value = "tidegate.toml")]
        file: PathBuf,
        /// Compare with this version instead of the one in force
        #[arg(long)]
        version: Option<u32>,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// What can be done with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key and show it, once. With --ledger and no running node, writes it into the file directly
    Create(KeysCreateArgs),
    /// List keys; their secrets are not stored and can't be shown
    List(NodeArgs),
    /// Revoke a key, at once and for good
    Revoke {
        /// The key's id, `key_...`
        id: String,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// Arguments of `keys create`.
#[derive(Debug, Clone, Args)]
pub struct KeysCreateArgs {
    /// What the key may do
    #[arg(long, value_enum)]
    pub scope: ScopeArg,
    /// The tenant, for scope `tenant`
    #[arg(long, value_name = "TENANT", required_if_eq("scope", "tenant"))]
    pub tenant: Option<String>,
    /// For people: what the key is for
    #[arg(long, default_value = "made on the command line")]
    pub name: String,
    /// Write into this ledger directly; no node may be running on it. `sqlite:PATH`
    #[arg(long = "ledger", value_name = "URL")]
    pub ledger_url: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Everything
    Admin,
    /// Send events, check, consume
    Ingest,
    /// Read everything, change nothing
    Read,
    /// One tenant: be identified at the gateway, read its own usage
    Tenant,
}

/// Arguments of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Whose token
    #[arg(long)]
    pub tenant: String,
    /// How long it is valid, at most 24h
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: String,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What can be done with tenants.
#[derive(Debug, Clone, Subcommand)]
pub enum TenantsCommand {
    /// List tenants
    List {
        /// How many at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one tenant
    Show {
        /// Its id
        tenant: String,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Create a tenant, or change what is given and leave the rest
    Set(TenantSetArgs),
}

/// Arguments of `tenants set`.
#[derive(Debug, Clone, Args)]
pub struct TenantSetArgs {
    /// Its id
    pub tenant: String,
    /// What it bought
    #[arg(long)]
    pub plan: Option<String>,
    /// `active` or `suspended`
    #[arg(long)]
    pub status: Option<String>,
    /// In which time zone its days and months are cut, e.g. Europe/Madrid
    #[arg(long)]
    pub timezone: Option<String>,
    /// Where its billing period is anchored, e.g. 2026-01-31T00:00:00Z
    #[arg(long, value_name = "INSTANT")]
    pub period_anchor: Option<String>,
    /// `on` refuses, `observe` only records
    #[arg(long)]
    pub enforce: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// Whose use
    pub tenant: String,
    /// Only this user's
    #[arg(long)]
    pub user: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What can be done with sessions.
#[derive(Debug, Clone, Subcommand)]
pub enum SessionsCommand {
    /// List the sessions of a tenant that are open
    List {
        /// Whose
        tenant: String,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End a session, whoever opened it; needs an admin key
    Close {
        /// The session's id, `ses_...`
        id: String,
        /// Which node.
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// Arguments of `denials`.
#[derive(Debug, Clone, Args)]
pub struct DenialsArgs {
    /// Only this tenant's
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only with this code, e.g. period_limit_reached
    #[arg(long)]
    pub code: Option<String>,
    /// Those that were only recorded (observe mode, shadow limits) instead of those that were refused
    #[arg(long)]
    pub shadow: bool,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The denial's id, `den_...`
    #[arg(value_name = "DENIAL_ID")]
    pub denial: String,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only this tenant's
    #[arg(long)]
    pub tenant: Option<String>,
    /// Start after this position of the journal instead of at its end
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// How many at most
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Go on showing new lines as they are written
    #[arg(long, short)]
    pub follow: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `forecast`.
#[derive(Debug, Clone, Args)]
pub struct ForecastArgs {
    /// Answer questions from standard input, one JSON object a line, each from its own line alone: id, kind (gauge or
    /// counter), history [{date, value}], limit, period_start, period_end
    #[arg(long, conflicts_with_all = ["tenant", "backtest", "meter", "plan", "status"])]
    pub jsonl: bool,
    /// Whose; without one, all tenants, those whose limits are reached first in front, as the last night foresaw them
    pub tenant: Option<String>,
    /// Ask the tenant's own past days, and say how the answers would have done
    #[arg(long, requires = "tenant")]
    pub backtest: bool,
    /// Of all tenants: only this meter
    #[arg(long, conflicts_with = "tenant")]
    pub meter: Option<String>,
    /// Of all tenants: only those on this plan
    #[arg(long, conflicts_with = "tenant")]
    pub plan: Option<String>,
    /// Of all tenants: only breached, critical, warning, safe, insufficient_data or unlimited
    #[arg(long, conflicts_with = "tenant")]
    pub status: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The ledger file, which no node may hold; without it, the ledger of TIDEGATE_LEDGER_URL (on PostgreSQL nodes may be at
    /// work)
    pub path: Option<PathBuf>,
    /// Where the ledger is.
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// The file to write; it must not exist
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Where the ledger is.
    #[command(flatten)]
    pub ledger: LedgerArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}
