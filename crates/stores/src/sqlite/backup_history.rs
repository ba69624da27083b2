//! History in a backup. Its rows change while they are copied, so each page is read with the position that it is true for;
//! what came after that is added from the copy's own journal.

use super::{
    backup_folds::{copy_rows, in_one_read, in_one_write},
    buckets,
    errors::{OrDamaged, damaged_row},
    reads,
};
use crate::rows::HistoryRow;
use domain::{
    history::{Place, Resolution, Rows, fold},
    id::TenantId,
};
use engine::ports::{HistoryState, LedgerError, Seq};
use rusqlite::{Connection, params_from_iter, types::Value};

/// Rows in one read.
const PAGE_ROWS: i64 = 2_000;
/// Entries in one read.
const PAGE_ENTRIES: usize = 2_000;

const PAGE: &str = "SELECT grain, start_ms, tenant, user, dimensions, meter, used, denied, moved, checksum FROM history
    WHERE (grain, start_ms, tenant, user, dimensions, meter) > (?1, ?2, ?3, ?4, ?5, ?6)
    ORDER BY grain, start_ms, tenant, user, dimensions, meter LIMIT ?7";

/// Rows that were copied, and what they are true for.
pub(super) struct CopiedHistory {
    /// The position of the first page.
    begun: Seq,
    /// The last row of each page but the last one, and the position of the page.
    pages: Vec<((i16, Place), Seq)>,
    /// As of the last page.
    ended: HistoryState,
}

impl CopiedHistory {
    /// Copies all rows.
    pub(super) fn read(source: &Connection, target: &Connection) -> Result<Self, LedgerError> {
        let ended = buckets::state(source).or_damaged()?;
        let mut copied = Self { begun: ended.through, pages: Vec::new(), ended };
        let mut after: Vec<Value> = [Value::Integer(-1), Value::Integer(0)].into();
        after.extend(std::iter::repeat_n(Value::Text(String::new()), 4));
        loop {
            let (state, (count, last)) = in_one_read(source, || {
                let state = buckets::state(source).or_damaged()?;
                let parameters = params_from_iter(after.iter().cloned().chain([Value::Integer(PAGE_ROWS)]));
                Ok((state, in_one_write(target, || copy_rows(source, target, PAGE, parameters, "history", 10))?))
            })?;
            copied.ended = state;
            let Some(last) = last.filter(|_| count as i64 == PAGE_ROWS) else { return Ok(copied) };
            copied.pages.push((place_of(&last)?, state.through));
            after = last.into_iter().take(6).collect();
        }
    }

    /// Adds what the copy's journal has after the position of each page, through that of the last one.
    pub(super) fn catch_up(&self, target: &Connection) -> Result<(), LedgerError> {
        let mut after = self.begun;
        while after < self.ended.through {
            let mut sums = Rows::new();
            let limit = usize::try_from(self.ended.through - after).unwrap_or(usize::MAX).min(PAGE_ENTRIES);
            let (reached, count) = reads::visit_journal(target, after, limit, |row| {
                let mut rows = Rows::new();
                fold(&mut rows, &TenantId::trusted(row.tenant), &row.entry()?, &self.ended.kept);
                for ((resolution, place), amounts) in rows {
                    if self.true_for(resolution, &place) < row.seq {
                        sums.entry((resolution, place)).or_default().add(&amounts);
                    }
                }
                Ok(())
            })?;
            let transaction = target.unchecked_transaction().or_unwritable()?;
            for ((resolution, place), amounts) in &sums {
                buckets::add(&transaction, *resolution, place, amounts).or_unwritable()?;
            }
            transaction.commit().or_unwritable()?;
            if count == 0 {
                break;
            }
            after = reached;
        }
        buckets::set_state(target, &self.ended).or_unwritable()
    }

    /// The position of the page that a row is in, or would be.
    fn true_for(&self, resolution: Resolution, place: &Place) -> Seq {
        let grain = crate::rows::grain(resolution, !place.series.is_whole());
        let page = self.pages.partition_point(|((known, last), _)| (*known, last) < (grain, place));
        self.pages.get(page).map_or(self.ended.through, |(_, through)| *through)
    }
}

/// What a row is ordered by.
fn place_of(row: &[Value]) -> Result<(i16, Place), LedgerError> {
    let number = |index: usize| match row.get(index) {
        Some(Value::Integer(number)) => *number,
        _ => 0,
    };
    let text = |index: usize| match row.get(index) {
        Some(Value::Text(text)) => text.as_str().into(),
        _ => Box::default(),
    };
    let row = HistoryRow {
        grain: i16::try_from(number(0)).unwrap_or(i16::MAX),
        start_ms: number(1),
        tenant: text(2),
        user: text(3),
        dimensions: text(4),
        meter: text(5),
        ..HistoryRow::default()
    };
    let place = row.place().map_err(|why| damaged_row("history", why.0))?;
    Ok((row.grain, place.1))
}
