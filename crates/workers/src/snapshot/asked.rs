//! What collectors answered, by meter and tenant.

use super::Work;
use crate::collect::collect;
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};
use std::collections::{BTreeMap, HashMap};
use wire::{
    catalog::{Collector, How, SnapshotRules},
    v1::snapshots::{MeterFailure, SnapshotLine, ValueFailure},
};

/// What is known of one meter of one tenant.
pub(super) enum Answer {
    /// Its value, and when it was looked at.
    Value(i64, Instant),
    /// It has no value, and needs none: what was pushed stands.
    Nothing,
    /// Its value can't be believed.
    Bad(String),
    /// The meter could not be asked for: that is told once, not of each tenant.
    Unknown,
}

/// All of it.
pub(super) struct Asked {
    meters: BTreeMap<MeterKey, Meter>,
}

enum Meter {
    Pushed,
    Failed,
    Found { values: HashMap<String, Result<i64, String>>, at: Instant, missing_is_zero: bool },
}

impl Asked {
    /// Asks every collector.
    pub(super) async fn all(work: &mut Work<'_>, rules: &SnapshotRules) -> Self {
        let mut meters = BTreeMap::new();
        for (meter, collector) in &rules.collectors {
            let found = ask(work, rules, meter, collector).await;
            meters.insert(meter.clone(), found);
        }
        Self { meters }
    }

    /// Whether somebody else than the ledger is asked for a meter.
    pub(super) fn asks(&self, meter: &MeterKey) -> bool {
        self.meters.contains_key(meter)
    }

    /// What is known of a meter of a tenant; `None` where nobody is asked and the ledger knows.
    pub(super) fn take(&mut self, meter: &MeterKey, tenant: &TenantId) -> Option<Answer> {
        Some(match self.meters.get_mut(meter)? {
            Meter::Pushed => Answer::Nothing,
            Meter::Failed => Answer::Unknown,
            Meter::Found { values, at, missing_is_zero } => match values.remove(tenant.as_str()) {
                Some(Ok(value)) => Answer::Value(value, *at),
                Some(Err(why)) => Answer::Bad(why),
                None if *missing_is_zero => Answer::Value(0, *at),
                None => Answer::Nothing,
            },
        })
    }
}

async fn ask(work: &mut Work<'_>, rules: &SnapshotRules, meter: &MeterKey, collector: &Collector) -> Meter {
    if collector.how == How::Pushed {
        return Meter::Pushed;
    }
    let (engine, day) = (work.engine, work.asked.day);
    let (at, begun) = (engine.now(), engine.steady_ms());
    let answered = match collector.knows_days() || day + 1 == Day::of(at) {
        true => collect(work.allowed, rules, collector, day).await,
        false => Err("it can tell only what it is now, and so fills yesterday only; name the day in it".to_owned()),
    };
    let rows = match answered {
        Ok(rows) => rows,
        Err(reason) => {
            tracing::warn!(meter = meter.as_str(), reason, "a meter could not be asked for");
            work.lacks(MeterFailure { meter: meter.as_str().to_owned(), reason }).await;
            return Meter::Failed;
        }
    };
    let mut values: HashMap<String, Result<i64, String>> = HashMap::with_capacity(rows.len());
    for row in rows {
        if let Err(error) = TenantId::new(&row.tenant) {
            let tenant_id = row.tenant.chars().take(100).collect();
            let reason = format!("the row is no tenant's: {error}");
            work.note(ValueFailure { tenant_id, meter: meter.as_str().to_owned(), reason });
            continue;
        }
        let checked = row.value.and_then(|value| match (0..=collector.value_max).contains(&value) {
            true => Ok(value),
            false => Err(format!("{value} is not between 0 and {}", collector.value_max)),
        });
        let known = values.entry(row.tenant);
        known.and_modify(|known| *known = Err("there are several rows".to_owned())).or_insert(checked);
    }
    let took_ms = (engine.steady_ms() - begun).max(0) as u64;
    let line = SnapshotLine::Collected { meter: meter.as_str().to_owned(), values: values.len() as u64, took_ms };
    work.tell(line).await;
    Meter::Found { values, at, missing_is_zero: collector.missing_is_zero }
}
