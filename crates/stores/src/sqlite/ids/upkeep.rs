//! The work between commits: sealing, merging, dropping, cleaning, loading filters; one slice at a time, each its own
//! transaction.
//!
//! A job lives in memory. What it has written is invisible until the transaction that ends it writes the run's row, so
//! a crash costs the job and leaves pages of no run, which are deleted like those of merged and dropped runs.

use super::{
    filter,
    merge::{Merge, MergeError},
    page,
    plan::Rules,
    recent::{Recent, SHARDS},
    runs::{Load, Run},
    tables::{self, RunRow, failed},
    writer::{PART_UNITS, Plan, RunWriter},
    {IdIndex, Moment},
};
use engine::ports::{LedgerError, Seq};
use rusqlite::{Connection, TransactionBehavior};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Rows deleted at once, pages and parts of filters.
const DELETED_AT_ONCE: [i64; 2] = [64, 4];

/// What there is to do, most urgent first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    Drop(Vec<u32>),
    Seal,
    Clean,
    Merge,
    Load,
}

/// How long a slice is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slice {
    /// As much as is expected to take this long.
    Lasting(Duration),
    /// This much work and hardly more.
    #[cfg(test)]
    Units(usize),
}

/// Recent ids on their way into a run.
struct Seal {
    cut: Seq,
    next_shard: usize,
    writer: RunWriter,
}

impl Seal {
    /// Writes the ids of whole shards. `true` when all are written.
    fn step(&mut self, conn: &Connection, recent: &Recent, units: usize) -> rusqlite::Result<(usize, bool)> {
        let mut done = 0;
        while self.next_shard < SHARDS && done < units {
            for (id, seq) in recent.sorted_through(self.next_shard, self.cut) {
                done += self.writer.push(conn, id, seq)?;
            }
            self.next_shard += 1;
        }
        Ok((done, self.next_shard == SHARDS))
    }
}

/// How much work fits in a slice. Learnt from the slices before, as disks differ by a factor of a hundred.
#[derive(Debug, Clone, Copy)]
struct Pace {
    units_per_ms: f64,
}

impl Pace {
    const LEAST_UNITS: f64 = 32.0;
    const MOST_UNITS: f64 = 4096.0;

    fn units(self, budget: Duration) -> usize {
        (self.units_per_ms * budget.as_secs_f64() * 1e3 * 0.7).clamp(Self::LEAST_UNITS, Self::MOST_UNITS) as usize
    }

    fn learn(&mut self, units: usize, took: Duration) {
        let seen = units as f64 / (took.as_secs_f64() * 1e3).max(0.01);
        self.units_per_ms += (seen - self.units_per_ms) * if seen < self.units_per_ms { 0.5 } else { 0.2 };
    }
}

/// What the writer remembers from slice to slice.
pub(super) struct Upkeep {
    last_run: u32,
    sealed_through: Seq,
    /// When the oldest recent id arrived, at the earliest. Not known at first after a start.
    recent_since_ms: Option<i64>,
    /// The slice before this one: what was committed then had arrived by then.
    before: Option<Moment>,
    seal: Option<Seal>,
    merge: Option<Merge>,
    load: Option<Load>,
    /// There may be pages of no run.
    left_overs: bool,
    write_pace: Pace,
    clean_pace: Pace,
    load_pace: Pace,
}

impl Upkeep {
    pub(super) fn new(last_run: u32, sealed_through: Seq) -> Self {
        let pace = Pace { units_per_ms: 25.0 };
        Self {
            last_run,
            sealed_through,
            recent_since_ms: None,
            before: None,
            seal: None,
            merge: None,
            load: None,
            left_overs: true,
            write_pace: pace,
            clean_pace: pace,
            load_pace: pace,
        }
    }

    /// Memory of filters that belong to no run yet.
    pub(super) fn filter_bytes(&self) -> usize {
        let writers = [self.seal.as_ref().map(|seal| &seal.writer), self.merge.as_ref().map(|merge| &merge.writer)];
        writers.into_iter().flatten().map(RunWriter::kept_bytes).sum::<usize>()
            + self.load.as_ref().map_or(0, Load::bytes)
    }

