//! The rows of a copy as they are written to a file.

use super::{
    buckets,
    checkpoint::COMPLETE_THROUGH,
    closed::{self, Place, Table},
    denials,
    errors::{OrDamaged, damaged_row},
    forecasts,
    history::HISTORY_FROM_MS,
    ids::{self, IdIndex},
    moving::{SqliteSide, names},
    openings::{self, Seal},
    reads,
    retain::DENIALS_FROM_MS,
    schema, small, snapshots,
};
use crate::{
    codec,
    copy::{EntryRow, Small, StateRow, States, TotalRow, Totals},
    denials::{RunFold, Runs, note_entry},
    rows::{HistoryRow, listed_plan},
};
use domain::{
    entry::ClosedWindow,
    id::TenantId,
    time::{Instant, Window, WindowKind},
};
use engine::ports::{HistoryState, LedgerError, Seq, Snapshot, StoredDenial};
use rusqlite::params;
use rustc_hash::FxHashMap;
use std::time::Duration;

type Done<T> = Result<T, LedgerError>;

/// Ids stay in the copy's index until its own retention drops them.
const FOREVER_MS: i64 = 100 * 366 * domain::time::DAY_MS;

impl SqliteSide {
    pub(crate) fn put_entries(&mut self, after: u64, rows: &[EntryRow]) -> Done<()> {
        if self.index.is_none() {
            let (index, sealed) = IdIndex::open(&self.conn, ids::Options::default())?;
            // What an earlier run wrote and did not seal.
            reads::visit_journal(&self.conn, sealed.max(self.cut as Seq), usize::MAX, |row| {
                if let Ok(Some(binding)) = codec::decode_binding(row.body) {
                    index.insert(binding.id, row.seq);
                }
                Ok(())
            })?;
            self.index = Some(index);
        }
        let transaction = self.conn.transaction().or_unwritable()?;
        let mut seq = self.cut + after as i64;
        {
            let sql = "INSERT INTO journal(seq, tenant, at_ms, body) VALUES (?1, ?2, ?3, ?4)";
            let mut insert = transaction.prepare_cached(sql).or_unwritable()?;
            let mut body = Vec::new();
            for row in rows {
                seq += 1;
                body.clear();
                body.extend_from_slice(&row.body);
                codec::seal(&[&row.tenant], &[seq, row.at_ms], &mut body);
                insert.execute(params![seq, &*row.tenant, row.at_ms, body]).or_unwritable()?;
                let binding = codec::decode_binding(&row.body)
                    .map_err(|why| damaged_row(format_args!("entry {} of {:?}", row.seq, row.tenant), why.0))?;
                if let (Some(binding), Some(index)) = (binding, &self.index) {
                    index.insert(binding.id, seq as Seq);
                }
                self.newest_ms = self.newest_ms.max(row.at_ms);
            }
        }
        transaction.commit().or_unwritable()?;
        if let Some(index) = &self.index {
            index.maintain(&mut self.conn, seq as Seq, self.newest_ms, FOREVER_MS, Duration::from_millis(50))?;
        }
        Ok(())
    }

    pub(crate) fn begin_folds(&mut self) -> Done<()> {
        self.place_through(self.last()?)?;
        self.conn
            .execute_batch(
                "DELETE FROM tenants; DELETE FROM users; DELETE FROM closed; DELETE FROM denials; DELETE FROM openings;
                 DELETE FROM opening_closed; DELETE FROM snapshots; DELETE FROM snapshot_runs; DELETE FROM forecasts;
                 DELETE FROM forecasts_kept; DELETE FROM forecast_scores; DELETE FROM forecast_growth;
                 DELETE FROM history; DELETE FROM catalogs; DELETE FROM keys; BEGIN",
            )
            .or_unwritable()
    }

    pub(crate) fn put_states(&mut self, table: States, rows: &[StateRow]) -> Done<()> {
        for row in rows {
            let seq = self.place(&row.tenant, row.seq);
            let mut body = row.body.clone();
            codec::seal(&names(&row.tenant, &row.user), &[seq], &mut body);
            let written = match table {
                States::Openings => openings::put_state(&self.conn, &row.tenant, &row.user, seq, &body),
                States::Users => self
                    .conn
                    .prepare_cached("INSERT INTO users(tenant, user, seq, body) VALUES (?1, ?2, ?3, ?4)")
                    .and_then(|mut insert| insert.execute(params![&*row.tenant, &*row.user, seq, body]).map(|_| ())),
                States::Tenants => {
                    let state = codec::decode_tenant(TenantId::trusted(&row.tenant), &row.body)
                        .map_err(|why| damaged_row(format_args!("tenant {:?}", row.tenant), why.0))?;
                    self.conn
                        .prepare_cached("INSERT INTO tenants(tenant, seq, plan, body) VALUES (?1, ?2, ?3, ?4)")
                        .and_then(|mut insert| {
                            insert
                                .execute(params![&*row.tenant, seq, listed_plan(&state.profile).as_str(), body])
                                .map(|_| ())
                        })
                }
            };
            written.or_unwritable()?;
        }
        Ok(())
    }

    pub(crate) fn put_totals(&mut self, table: Totals, rows: &[TotalRow]) -> Done<()> {
        let table = match table {
            Totals::Live => Table::Live,
            Totals::Opening => Table::Opening,
        };
        for row in rows {
            closed::put(&self.conn, table, &place_of(row)?, row.used, row.denied).or_unwritable()?;
        }
        Ok(())
    }

