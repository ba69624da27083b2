//! Everything with an outside behind it. Stores load and append; they never decide.

mod forecasts;
mod history;
mod shared;
mod snapshots;
mod spool;

pub use crate::lines::{Decode, TailLines};
pub use forecasts::{
    FleetPlace, FleetQuery, ForecastDates, ForecastScore, Forecasts, KeptForecast, KeptMeasure, LatestForecast,
    MeterGrowth, NO_DAY, SCORE_COUNTS, SettledForecast,
};
pub use history::{HistoryLedger, HistoryPage, HistoryQuery, HistoryState};
pub use shared::{Basis, JobLease, Loaded, Published, SharedLedger, Signals};
pub use snapshots::{
    Days, MeterSnapshots, SNAPSHOT_DAYS_MIN, Snapshot, SnapshotRun, SnapshotSource, Snapshots, Taken, TenantSnapshots,
};
pub use spool::{OutageOptions, Spool, SpoolLine};

use domain::{
    catalog::Catalog,
    decision::Code,
    entry::{ClosedWindow, DenialRun, Entry},
    id::{MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use std::{fmt, future::Future, pin::Pin, sync::Arc};
use tokio::sync::oneshot;

/// A future that can be named.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A position: 1 for the first entry, 0 is before all. In an embedded ledger it counts all entries; in a
/// [`SharedLedger`] those of one tenant, except in [`Ledger::journal`], whose positions are places in the order of all.
pub type Seq = u64;

/// One line of the journal.
pub type Line = (Seq, TenantId, Entry);

/// Tells the time. The only source of `now`.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Instant;
    /// Milliseconds since some instant of this process, by a clock that neither stops nor jumps when the other one is set.
    fn steady_ms(&self) -> i64 {
        self.now().ms()
    }
}

/// Why the ledger could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The queue in front of the committer is full: try again shortly.
    #[error("the ledger has more waiting than it can take ({waiting} entries)")]
    Overloaded {
        /// How many entries wait.
        waiting: usize,
    },
    /// A commit failed, or one before it did; what was not acknowledged may not be on disk.
    #[error("the ledger can't be written: {0}")]
    Unwritable(Arc<str>),
    /// Something on disk can't be read, or is not what it was when it was written.
    #[error("the ledger is damaged: {0}")]
    Damaged(Arc<str>),
    /// The ledger can't be opened: another process holds it, its schema is newer, the path is wrong.
    #[error("the ledger can't be opened: {0}")]
    Unopenable(Arc<str>),
    /// Another node changed the tenant since it was loaded: nothing was written. Load it again, decide again.
    #[error("another node changed the tenant in between")]
    Stale,
    /// Another node put a newer catalog in force: nothing was written. Follow it, decide again.
    #[error("a newer catalog, version {in_force}, is in force")]
    CatalogBehind {
        /// Its version.
        in_force: u32,
    },
}

/// State as a fold of the journal through `seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The state.
    pub state: T,
    /// The last entry of the tenant (or user) that is folded into it.
    pub seq: Seq,
}

/// Entries of one tenant, in the order they were decided.
#[derive(Debug)]
pub struct Append {
    /// Whose.
    pub tenant: TenantId,
    /// What. Never empty.
    pub entries: Vec<Entry>,
    /// The position of the entry of the tenant that these follow; 0 for its first ones. Under a lease: the
    /// [place](leased_seq) of the entry before under it.
    pub follows: Seq,
    /// The lease they were made under. They are written only while it lasts, whatever else was written since, and get
    /// their positions then. Only a [`SharedLedger`] has any.
    pub under: Option<u64>,
    /// What they were decided on.
    pub basis: Arc<Basis>,
    /// `Some(seq)`: gateway traffic, which the ledger may add to a pending entry after `seq` that differs in its
    /// amounts alone (same user, dimensions, catalog and windows, no binding), as long as no other entry of the tenant
    /// came in between. `None`: each entry is its own row.
    pub fold_after: Option<Seq>,
    /// The version of the catalog that was in force when they were decided, where that is not the one they were decided
    /// on: their tenant is pinned to another.
    pub in_force: Option<u32>,
    /// Whether the caller waits for the commit.
    pub wait: bool,
}

