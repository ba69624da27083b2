//! A ledger moved from one store to another: SQLite to PostgreSQL, or back.
//!
//! Both stores are read and written as the same neutral rows: a tenant's positions are counted from 1 (from 2 where its
//! journal was cut: what was cut is at 1), and states stand at those positions. So the journal's order of all, each
//! tenant's own order, every state and every total can be compared row by row afterwards, which [`copy`] does.
//!
//! The copy is made beside the place where it is to stand (a file with another name, a schema with another name) and
//! takes that place when it is whole and was compared: no node can ever start on half a copy. Batches of the journal are
//! counted in the copy itself; one that was interrupted goes on behind the last batch.

mod compare;
mod side;

use crate::{postgres::moving::PostgresSide, rows::HistoryRow, sqlite::moving::SqliteSide};
use domain::{history::KeptFrom, time::Instant};
use engine::ports::{
    ApiKey, ForecastScore, LedgerError, MeterGrowth, Snapshot, SnapshotRun, StoredCatalog, StoredDenial,
};
use side::Side;
use std::path::PathBuf;

pub use crate::verify::Progress;

/// Rows of one batch.
pub(crate) const BATCH_ROWS: usize = 10_000;

/// Where a ledger is.
#[derive(Clone)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A URL, which may hold a password.
    Postgres(String),
}

/// What was copied and found equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Entries.
    pub entries: u64,
    /// Entries that an earlier run had copied.
    pub resumed_at: u64,
    /// Ids that lead to their entries.
    pub ids: u64,
    /// Tenants.
    pub tenants: u64,
    /// Users.
    pub users: u64,
    /// Totals of closed windows.
    pub closed: u64,
    /// Denials.
    pub denials: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Rows of history.
    pub history: u64,
    /// API keys.
    pub keys: u64,
    /// Catalogs.
    pub catalogs: u64,
}

/// What all rows belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Small {
    pub(crate) secret: [u8; 32],
    pub(crate) catalogs: Vec<StoredCatalog>,
    pub(crate) keys: Vec<ApiKey>,
    pub(crate) runs: Vec<SnapshotRun>,
    pub(crate) scores: Vec<ForecastScore>,
    pub(crate) growth: Vec<MeterGrowth>,
    pub(crate) history: CopiedHistory,
}

/// What history there is: through how many of the entries, and the rest of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopiedHistory {
    pub(crate) entries: u64,
    pub(crate) at: Instant,
    pub(crate) kept: KeptFrom,
}

/// An entry; its place in the order of all is its place in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryRow {
    pub(crate) tenant: Box<str>,
    pub(crate) seq: i64,
    pub(crate) at_ms: i64,
    pub(crate) body: Vec<u8>,
}

/// A state. The user is empty for the tenant's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateRow {
    pub(crate) tenant: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) seq: i64,
    pub(crate) body: Vec<u8>,
}

/// A total of a closed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TotalRow {
    pub(crate) tenant: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) start_ms: i64,
    pub(crate) kind: i16,
    pub(crate) meter: Box<str>,
    pub(crate) end_ms: i64,
    pub(crate) used: i64,
    pub(crate) denied: i64,
}

/// Tables of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum States {
    Tenants,
    Users,
    Openings,
}

/// Tables of totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Totals {
    Live,
    Opening,
}

/// Everything but the journal and what is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    States(States),
    Totals(Totals),
    Denials,
    Snapshots,
    History,
}

impl Table {
    const ALL: [Table; 8] = [
        Table::States(States::Tenants),
        Table::States(States::Users),
        Table::States(States::Openings),
        Table::Totals(Totals::Live),
        Table::Totals(Totals::Opening),
        Table::Denials,
        Table::Snapshots,
        Table::History,
    ];
}

/// Rows of one table, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Page {
    States(States, Vec<StateRow>),
    Totals(Totals, Vec<TotalRow>),
    Denials(Vec<StoredDenial>),
    Snapshots(Vec<Snapshot>),
    History(Vec<HistoryRow>),
}

