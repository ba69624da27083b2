//! Which ids are bound, and to which entry of the journal.
//!
//! Recent ids are in memory. Once enough have gathered they are sealed: written in order into a run that is never
//! changed. Runs of one period of arrival are merged, so that there are few, and dropped whole when the dedupe window
//! has passed. A filter per run, in memory within a budget, answers "never seen" for nearly every fresh id; where it
//! can't, the disk is asked: one page of each run that may have the id. A filter may cost time, never correctness.
//!
//! Everything here is a fold of the journal. [`IdIndex::open`] says from where the caller must replay it.
//!
//! | file | what |
//! |---|---|
//! | `recent` | the ids in memory |
//! | `page`, `filter` | the two encodings of a run |
//! | `writer`, `merge` | how a run comes to be |
//! | `runs` | the runs in force and their filters |
//! | `plan` | which runs to merge and drop |
//! | `upkeep` | the work between commits, in slices |
//! | `tables` | SQL |

mod filter;
mod merge;
mod page;
mod plan;
mod recent;
mod runs;
mod tables;
mod upkeep;
mod writer;

#[cfg(test)]
mod tests;

use arc_swap::ArcSwap;
use engine::ports::{LedgerError, Lookup, Seq};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How much memory the index may take, and how much there is to replay at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// For filters. Beyond it the filters of the oldest runs are not in memory, and every id not recent costs a read.
    pub filter_budget_bytes: usize,
    /// How many recent ids are sealed into a run.
    pub seal_ids: usize,
    /// After how many positions of the journal recent ids are sealed, however few they are.
    pub seal_positions: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter_budget_bytes: 192 << 20, seal_ids: 500_000, seal_positions: 1_000_000 }
    }
}

/// When a slice of upkeep happens.
#[derive(Debug, Clone, Copy)]
struct Moment {
    committed_seq: Seq,
    now_ms: i64,
    dedupe_ms: i64,
}

/// Figures, all of now but `disk_reads`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdStats {
    /// Ids in memory.
    pub recent_ids: u64,
    /// Ids in runs.
    pub sealed_ids: u64,
    /// Sealed runs.
    pub runs: u64,
    /// Runs whose filter is not in memory.
    pub unfiltered_runs: u64,
    /// Memory of the filters.
    pub filter_bytes: u64,
    /// Every id bound at or before this position is in a run.
    pub sealed_through: Seq,
    /// Look-ups on disk since the index was opened.
    pub disk_reads: u64,
}

/// The index. Ids are keyed hashes: their bits must be uniform.
pub struct IdIndex {
    options: Options,
    recent: recent::Recent,
    runs: ArcSwap<runs::Runs>,
    generation: AtomicU64,
    sealed_through: AtomicU64,
    disk_reads: AtomicU64,
    unpublished_filter_bytes: AtomicUsize,
    upkeep: Mutex<upkeep::Upkeep>,
}

impl IdIndex {
    /// Makes the tables where they are missing.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn create_tables(conn: &Connection) -> Result<(), LedgerError> {
        tables::create(conn)
    }

    /// Opens the index, with as many filters as there is room for, the newest first. The caller must
    /// [`insert`](Self::insert) again what the journal binds after the returned position. Writes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where the tables are not what they were. Damaged pages show when they are asked for, and
    /// a damaged filter is only logged: it costs time until [`maintain`](Self::maintain) has written it anew.
    pub fn open(conn: &Connection, options: Options) -> Result<(Self, Seq), LedgerError> {
        let sealed_through = tables::sealed_through(conn)?;
        let rows = tables::runs(conn)?.into_iter().map(|row| runs::Run::new(row, None)).collect();
        let index = Self {
            options,
            recent: recent::Recent::new(),
            runs: ArcSwap::from_pointee(runs::Runs::new(rows)),
            generation: AtomicU64::new(0),
            sealed_through: AtomicU64::new(sealed_through),
            disk_reads: AtomicU64::new(0),
            unpublished_filter_bytes: AtomicUsize::new(0),
            upkeep: Mutex::new(upkeep::Upkeep::new(tables::last_run(conn)?, sealed_through)),
        };
        index.load_all(conn)?;
        Ok((index, sealed_through))
    }

    /// Binds an id to the entry at `seq`. Must happen before that entry can be committed. What is sealed already is
    /// passed over, so that a replay may begin too early.
    pub fn insert(&self, id: u128, seq: Seq) {
        if seq > self.sealed_through.load(Ordering::Acquire) {
            self.recent.insert(id, seq);
        }
    }

    /// What memory knows about an id.
    pub fn find(&self, id: u128) -> Lookup {
        if let Some(seq) = self.recent.get(id) {
            return Lookup::Bound(seq);
        }
        // After the recent ids: what has left them meanwhile is in the runs and has changed the generation.
        let generation = self.generation.load(Ordering::Acquire);
        if self.runs.load().may_hold(id) { Lookup::Unsure { generation } } else { Lookup::Fresh }
    }

    /// What the sealed runs know about an id. `conn` must not be inside a transaction, whose view might be older than
    /// the runs.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where the page that would have the id can't be read.
    pub fn find_on_disk(&self, conn: &Connection, id: u128) -> Result<Option<Seq>, LedgerError> {
        self.disk_reads.fetch_add(1, Ordering::Relaxed);
        let mut runs = self.runs.load_full();
        loop {
            match runs.find_on_disk(conn, id)? {
                runs::Found::Bound(seq) => return Ok(Some(seq)),
                runs::Found::Absent => return Ok(None),
                runs::Found::PageMissing { run, page } => {
                    let now = self.runs.load_full();
                    if Arc::ptr_eq(&runs, &now) {
                        return Err(tables::damaged(format!("page {page} of id run {run} is missing")));
                    }
                    runs = now;
                }
            }
        }
    }

    /// Called between commits by the one thread that writes: does one slice of what there is to do, in a transaction of
    /// its own that is meant to take no longer than `budget`, commit included. Says whether there is more to do. Quick
    /// when there is nothing.
    ///
    /// # Errors
    /// When the slice could not be written. No id is lost by it.
    pub fn maintain(
        &self,
        conn: &mut Connection,
        committed_seq: Seq,
        now_ms: i64,
        dedupe_ms: i64,
        budget: Duration,
    ) -> Result<bool, LedgerError> {
        let moment = Moment { committed_seq, now_ms, dedupe_ms };
        self.slice(&mut self.upkeep.lock(), conn, moment, upkeep::Slice::Lasting(budget))
    }

    /// Figures.
    pub fn stats(&self) -> IdStats {
        let runs = self.runs.load();
        IdStats {
            recent_ids: self.recent.len() as u64,
            sealed_ids: runs.all().iter().map(|run| run.row.ids).sum(),
            runs: runs.all().len() as u64,
            unfiltered_runs: runs.unfiltered() as u64,
            filter_bytes: (runs.filter_bytes() + self.unpublished_filter_bytes.load(Ordering::Relaxed)) as u64,
            sealed_through: self.sealed_through.load(Ordering::Acquire),
            disk_reads: self.disk_reads.load(Ordering::Relaxed),
        }
    }
}