    fn pace(&mut self, work: &Work) -> &mut Pace {
        match work {
            Work::Drop(_) | Work::Seal | Work::Merge => &mut self.write_pace,
            Work::Clean => &mut self.clean_pace,
            Work::Load => &mut self.load_pace,
        }
    }

    fn period_is_over(&self, moment: Moment, rules: Rules) -> bool {
        self.recent_since_ms.is_some_and(|since_ms| rules.period(since_ms) < rules.period(moment.now_ms))
    }

    fn is_being_written(&self, run: u32) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.writer.run() == run)
            || self.merge.as_ref().is_some_and(|merge| merge.writer.run() == run)
    }
}

impl IdIndex {
    /// Does one slice of what there is to do, if there is anything, in its own transaction. Says whether there is more.
    ///
    /// # Errors
    /// When the slice could not be written. Nothing is lost: the job starts again.
    pub(super) fn slice(
        &self,
        upkeep: &mut Upkeep,
        conn: &mut Connection,
        moment: Moment,
        slice: Slice,
    ) -> Result<bool, LedgerError> {
        upkeep.recent_since_ms.get_or_insert(moment.now_ms);
        let more = self.work(upkeep, conn, moment, slice);
        upkeep.before = Some(moment);
        self.unpublished_filter_bytes.store(upkeep.filter_bytes(), Ordering::Relaxed);
        more
    }

    fn work(
        &self,
        upkeep: &mut Upkeep,
        conn: &mut Connection,
        moment: Moment,
        slice: Slice,
    ) -> Result<bool, LedgerError> {
        let Some(work) = self.next(upkeep, moment) else { return Ok(false) };
        let units = match slice {
            Slice::Lasting(budget) => upkeep.pace(&work).units(budget),
            #[cfg(test)]
            Slice::Units(units) => units,
        };
        let started = std::time::Instant::now();
        let done = match &work {
            Work::Drop(runs) => self.drop_runs(upkeep, conn, runs),
            Work::Seal => self.seal(upkeep, conn, moment, units),
            Work::Clean => self.clean(upkeep, conn, units),
            Work::Merge => self.merge(upkeep, conn, moment, units),
            Work::Load => self.load(upkeep, conn, units),
        };
        let done = done.inspect_err(|_| upkeep.left_overs = true)?;
        if done > 0 {
            upkeep.pace(&work).learn(done, started.elapsed());
        }
        Ok(self.next(upkeep, moment).is_some())
    }

    fn rules(&self, moment: Moment) -> Rules {
        let budget_ids = self.options.filter_budget_bytes as u64 * 8 / 14;
        Rules {
            now_ms: moment.now_ms,
            dedupe_ms: moment.dedupe_ms,
            seal_ids: self.options.seal_ids as u64,
            max_run_ids: (budget_ids / 4).clamp(self.options.seal_ids as u64 * 4, 1 << 25),
        }
    }

    fn next(&self, upkeep: &Upkeep, moment: Moment) -> Option<Work> {
        let rules = self.rules(moment);
        let runs = self.runs.load();
        let expired = rules.expired(runs.all());
        if !expired.is_empty() {
            return Some(Work::Drop(expired));
        }
        if upkeep.seal.is_some() || self.seal_is_due(upkeep, moment, rules) {
            return Some(Work::Seal);
        }
        if upkeep.left_overs {
            return Some(Work::Clean);
        }
        if upkeep.merge.is_some() || rules.merge(runs.all()).is_some() {
            return Some(Work::Merge);
        }
        (upkeep.load.is_some() || self.loadable(upkeep).is_some()).then_some(Work::Load)
    }

    fn seal_is_due(&self, upkeep: &Upkeep, moment: Moment, rules: Rules) -> bool {
        let positions = moment.committed_seq.saturating_sub(upkeep.sealed_through);
        let recent = self.recent.len();
        let enough = recent >= self.options.seal_ids && positions >= self.options.seal_ids as u64 / 2;
        let period_is_over = recent > 0 && upkeep.period_is_over(moment, rules);
        positions > 0 && (enough || positions >= self.options.seal_positions || period_is_over)
    }

