//! The daily history: what every meter of every tenant stood at, or gained, by UTC day.

use super::{BoxFuture, LedgerError};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};

/// The fewest days that snapshots may be kept: what a forecast looks at.
pub const SNAPSHOT_DAYS_MIN: i32 = 60;

/// Where the value of a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotSource {
    /// Counted by this ledger.
    Ledger,
    /// Asked of a database or a service of the customer's.
    Collector,
    /// Told by the API.
    Pushed,
}

impl SnapshotSource {
    /// All, in the order in which they are written down: append, never reorder.
    pub const ALL: [SnapshotSource; 3] = [SnapshotSource::Ledger, SnapshotSource::Collector, SnapshotSource::Pushed];

    /// The place in [`SnapshotSource::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What is known of one day of one meter of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The UTC day.
    pub day: Day,
    /// Of a gauge the level at the day's end; of any other meter what that day alone used. In the meter's smallest unit.
    pub value: i64,
    /// Where a billing period ended within the day: how much of `value` was used after that (after the last, if there
    /// were several).
    pub after_reset: Option<i64>,
    /// When the value was looked at.
    pub observed_at: Instant,
    /// Where it comes from.
    pub source: SnapshotSource,
}

/// One row of the daily history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
    /// The day and its value.
    pub taken: Taken,
}

/// The daily history of a tenant, meters in order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSnapshots {
    /// Whose.
    pub tenant: TenantId,
    /// Every meter that has a row in the days asked for.
    pub meters: Vec<MeterSnapshots>,
}

/// The daily history of one meter of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterSnapshots {
    /// Of what.
    pub meter: MeterKey,
    /// Its days, oldest first; those without a row are left out.
    pub days: Vec<Taken>,
}

impl MeterSnapshots {
    /// Each day with its value.
    pub fn values(&self) -> impl Iterator<Item = (Day, i64)> + '_ {
        self.days.iter().map(|taken| (taken.day, taken.value))
    }

    /// Whether the newest day was told from outside.
    pub fn is_from_outside(&self) -> bool {
        self.days.last().is_some_and(|newest| newest.source != SnapshotSource::Ledger)
    }
}

/// Days from the first through the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub first: Day,
    /// The last, itself included.
    pub last: Day,
}

impl Days {
    /// Every day that there can be.
    pub const ALL: Days = Days { first: Day::MIN, last: Day::MAX };
    /// One day.
    pub fn only(day: Day) -> Self {
        Self { first: day, last: day }
    }
}

/// How the closing of a day went, when it was done last. One row a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRun {
    /// The day that was closed.
    pub day: Day,
    /// When that began.
    pub started_at: Instant,
    /// When it was through.
    pub ended_at: Instant,
    /// Tenants all of whose meters were written.
    pub tenants_done: u64,
    /// Tenants that lack a meter, or whose value was refused.
    pub tenants_failed: u64,
}

/// The book of snapshots. There is at most one row for a tenant, meter and day.
pub trait Snapshots: Send + Sync {
    /// Writes rows, durable when the future ends. A row that is there is overwritten, unless what is there was observed
    /// later: so the order in which rows come does not matter. Rows are written in slices: when it fails, some may be
    /// there, and the same call again gives what it would have given.
    fn put<'a>(&'a self, rows: Vec<Snapshot>) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// All meters of a tenant.
    fn of_tenant<'a>(
        &'a self,
        tenant: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<MeterSnapshots>, LedgerError>>;

    /// All meters of the tenants after one (of all, without one) through another, in order of their ids. Costs what the
    /// rows cost: page by the tenants that [`Ledger::tenants`](super::Ledger::tenants) lists, some hundreds at once.
    fn of_tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        through: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<TenantSnapshots>, LedgerError>>;

    /// A number that is another one after a row of the tenant, in these days, was written: what was read after the number
    /// is true for as long as it is the same. (It may be another one for other reasons.)
    fn version<'a>(&'a self, tenant: &'a TenantId, days: Days) -> BoxFuture<'a, Result<u64, LedgerError>>;

    /// Notes how the closing of a day went.
    fn put_run<'a>(&'a self, run: SnapshotRun) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// The days that were closed, oldest first.
    fn runs<'a>(&'a self, days: Days) -> BoxFuture<'a, Result<Vec<SnapshotRun>, LedgerError>>;

    /// Drops rows and runs of days before this one, in slices between commits.
    fn drop_before<'a>(&'a self, day: Day) -> BoxFuture<'a, Result<(), LedgerError>>;
}