    /// Where in the journal a denial was counted is found out at the end.
    pub(crate) fn put_denials(&mut self, rows: &[StoredDenial]) -> Done<()> {
        for row in rows {
            let cut = self.cut as Seq;
            let fold = RunFold { tenant: row.tenant.clone(), run: row.run.clone(), first_seq: cut, seq: cut };
            denials::put_run(&self.conn, row.id, &fold).or_unwritable()?;
        }
        Ok(())
    }

    pub(crate) fn put_snapshots(&mut self, rows: &[Snapshot]) -> Done<()> {
        rows.iter().try_for_each(|row| snapshots::put(&self.conn, row).or_unwritable())
    }

    pub(crate) fn put_history(&mut self, rows: &[HistoryRow]) -> Done<()> {
        rows.iter().try_for_each(|row| buckets::put(&self.conn, row))
    }

    pub(crate) fn put_small(&mut self, small: &Small) -> Done<()> {
        for catalog in &small.catalogs {
            small::put_catalog(&self.conn, catalog).or_unwritable()?;
        }
        for key in &small.keys {
            small::put_key(&self.conn, key).or_unwritable()?;
        }
        for run in &small.runs {
            snapshots::put_run(&self.conn, run).or_unwritable()?;
        }
        for score in &small.scores {
            forecasts::put_score(&self.conn, score).or_unwritable()?;
        }
        for growth in &small.growth {
            forecasts::put_growth(&self.conn, growth).or_unwritable()?;
        }
        let through = self.cut as Seq + small.history.entries;
        let state = HistoryState { through, at: small.history.at, kept: small.history.kept };
        buckets::set_state(&self.conn, &state).or_unwritable()
    }

    /// Seals openings and ids, and says through where folds are complete.
    pub(crate) fn end_folds(&mut self) -> Done<()> {
        let complete = self.complete_through()?;
        self.place_denials()?;
        if self.cut > 0 {
            let seal = Seal::of(&self.conn, &mut |finding| tracing::error!(finding))?;
            seal.write(&self.conn, self.cut as Seq, self.newest()?).or_unwritable()?;
        }
        schema::set_number(&self.conn, COMPLETE_THROUGH, complete).or_unwritable()?;
        // What is not there was dropped by retention; nothing older is looked for.
        for (key, sql) in [
            (DENIALS_FROM_MS, "SELECT coalesce(min(last_at_ms), ?1) FROM denials"),
            (HISTORY_FROM_MS, "SELECT coalesce(min(end_ms), ?1) FROM closed"),
        ] {
            let oldest: i64 = self.conn.query_row(sql, [self.newest()?], |row| row.get(0)).or_damaged()?;
            schema::set_number(&self.conn, key, oldest).or_unwritable()?;
        }
        self.conn.execute_batch("COMMIT").or_unwritable()?;
        let (last, newest) = (self.last()? as Seq, self.newest()?);
        let Some(index) = &self.index else { return Ok(()) };
        while index.maintain(&mut self.conn, last, newest, FOREVER_MS, Duration::from_secs(1))? {}
        Ok(())
    }

    fn newest(&self) -> Done<i64> {
        self.conn.query_row("SELECT coalesce(max(at_ms), 0) FROM journal", [], |row| row.get(0)).or_damaged()
    }

    /// Every entry through here is in its tenant's fold.
    fn complete_through(&self) -> Done<i64> {
        let mut complete = self.last()?;
        let mut folds: FxHashMap<String, i64> = FxHashMap::default();
        let mut statement = self.conn.prepare_cached("SELECT tenant, seq FROM tenants").or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            folds.insert(row.get(0).or_damaged()?, row.get(1).or_damaged()?);
        }
        for (tenant, places) in &self.places {
            let folded = folds.get(&**tenant).copied().unwrap_or(self.cut);
            let next = places.partition_point(|place| *place <= folded);
            complete = places.get(next).map_or(complete, |open| complete.min(open - 1));
        }
        Ok(complete)
    }

    /// Gives denials the positions of the entries that count them.
    fn place_denials(&self) -> Done<()> {
        let mut runs = Runs::default();
        reads::visit_journal(&self.conn, self.cut as Seq, usize::MAX, |row| {
            if codec::has_denials(row.body) {
                note_entry(&mut runs, row.seq, &TenantId::trusted(row.tenant), &row.entry()?);
            }
            Ok(())
        })?;
        for (id, noted) in runs {
            let Some(mut known) = denials::read_run(&self.conn, id)? else { continue };
            known.seq = noted.seq;
            if known.run.count == noted.run.count {
                known.first_seq = noted.first_seq;
            }
            denials::put_run(&self.conn, id, &known).or_unwritable()?;
        }
        Ok(())
    }
}

fn place_of(row: &TotalRow) -> Done<Place<'_>> {
    let kind = usize::try_from(row.kind).ok().and_then(|index| WindowKind::ALL.get(index).copied());
    let kind =
        kind.ok_or_else(|| damaged_row(format_args!("history of {:?}", row.tenant), "an unknown kind of window"))?;
    let window = Window { start: Instant::from_ms(row.start_ms), end: Instant::from_ms(row.end_ms) };
    Ok(Place { tenant: &row.tenant, user: &row.user, meter: &row.meter, closed: ClosedWindow { kind, window } })
}
