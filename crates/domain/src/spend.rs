//! The one rule that decides: check every limit, then spend on every limit. Past the last check nothing may fail.

use crate::{
    catalog::{Catalog, Enforce, Limit, MeterKind, Mode, Plan, Scope, Source},
    decision::{Code, Decision, Denial, LimitState},
    entry::{Cause, Effect, Entry, KindSet, Override, Status},
    id::MeterKey,
    op::{Charge, OpError, Outcome, Receipt, Spend, checked_meter},
    tenant::{Account, Accounts, Tenant, User, Windows},
    time::{Instant, WindowKind},
};
use std::sync::Arc;

impl Tenant {
    pub(crate) fn spend(
        &mut self,
        mut user: Option<&mut User>,
        spend: &Spend,
        cause: Cause,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let at = self.instant(now);
        let windows = self.windows_at(at);
        let charges = self.checked_charges(user.as_deref(), spend, &windows, catalog)?;
        let plan = self.plan(catalog)?;
        let ask = Ask { spend, charges: &charges, windows: &windows, at };

        let limits = self.limit_states(user.as_deref(), plan, &ask, catalog);
        let verdict = self.verdict(plan, &ask, &limits);
        let observed = self.enforce(spend, catalog) == Enforce::Observe;
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
        if let Some(denial) = decision.denial.clone() {
            let (key, entry) = self.note_denial(user, &decision, &denial, &charges, false, catalog);
            return Ok(Outcome { decision: Some(decision), receipt: None, entry, denial: Some(key) });
        }
        let (shadowed, noted) = match decision.shadow.clone() {
            None => (None, None),
            Some(shadow) => {
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
        let receipt = self.push_charges(&mut entry, user.as_deref(), &charges, &windows, catalog);
        self.fold(user, &entry);
        for state in &mut decision.limits {
            state.used = state.used.saturating_add(amount_on(&charges, &state.meter)).max(0);
        }
        decision.charged = true;
        let entry = match noted {
            None => entry,
            Some(noted) => joined(noted, entry),
        };
        Ok(Outcome { decision: Some(decision), receipt: Some(receipt), entry: Some(entry), denial: shadowed })
    }

    /// The charges, a meter named twice summed, each checked to have a meaning and to fit its account.
    fn checked_charges(
        &self,
        user: Option<&User>,
        spend: &Spend,
        windows: &Windows,
        catalog: &Catalog,
    ) -> Result<Vec<Charge>, OpError> {
        if spend.charges.is_empty() && spend.features.is_empty() {
            return Err(OpError::Empty);
        }
        let mut charges: Vec<Charge> = Vec::with_capacity(spend.charges.len());
        for charge in &spend.charges {
            let meter = checked_meter(catalog, &charge.meter, charge.amount)?;
            match charges.iter_mut().find(|known| known.meter == charge.meter) {
                Some(known) => {
                    known.amount += charge.amount;
                    checked_meter(catalog, &known.meter, known.amount)?;
                }
                // The catalog's own name: accounts that come of it share its memory.
                None => charges.push(Charge { meter: meter.key.clone(), amount: charge.amount }),
            }
        }
        for charge in &charges {
            let fits = |accounts: &Accounts| {
                accounts.has_room_for_use(&charge.meter, charge.amount, KindSet::ALL, &[], windows)
                    && accounts.has_room_for_level(&charge.meter, charge.amount)
            };
            if !fits(&self.accounts) || user.is_some_and(|user| !fits(&user.accounts)) {
                return Err(OpError::Overflow(charge.meter.clone()));
            }
        }
        for feature in &spend.features {
            if !catalog.features.contains_key(feature) {
                return Err(OpError::UnknownFeature(feature.clone()));
            }
        }
        Ok(charges)
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
    fn limit_states(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>, catalog: &Catalog) -> Vec<LimitState> {
        let mut states = Vec::with_capacity(ask.charges.len() * 3);
        for charge in ask.charges {
            self.push_limit_states(&mut states, user, plan, &charge.meter, ask.windows, ask.at);
        }
        debug_assert!(states.iter().all(|state| catalog.meters.contains_key(&state.meter)));
        states
    }

    /// The limits on one meter under a plan, with the tenant's overrides in place, and their numbers.
    pub(crate) fn push_limit_states(
        &self,
        states: &mut Vec<LimitState>,
        user: Option<&User>,
        plan: &Plan,
        meter: &MeterKey,
        windows: &Windows,
        at: Instant,
    ) {
        // Both accounts are looked up once, whatever the number of limits.
        let accounts = [self.accounts.get(meter), user.and_then(|user| user.accounts.get(meter))];
        let in_force = |own: &&Override| own.meter == *meter && own.until.is_none_or(|until| at < until);
        let overrides = || self.profile.overrides.iter().filter(in_force);
        // A limit on users bounds nothing where no user is named.
        let applies = |scope: Scope| scope == Scope::Tenant || user.is_some();
        for limit in plan.limits_on(meter).filter(|limit| applies(limit.scope)) {
            let own = overrides().find(|own| own.window == limit.window && own.scope == limit.scope);
            let state = match own {
                None => limit_state(limit, Source::Plan, accounts, windows),
                Some(own) => {
                    let limit = Limit { max: own.max, mode: own.mode, ..limit.clone() };
                    limit_state(&limit, Source::Override, accounts, windows)
                }
            };
            states.push(state);
        }
        for own in overrides().filter(|own| applies(own.scope)) {
            if plan.limits_on(meter).any(|limit| limit.window == own.window && limit.scope == own.scope) {
                continue;
            }
            let limit = Limit {
                name: Limit::default_name(meter, own.window, own.scope).into(),
                meter: meter.clone(),
                max: own.max,
                window: own.window,
                scope: own.scope,
                mode: own.mode,
                answer_402: false,
                outage: Default::default(),
            };
            states.push(limit_state(&limit, Source::Override, accounts, windows));
        }
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
        Verdict { refused: ask.first_refusal(limits, Mode::Hard), shadowed: ask.first_refusal(limits, Mode::Shadow) }
    }

    /// Adds the cheapest public plan under which the same request would pass with today's use.
    fn with_upgrade(
        &self,
        mut denial: Denial,
        user: Option<&User>,
        plan: &Plan,
        ask: &Ask<'_>,
        catalog: &Catalog,
    ) -> Denial {
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
        let mut states = Vec::new();
        for charge in ask.charges {
            self.push_limit_states(&mut states, user, plan, &charge.meter, ask.windows, ask.at);
        }
        ask.spend.features.iter().all(|feature| plan.has(feature)) && ask.first_refusal(&states, Mode::Hard).is_none()
    }

    /// The effects of charges that were allowed, and the receipt for them.
    fn push_charges(
        &self,
        entry: &mut Entry,
        user: Option<&User>,
        charges: &[Charge],
        windows: &Windows,
        catalog: &Catalog,
    ) -> Receipt {
        let mut receipt = Receipt { uses: Vec::new(), levels: Vec::new(), user_levels: Vec::new(), windows: *windows };
        for charge in charges.iter().filter(|charge| charge.amount != 0) {
            let gauge = catalog.meters.get(&charge.meter).is_some_and(|meter| meter.kind == MeterKind::Gauge);
            if gauge {
                let effect = self.level_effect(user, &charge.meter, charge.amount);
                if let Effect::Level { tenant_delta, user_delta, .. } = effect {
                    receipt.levels.push(Charge { meter: charge.meter.clone(), amount: tenant_delta });
                    receipt.user_levels.push(Charge { meter: charge.meter.clone(), amount: user_delta });
                }
                entry.effects.push(effect);
            } else {
                receipt.uses.push(charge.clone());
                entry.effects.push(Effect::Use {
                    meter: charge.meter.clone(),
                    amount: charge.amount,
                    open: KindSet::ALL,
                    closed: Vec::new(),
                });
            }
        }
        receipt
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

/// What is asked, and when.
struct Ask<'a> {
    spend: &'a Spend,
    charges: &'a [Charge],
    windows: &'a Windows,
    at: Instant,
}

struct Verdict {
    refused: Option<Denial>,
    shadowed: Option<Denial>,
}

impl Verdict {
    fn refused(denial: Denial) -> Self {
        Self { refused: Some(denial), shadowed: None }
    }
}

impl Ask<'_> {
    fn denial(&self, code: Code) -> Denial {
        let first = self.charges.first();
        Denial {
            code,
            limit: None,
            feature: None,
            meter: first.map(|charge| charge.meter.clone()),
            amount: first.map_or(0, |charge| charge.amount),
            waiting_helps: false,
            retry_at: None,
            upgrade: None,
        }
    }

    /// The refusal that comes first in order of precedence among the limits of this mode; of several with the same
    /// code, the one that lasts longest. Waiting helps only where it helps with every one of them.
    fn first_refusal(&self, limits: &[LimitState], mode: Mode) -> Option<Denial> {
        let mut first: Option<(usize, Code)> = None;
        let mut waiting_helps = true;
        let mut retry_at: Option<Instant> = None;
        for (index, state) in limits.iter().enumerate() {
            let amount = amount_on(self.charges, &state.meter);
            if state.mode != mode || !refuses(state, amount) {
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

/// One limit with its numbers. `accounts` are the tenant's and the user's.
fn limit_state(limit: &Limit, source: Source, accounts: [Option<&Account>; 2], windows: &Windows) -> LimitState {
    let account = match limit.scope {
        Scope::Tenant => accounts[0],
        Scope::User => accounts[1],
    };
    let (used, resets_at) = match limit.window {
        None => (account.map_or(0, |account| account.level), None),
        Some(kind) => {
            let window = &windows[kind.index()];
            (account.and_then(|account| account.slot(kind, window)).map_or(0, |slot| slot.used), Some(window.end))
        }
    };
    LimitState {
        name: limit.name.clone(),
        meter: limit.meter.clone(),
        window: limit.window,
        scope: limit.scope,
        mode: limit.mode,
        source,
        max: limit.max,
        used,
        held: 0,
        resets_at,
        answer_402: limit.answer_402,
    }
}

/// A limit refuses what would carry use past it. Giving back and asking for nothing never do, even past the limit;
/// asking for something does when the limit is full.
fn refuses(state: &LimitState, amount: i64) -> bool {
    let Some(max) = state.max else { return false };
    amount > 0 && state.used.saturating_add(state.held).saturating_add(amount) > max
}

fn code_of(window: Option<WindowKind>) -> Code {
    match window {
        None => Code::GaugeLimitReached,
        Some(WindowKind::Period | WindowKind::Month | WindowKind::Day) => Code::PeriodLimitReached,
        Some(WindowKind::Hour | WindowKind::Minute) => Code::RateLimitReached,
    }
}

fn amount_on(charges: &[Charge], meter: &MeterKey) -> i64 {
    charges.iter().find(|charge| charge.meter == *meter).map_or(0, |charge| charge.amount)
}

/// Two entries of one operation as one: what the first did, then what the second did.
fn joined(mut first: Entry, second: Entry) -> Entry {
    first.effects.extend(second.effects);
    Entry { effects: first.effects, ..second }
}
