//! Writes one run, in order, page by page. Nobody sees it until its row is written.

use super::{
    filter::{self, BLOCK_BYTES, Block, Filter},
    page::{self, Shape},
    tables::{self, RunRow},
};
use engine::ports::Seq;
use rusqlite::Connection;
use std::sync::Arc;

/// Blocks in one row of a filter: 64 KiB.
pub(super) const PART_BLOCKS: usize = 1024;

/// A part of a filter counts as much work as this many pages.
pub(super) const PART_UNITS: usize = 16;

/// Which ids a new run will have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) run: u32,
    /// At most so many.
    pub(super) ids: u64,
    pub(super) first_seq: Seq,
    pub(super) last_seq: Seq,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// Whether the filter stays in memory when the run is done.
    pub(super) keep_filter: bool,
}

/// A run being written.
pub(super) struct RunWriter {
    row: RunRow,
    last: Option<u128>,
    page: u32,
    body: Vec<u8>,
    /// Blocks that are not in a written part yet; the last one is being filled.
    part: Vec<Block>,
    parts: u32,
    kept: Option<Vec<Block>>,
}

impl RunWriter {
    pub(super) fn new(plan: Plan) -> Self {
        let shape = Shape::new(plan.ids, plan.first_seq, plan.last_seq);
        let filter_blocks = filter::blocks_for(plan.ids);
        let mut body = Vec::new();
        page::start(&mut body);
        Self {
            row: RunRow {
                run: plan.run,
                ids: 0,
                shape,
                last_seq: plan.last_seq,
                filter_blocks,
                first_ms: plan.first_ms,
                last_ms: plan.last_ms,
            },
            last: None,
            page: 0,
            body,
            part: vec![Block::default()],
            parts: 0,
            kept: plan.keep_filter.then(|| Vec::with_capacity(filter_blocks as usize)),
        }
    }

    pub(super) fn run(&self) -> u32 {
        self.row.run
    }

    pub(super) fn ids(&self) -> u64 {
        self.row.ids
    }

    /// Memory its filter will take.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |_| self.row.filter_blocks as usize * BLOCK_BYTES)
    }

    /// Adds an id, not smaller than the one before; one that is equal is passed over. Says how much work that was.
    pub(super) fn push(&mut self, conn: &Connection, id: u128, seq: Seq) -> rusqlite::Result<usize> {
        if self.last == Some(id) {
            return Ok(0);
        }
        self.last = Some(id);
        self.row.ids += 1;
        let mut units = 0;
        while self.page < self.row.shape.page_of(id) {
            self.write_page(conn)?;
            units += 1;
        }
        self.row.shape.write(id, seq, &mut self.body);
        units += self.advance_filter(conn, filter::part_of(id, self.row.filter_blocks))?;
        if let Some(block) = self.part.last_mut() {
            block.add(id);
        }
        Ok(units)
    }

    /// Writes what is left.
    pub(super) fn finish(mut self, conn: &Connection) -> rusqlite::Result<(RunRow, Option<Arc<Filter>>)> {
        while self.page < self.row.shape.pages {
            self.write_page(conn)?;
        }
        self.advance_filter(conn, self.row.filter_blocks - 1)?;
        self.write_part(conn)?;
        Ok((self.row, self.kept.map(|blocks| Arc::new(Filter::new(blocks)))))
    }

    fn write_page(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let place = page::place(self.row.run, self.page);
        page::seal(place, &mut self.body);
        tables::insert_page(conn, place, &self.body)?;
        page::start(&mut self.body);
        self.page += 1;
        Ok(())
    }

    /// Makes `block` the one being filled.
    fn advance_filter(&mut self, conn: &Connection, block: u32) -> rusqlite::Result<usize> {
        let mut units = 0;
        while self.parts as usize * PART_BLOCKS + self.part.len() <= block as usize {
            if self.part.len() == PART_BLOCKS {
                self.write_part(conn)?;
                units += PART_UNITS;
            }
            self.part.push(Block::default());
        }
        Ok(units)
    }

    fn write_part(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut bytes = Vec::with_capacity(page::CHECKSUM_BYTES + self.part.len() * BLOCK_BYTES);
        page::start(&mut bytes);
        for block in &self.part {
            block.write(&mut bytes);
        }
        let place = page::place(self.row.run, self.parts);
        page::seal(place, &mut bytes);
        tables::insert_filter(conn, place, &bytes)?;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&self.part);
        }
        self.part.clear();
        self.parts += 1;
        Ok(())
    }
}