impl Append {
    /// The first entries of a tenant, each its own row, waited for.
    pub fn new(tenant: TenantId, entries: Vec<Entry>) -> Self {
        Self {
            tenant,
            entries,
            follows: 0,
            under: None,
            basis: Arc::default(),
            fold_after: None,
            in_force: None,
            wait: true,
        }
    }
}

/// Set in what stands for the position of an entry that was made under a lease, until it is committed.
const LEASED: Seq = 1 << 63;
/// How many entries may be made under one lease.
pub const LEASED_ENTRIES_MAX: u64 = (1 << 24) - 1;

/// What stands for the position of the entry that was made as number `entries` under a lease, until it is committed.
/// Grows with the lease and with the number.
pub fn leased_seq(epoch: u64, entries: u64) -> Seq {
    LEASED | epoch << 24 | entries.min(LEASED_ENTRIES_MAX)
}

/// Which entry under its lease a [place](leased_seq) stands for; `None` for a position.
pub fn leased_entries(seq: Seq) -> Option<u64> {
    (seq & LEASED != 0).then_some(seq & LEASED_ENTRIES_MAX)
}

/// Where entries went.
#[derive(Debug)]
pub struct Appended {
    /// Position of the first entry (for folded traffic: of the entry it was added to). Under a lease: what stands for it
    /// ([`leased_seq`]) until it is committed; [`Ledger::find`] and [`Ledger::committed`] know it, [`Ledger::entry`] does
    /// not.
    pub first: Seq,
    /// Position of the last entry.
    pub last: Seq,
    /// Resolves when all of them are durable.
    pub commit: Commit,
}

/// A commit to wait for.
#[derive(Debug)]
pub enum Commit {
    /// Durable already, or nobody waits.
    Done,
    /// Not yet.
    Waiting(oneshot::Receiver<Result<(), LedgerError>>),
}

impl Commit {
    /// Waits until it is durable.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] when the commit failed or the committer is gone.
    pub async fn wait(self) -> Result<(), LedgerError> {
        match self {
            Commit::Done => Ok(()),
            Commit::Waiting(receiver) => {
                receiver.await.unwrap_or_else(|_| Err(LedgerError::Unwritable("the committer stopped".into())))
            }
        }
    }
}

/// What memory knows about an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Never seen inside the dedupe window.
    Fresh,
    /// Bound to the entry at this position (which may not be durable yet).
    Bound(Seq),
    /// Memory can't tell: ask the disk. The answer holds while the generation is the same.
    Unsure {
        /// Grows when ids move from memory to disk.
        generation: u64,
    },
}

/// State to write down: a tenant and those of its users that changed. **Written whole, in one transaction**, so that a
/// user's row is never ahead of its tenant's: on replay the tenant's `seq` alone says what is folded already. What is
/// written is the state without [`Accounts::closed`](domain::tenant::Accounts::closed), whose totals are added to
/// history in the same transaction, and without pending denials. A fold that is not newer than the stored row is
/// skipped, closed totals included.
#[derive(Debug, Clone)]
pub struct Fold {
    /// The tenant and the position of its last entry.
    pub tenant: Stored<Tenant>,
    /// Users that changed and the position of the last entry of each.
    pub users: Vec<Stored<User>>,
    /// The position of the last entry in the fold that this one goes on from; 0 if there was none. A [`SharedLedger`]
    /// skips a fold that goes on from another than the one it has, and outdates its basis.
    pub from: Seq,
    /// What it is a fold of.
    pub basis: Arc<Basis>,
}

/// A stored API key. The key itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Public id, `key_...`.
    pub id: Arc<str>,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// For people.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: KeyScope,
    /// When it was made.
    pub created_at: Instant,
    /// Who made it: another key's id, `bootstrap` or `cli`.
    pub created_by: Arc<str>,
    /// When it was revoked.
    pub revoked_at: Option<Instant>,
}

/// What an API key (or tenant token) may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScope {
    /// Everything.
    Admin,
    /// Send events, check, consume.
    Ingest,
    /// Read everything, change nothing.
    Read,
    /// One tenant: read its own usage, check and be identified at the gateway.
    Tenant(TenantId),
}

/// A catalog as it was put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCatalog {
    /// 1 for the first.
    pub version: u32,
    /// The text, whole.
    pub text: Arc<str>,
    /// When it was put in force.
    pub applied_at: Instant,
}

