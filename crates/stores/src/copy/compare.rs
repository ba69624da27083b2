//! The copy, read again and compared with what was copied.

use super::{BATCH_ROWS, CopyReport, States, Table, Totals, each_page, side::Side};
use crate::codec;
use engine::ports::LedgerError;

/// Compares everything; what differs is an error that names it.
pub(super) async fn compare(
    source: &mut Side,
    target: &mut Side,
    progress: &mut dyn FnMut(u64),
) -> Result<CopyReport, LedgerError> {
    let mut report = CopyReport { entries: source.count().await?, ..CopyReport::default() };
    same("the number of entries", &report.entries, &target.count().await?)?;
    compare_journal(source, target, &mut report, progress).await?;
    let mut done = report.entries;
    each_page(source, async |table, before, page| {
        same(&format!("{table:?}"), page, &target.page(table, before).await?)?;
        let rows = page.len() as u64;
        done += rows;
        progress(done);
        match table {
            Table::States(States::Tenants) => report.tenants += rows,
            Table::States(States::Users) => report.users += rows,
            Table::Totals(Totals::Live) => report.closed += rows,
            Table::Denials => report.denials += rows,
            Table::Snapshots => report.snapshots += rows,
            Table::History => report.history += rows,
            Table::States(States::Openings) | Table::Totals(Totals::Opening) => {}
        }
        Ok(())
    })
    .await?;
    let small = source.small().await?;
    same("secret, catalogs, keys, closed days or scores of forecasts", &small, &target.small().await?)?;
    report.keys = small.keys.len() as u64;
    report.catalogs = small.catalogs.len() as u64;
    Ok(report)
}

/// Every entry, and that every id leads to its entry (or to a later one that it was bound to after its time).
async fn compare_journal(
    source: &mut Side,
    target: &mut Side,
    report: &mut CopyReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LedgerError> {
    let mut done = 0;
    while done < report.entries {
        let rows = source.entries(done, BATCH_ROWS).await?;
        same(&format!("entries after the first {done}"), &rows, &target.entries(done, BATCH_ROWS).await?)?;
        if rows.is_empty() {
            return Err(LedgerError::Damaged("entries are missing".into()));
        }
        let (mut ids, mut seqs) = (Vec::new(), Vec::new());
        for row in &rows {
            let binding = codec::decode_binding(&row.body).map_err(|why| LedgerError::Damaged(why.0.into()))?;
            if let Some(binding) = binding {
                ids.push((&*row.tenant, binding.id));
                seqs.push(row.seq);
            }
        }
        let found = target.find(&ids).await?;
        let is_led = |(found, seq): (&Option<i64>, &i64)| found.is_some_and(|found| found >= *seq);
        same("ids", &true, &(found.len() == seqs.len() && found.iter().zip(&seqs).all(is_led)))?;
        report.ids += ids.len() as u64;
        done += rows.len() as u64;
        progress(done);
    }
    Ok(())
}

fn same<T: PartialEq>(what: &str, source: &T, target: &T) -> Result<(), LedgerError> {
    match source == target {
        true => Ok(()),
        false => Err(LedgerError::Damaged(format!("{what}: the copy is not what was copied").into())),
    }
}