    fn begin_seal(&self, upkeep: &mut Upkeep, moment: Moment) -> Seal {
        // The last slice of a period that is over knew what arrived in it.
        let of_period = upkeep.before.filter(|before| {
            upkeep.period_is_over(moment, self.rules(moment)) && before.committed_seq > upkeep.sealed_through
        });
        let until = of_period.unwrap_or(moment);
        let first_ms = upkeep.recent_since_ms.replace(moment.now_ms).unwrap_or(until.now_ms);
        upkeep.last_run += 1;
        let writer = RunWriter::new(Plan {
            run: upkeep.last_run,
            ids: self.recent.len() as u64,
            first_seq: upkeep.sealed_through + 1,
            last_seq: until.committed_seq,
            first_ms,
            last_ms: until.now_ms.max(first_ms),
            keep_filter: true,
        });
        let seal = Seal { cut: until.committed_seq, next_shard: 0, writer };
        let room = self.room(upkeep).saturating_sub(seal.writer.kept_bytes());
        self.runs.store(Arc::new(self.runs.load().replaced(&[], None, room)));
        seal
    }

    fn seal(
        &self,
        upkeep: &mut Upkeep,
        conn: &mut Connection,
        moment: Moment,
        units: usize,
    ) -> Result<usize, LedgerError> {
        let mut seal = upkeep.seal.take().unwrap_or_else(|| self.begin_seal(upkeep, moment));
        let slice = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (done, all) = seal.step(&slice, &self.recent, units).map_err(failed)?;
        if !all {
            slice.commit().map_err(failed)?;
            upkeep.seal = Some(seal);
            return Ok(done);
        }
        let cut = seal.cut;
        let sealed = if seal.writer.ids() > 0 {
            let (row, filter) = seal.writer.finish(&slice).map_err(failed)?;
            row.insert(&slice).map_err(failed)?;
            Some(Run::new(row, filter))
        } else {
            None
        };
        tables::set_sealed_through(&slice, cut).map_err(failed)?;
        slice.commit().map_err(failed)?;
        upkeep.sealed_through = cut;
        if sealed.is_some() {
            let room = self.room(upkeep);
            self.runs.store(Arc::new(self.runs.load().replaced(&[], sealed, room)));
        }
        // In this order: who misses an id here, sees its run there and knows that it moved.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.sealed_through.store(cut, Ordering::Release);
        self.recent.forget_through(cut);
        Ok(done)
    }

    fn begin_merge(&self, upkeep: &mut Upkeep, moment: Moment) -> Option<Merge> {
        let runs = self.runs.load();
        let chosen = self.rules(moment).merge(runs.all())?;
        let sources: Vec<RunRow> = chosen.iter().filter_map(|run| runs.get(*run)).map(|run| run.row).collect();
        let ids: u64 = sources.iter().map(|row| row.ids).sum();
        let filter_bytes = filter::blocks_for(ids) as usize * filter::BLOCK_BYTES;
        upkeep.last_run += 1;
        let writer = RunWriter::new(Plan {
            run: upkeep.last_run,
            ids,
            first_seq: sources.iter().map(|row| row.shape.base).min()?,
            last_seq: sources.iter().map(|row| row.last_seq).max()?,
            first_ms: sources.iter().map(|row| row.first_ms).min()?,
            last_ms: sources.iter().map(|row| row.last_ms).max()?,
            // The sources' filters are needed until the last moment. If there is no room for both, this one is loaded
            // once theirs are gone.
            keep_filter: runs.filter_bytes() + filter_bytes <= self.room(upkeep),
        });
        Some(Merge::new(sources, writer))
    }

    fn merge(
        &self,
        upkeep: &mut Upkeep,
        conn: &mut Connection,
        moment: Moment,
        units: usize,
    ) -> Result<usize, LedgerError> {
        let Some(mut merge) = upkeep.merge.take().or_else(|| self.begin_merge(upkeep, moment)) else { return Ok(0) };
        let slice = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (done, all) = match merge.step(&slice, units) {
            Ok(progress) => progress,
            Err(MergeError::Ledger(error)) => return Err(error),
            Err(MergeError::Source { run, error }) => {
                tracing::error!(run, %error, "a run of ids is damaged and stays as it is");
                self.runs.store(Arc::new(self.runs.load().changed(run, |run| run.page_damaged = true)));
                upkeep.left_overs = true;
                return Ok(0);
            }
        };
        if !all {
            slice.commit().map_err(failed)?;
            upkeep.merge = Some(merge);
            return Ok(done);
        }
        let gone = merge.source_runs();
        for run in &gone {
            tables::remove_run(&slice, *run).map_err(failed)?;
        }
        let (row, filter) = merge.writer.finish(&slice).map_err(failed)?;
        row.insert(&slice).map_err(failed)?;
        slice.commit().map_err(failed)?;
        let room = self.room(upkeep);
        self.runs.store(Arc::new(self.runs.load().replaced(&gone, Some(Run::new(row, filter)), room)));
        upkeep.left_overs = true;
        Ok(done)
    }