impl Page {
    fn len(&self) -> usize {
        match self {
            Page::States(_, rows) => rows.len(),
            Page::Totals(_, rows) => rows.len(),
            Page::Denials(rows) => rows.len(),
            Page::Snapshots(rows) => rows.len(),
            Page::History(rows) => rows.len(),
        }
    }
}

/// Shows every page of every table, with the one before it.
async fn each_page(
    source: &mut Side,
    mut visit: impl AsyncFnMut(Table, Option<&Page>, &Page) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    for table in Table::ALL {
        let mut before = None;
        loop {
            let page = source.page(table, before.as_ref()).await?;
            visit(table, before.as_ref(), &page).await?;
            if page.len() < BATCH_ROWS {
                break;
            }
            before = Some(page);
        }
    }
    Ok(())
}

/// Copies a ledger that no node runs on, compares the copy with it row by row, and puts it in its place.
///
/// # Errors
/// [`LedgerError::Unopenable`] where one of them can't be opened, is in use, or there is a ledger at `to` already;
/// [`LedgerError::Damaged`] where something can't be read, or the copy is not what was copied;
/// [`LedgerError::Unwritable`] where the copy can't be written. What was copied so far is kept for the next run.
pub async fn copy(from: &Place, to: &Place, progress: &mut dyn FnMut(Progress)) -> Result<CopyReport, LedgerError> {
    let mut source = match from {
        Place::Sqlite(path) => Side::Sqlite(SqliteSide::source(path)?.into()),
        Place::Postgres(url) => Side::Postgres(PostgresSide::source(url).await?.into()),
    };
    let small = source.small().await?;
    let entries = source.count().await?;
    let cut = source.is_cut().await?;
    let mut target = match to {
        Place::Sqlite(path) => Side::Sqlite(SqliteSide::target(path, &small.secret, cut)?.into()),
        Place::Postgres(url) => Side::Postgres(PostgresSide::target(url, &small.secret).await?.into()),
    };
    let resumed_at = target.count().await?;
    if resumed_at > entries {
        return Err(LedgerError::Unopenable(
            "an earlier copy beside the target is longer than the ledger to be copied: remove it and begin anew".into(),
        ));
    }
    // Copying and comparing read everything once each.
    let all = entries + source.rows().await?;
    let total = all.saturating_mul(2).max(1);
    let mut copied = |done| progress(Progress { done, total });
    copy_journal(&mut source, &mut target, resumed_at, entries, &mut copied).await?;
    copy_folds(&mut source, &mut target, &small, &mut |rows| copied(entries + rows)).await?;
    let mut compared = |done| progress(Progress { done: all + done, total });
    let mut report = compare::compare(&mut source, &mut target, &mut compared).await?;
    report.resumed_at = resumed_at;
    target.finish().await?;
    progress(Progress { done: total, total });
    Ok(report)
}

async fn copy_journal(
    source: &mut Side,
    target: &mut Side,
    from: u64,
    entries: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LedgerError> {
    let mut done = from;
    while done < entries {
        let rows = source.entries(done, BATCH_ROWS).await?;
        if rows.is_empty() {
            return Err(LedgerError::Damaged(format!("{} entries are missing", entries - done).into()));
        }
        target.put_entries(done, &rows).await?;
        done += rows.len() as u64;
        progress(done);
    }
    Ok(())
}

/// Everything but the journal. It is written anew by each run.
async fn copy_folds(
    source: &mut Side,
    target: &mut Side,
    small: &Small,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LedgerError> {
    target.begin_folds().await?;
    let mut done = 0;
    each_page(source, async |_, _, page| {
        target.put(page).await?;
        done += page.len() as u64;
        progress(done);
        Ok(())
    })
    .await?;
    target.put_small(small).await?;
    target.end_folds().await
}
