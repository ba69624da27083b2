//! What a ledger is asked for of history: rows of buckets, folded from the journal.

use super::{BoxFuture, LedgerError, Seq};
use domain::{
    history::{Amounts, KeptFrom, Place, Resolution, Rows},
    id::{TenantId, UserId},
    time::{Instant, Window},
};

/// What history there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryState {
    /// Every entry at or before this place in the [journal](super::Ledger::journal) is in the rows, and none after it.
    pub through: Seq,
    /// The latest instant of those entries.
    pub at: Instant,
    /// What ended before is dropped, or about to be.
    pub kept: KeptFrom,
}

/// Which rows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Of which length.
    pub resolution: Resolution,
    /// Buckets that begin in this stretch (and the one that its start lies in).
    pub window: Window,
    /// Those of users and dimensions, instead of those of the whole tenant.
    pub parts: bool,
    /// Of parts, only this user's.
    pub user: Option<UserId>,
    /// Only rows after this one.
    pub after: Option<Place>,
    /// How many at most.
    pub limit: usize,
}

/// Rows in order of place, and what they are complete through: one reading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// Of the same instant as the rows.
    pub state: HistoryState,
    /// The rows.
    pub rows: Vec<(Place, Amounts)>,
}

/// A ledger that keeps history.
pub trait HistoryLedger: Send + Sync {
    /// What history there is.
    fn state<'a>(&'a self) -> BoxFuture<'a, Result<HistoryState, LedgerError>>;

    /// Adds rows that are the fold of the journal's entries after `from`, through another place; `at` is the latest instant of
    /// those. All or nothing, durable when the future ends; false, and nothing happens, where `from` is not what
    /// the rows are complete through: somebody else was first.
    fn add<'a>(&'a self, from: Seq, through: Seq, at: Instant, rows: Rows) -> BoxFuture<'a, Result<bool, LedgerError>>;

    /// Rows of a tenant.
    fn page<'a>(&'a self, query: &'a HistoryQuery) -> BoxFuture<'a, Result<HistoryPage, LedgerError>>;

    /// Rows of whole tenants, of the bucket that begins at `start`, in order of tenant and meter, after a row.
    fn bucket<'a>(
        &'a self,
        resolution: Resolution,
        start: Instant,
        after: Option<&'a Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, LedgerError>>;

    /// Drops what is not kept any more, in slices between commits.
    fn drop_before<'a>(&'a self, kept: KeptFrom) -> BoxFuture<'a, Result<(), LedgerError>>;
}