    fn drop_runs(&self, upkeep: &mut Upkeep, conn: &mut Connection, runs: &[u32]) -> Result<usize, LedgerError> {
        let slice = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        for run in runs {
            tables::remove_run(&slice, *run).map_err(failed)?;
        }
        slice.commit().map_err(failed)?;
        if upkeep.merge.as_ref().is_some_and(|merge| merge.source_runs().iter().any(|run| runs.contains(run))) {
            upkeep.merge = None;
        }
        upkeep.load = None;
        upkeep.left_overs = true;
        self.runs.store(Arc::new(self.runs.load().replaced(runs, None, self.options.filter_budget_bytes)));
        Ok(runs.len())
    }

    /// Deletes pages and filters of runs that are not in force.
    fn clean(&self, upkeep: &mut Upkeep, conn: &mut Connection, units: usize) -> Result<usize, LedgerError> {
        let runs = self.runs.load();
        let slice = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut done = 0;
        for (table, at_once) in tables::PLACED.into_iter().zip(DELETED_AT_ONCE) {
            let mut from = 0;
            while let Some(place) = tables::first_place(&slice, table, from).map_err(failed)? {
                let run = (place >> 32) as u32;
                let end = page::place(run.saturating_add(1), 0);
                if runs.get(run).is_some() || upkeep.is_being_written(run) {
                    from = end;
                    continue;
                }
                from = end.min(place.saturating_add(at_once));
                tables::delete_places(&slice, table, place, from).map_err(failed)?;
                done += PART_UNITS;
                if done >= units {
                    slice.commit().map_err(failed)?;
                    return Ok(done);
                }
            }
        }
        slice.commit().map_err(failed)?;
        upkeep.left_overs = false;
        Ok(done)
    }

    /// Loads every filter there is room for.
    pub(super) fn load_all(&self, conn: &Connection) -> Result<(), LedgerError> {
        let mut upkeep = self.upkeep.lock();
        while self.loadable(&upkeep).is_some() {
            self.load(&mut upkeep, conn, usize::MAX)?;
        }
        Ok(())
    }

    /// The newest run whose filter could be in memory and is not.
    fn loadable(&self, upkeep: &Upkeep) -> Option<RunRow> {
        let runs = self.runs.load();
        let room = self.room(upkeep).saturating_sub(runs.filter_bytes());
        let missing = runs.all().iter().find(|run| run.filter.is_none() && !run.filter_damaged)?;
        (missing.row.filter_bytes() <= room).then_some(missing.row)
    }

    fn load(&self, upkeep: &mut Upkeep, conn: &Connection, units: usize) -> Result<usize, LedgerError> {
        let Some(mut load) = upkeep.load.take().or_else(|| self.loadable(upkeep).map(Load::new)) else { return Ok(0) };
        let mut done = 0;
        while done < units {
            match load.step(conn) {
                Ok(true) => done += PART_UNITS,
                Ok(false) => {
                    let run = load.run();
                    let filter = load.finish();
                    let loaded = self.runs.load().changed(run, |run| run.filter = Some(filter));
                    self.runs.store(Arc::new(loaded.replaced(&[], None, self.room(upkeep))));
                    return Ok(done);
                }
                Err(error @ LedgerError::Damaged(_)) => {
                    tracing::warn!(run = load.run(), %error, "a filter of ids is damaged and will be written anew");
                    self.runs.store(Arc::new(self.runs.load().changed(load.run(), |run| run.filter_damaged = true)));
                    return Ok(done);
                }
                Err(error) => return Err(error),
            }
        }
        upkeep.load = Some(load);
        Ok(done)
    }

    /// What the filters of runs in force may take.
    fn room(&self, upkeep: &Upkeep) -> usize {
        self.options.filter_budget_bytes.saturating_sub(upkeep.filter_bytes())
    }
}
