//! Unmet demand: what was refused. Identical denials (tenant, user, limit, minute) are one run; its first is written
//! down at once, later ones are counted here and written together, so that a storm of retries costs no disk.

use crate::{
    catalog::Catalog,
    decision::{Decision, Denial},
    entry::{Cause, DenialKey, DenialRun, Effect, Entry},
    id::{MeterKey, UserId},
    op::Charge,
    tenant::{Tenant, User, Windows},
    time::{Instant, WindowKind},
};
use std::sync::Arc;

/// Denials of one run that are counted but not yet written down.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRun {
    /// The run; its `count` and `amount` are what has to be added.
    pub run: DenialRun,
    /// What was asked for, by meter.
    pub demand: Vec<Charge>,
    /// The windows that were open.
    pub windows: Windows,
}

/// The runs of a tenant's last minute. Bounded: at most [`RUNS_MAX`] that name a user, and those without one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PendingDenials {
    /// Oldest first.
    pub runs: Vec<PendingRun>,
}

/// How many runs a tenant may keep in memory. Past it, denials of further users in the same minute are counted in
/// runs without a user, of which there are as many as there are limits and features: neither memory nor disk grows
/// with the number of users that are refused.
pub const RUNS_MAX: usize = 256;

impl PendingDenials {
    /// Whether something waits to be written down.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|pending| pending.run.count == 0)
    }

    /// Counts a denial in the run it belongs to; `false` if there is none yet.
    fn count(&mut self, run: &DenialRun, charges: &[Charge], windows: &Windows) -> bool {
        let known = self.runs.iter_mut().find(|known| known.run.key == run.key && known.windows == *windows);
        known.map(|known| known.count_one(run, charges)).is_some()
    }

    /// The users whose counted denials wait to be written down (`None` stands for denials without a user).
    pub fn users(&self) -> Vec<Option<UserId>> {
        let waiting = self.runs.iter().filter(|pending| pending.run.count > 0);
        let mut users: Vec<Option<UserId>> = waiting.map(|pending| pending.run.key.user.clone()).collect();
        users.sort();
        users.dedup();
        users
    }

    /// What waits to be written down of one user (or of denials without one).
    #[must_use]
    pub fn of_user(&self, user: Option<&UserId>) -> Self {
        let of_user = |pending: &&PendingRun| pending.run.key.user.as_ref() == user && pending.run.count > 0;
        Self { runs: self.runs.iter().filter(of_user).cloned().collect() }
    }

    /// Adds what was counted elsewhere in the same tenant's name.
    pub fn merge(&mut self, other: PendingDenials) {
        for more in other.runs {
            let same = |known: &&mut PendingRun| known.run.key == more.run.key && known.windows == more.windows;
            match self.runs.iter_mut().find(same) {
                Some(known) => known.add(&more),
                None => self.runs.push(more),
            }
        }
    }

    /// Unmet demand not yet written down, for the window of `kind` that starts at `start`.
    pub fn denied(&self, meter: &MeterKey, user: Option<&UserId>, kind: WindowKind, start: Instant) -> i64 {
        self.runs
            .iter()
            .filter(|pending| !pending.run.key.shadow)
            .filter(|pending| user.is_none() || pending.run.key.user.as_ref() == user)
            .filter(|pending| pending.windows[kind.index()].start == start)
            .flat_map(|pending| &pending.demand)
            .filter(|charge| charge.meter == *meter)
            .fold(0, |sum: i64, charge| sum.saturating_add(charge.amount))
    }
}

impl Tenant {
    /// Takes out what a denial that was just decided added to its run, to be [merged](PendingDenials::merge) once it is
    /// told. `None` if it was the first of its run, which is not counted but written.
    pub fn take_out_denial(
        &mut self,
        decision: &Decision,
        key: &DenialKey,
        charges: &[Charge],
    ) -> Option<PendingDenials> {
        let windows = self.windows_at(decision.at);
        let denial = decision.denial.as_deref().or(decision.shadow.as_deref())?;
        let counted =
            |known: &&mut PendingRun| known.run.key == *key && known.windows == windows && known.run.count > 0;
        let known = self.pending.runs.iter_mut().find(counted)?;
        let mut demand: Vec<Charge> = Vec::with_capacity(charges.len());
        for charge in charges {
            match demand.iter_mut().find(|known| known.meter == charge.meter) {
                Some(known) => known.amount = known.amount.saturating_add(charge.amount),
                None => demand.push(charge.clone()),
            }
        }
        demand.retain(|charge| charge.amount > 0);
        for charge in &demand {
            if let Some(known) = known.demand.iter_mut().find(|known| known.meter == charge.meter) {
                known.amount = known.amount.saturating_sub(charge.amount);
            }
        }
        known.run.count -= 1;
        known.run.amount = known.run.amount.saturating_sub(denial.amount);
        let (at, amount) = (decision.at, denial.amount);
        let run = DenialRun { count: 1, amount, first_at: at, last_at: at, ..known.run.clone() };
        Some(PendingDenials { runs: vec![PendingRun { run, demand, windows }] })
    }

