//! After the fact: what the ledger holds is gone through in its order by an [auditor](crate::auditor), who knows what was
//! asked and says what must have come of it; and every answer is held against what the ledger held at that time.

mod answers;
mod answers_in_flight;
mod demand;
mod in_flight;
mod last;
mod numbers;
mod replay;

use super::{Tally, run::Cluster};
use crate::auditor::warnings::{self, Used};
use domain::{catalog::Catalog, entry::Effect, id::TenantId};
use replay::Replay;
use std::collections::BTreeMap;

/// What a judge knows.
pub(super) struct Case<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) replays: BTreeMap<TenantId, Replay>,
    pub(super) catalogs: Vec<Catalog>,
}

impl Case<'_> {
    pub(super) fn catalog(&self, version: u32) -> Result<&Catalog, String> {
        let known = self.catalogs.get((version as usize).wrapping_sub(1));
        known.ok_or_else(|| format!("there is no catalog {version}"))
    }
}

/// Judges a world in which everything is answered.
pub(super) fn judge(cluster: &mut Cluster) -> Result<Tally, String> {
    let versions = cluster.database.state().in_force();
    let catalogs: Vec<Catalog> = (1..=versions).filter_map(|version| cluster.catalog(version)).collect();
    let mut case = Case { cluster, replays: BTreeMap::new(), catalogs };
    let tenants: Vec<TenantId> = case.cluster.database.state().tenants.keys().cloned().collect();
    for tenant in tenants {
        let replay = Replay::of(&case, &tenant).map_err(|wrong| format!("{tenant}: {wrong}"))?;
        case.replays.insert(tenant, replay);
    }
    let judged = answers::judge(&case)?;
    demand::judge(&case)?;
    let warnings = warnings_of(&case)?;
    last::judge(&case)?;
    let state = case.cluster.database.state();
    let attempts = case.cluster.attempts.len() as u64;
    let entries = || state.tenants.values().flat_map(|row| &row.entries).map(|written| &written.entry);
    let count = |is_one: fn(&Effect) -> bool| {
        entries().flat_map(|entry| &entry.effects).filter(|effect| is_one(effect)).count() as u64
    };
    Ok(Tally {
        attempts,
        entries: state.order.len() as u64,
        judged,
        folds: state.folds_written,
        leased: entries().filter(|entry| entry.under().is_some()).count() as u64,
        holds: count(|effect| matches!(effect, Effect::Hold(_) | Effect::HoldSettled { .. })),
        sessions: count(|effect| matches!(effect, Effect::Session(_) | Effect::SessionClosed(_))),
        draws: count(|effect| matches!(effect, Effect::Draw(_))),
        warnings,
    })
}

/// How many warnings were given, each once and where it was due.
fn warnings_of(case: &Case<'_>) -> Result<u64, String> {
    let mut count = 0;
    for (tenant, replay) in &case.replays {
        let entries = replay.written.iter().map(|written| &written.entry);
        count += warnings::judge(tenant, entries, |version| case.catalog(version).ok(), Used::AtMost)?;
    }
    Ok(count)
}
