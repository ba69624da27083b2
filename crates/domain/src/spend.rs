//! The one rule that decides: check every limit, then spend on every limit. Past the last check nothing may fail.

use crate::{
    ask::{Ask, Asked, Judged, amount_on},
    catalog::{Catalog, Enforce, MeterKind, Plan},
    entry::{Cause, Effect, Entry, KindSet},
    id::MeterKey,
    lease::end_all,
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
        self.check_asked(user.as_deref(), spend, charges, (&windows, at), catalog)?;
        let plan = self.plan(catalog)?;
        let ask = Ask { features: &spend.features, charges, windows: &windows, at, session: None };
        let observed = self.enforce(spend.enforce, catalog) == Enforce::Observe;
        let Judged { mut decision, ends_leases } = self.judge(user.as_deref(), plan, &ask, observed, catalog);
        if !spend.consume {
            return Ok(Outcome { decision: Some(decision), ..Outcome::default() });
        }
        if ends_leases {
            self.leases.clear();
        }
        if let Some(denial) = decision.denial.clone() {
            let (key, entry) = self.note_denial(user, &decision, &denial, &owned(charges), false, catalog);
            return Ok(Outcome { decision: Some(decision), entry, denial: Some(key), ..Outcome::default() });
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
            return Ok(Outcome { decision: Some(decision), entry: noted, denial: shadowed, ..Outcome::default() });
        }

        // Past this line nothing may fail.
        let mut entry = self.entry(cause, user.as_deref(), at, catalog);
        entry.binding = spend.binding;
        entry.dimensions = spend.dimensions.clone();
        let receipt = match &spend.hold {
            Some(terms) => {
                let held = charges.iter().map(|asked| (asked.meter, asked.amount));
                let effect = self.hold_effect(user.as_deref(), terms, held, &spend.dimensions, (at, &windows));
                entry.effects.push(effect);
                None
            }
            None => {
                self.push_charges(&mut entry, user.as_deref(), charges);
                self.draw(&mut entry, catalog);
                spend.refundable.then(|| receipt(&entry.effects, &windows))
            }
        };
        self.fold(user.as_deref_mut(), &entry);
        if self.grants.is_empty() {
            for state in &mut decision.limits {
                let amount = amount_on(charges, &state.limit.meter);
                let moved = if spend.hold.is_some() { &mut state.held } else { &mut state.used };
                *moved = moved.saturating_add(amount).max(0);
            }
        } else {
            // Some of it may have come out of grants.
            decision.limits.clear();
            for charge in charges {
                let meter = &charge.meter.key;
                self.push_limit_states(&mut decision.limits, user.as_deref(), plan, meter, &windows, at);
            }
        }
        decision.charged = spend.hold.is_none();
        let entry = match noted {
            None => entry,
            Some(noted) => joined(noted, entry),
        };
        Ok(Outcome { decision: Some(decision), receipt, entry: Some(entry), denial: shadowed, session: None })
    }

    /// Checks that something is asked for, and that each charge fits its account.
    fn check_asked(
        &self,
        user: Option<&User>,
        spend: &Spend,
        charges: &[Asked<'_>],
        (windows, at): (&Windows, Instant),
        catalog: &Catalog,
    ) -> Result<(), OpError> {
        if charges.is_empty() && spend.features.is_empty() {
            return Err(OpError::Empty);
        }
        if let Some(terms) = &spend.hold {
            self.check_hold(terms, &spend.charges, at)?;
        }
        for Asked { meter, amount } in charges {
            let fits = |accounts: &Accounts| match meter.kind {
                MeterKind::Gauge => accounts.has_room_for_level(&meter.key, *amount),
                MeterKind::Counter | MeterKind::Duration => {
                    accounts.has_room_for_use(&meter.key, *amount, KindSet::ALL, &[], windows)
                }
            };
            let whose = user.map(|user| &user.id);
            let can_be_held = spend.hold.is_none() || self.in_flight.has_room_for(&meter.key, whose, *amount);
            if !can_be_held || !fits(&self.accounts) || user.is_some_and(|user| !fits(&user.accounts)) {
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
    let mut receipt =
        Receipt { uses: Vec::new(), levels: Vec::new(), user_levels: Vec::new(), draws: Vec::new(), windows: *windows };
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
            | Effect::Under { .. }
            | Effect::Hold(_)
            | Effect::HoldSettled { .. }
            | Effect::Session(_)
            | Effect::SessionClosed(_)
            | Effect::Grant(_)
            | Effect::GrantRevoked { .. }
            | Effect::Warned(_) => {}
            Effect::Draw(draw) => receipt.draws.push(draw.as_ref().clone()),
        }
    }
    Box::new(receipt)
}

/// Two entries of one operation as one: what the first did, then what the second did.
fn joined(mut first: Entry, second: Entry) -> Entry {
    first.effects.extend(second.effects);
    Entry { effects: first.effects, ..second }
}
