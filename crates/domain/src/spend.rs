//! The one rule that decides: check every limit, then spend on every limit. Past the last check nothing may fail.

use crate::{
    catalog::{Catalog, Enforce, Meter, MeterKind, Mode, Plan},
    decision::{Code, Decision, Denial, LimitState},
    entry::{Cause, Effect, Entry, KindSet, Status},
    id::MeterKey,
    lease::end_all,
    limits::{code_of, refuses},
    op::{Charge, OpError, Outcome, Receipt, Spend, checked_meter},
    tenant::{Accounts, Tenant, User, Windows},
    time::Instant,
};
use std::sync::Arc;

impl Tenant {
    pub(crate) fn spend(
        &mut self,
        user: Option<&mut User>,
        spend: &Spend,
        cause: Cause,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let had_leases = !self.leases.is_empty();
        let mut outcome = self.check_and_spend(user, spend, cause, now, catalog)?;
        if had_leases && self.leases.is_empty() {
            // Whatever came of it is only so if nobody charges under them any more.
            let ended = || self.entry(Cause::Upkeep, None, self.instant(now), catalog);
            end_all(outcome.entry.get_or_insert_with(ended));
        }
        Ok(outcome)
    }

    fn check_and_spend(
        &mut self,
        mut user: Option<&mut User>,
        spend: &Spend,
        cause: Cause,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let at = self.instant(now);
        let windows = self.windows_at(at);
        let (single, several);
        let charges: &[Asked<'_>] = match spend.charges.as_slice() {
            // Nearly all ask for one thing: no list has to be made of it.
            [charge] => {
                single =
                    [Asked { meter: checked_meter(catalog, &charge.meter, charge.amount)?, amount: charge.amount }];
                &single
            }
            charges => {
                several = summed(charges, catalog)?;
                &several
            }
        };
        self.check_asked(user.as_deref(), spend, charges, &windows, catalog)?;
        let plan = self.plan(catalog)?;
        let ask = Ask { spend, charges, windows: &windows, at };

        let mut limits = self.limit_states(user.as_deref(), plan, &ask);
        let mut verdict = self.verdict(plan, &ask, &limits);
        let observed = self.enforce(spend, catalog) == Enforce::Observe;
        let mut ends_leases = false;
        if verdict.refused.is_some() && limits.iter().any(|state| state.set_aside > 0) {
            // Nobody is refused for what is only set aside: all leases end, and there is room.
            limits.iter_mut().for_each(|state| state.set_aside = 0);
            verdict = self.verdict(plan, &ask, &limits);
            // What is only observed is charged whatever refuses it.
            ends_leases = verdict.refused.is_none() || observed;
        }
        let (denial, shadow) = match verdict {
            Verdict { refused: Some(denial), .. } if !observed => (Some(denial), None),
            Verdict { refused, shadowed } => (None, refused.or(shadowed)),
        };
        let denial = denial.map(|denial| self.with_upgrade(denial, user.as_deref(), plan, &ask, catalog));
        let mut decision =
            Decision { allowed: denial.is_none(), plan: plan.key.clone(), denial, shadow, limits, charged: false, at };
        if !spend.consume {
            return Ok(Outcome { decision: Some(decision), receipt: None, entry: None, denial: None });
        }
        if ends_leases {
            self.leases.clear();
        }
        if let Some(denial) = decision.denial.clone() {
            let (key, entry) = self.note_denial(user, &decision, &denial, &owned(charges), false, catalog);
            return Ok(Outcome { decision: Some(decision), receipt: None, entry, denial: Some(key) });
        }
        let (shadowed, noted) = match decision.shadow.clone() {
            None => (None, None),
            Some(shadow) => {
                let charges = owned(charges);
                let (key, entry) = self.note_denial(user.as_deref_mut(), &decision, &shadow, &charges, true, catalog);
                (Some(key), entry)
            }
        };
        if spend.binding.is_none() && charges.iter().all(|charge| charge.amount == 0) {
            return Ok(Outcome { decision: Some(decision), receipt: None, entry: noted, denial: shadowed });
        }

        // Past this line nothing may fail.
        let mut entry = self.entry(cause, user.as_deref(), at, catalog);
        entry.binding = spend.binding;
        entry.dimensions = spend.dimensions.clone();
        self.push_charges(&mut entry, user.as_deref(), charges);
        let receipt = spend.refundable.then(|| receipt(&entry.effects, &windows));
        self.fold(user, &entry);
        for state in &mut decision.limits {
            state.used = state.used.saturating_add(amount_on(charges, &state.limit.meter)).max(0);
        }
        decision.charged = true;
        let entry = match noted {
            None => entry,
            Some(noted) => joined(noted, entry),
        };
        Ok(Outcome { decision: Some(decision), receipt, entry: Some(entry), denial: shadowed })
    }

