//! `tidegate verify`: every fold is made anew from openings and journal, and compared with the tables.
//!
//! Rows are true for their own positions, so each is compared when the fold has reached its position. What does not fit
//! is named, and the rest is still looked at. Tenants are taken in parts, so that memory is bounded.

use super::{
    buckets,
    closed::{self, Table},
    errors::{OrDamaged, damaged_row},
    files,
    ids::{self, IdIndex},
    openings::Seal,
    reads::{self, JournalRow},
    recover::CUT_THROUGH,
    retain::{IDS_KEPT_AT_MS, IDS_KEPT_MS, IDS_KEPT_SLACK_MS},
    schema, snapshots,
    verify_part::Part,
};
use crate::{
    codec,
    verify::{IDS_MAX, Progress, VerifyReport},
};
use domain::id::TenantId;
use engine::ports::{LedgerError, Lookup, Seq};
use rusqlite::Connection;
use std::path::Path;

/// Tenants held in memory at once.
const PART_TENANTS: u64 = 100_000;

/// Rows read in one go.
const PAGE_ROWS: usize = 20_000;

/// Compares every fold of a ledger that no node holds (a backup, for one) with its journal.
///
/// # Errors
/// [`LedgerError::Unopenable`] where the file is in use or not a ledger of this version. What is wrong inside it is in
/// the report.
pub fn verify(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, LedgerError> {
    files::check_exists(path)?;
    let _lock = files::lock(path).map_err(|error| match error {
        LedgerError::Unopenable(why) => {
            super::errors::unopenable(format_args!("{why}. Take a `tidegate backup` and verify that"))
        }
        other => other,
    })?;
    let conn = reads::open(path).or_damaged()?;
    schema::check(&conn, path)?;
    let mut report = VerifyReport::default();
    // What can't be read at all ends the comparison; it is a finding like others.
    match compare(&conn, &mut report, progress) {
        Ok(()) => {}
        Err(LedgerError::Damaged(why)) => report.differs(why),
        Err(other) => return Err(other),
    }
    Ok(report)
}

fn compare(
    conn: &Connection,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), LedgerError> {
    conn.execute_batch("BEGIN").or_damaged()?;
    report.cut_through = schema::number(conn, CUT_THROUGH).or_damaged()? as Seq;
    let tenants: i64 = conn.query_row("SELECT count(*) FROM tenants", [], |row| row.get(0)).or_damaged()?;
    let last: Option<i64> = conn.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0)).or_damaged()?;
    let last = last.map_or(report.cut_through, |last| last as Seq);
    report.entries = last.saturating_sub(report.cut_through);
    let parts = tenants as u64 / PART_TENANTS + 1;
    let total = report.entries * (parts + 1);
    let mut done: u64 = 0;
    check_seal(conn, report)?;
    for part in 0..parts {
        let mut folded = Part::load(conn, part, parts, report)?;
        visit_all(conn, report.cut_through, last, |row| {
            done += 1;
            if done.is_multiple_of(PAGE_ROWS as u64) {
                progress(Progress { done, total });
            }
            folded.fold(row, report)
        })?;
        folded.finish(report)?;
    }
    check_snapshots(conn, report)?;
    buckets::check(conn, report)?;
    check_ids(conn, last, report, &mut |entries| progress(Progress { done: done + entries, total }))?;
    progress(Progress { done: total, total });
    super::recover::recover(conn, &IdIndex::open(conn, ids::Options::default())?.0, last).map(|_| ())
}

