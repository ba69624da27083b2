//! Opening: what the journal holds beyond its folds is checked row by row, and folded into memory again.

use super::{
    checkpoint::COMPLETE_THROUGH,
    denials,
    errors::{OrDamaged, damaged_row},
    ids::IdIndex,
    reads, schema,
};
use crate::{
    codec,
    denials::{Runs, note_entry},
};
use domain::id::TenantId;
use engine::ports::{DenialId, LedgerError, Seq, TailLines};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

/// The position behind which the journal was cut, in `meta`.
pub(super) const CUT_THROUGH: &str = "cut_through";

/// Rows read in one go.
const PAGE_ROWS: usize = 20_000;

/// Where the ledger stands.
#[derive(Default)]
pub(super) struct Recovered {
    /// Position of the last entry.
    pub(super) last: Seq,
    /// Its instant, or 0.
    pub(super) newest_ms: i64,
    /// Everything through this position is in folds.
    pub(super) complete_through: Seq,
    /// Denials that are not in their table yet.
    pub(super) denials: Runs,
    /// What is not in folds.
    pub(super) tail: TailLines,
}

/// Reads the tail of the journal: every row must be there and be what was written. Ids after `ids_after` go back into
/// the index, denials after the last complete checkpoint into memory.
pub(super) fn recover(conn: &Connection, ids: &IdIndex, ids_after: Seq) -> Result<Recovered, LedgerError> {
    let cut = schema::number(conn, CUT_THROUGH).or_damaged()? as Seq;
    let complete_through = (schema::number(conn, COMPLETE_THROUGH).or_damaged()? as Seq).max(cut);
    let begin = ids_after.min(complete_through).max(cut);
    // The row before the tail must be there too, or a journal that lost its end would pass for one that has no tail.
    if begin > cut && reads::journal(conn, begin - 1, 1)?.first().is_none_or(|(seq, ..)| *seq != begin) {
        return Err(gap(begin, begin));
    }
    let tail = TailLines::new(complete_through, codec::read_entry);
    let mut found = Recovered { last: begin, complete_through, tail, ..Recovered::default() };
    let mut denials = TailDenials { conn, known: FxHashMap::default() };
    loop {
        let (last, count) = reads::visit_journal(conn, found.last, PAGE_ROWS, |row| {
            if row.seq != found.last + 1 {
                return Err(gap(found.last + 1, row.seq - 1));
            }
            found.last = row.seq;
            found.newest_ms = found.newest_ms.max(row.at.ms());
            let binding =
                codec::decode_binding(row.body).map_err(|why| damaged_row(format_args!("entry {}", row.seq), why.0))?;
            if let Some(binding) = binding.filter(|_| row.seq > ids_after) {
                ids.insert(binding.id, row.seq);
            }
            if row.seq > complete_through {
                found.tail.push(row.tenant, row.at, row.body);
                if codec::has_denials(row.body) {
                    denials.note(row, &mut found.denials)?;
                }
            }
            Ok(())
        })?;
        debug_assert_eq!(last, found.last);
        if count < PAGE_ROWS {
            break;
        }
    }
    let must_reach = complete_through.max(ids_after);
    if found.last < must_reach {
        return Err(gap(found.last + 1, must_reach));
    }
    Ok(found)
}

fn gap(first: Seq, last: Seq) -> LedgerError {
    LedgerError::Damaged(format!("entries {first} to {last} are missing from the journal").into())
}

/// Skips what a denial's row has already.
struct TailDenials<'a> {
    conn: &'a Connection,
    known: FxHashMap<DenialId, Option<Seq>>,
}

impl TailDenials<'_> {
    fn note(&mut self, row: &reads::JournalRow<'_>, runs: &mut Runs) -> Result<(), LedgerError> {
        let mut noted = Runs::default();
        note_entry(&mut noted, row.seq, &TenantId::trusted(row.tenant), &row.entry()?);
        for (id, run) in noted {
            let written = match self.known.get(&id) {
                Some(written) => *written,
                None => {
                    let written = denials::seq_of(self.conn, id)?;
                    self.known.insert(id, written);
                    written
                }
            };
            if written.is_none_or(|written| written < run.seq) {
                crate::denials::add_to(runs, id, run);
            }
        }
        Ok(())
    }
}