/// Which denials to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct DenialQuery {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only with this code.
    pub code: Option<Code>,
    /// Only about this meter.
    pub meter: Option<MeterKey>,
    /// Those that were only recorded, instead of those that were refused.
    pub shadow: bool,
    /// Only runs whose first denial is before this place (from the last row of the page before).
    pub before: Option<DenialPlace>,
    /// How many at most.
    pub limit: usize,
}

/// The place of a denial in the listing: newest first, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DenialPlace {
    /// When its first denial happened.
    pub first_at: Instant,
    /// Its id.
    pub id: DenialId,
}

/// Names a run of identical denials. Shown as `den_` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialId(pub u128);

impl fmt::Display for DenialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "den_{:032x}", self.0)
    }
}

impl DenialId {
    /// Reads what [`DenialId`] shows.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("den_").filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

/// A run of identical denials as it stands in the ledger: [`DenialRun::count`] and amount are totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDenial {
    /// Its id.
    pub id: DenialId,
    /// Whose.
    pub tenant: TenantId,
    /// What happened.
    pub run: DenialRun,
}

/// A closed window's totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedRow {
    /// Which meter.
    pub meter: MeterKey,
    /// Which window.
    pub closed: ClosedWindow,
    /// Use.
    pub used: i64,
    /// Unmet demand.
    pub denied: i64,
}

/// Figures for `/metrics`. All are since the ledger was opened unless they say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LedgerStats {
    /// Last durable position.
    pub committed_seq: Seq,
    /// Entries waiting for a commit, now.
    pub queue_entries: u64,
    /// Commits made.
    pub commits: u64,
    /// Entries committed.
    pub entries: u64,
    /// Time spent in commits, microseconds.
    pub commit_us: u64,
    /// The longest commit, microseconds.
    pub commit_max_us: u64,
    /// Commits that failed.
    pub commit_failures: u64,
    /// Entries after the last checkpoint, now.
    pub tail_entries: u64,
    /// Folds written.
    pub checkpoint_rows: u64,
    /// Time spent writing folds, microseconds.
    pub checkpoint_us: u64,
    /// Ids held in memory, now.
    pub recent_ids: u64,
    /// Sealed runs of ids, now.
    pub id_runs: u64,
    /// Memory of the filters, bytes, now.
    pub filter_bytes: u64,
    /// Look-ups of ids that had to read the disk.
    pub id_disk_reads: u64,
    /// Size of the file and its log, bytes, now.
    pub file_bytes: u64,
}

/// How long things are kept. All are measured from arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long an id stays bound. At least this long: runs are dropped whole.
    pub dedupe_ms: i64,
    /// How long entries stay in the journal before they are cut behind a sealed opening balance. Never less than
    /// `dedupe_ms`, and never inside an open period.
    pub journal_ms: i64,
    /// How long denials can be explained.
    pub denials_ms: i64,
    /// How long totals of closed windows can be asked for.
    pub history_ms: i64,
}

/// What was decided, for metrics. Never names a tenant.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The door.
    pub cause: domain::entry::Cause,
    /// The plan.
    pub plan: &'a PlanKey,
    /// The code of the answer; of a shadowed refusal when `shadow`.
    pub code: Code,
    /// The meter, if the answer is about one.
    pub meter: Option<&'a MeterKey>,
    /// The feature, if the answer is about one.
    pub feature: Option<&'a domain::id::FeatureKey>,
    /// Whether this would have been refused, had the limit been hard or enforcement on.
    pub shadow: bool,
    /// Whether it was only asked, not consumed.
    pub dry: bool,
}

/// Brings this node to the catalog in force, when a commit says that it is behind.
pub trait Follower: Send + Sync {
    /// Ends when the catalog of this version, or a newer one, decides here, or can't be had.
    fn follow<'a>(&'a self, in_force: u32) -> BoxFuture<'a, ()>;
}

/// Reads the catalogs that tenants are pinned to.
pub trait CatalogReader: Send + Sync {
    /// What a catalog means that was in force once.
    ///
    /// # Errors
    /// What is wrong with it, for this version of the program.
    fn read(&self, text: &str) -> Result<Catalog, Arc<str>>;
}

