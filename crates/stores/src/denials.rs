//! Runs of denials as a fold of [`Effect::Denials`], and which of them a query lists. Shared by every store.

use domain::{
    entry::{DenialRun, Effect, Entry},
    id::TenantId,
};
use engine::{
    denial_id,
    ports::{DenialId, DenialPlace, DenialQuery, Seq, StoredDenial},
};
use rustc_hash::FxHashMap;

/// What a stretch of the journal adds to one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunFold {
    /// Whose.
    pub(crate) tenant: TenantId,
    /// The run; its count and amount are those of the stretch.
    pub(crate) run: DenialRun,
    /// The first entry of the stretch that adds to it.
    pub(crate) first_seq: Seq,
    /// The last one.
    pub(crate) seq: Seq,
}

impl RunFold {
    /// Adds a later stretch: numbers of the first denial stay, counts and amounts add up.
    pub(crate) fn add(&mut self, later: &RunFold) {
        let run = &mut self.run;
        run.count = run.count.saturating_add(later.run.count);
        run.amount = run.amount.saturating_add(later.run.amount);
        run.first_at = run.first_at.min(later.run.first_at);
        run.last_at = run.last_at.max(later.run.last_at);
        self.seq = self.seq.max(later.seq);
    }

    /// As it is shown.
    pub(crate) fn stored(&self, id: DenialId) -> StoredDenial {
        StoredDenial { id, tenant: self.tenant.clone(), run: self.run.clone() }
    }
}

/// Runs by id.
pub(crate) type Runs = FxHashMap<DenialId, RunFold>;

/// Adds the denials of an entry.
pub(crate) fn note_entry(runs: &mut Runs, seq: Seq, tenant: &TenantId, entry: &Entry) {
    for effect in &entry.effects {
        if let Effect::Denials(run) = effect {
            let id = denial_id(tenant, &run.key);
            let fold = RunFold { tenant: tenant.clone(), run: run.as_ref().clone(), first_seq: seq, seq };
            add_to(runs, id, fold);
        }
    }
}

/// Adds a later stretch of one run.
pub(crate) fn add_to(runs: &mut Runs, id: DenialId, fold: RunFold) {
    match runs.get_mut(&id) {
        Some(known) => known.add(&fold),
        None => {
            runs.insert(id, fold);
        }
    }
}

/// The place of a run in the listing.
pub(crate) fn place(id: DenialId, run: &DenialRun) -> DenialPlace {
    DenialPlace { first_at: run.first_at, id }
}

/// Whether a query lists a run.
pub(crate) fn is_listed(query: &DenialQuery, id: DenialId, fold: &RunFold) -> bool {
    let run = &fold.run;
    run.key.shadow == query.shadow
        && query.tenant.as_ref().is_none_or(|tenant| *tenant == fold.tenant)
        && query.user.as_ref().is_none_or(|user| run.key.user.as_ref() == Some(user))
        && query.code.is_none_or(|code| code == run.key.code)
        && query.meter.as_ref().is_none_or(|meter| run.meter.as_ref() == Some(meter))
        && query.before.is_none_or(|before| place(id, run) < before)
}

/// Sorts runs newest first and keeps one page of those that are listed.
pub(crate) fn page(query: &DenialQuery, runs: impl Iterator<Item = (DenialId, RunFold)>) -> Vec<StoredDenial> {
    let mut listed: Vec<(DenialId, RunFold)> = runs.filter(|(id, fold)| is_listed(query, *id, fold)).collect();
    listed.sort_by_key(|(id, fold)| std::cmp::Reverse(place(*id, &fold.run)));
    listed.truncate(query.limit);
    listed.iter().map(|(id, fold)| fold.stored(*id)).collect()
}
