//! Use that comes late closes its day again: the days that it can still belong to are compared with what the history says
//! now, and written where they differ.

use super::{
    PAGE_TENANTS,
    counted::{Counted, Periods},
};
use domain::{
    catalog::MeterKind,
    day::Day,
    id::{MeterKey, TenantId},
    time::DAY_MS,
};
use engine::{
    Engine,
    ports::{Days, Snapshot, SnapshotSource, Taken},
    requests::EngineError,
};
use std::{collections::BTreeSet, sync::Arc};
use wire::catalog::SnapshotRules;

/// Compares the days before one with what was counted; gives how many were written again.
pub(super) async fn close_again(engine: &Arc<Engine>, rules: &SnapshotRules, before: Day) -> Result<u64, EngineError> {
    let late_days = engine.catalog().event_bounds.late_ms / DAY_MS + 1;
    // What history has lost since would be written over what it had then.
    let first = (before + -(late_days as i32)).max(engine.history_kept().await?.first_whole_day());
    let known = engine.snapshot_runs(Days { first, last: before + -1 }).await?;
    let mut written = 0;
    for run in known {
        written += u64::from(one_day(engine, rules, run.day).await?);
    }
    Ok(written)
}

async fn one_day(engine: &Arc<Engine>, rules: &SnapshotRules, day: Day) -> Result<bool, EngineError> {
    let counters: BTreeSet<MeterKey> = {
        let catalog = engine.catalog();
        let all = catalog.meters.values().filter(|meter| meter.kind != MeterKind::Gauge);
        all.map(|meter| meter.key.clone()).filter(|key| !rules.collectors.contains_key(key)).collect()
    };
    let mut counted = Counted::of(engine, day);
    let (mut after, mut differs): (Option<TenantId>, bool) = (None, false);
    loop {
        let cards = engine.tenants(after.as_ref(), PAGE_TENANTS).await?;
        let Some(last) = cards.last() else { return Ok(differs) };
        let known = engine.snapshots_of_all(after.as_ref(), &last.id, Days::only(day)).await?;
        let mut rows = Vec::new();
        for tenant in known {
            let counts = counted.used_by(&tenant.tenant).await?;
            for meter in tenant.meters.iter().filter(|meter| counters.contains(&meter.meter)) {
                let Some(taken) = meter.days.first().filter(|taken| taken.source == SnapshotSource::Ledger) else {
                    continue;
                };
                let value = counts.used(&meter.meter);
                if value != taken.value {
                    let after_reset = match taken.after_reset {
                        Some(_) => after_reset(engine, &counted, &tenant.tenant, &meter.meter).await?,
                        None => None,
                    };
                    let taken = Taken { value, after_reset, observed_at: engine.now(), ..*taken };
                    rows.push(Snapshot { tenant: tenant.tenant.clone(), meter: meter.meter.clone(), taken });
                }
            }
        }
        differs |= !rows.is_empty();
        engine.put_snapshots(rows).await?;
        after = Some(last.id.clone());
    }
}

async fn after_reset(
    engine: &Arc<Engine>,
    counted: &Counted<'_>,
    tenant: &TenantId,
    meter: &MeterKey,
) -> Result<Option<i64>, EngineError> {
    let (card, usage) = engine.usage(tenant, None).await?;
    let split = counted.after_reset(tenant, &Periods::of(&card, &usage)).await?;
    Ok(split.map(|after| after.get(meter).copied().unwrap_or(0)))
}