/// Told of every decision. Must be quick: called on the request path.
pub trait Observer: Send + Sync {
    /// A decision was made.
    fn decided(&self, decided: &Decided<'_>);
}

/// The account book. Every call may come from any thread. An embedded one has this process as its only writer; for one
/// that has more, see [`SharedLedger`].
pub trait Ledger: Send + Sync {
    /// The ledger as one that other nodes write to as well, if it is.
    fn shared(&self) -> Option<&dyn SharedLedger> {
        None
    }

    /// The daily history that is kept beside the accounts.
    fn snapshots(&self) -> &dyn Snapshots;

    /// The forecasts that are kept, where any are.
    fn forecasts(&self) -> Option<&dyn Forecasts> {
        None
    }

    /// The history that the ledger keeps, if it does. Where it does, no entry is cut that is not in it.
    fn history(&self) -> Option<&dyn HistoryLedger> {
        None
    }

    /// The state of a tenant as of its last checkpoint, with the tail folded in by the engine at start.
    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>>;

    /// The state of a user.
    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>>;

    /// Every entry after the last complete checkpoint. Called once, before anything is appended (and again after
    /// [`Ledger::reopen`]). A tenant's row may be newer than some of these: the engine skips what the row's `seq` covers.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where an entry can't be read.
    fn tail(&self) -> Result<TailLines, LedgerError>;

    /// Whether entries can be queued: asked before anything is decided, so that no decision is made that can't be kept.
    /// The bound of the queue is soft: those who asked just before it was reached may still append.
    ///
    /// # Errors
    /// [`LedgerError::Overloaded`] when the queue is full, [`LedgerError::Unwritable`] after a failed commit, until
    /// [`Ledger::reopen`].
    fn ready(&self) -> Result<(), LedgerError>;

    /// Queues entries for the next group commit and gives them their positions. Called under the tenant's lock, so the
    /// order of a tenant's entries is the order of its decisions. Ids bound by the entries are known to
    /// [`Ledger::find`] from here on.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] after a failed commit, until [`Ledger::reopen`]. Never `Overloaded`: what was
    /// decided is taken.
    fn append(&self, append: Append) -> Result<Appended, LedgerError>;

    /// A commit that resolves when everything of the tenant through `seq` is durable.
    fn committed(&self, tenant: &TenantId, seq: Seq) -> Commit;

    /// What memory knows about an id of a tenant.
    fn find(&self, tenant: &TenantId, id: u128) -> Lookup;

    /// What the disk knows about an id of a tenant.
    fn find_on_disk<'a>(&'a self, tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>>;

    /// One durable entry of a tenant; `None` if it was cut.
    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>>;

    /// Durable entries after `after`, in order, at most `limit`, in one short read.
    fn journal<'a>(&'a self, after: Seq, limit: usize) -> BoxFuture<'a, Result<Vec<Line>, LedgerError>>;

    /// Writes folds down, after every entry queued before this call is durable, in slices between commits. With
    /// `complete_through`, everything through that position is then in folds, and the tail begins after it.
    fn checkpoint(&self, folds: Vec<Fold>, complete_through: Option<Seq>) -> Commit;

    /// After a failed commit: closes and opens the ledger anew. What was acknowledged is there; what was not may be.
    ///
    /// # Errors
    /// As when it was opened first.
    fn reopen(&self) -> Result<(), LedgerError>;

    /// Tenants in order of id, after `after`: those with a fold; where other nodes write as well, all with an entry.
    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>>;

    /// The plans of all tenants with a fold; in a [`SharedLedger`], of all tenants.
    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>>;

    /// Denials, newest first, written down or queued.
    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>>;

    /// One denial.
    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>>;

    /// Totals of a tenant's (or user's) closed windows that were checkpointed, oldest first.
    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>>;

    /// Every API key, revoked ones included.
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>>;

    /// Writes a key, durable when the future ends. Replaces the one with the same id.
    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// The catalog put in force last.
    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>>;

    /// Every catalog that was in force, oldest first.
    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>>;

    /// Puts a catalog in force and gives it its version, durable when the future ends.
    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>>;

    /// A secret made when the ledger was, under which ids are hashed and tenant tokens signed.
    fn secret(&self) -> [u8; 32];

    /// Drops what is past its time, in slices between commits. Safe to call at any time; does nothing when there is
    /// nothing to do.
    fn retain<'a>(&'a self, retention: Retention, now: Instant) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Figures.
    fn stats(&self) -> LedgerStats;
}