/// Every entry from the cut to the last, with none missing.
fn visit_all(
    conn: &Connection,
    cut: Seq,
    last: Seq,
    mut visit: impl FnMut(&JournalRow<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let mut after = cut;
    while after < last {
        let mut next = after + 1;
        let limit = PAGE_ROWS.min((last - after) as usize);
        let (reached, count) = reads::visit_journal(conn, after, limit, |row| {
            if row.seq != next {
                return Err(damaged_row(format_args!("entries {next} to {}", row.seq - 1), "they are missing"));
            }
            next += 1;
            visit(row)
        })?;
        if count == 0 {
            return Err(damaged_row(format_args!("entries {next} to {last}"), "they are missing"));
        }
        after = reached;
    }
    Ok(())
}

/// The openings must be what was sealed.
fn check_seal(conn: &Connection, report: &mut VerifyReport) -> Result<(), LedgerError> {
    let sealed = Seal::read(conn)?;
    let found = Seal::of(conn, &mut |finding| report.differs(finding))?;
    if found != sealed {
        let cut = report.cut_through;
        report.differs(format_args!(
            "the openings are not what was sealed through position {cut}: {} rows, sealed were {}",
            found.rows, sealed.rows
        ));
    }
    Ok(())
}

/// Every snapshot must be what was written. (What it says of the ledger's own meters can't be told from the journal any
/// more once that is cut.)
fn check_snapshots(conn: &Connection, report: &mut VerifyReport) -> Result<(), LedgerError> {
    let sql = format!("SELECT {} FROM snapshots", snapshots::COLUMNS);
    let mut statement = conn.prepare(&sql).or_damaged()?;
    let mut rows = statement.query([]).or_damaged()?;
    while let Some(row) = rows.next().or_damaged()? {
        report.snapshots += 1;
        match snapshots::read(row) {
            Ok(_) => {}
            Err(LedgerError::Damaged(why)) => report.differs(why),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Ids that arrived before this instant may have been dropped.
fn ids_kept_from_ms(conn: &Connection) -> rusqlite::Result<i64> {
    let kept_ms = schema::number(conn, IDS_KEPT_MS)?;
    let at_ms = schema::number(conn, IDS_KEPT_AT_MS)?;
    let newest_ms: i64 = conn.query_row("SELECT coalesce(max(at_ms), 0) FROM journal", [], |row| row.get(0))?;
    let was_told = at_ms > 0;
    let now_ms = newest_ms.max(at_ms.saturating_add(IDS_KEPT_SLACK_MS));
    Ok(if was_told { now_ms.saturating_sub(kept_ms) } else { i64::MIN })
}

/// Every idempotency key of the journal that is still kept must lead to its entry.
fn check_ids(
    conn: &Connection,
    last: Seq,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LedgerError> {
    let (index, sealed_through) = IdIndex::open(conn, ids::Options::default())?;
    let kept_from_ms = ids_kept_from_ms(conn).or_damaged()?;
    let one_in = report.entries / IDS_MAX + 1;
    let mut seen: u64 = 0;
    visit_all(conn, report.cut_through, sealed_through.min(last), |row| {
        seen += 1;
        if seen.is_multiple_of(PAGE_ROWS as u64) {
            progress(seen);
        }
        if !row.seq.is_multiple_of(one_in) {
            return Ok(());
        }
        let binding =
            codec::decode_binding(row.body).map_err(|why| damaged_row(format_args!("entry {}", row.seq), why.0))?;
        let Some(binding) = binding else { return Ok(()) };
        report.ids += 1;
        let found = match index.find(binding.id) {
            Lookup::Bound(seq) => Some(seq),
            Lookup::Fresh => None,
            Lookup::Unsure { .. } => index.find_on_disk(conn, binding.id)?,
        };
        match found {
            Some(seq) if seq == row.seq => {}
            // What was bound again after its time leads to the later entry.
            Some(seq) if seq > row.seq && binds(conn, row.tenant, seq, binding.id)? => {}
            Some(seq) => report.differs(format_args!("the id of entry {} leads to entry {seq}", row.seq)),
            None if row.at.ms() < kept_from_ms => {}
            None => report.differs(format_args!("the id of entry {} is not in the index", row.seq)),
        }
        Ok(())
    })
}

fn binds(conn: &Connection, tenant: &str, seq: Seq, id: u128) -> Result<bool, LedgerError> {
    let entry = reads::entry(conn, &TenantId::trusted(tenant), seq)?;
    Ok(entry.and_then(|entry| entry.binding).is_some_and(|binding| binding.id == id))
}

/// The totals of an account in the table of folds.
pub(super) fn live_totals(
    conn: &Connection,
    tenant: &str,
    user: &str,
) -> Result<Vec<engine::ports::ClosedRow>, LedgerError> {
    closed::of_account(conn, Table::Live, tenant, user)
}