    /// Counts a denial. Gives the run it was counted in, and the entry to append when it is the first of that run (and
    /// so needs a place on disk before it is explained to anybody); no entry when it was only counted.
    pub(crate) fn note_denial(
        &mut self,
        mut user: Option<&mut User>,
        decision: &Decision,
        denial: &Denial,
        charges: &[Charge],
        shadow: bool,
        catalog: &Catalog,
    ) -> (DenialKey, Option<Entry>) {
        let at = decision.at;
        let windows = self.windows_at(at);
        let mut run = self.new_run(user.as_deref(), decision, denial, shadow, &windows);
        if self.pending.count(&run, charges, &windows) {
            return (run.key, None);
        }
        self.pending.runs.retain(|pending| pending.run.count > 0 || pending.run.key.minute == run.key.minute);
        if self.pending.runs.len() >= RUNS_MAX && user.is_some() {
            (user, run.key.user) = (None, None);
            if self.pending.count(&run, charges, &windows) {
                return (run.key, None);
            }
        }
        let demand: Vec<Charge> = charges.iter().filter(|charge| charge.amount > 0).cloned().collect();
        let mut entry = self.entry(Cause::Upkeep, user.as_deref(), at, catalog);
        push_denied(&mut entry.effects, shadow, &demand, &windows, &windows);
        entry.effects.push(Effect::Denials(Box::new(run.clone())));
        self.fold(user, &entry);
        let key = run.key.clone();
        let mut pending = PendingRun { run, demand, windows };
        pending.written_down();
        self.pending.runs.push(pending);
        (key, Some(entry))
    }

    /// A denial that is counted at once and written down later: whoever made it can write nothing now.
    pub(crate) fn denial_to_count(
        &self,
        user: Option<&User>,
        decision: &Decision,
        denial: &Denial,
        charges: &[Charge],
    ) -> (DenialKey, PendingDenials) {
        let windows = self.windows_at(decision.at);
        let run = self.new_run(user, decision, denial, false, &windows);
        let demand: Vec<Charge> = charges.iter().filter(|charge| charge.amount > 0).cloned().collect();
        (run.key.clone(), PendingDenials { runs: vec![PendingRun { run, demand, windows }] })
    }

    fn new_run(
        &self,
        user: Option<&User>,
        decision: &Decision,
        denial: &Denial,
        shadow: bool,
        windows: &Windows,
    ) -> DenialRun {
        let limit = denial.limit.and_then(|index| decision.limits.get(index));
        let subject: Arc<str> = match (limit, &denial.feature) {
            (Some(limit), _) => limit.name.clone(),
            (None, Some(feature)) => feature.as_str().into(),
            (None, None) => "".into(),
        };
        let minute = windows[WindowKind::Minute.index()].start;
        DenialRun {
            key: DenialKey { minute, shadow, code: denial.code, user: user.map(|user| user.id.clone()), subject },
            count: 1,
            amount: denial.amount,
            meter: denial.meter.clone(),
            feature: denial.feature.clone(),
            plan: decision.plan.clone(),
            used: limit.map_or(0, |limit| limit.used),
            max: limit.and_then(|limit| limit.max),
            resets_at: limit.and_then(|limit| limit.resets_at),
            first_at: decision.at,
            last_at: decision.at,
        }
    }

    /// Writes down what was counted for one user (or for requests without one). `None` if nothing was.
    pub fn flush_denials(&mut self, user: Option<&mut User>, now: Instant, catalog: &Catalog) -> Option<Entry> {
        let at = self.instant(now);
        let id = user.as_deref().map(|user| user.id.clone());
        let mut entry = self.entry(Cause::Upkeep, user.as_deref(), at, catalog);
        let windows = self.windows_at(at);
        let before = entry.effects.len();
        for pending in
            self.pending.runs.iter_mut().filter(|pending| pending.run.key.user == id && pending.run.count > 0)
        {
            push_denied(&mut entry.effects, pending.run.key.shadow, &pending.demand, &pending.windows, &windows);
            entry.effects.push(Effect::Denials(Box::new(pending.run.clone())));
            pending.written_down();
        }
        self.pending.runs.retain(|pending| pending.run.count > 0 || at < pending.run.key.minute.plus_ms(60_000));
        if entry.effects.len() == before {
            return None;
        }
        self.fold(user, &entry);
        Some(entry)
    }
}

impl PendingRun {
    fn count_one(&mut self, denied: &DenialRun, charges: &[Charge]) {
        if self.run.count == 0 {
            self.run.first_at = denied.first_at;
        }
        self.run.last_at = self.run.last_at.max(denied.last_at);
        self.run.count += 1;
        self.run.amount = self.run.amount.saturating_add(denied.amount);
        self.add_demand(charges);
    }

    fn add(&mut self, more: &PendingRun) {
        if more.run.count == 0 {
            return;
        }
        if self.run.count == 0 || more.run.first_at < self.run.first_at {
            self.run.first_at = more.run.first_at;
        }
        self.run.last_at = self.run.last_at.max(more.run.last_at);
        self.run.count += more.run.count;
        self.run.amount = self.run.amount.saturating_add(more.run.amount);
        self.add_demand(&more.demand);
    }

    fn add_demand(&mut self, charges: &[Charge]) {
        for charge in charges.iter().filter(|charge| charge.amount > 0) {
            match self.demand.iter_mut().find(|known| known.meter == charge.meter) {
                Some(known) => known.amount = known.amount.saturating_add(charge.amount),
                None => self.demand.push(charge.clone()),
            }
        }
    }

    fn written_down(&mut self) {
        self.run.count = 0;
        self.run.amount = 0;
        self.demand.iter_mut().for_each(|charge| charge.amount = 0);
    }
}

/// What was only shadowed was used: it is not unmet demand.
fn push_denied(effects: &mut Vec<Effect>, shadow: bool, demand: &[Charge], then: &Windows, now: &Windows) {
    if shadow {
        return;
    }
    for charge in demand.iter().filter(|charge| charge.amount > 0) {
        let (open, closed) = Tenant::split_windows(then, now);
        effects.push(Effect::Denied { meter: charge.meter.clone(), amount: charge.amount, open, closed });
    }
}
