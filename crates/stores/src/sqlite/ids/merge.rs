//! Many runs into one.

use super::{
    tables::{self, RunRow, damaged},
    writer::RunWriter,
};
use engine::ports::{LedgerError, Seq};
use rusqlite::Connection;

/// A run being read in order.
struct Source {
    row: RunRow,
    next_page: u32,
    entries: std::vec::IntoIter<(u128, Seq)>,
    head: Option<(u128, Seq)>,
}

impl Source {
    fn new(row: RunRow) -> Self {
        Self { row, next_page: 0, entries: Vec::new().into_iter(), head: None }
    }

    fn advance(&mut self, conn: &Connection) -> Result<(), MergeError> {
        self.head = self.entries.next();
        while self.head.is_none() && self.next_page < self.row.shape.pages {
            let page = tables::page(conn, self.row.run, self.next_page, |body| self.row.shape.entries(body));
            let entries = page.and_then(|page| {
                page.ok_or_else(|| damaged(format!("page {} of id run {}", self.next_page, self.row.run)))
            });
            self.entries = entries.map_err(|error| MergeError::in_source(error, self.row.run))?.into_iter();
            self.next_page += 1;
            self.head = self.entries.next();
        }
        Ok(())
    }
}

/// Why a merge can't go on.
pub(super) enum MergeError {
    /// A source can't be read: leave it as it is.
    Source {
        run: u32,
        error: LedgerError,
    },
    Ledger(LedgerError),
}

impl MergeError {
    fn in_source(error: LedgerError, run: u32) -> Self {
        match error {
            LedgerError::Damaged(_) => Self::Source { run, error },
            error => Self::Ledger(error),
        }
    }
}

impl From<rusqlite::Error> for MergeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Ledger(tables::failed(error))
    }
}

/// Runs on their way into one.
pub(super) struct Merge {
    sources: Vec<Source>,
    pub(super) writer: RunWriter,
    started: bool,
}

impl Merge {
    /// `sources` are given newest first: of two positions of an id the newer one stays.
    pub(super) fn new(sources: Vec<RunRow>, writer: RunWriter) -> Self {
        Self { sources: sources.into_iter().map(Source::new).collect(), writer, started: false }
    }

    pub(super) fn source_runs(&self) -> Vec<u32> {
        self.sources.iter().map(|source| source.row.run).collect()
    }

    /// Does `units` of work or a little more. `true` when all ids are written.
    pub(super) fn step(&mut self, conn: &Connection, units: usize) -> Result<(usize, bool), MergeError> {
        if !self.started {
            for source in &mut self.sources {
                source.advance(conn)?;
            }
            self.started = true;
        }
        let mut done = 0;
        while done < units {
            let smallest = self.sources.iter_mut().filter(|source| source.head.is_some());
            let Some(source) = smallest.min_by_key(|source| source.head.map(|(id, _)| id)) else {
                return Ok((done, true));
            };
            let Some((id, seq)) = source.head else { return Ok((done, true)) };
            done += self.writer.push(conn, id, seq)?;
            source.advance(conn)?;
        }
        Ok((done, false))
    }
}