    /// Checks that something is asked for, and that each charge fits its account.
    fn check_asked(
        &self,
        user: Option<&User>,
        spend: &Spend,
        charges: &[Asked<'_>],
        windows: &Windows,
        catalog: &Catalog,
    ) -> Result<(), OpError> {
        if charges.is_empty() && spend.features.is_empty() {
            return Err(OpError::Empty);
        }
        for Asked { meter, amount } in charges {
            let fits = |accounts: &Accounts| match meter.kind {
                MeterKind::Gauge => accounts.has_room_for_level(&meter.key, *amount),
                MeterKind::Counter | MeterKind::Duration => {
                    accounts.has_room_for_use(&meter.key, *amount, KindSet::ALL, &[], windows)
                }
            };
            if !fits(&self.accounts) || user.is_some_and(|user| !fits(&user.accounts)) {
                return Err(OpError::Overflow(meter.key.clone()));
            }
        }
        for feature in &spend.features {
            if !catalog.features.contains_key(feature) {
                return Err(OpError::UnknownFeature(feature.clone()));
            }
        }
        Ok(())
    }

    /// The tenant's plan in this catalog. A catalog is refused while a tenant is on a plan it lacks, so an error here
    /// means that it was forced.
    pub(crate) fn plan<'a>(&self, catalog: &'a Catalog) -> Result<&'a Arc<Plan>, OpError> {
        catalog.plans.get(&self.profile.plan).ok_or_else(|| OpError::UnknownPlan(self.profile.plan.clone()))
    }

    /// Observing anywhere on the path of a request observes; a tenant that is switched on is refused even while the
    /// catalog as a whole observes.
    fn enforce(&self, spend: &Spend, catalog: &Catalog) -> Enforce {
        match spend.enforce {
            Some(Enforce::Observe) => Enforce::Observe,
            route => self.profile.enforce.or(route).unwrap_or(catalog.enforce),
        }
    }

    /// Every limit on every meter asked for, before anything is spent.
    fn limit_states(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> Vec<LimitState> {
        let mut states = Vec::with_capacity(ask.charges.len() * 3);
        for charge in ask.charges {
            self.push_limit_states(&mut states, user, plan, &charge.meter.key, ask.windows, ask.at);
        }
        states
    }

    /// As [`Tenant::limit_states`], as if nothing were set aside for anybody.
    fn limits_of_all(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> Vec<LimitState> {
        let mut states = self.limit_states(user, plan, ask);
        states.iter_mut().for_each(|state| state.set_aside = 0);
        states
    }

    fn verdict(&self, plan: &Plan, ask: &Ask<'_>, limits: &[LimitState]) -> Verdict {
        if self.profile.status == Status::Suspended {
            return Verdict::refused(ask.denial(Code::TenantSuspended));
        }
        if let Some(feature) = ask.spend.features.iter().find(|feature| !plan.has(feature)) {
            let mut denial = ask.denial(Code::FeatureNotInPlan);
            denial.feature = Some(feature.clone());
            return Verdict::refused(denial);
        }
        // Nearly always nothing refuses, and that is seen in one look.
        if !limits.iter().any(|state| refuses(state, amount_on(ask.charges, &state.limit.meter))) {
            return Verdict { refused: None, shadowed: None };
        }
        Verdict { refused: ask.first_refusal(limits, Mode::Hard), shadowed: ask.first_refusal(limits, Mode::Shadow) }
    }

    /// Adds the cheapest public plan under which the same request would pass with today's use.
    fn with_upgrade(
        &self,
        mut denial: Box<Denial>,
        user: Option<&User>,
        plan: &Plan,
        ask: &Ask<'_>,
        catalog: &Catalog,
    ) -> Box<Denial> {
        if denial.code != Code::TenantSuspended {
            denial.upgrade = catalog
                .upgrades_from(plan.rank)
                .into_iter()
                .find(|plan| self.would_pass(user, plan, ask))
                .map(|plan| plan.key.clone());
        }
        denial
    }

    fn would_pass(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> bool {
        ask.spend.features.iter().all(|feature| plan.has(feature))
            && ask.first_refusal(&self.limits_of_all(user, plan, ask), Mode::Hard).is_none()
    }

    /// The effects of charges that were allowed.
    fn push_charges(&self, entry: &mut Entry, user: Option<&User>, charges: &[Asked<'_>]) {
        entry.effects.reserve_exact(charges.len());
        for Asked { meter, amount } in charges.iter().filter(|charge| charge.amount != 0) {
            entry.effects.push(match meter.kind {
                MeterKind::Gauge => self.level_effect(user, &meter.key, *amount),
                MeterKind::Counter | MeterKind::Duration => {
                    let (meter, amount, open, closed) = (meter.key.clone(), *amount, KindSet::ALL, Vec::new());
                    Effect::Use { meter, amount, open, closed }
                }
            });
        }
    }

    /// A gauge moved by `amount`, as far as there is something to give back.
    pub(crate) fn level_effect(&self, user: Option<&User>, meter: &MeterKey, amount: i64) -> Effect {
        self.level_effect_of(user, meter, amount, amount)
    }

    /// As [`Tenant::level_effect`], by amounts that differ for the tenant and its user.
    pub(crate) fn level_effect_of(&self, user: Option<&User>, meter: &MeterKey, amount: i64, of_user: i64) -> Effect {
        Effect::Level {
            meter: meter.clone(),
            tenant_delta: amount.max(-self.accounts.level(meter)),
            user_delta: user.map_or(0, |user| of_user.max(-user.accounts.level(meter))),
            set_at: None,
        }
    }
}

/// What is asked of one meter. It is the catalog's own meter: accounts that come of it share the memory of its key.
#[derive(Clone, Copy)]
struct Asked<'a> {
    meter: &'a Meter,
    amount: i64,
}

/// What is asked, and when.
struct Ask<'a> {
    spend: &'a Spend,
    charges: &'a [Asked<'a>],
    windows: &'a Windows,
    at: Instant,
}

