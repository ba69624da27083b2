//! One of the two ledgers, whichever store it is in.

use super::{EntryRow, Page, Small, StateRow, States, Table, TotalRow, Totals};
use crate::{postgres::moving::PostgresSide, rows::HistoryRow, sqlite::moving::SqliteSide};
use engine::ports::{LedgerError, Snapshot, StoredDenial};

type Done<T> = Result<T, LedgerError>;

/// A ledger that is read, or made.
pub(crate) enum Side {
    Sqlite(Box<SqliteSide>),
    Postgres(Box<PostgresSide>),
}

impl Side {
    /// The rows of a table after those of the page before.
    pub(crate) async fn page(&mut self, table: Table, before: Option<&Page>) -> Done<Page> {
        Ok(match table {
            Table::States(of) => {
                let last = before.and_then(|page| if let Page::States(_, rows) = page { rows.last() } else { None });
                Page::States(of, self.states(of, last).await?)
            }
            Table::Totals(of) => {
                let last = before.and_then(|page| if let Page::Totals(_, rows) = page { rows.last() } else { None });
                Page::Totals(of, self.totals(of, last).await?)
            }
            Table::Denials => {
                let last = before.and_then(|page| if let Page::Denials(rows) = page { rows.last() } else { None });
                Page::Denials(self.denials(last.map_or(0, |row| row.id.0)).await?)
            }
            Table::History => {
                let last = before.and_then(|page| if let Page::History(rows) = page { rows.last() } else { None });
                Page::History(self.history(last).await?)
            }
            Table::Snapshots => {
                let last = before.and_then(|page| if let Page::Snapshots(rows) = page { rows.last() } else { None });
                Page::Snapshots(self.snapshots(last).await?)
            }
        })
    }

    /// Writes rows of a table.
    pub(crate) async fn put(&mut self, page: &Page) -> Done<()> {
        match page {
            Page::States(table, rows) => self.put_states(*table, rows).await,
            Page::Totals(table, rows) => self.put_totals(*table, rows).await,
            Page::Denials(rows) => self.put_denials(rows).await,
            Page::Snapshots(rows) => self.put_snapshots(rows).await,
            Page::History(rows) => self.put_history(rows).await,
        }
    }
}

/// Calls the same function of whichever store it is.
macro_rules! of_either {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        impl Side {
            $($(#[$doc])*
            pub(crate) async fn $name(&mut self, $($argument: $kind),*) -> Done<$result> {
                match self {
                    Side::Sqlite(side) => side.$name($($argument),*),
                    Side::Postgres(side) => side.$name($($argument),*).await,
                }
            })*
        }
    };
}

of_either! {
    /// How many entries there are.
    count() -> u64;
    /// How many rows there are beside the journal.
    rows() -> u64;
    /// Whether the journal was cut.
    is_cut() -> bool;
    /// Entries in the order of all, after the first `after`.
    entries(after: u64, limit: usize) -> Vec<EntryRow>;
    /// A batch of states, in order of tenant and user.
    states(table: States, after: Option<&StateRow>) -> Vec<StateRow>;
    /// A batch of totals, in order of their names.
    totals(table: Totals, after: Option<&TotalRow>) -> Vec<TotalRow>;
    /// A batch of denials, in order of id.
    denials(after: u128) -> Vec<StoredDenial>;
    /// A batch of snapshots, in order of day, tenant and meter.
    snapshots(after: Option<&Snapshot>) -> Vec<Snapshot>;
    /// A batch of history, in order of resolution and place.
    history(after: Option<&HistoryRow>) -> Vec<HistoryRow>;
    /// Secret, catalogs, keys and which days were closed.
    small() -> Small;
    /// Appends entries after the first `after`.
    put_entries(after: u64, rows: &[EntryRow]) -> ();
    /// Forgets everything but the journal and its ids.
    begin_folds() -> ();
    put_states(table: States, rows: &[StateRow]) -> ();
    put_totals(table: Totals, rows: &[TotalRow]) -> ();
    put_denials(rows: &[StoredDenial]) -> ();
    put_snapshots(rows: &[Snapshot]) -> ();
    put_history(rows: &[HistoryRow]) -> ();
    put_small(small: &Small) -> ();
    /// Writes what follows from all that was put.
    end_folds() -> ();
    /// The neutral positions that ids lead to.
    find(ids: &[(&str, u128)]) -> Vec<Option<i64>>;
    /// Puts the copy in its place.
    finish() -> ();
}
