//! The sealed runs in force, as they are held in memory: their rows, and the filters there is room for.

use super::{
    filter::{Block, Filter, Probe},
    tables::{self, RunRow, damaged},
    writer::PART_BLOCKS,
};
use engine::ports::{LedgerError, Seq};
use rusqlite::Connection;
use std::sync::Arc;

/// A run and, if there is room, its filter.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) row: RunRow,
    pub(super) filter: Option<Arc<Filter>>,
    /// Its filter can't be read: it must be written anew.
    pub(super) filter_damaged: bool,
    /// One of its pages can't be read, so that it can't be written anew.
    pub(super) page_damaged: bool,
}

impl Run {
    pub(super) fn new(row: RunRow, filter: Option<Arc<Filter>>) -> Self {
        Self { row, filter, filter_damaged: false, page_damaged: false }
    }

    pub(super) fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.bytes())
    }

    fn may_hold(&self, probe: &Probe) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_hold(probe))
    }
}

/// What a run says about an id.
enum Answer {
    Absent,
    Bound(Seq),
    PageMissing(u32),
}

/// What all runs of a list say about an id.
pub(super) enum Found {
    Absent,
    Bound(Seq),
    /// A page is not there: the list is out of date, or the page was lost.
    PageMissing {
        run: u32,
        page: u32,
    },
}

/// The runs in force at one time, newest first.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    /// The filters again, side by side: these are read for every id.
    filters: Vec<Arc<Filter>>,
    unfiltered: usize,
}

impl Runs {
    pub(super) fn new(mut runs: Vec<Run>) -> Self {
        runs.sort_by_key(|run| std::cmp::Reverse((run.row.last_ms, run.row.last_seq)));
        let filters: Vec<_> = runs.iter().filter_map(|run| run.filter.clone()).collect();
        Self { unfiltered: runs.len() - filters.len(), runs, filters }
    }

    pub(super) fn all(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn get(&self, run: u32) -> Option<&Run> {
        self.runs.iter().find(|known| known.row.run == run)
    }

    /// Runs whose filter is not in memory.
    pub(super) fn unfiltered(&self) -> usize {
        self.unfiltered
    }

    pub(super) fn filter_bytes(&self) -> usize {
        self.filters.iter().map(|filter| filter.bytes()).sum()
    }

    /// `false` only if no run has this id.
    pub(super) fn may_hold(&self, id: u128) -> bool {
        let probe = Probe::new(id);
        self.unfiltered > 0 || self.filters.iter().any(|filter| filter.may_hold(&probe))
    }

    /// The same runs without `gone`, with `added`, and with the oldest filters dropped until what is left fits.
    pub(super) fn replaced(&self, gone: &[u32], added: Option<Run>, budget_bytes: usize) -> Self {
        let kept = self.runs.iter().filter(|run| !gone.contains(&run.row.run)).cloned();
        let mut runs = Self::new(kept.chain(added).collect()).runs;
        let mut bytes: usize = runs.iter().map(Run::filter_bytes).sum();
        for run in runs.iter_mut().rev() {
            if bytes > budget_bytes {
                bytes -= run.filter_bytes();
                run.filter = None;
            }
        }
        Self::new(runs)
    }

    /// The same runs, one of them changed.
    pub(super) fn changed(&self, run: u32, change: impl FnOnce(&mut Run)) -> Self {
        let mut runs = self.runs.clone();
        if let Some(run) = runs.iter_mut().find(|known| known.row.run == run) {
            change(run);
        }
        Self::new(runs)
    }

    /// Looks into the pages of every run that may have the id.
    pub(super) fn find_on_disk(&self, conn: &Connection, id: u128) -> Result<Found, LedgerError> {
        let probe = Probe::new(id);
        for run in self.runs.iter().filter(|run| run.may_hold(&probe)) {
            match find_in(conn, &run.row, id)? {
                Answer::Absent => {}
                Answer::Bound(seq) => return Ok(Found::Bound(seq)),
                Answer::PageMissing(page) => return Ok(Found::PageMissing { run: run.row.run, page }),
            }
        }
        Ok(Found::Absent)
    }
}

fn find_in(conn: &Connection, row: &RunRow, id: u128) -> Result<Answer, LedgerError> {
    let number = row.shape.page_of(id);
    Ok(match tables::page(conn, row.run, number, |body| row.shape.find(body, id))? {
        Some(Some(seq)) => Answer::Bound(seq),
        Some(None) => Answer::Absent,
        None => Answer::PageMissing(number),
    })
}

/// A filter on its way from disk to memory.
pub(super) struct Load {
    row: RunRow,
    blocks: Vec<Block>,
}

impl Load {
    pub(super) fn new(row: RunRow) -> Self {
        Self { row, blocks: Vec::with_capacity(row.filter_blocks as usize) }
    }

    pub(super) fn run(&self) -> u32 {
        self.row.run
    }

    /// Memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.row.filter_bytes()
    }

    /// Reads one part more. `Ok(false)` if there is none left to read.
    pub(super) fn step(&mut self, conn: &Connection) -> Result<bool, LedgerError> {
        let missing = self.row.filter_blocks as usize - self.blocks.len();
        if missing == 0 {
            return Ok(false);
        }
        let part = self.blocks.len() / PART_BLOCKS;
        let expected = missing.min(PART_BLOCKS);
        let before = self.blocks.len();
        let read = tables::filter_part(conn, self.row.run, part as u32, |body| {
            self.blocks.extend(body.as_chunks().0.iter().map(Block::read));
        })?;
        if read && self.blocks.len() - before == expected {
            Ok(true)
        } else {
            Err(damaged(format!("part {part} of the filter of id run {}", self.row.run)))
        }
    }

    pub(super) fn finish(self) -> Arc<Filter> {
        Arc::new(Filter::new(self.blocks))
    }
}