struct Verdict {
    refused: Option<Box<Denial>>,
    shadowed: Option<Box<Denial>>,
}

impl Verdict {
    fn refused(denial: Box<Denial>) -> Self {
        Self { refused: Some(denial), shadowed: None }
    }
}

impl Ask<'_> {
    fn denial(&self, code: Code) -> Box<Denial> {
        let first = self.charges.first();
        Box::new(Denial {
            code,
            limit: None,
            feature: None,
            meter: first.map(|charge| charge.meter.key.clone()),
            amount: first.map_or(0, |charge| charge.amount),
            waiting_helps: false,
            retry_at: None,
            upgrade: None,
        })
    }

    /// The refusal that comes first in order of precedence among the limits of this mode; of several with the same
    /// code, the one that lasts longest. Waiting helps only where it helps with every one of them.
    fn first_refusal(&self, limits: &[LimitState], mode: Mode) -> Option<Box<Denial>> {
        let mut first: Option<(usize, Code)> = None;
        let mut waiting_helps = true;
        let mut retry_at: Option<Instant> = None;
        for (index, state) in limits.iter().enumerate() {
            if state.mode != mode {
                continue;
            }
            let amount = amount_on(self.charges, &state.meter);
            if !refuses(state, amount) {
                continue;
            }
            let code = code_of(state.window);
            waiting_helps &= code.waiting_helps() && state.max.is_some_and(|max| amount <= max);
            retry_at = retry_at.max(state.resets_at);
            let precedes = match first {
                None => true,
                Some((known, first)) => code < first || code == first && state.resets_at > limits[known].resets_at,
            };
            if precedes {
                first = Some((index, code));
            }
        }
        let (index, code) = first?;
        let mut denial = self.denial(code);
        denial.limit = Some(index);
        denial.meter = Some(limits[index].meter.clone());
        denial.amount = amount_on(self.charges, &limits[index].meter);
        denial.waiting_helps = waiting_helps;
        denial.retry_at = retry_at.filter(|_| waiting_helps);
        Some(denial)
    }
}

fn amount_on(charges: &[Asked<'_>], meter: &MeterKey) -> i64 {
    charges.iter().find(|charge| charge.meter.key == *meter).map_or(0, |charge| charge.amount)
}

/// The charges, a meter named twice summed, each checked to have a meaning.
fn summed<'a>(charges: &[Charge], catalog: &'a Catalog) -> Result<Vec<Asked<'a>>, OpError> {
    let mut summed: Vec<Asked<'a>> = Vec::with_capacity(charges.len());
    for Charge { meter, amount } in charges {
        let asked = Asked { meter: checked_meter(catalog, meter, *amount)?, amount: *amount };
        match summed.iter_mut().find(|known| known.meter.key == asked.meter.key) {
            Some(known) => {
                known.amount += amount;
                checked_meter(catalog, meter, known.amount)?;
            }
            None => summed.push(asked),
        }
    }
    Ok(summed)
}

fn owned(charges: &[Asked<'_>]) -> Vec<Charge> {
    charges.iter().map(|charge| Charge { meter: charge.meter.key.clone(), amount: charge.amount }).collect()
}

/// What charges took, from their effects.
fn receipt(effects: &[Effect], windows: &Windows) -> Box<Receipt> {
    let mut receipt = Receipt { uses: Vec::new(), levels: Vec::new(), user_levels: Vec::new(), windows: *windows };
    for effect in effects {
        match effect {
            Effect::Use { meter, amount, .. } => {
                receipt.uses.push(Charge { meter: meter.clone(), amount: *amount });
            }
            Effect::Level { meter, tenant_delta, user_delta, .. } => {
                receipt.levels.push(Charge { meter: meter.clone(), amount: *tenant_delta });
                receipt.user_levels.push(Charge { meter: meter.clone(), amount: *user_delta });
            }
            Effect::Profile(_)
            | Effect::Turn { .. }
            | Effect::Denied { .. }
            | Effect::Denials(_)
            | Effect::Leases(_)
            | Effect::Under { .. } => {}
        }
    }
    Box::new(receipt)
}

/// Two entries of one operation as one: what the first did, then what the second did.
fn joined(mut first: Entry, second: Entry) -> Entry {
    first.effects.extend(second.effects);
    Entry { effects: first.effects, ..second }
}
