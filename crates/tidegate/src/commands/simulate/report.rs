//! What the replay comes to, tenant by tenant and in sum. No I/O.

use anyhow::anyhow;
use domain::{
    catalog::{Catalog, Limit, Plan},
    day::Day,
    id::PlanKey,
    time::Frame,
};
use forecast::simulate::{Recorded, Replayed, Revenue, plan_that_holds, replay};
use std::{collections::BTreeMap, sync::Arc};

/// A tenant as it was.
pub struct Subject {
    /// Its id.
    pub tenant: String,
    /// The plan it is on.
    pub plan: PlanKey,
    /// What shapes its windows.
    pub frame: Frame,
    /// Limits of its own: they stay, whatever the plan becomes.
    pub overrides: Vec<Limit>,
    /// What it used.
    pub recorded: Vec<Recorded>,
}

/// What the proposed plans would have done to one tenant.
pub struct Line {
    /// Its id.
    pub tenant: String,
    /// The plan it is on.
    pub plan: PlanKey,
    /// What its place takes among the proposed ones.
    pub proposed: PlanKey,
    /// Limits it came near or passed.
    pub limits: Vec<Replayed>,
    /// The first proposed plan that would have refused nothing; `None` where every one would have.
    pub needs: Option<PlanKey>,
}

impl Line {
    /// Whether something would have been refused.
    pub fn refused(&self) -> bool {
        self.limits.iter().any(Replayed::refuses)
    }
}

/// What the proposed plans would have done.
pub struct Report {
    current: Catalog,
    proposed: Catalog,
    moves: BTreeMap<PlanKey, PlanKey>,
    /// First and last day that were replayed.
    pub days: (Day, Day),
    /// A line for each tenant, in order of the tenants.
    pub lines: Vec<Line>,
    /// What tenants pay by the plans in force.
    pub revenue_now: Revenue,
    /// What they would pay if everybody stayed on the plan that takes the place of theirs...
    pub revenue_staying: Revenue,
    /// ...and if everybody bought what would have held.
    pub revenue_holding: Revenue,
}

impl Report {
    /// A report without tenants. `moves` says which proposed plan takes the place of which of the current ones, where that is not the
    /// one of the same name.
    pub fn new(current: Catalog, proposed: Catalog, moves: BTreeMap<PlanKey, PlanKey>, days: (Day, Day)) -> Self {
        Self {
            current,
            proposed,
            moves,
            days,
            lines: Vec::new(),
            revenue_now: Revenue::default(),
            revenue_staying: Revenue::default(),
            revenue_holding: Revenue::default(),
        }
    }

    /// Replays one tenant.
    ///
    /// # Errors
    /// A plan that nothing among the proposed ones takes the place of.
    pub fn add(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let name = self.moves.get(&subject.plan).unwrap_or(&subject.plan);
        let plan = self.proposed.plans.get(name).ok_or_else(|| self.missing(subject, name))?;
        let candidates: Vec<_> = std::iter::once(plan)
            .chain(self.proposed.upgrades_from(plan.rank))
            .map(|plan| with_overrides(plan, &subject.overrides))
            .collect();
        let mut limits = replay(&candidates[0], &subject.frame, &subject.recorded, self.proposed.warn_percent);
        limits.retain(|limit| limit.passed > 0 || limit.warned > 0);
        let holds = plan_that_holds(&candidates, &subject.frame, &subject.recorded);
        let price = |plan: Option<&Arc<Plan>>| plan.and_then(|plan| plan.price.clone());
        self.revenue_now.add(price(self.current.plans.get(&subject.plan)).as_ref());
        self.revenue_staying.add(plan.price.as_ref());
        self.revenue_holding.add(price(holds.or(Some(plan))).as_ref());
        self.lines.push(Line {
            tenant: subject.tenant.clone(),
            plan: subject.plan.clone(),
            proposed: plan.key.clone(),
            needs: holds.map(|plan| plan.key.clone()),
            limits,
        });
        Ok(())
    }

    fn missing(&self, subject: &Subject, name: &PlanKey) -> anyhow::Error {
        let known: Vec<&str> = self.proposed.plans.keys().map(PlanKey::as_str).collect();
        anyhow!(
            "the tenant {} is on {}, but the proposed catalog has no plan {name}; say which takes its place with --move {}=NAME ({})",
            subject.tenant,
            subject.plan,
            subject.plan,
            known.join(", ")
        )
    }

    /// How many tenants would have been refused something.
    pub fn refused(&self) -> usize {
        self.lines.iter().filter(|line| line.refused()).count()
    }

    /// How many would have been warned, but not refused.
    pub fn only_warned(&self) -> usize {
        self.lines.iter().filter(|line| !line.refused() && !line.limits.is_empty()).count()
    }

    /// How many would have needed which plan instead of the one that takes the place of theirs; `None`: no plan would have held.
    pub fn moved(&self) -> BTreeMap<Option<&PlanKey>, usize> {
        let mut moved = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.needs.as_ref() != Some(&line.proposed)) {
            *moved.entry(line.needs.as_ref()).or_default() += 1;
        }
        moved
    }

    /// The names of proposed limits that daily records can't tell of.
    pub fn not_replayed(&self) -> Vec<(&PlanKey, &str)> {
        let plans = self.proposed.plans.values();
        let limits = plans.flat_map(|plan| plan.limits.iter().map(move |limit| (&plan.key, limit)));
        let left_out = limits.filter(|(_, limit)| limit.max.is_some() && !forecast::simulate::can_replay(limit));
        left_out.map(|(plan, limit)| (plan, &*limit.name)).collect()
    }
}

/// A plan with the limits that a tenant has of its own in the place of the plan's.
fn with_overrides(plan: &Arc<Plan>, overrides: &[Limit]) -> Arc<Plan> {
    if overrides.is_empty() {
        return Arc::clone(plan);
    }
    let kept = plan.limits.iter().filter(|limit| !overrides.iter().any(|own| own.same_account(limit)));
    let limits = kept.chain(overrides).cloned().collect();
    Arc::new(Plan { limits, ..Plan::clone(plan) })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
