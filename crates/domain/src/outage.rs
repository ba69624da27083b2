//! What may pass while the ledger can't be written. A limit that says so lets charges through on what is known of the
//! tenant, each within an allowance, until what passed is in the ledger. Nothing passes under a limit that does not say
//! so, and nothing is charged here for good: what passed is recorded afterwards, as a fact, under its own id.

use crate::{
    catalog::{Catalog, Limit, MeterKind, Mode, Outage, Scope},
    decision::{Decision, LimitState},
    demand::PendingDenials,
    entry::{Binding, Cause, DenialKey},
    id::{MeterKey, UserId},
    op::{Charge, Dimensions, Fact, Movement, Op, OpError, Receipt, Spend},
    tenant::{Tenant, User},
    time::Instant,
};
use std::{collections::BTreeMap, sync::Arc};

/// How far inside the bound for late events a charge is dated that passed longer ago than that.
const LATE_MARGIN_MS: i64 = 60_000;

/// A charge that passed, to be recorded when the ledger can be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Whose use, if the request named a user.
    pub user: Option<UserId>,
    /// What was charged. Never empty.
    pub charges: Vec<Charge>,
    /// When.
    pub at: Instant,
    /// Declared dimensions.
    pub dimensions: Dimensions,
    /// The id it is bound to, whether by the commit of which nobody knows or when it is recorded.
    pub binding: Binding,
}

impl Passed {
    /// What is recorded of it: a fact of its own time, or of the oldest time that is still accepted.
    pub fn fact(&self, now: Instant, catalog: &Catalog) -> Fact {
        let late_ms = catalog.event_bounds.late_ms;
        // Where nothing may be late it happens when it is recorded.
        let oldest = (late_ms > LATE_MARGIN_MS).then(|| now.plus_ms(LATE_MARGIN_MS - late_ms));
        let movement = |charge: &Charge| (charge.meter.clone(), Movement::Add(charge.amount));
        Fact {
            movements: self.charges.iter().map(movement).collect(),
            // A node's clock may have been ahead in the outage.
            time: oldest.map(|oldest| self.at.max(oldest).min(now)),
            dimensions: self.dimensions.clone(),
            binding: Some(self.binding),
        }
    }
}

/// What passed and is not known to be in the ledger, of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outstanding {
    of_all: BTreeMap<MeterKey, i64>,
    of_users: BTreeMap<(UserId, MeterKey), i64>,
}

impl Outstanding {
    /// Counts what passed. What gives back earns no allowance.
    pub fn add(&mut self, passed: &Passed) {
        self.count(passed, 1);
    }

    /// It is in the ledger now.
    pub fn remove(&mut self, passed: &Passed) {
        self.count(passed, -1);
        self.of_all.retain(|_, amount| *amount > 0);
        self.of_users.retain(|_, amount| *amount > 0);
    }

    /// How much of a meter passed: by anybody, or by one user.
    pub fn amount(&self, meter: &MeterKey, user: Option<&UserId>) -> i64 {
        let of_user = |user: &UserId| self.of_users.get(&(user.clone(), meter.clone()));
        user.map_or_else(|| self.of_all.get(meter), of_user).copied().unwrap_or(0)
    }

    fn count(&mut self, passed: &Passed, sign: i64) {
        for Charge { meter, amount } in passed.charges.iter().filter(|charge| charge.amount > 0) {
            let amount = amount.saturating_mul(sign);
            let all = self.of_all.entry(meter.clone()).or_default();
            *all = all.saturating_add(amount);
            if let Some(user) = &passed.user {
                let of_user = self.of_users.entry((user.clone(), meter.clone())).or_default();
                *of_user = of_user.saturating_add(amount);
            }
        }
    }
}

/// Why nothing may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// No limit on what is charged says that it may.
    NothingOpen,
    /// This limit refuses while the ledger can't be written.
    Limit(Arc<str>),
    /// The allowance of this limit is used up.
    Allowance(Arc<str>),
    /// What this user has used is not known, and a limit of users applies.
    UnknownUser,
}

/// What is said to an operation while the ledger can't be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Passing {
    /// It passes; with what has to be recorded of it, unless it was only asked.
    Through(Box<Decision>, Option<Passed>),
    /// What is known refuses it; with what has to be counted of it, unless it was only asked.
    Refused(Box<Decision>, Option<(DenialKey, PendingDenials)>),
    /// Nothing is said: come again when the ledger is back.
    Closed(Closed),
}

impl Tenant {
    /// Whether some limit on what is charged lets pass while the ledger can't be written.
    pub fn may_pass(&self, charges: &[Charge], catalog: &Catalog) -> bool {
        let plan = catalog.plans.get(&self.profile.plan).filter(|plan| plan.limits.any_open());
        plan.is_some_and(|plan| {
            let is_open = |limit: &Arc<Limit>| limit.outage != Outage::Closed;
            charges.iter().any(|charge| plan.limits.on(&charge.meter).iter().any(is_open))
        })
    }

    /// Decides on what is known, while the ledger can't be written, and charges what is known. Only what has a binding is
    /// charged: without one, the question is only asked. `user_known` tells whether what the user used is known.
    ///
    /// # Errors
    /// [`OpError`] where the operation has no meaning; then nothing has changed.
    pub fn pass(
        &mut self,
        mut user: Option<&mut User>,
        user_known: bool,
        (spend, cause): (&Spend, Cause),
        outstanding: &Outstanding,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Passing, OpError> {
        let asked = Spend { consume: false, binding: None, ..spend.clone() };
        let outcome = self.apply(user.as_deref_mut(), &Op::Spend(asked, cause), now, catalog)?;
        let Some(decision) = outcome.decision else { return Ok(Passing::Closed(Closed::NothingOpen)) };
        let is_charged = spend.consume && spend.binding.is_some();
        let whose = user.as_deref().map(|user| user.id.clone());
        if let Err(closed) = are_open(&decision.limits, &spend.charges, user_known) {
            return Ok(Passing::Closed(closed));
        }
        if let Some(denial) = &decision.denial {
            let count = || self.denial_to_count(user.as_deref(), &decision, denial, &spend.charges);
            let counted = is_charged.then(count);
            return Ok(Passing::Refused(Box::new(decision), counted));
        }
        if let Err(closed) = have_room(&decision.limits, &spend.charges, whose.as_ref(), outstanding) {
            return Ok(Passing::Closed(closed));
        }
        if !is_charged {
            return Ok(Passing::Through(Box::new(decision), None));
        }
        let outcome = self.apply(user, &Op::Spend(spend.clone(), cause), now, catalog)?;
        let decision = outcome.decision.unwrap_or(decision);
        let passed = passed(spend, whose, decision.at);
        Ok(Passing::Through(Box::new(decision), passed))
    }

    /// What giving a charge back takes, once it is recorded: from the windows it was recorded in.
    pub fn receipt_of(&self, passed: &Passed, now: Instant, catalog: &Catalog) -> Receipt {
        let at = self.instant(now);
        let happened = passed.fact(now, catalog).time.unwrap_or(at).min(at);
        let is_gauge =
            |charge: &&Charge| catalog.meters.get(&charge.meter).is_some_and(|meter| meter.kind == MeterKind::Gauge);
        let (levels, uses): (Vec<Charge>, Vec<Charge>) =
            passed.charges.iter().cloned().partition(|charge| is_gauge(&charge));
        let of_user = |charge: &Charge| match passed.user {
            Some(_) => charge.clone(),
            None => Charge { amount: 0, ..charge.clone() },
        };
        let user_levels = levels.iter().map(of_user).collect();
        Receipt {
            uses,
            levels,
            user_levels,
            draws: Vec::new(),
            windows: self.windows_of_past(happened, &self.windows_at(at)),
        }
    }
}

/// Whether an operation that was decided on what is known, and of whose commit nobody knows, may pass: what is known
/// holds its charge already. Gives what has to be recorded of it.
///
/// # Errors
/// [`Closed`].
pub fn pass_decided(
    decision: &Decision,
    spend: &Spend,
    user: Option<UserId>,
    outstanding: &Outstanding,
) -> Result<Option<Passed>, Closed> {
    are_open(&decision.limits, &spend.charges, true)?;
    have_room(&decision.limits, &spend.charges, user.as_ref(), outstanding)?;
    Ok(passed(spend, user, decision.at))
}

fn passed(spend: &Spend, user: Option<UserId>, at: Instant) -> Option<Passed> {
    let charges: Vec<Charge> = spend.charges.iter().filter(|charge| charge.amount != 0).cloned().collect();
    let binding = spend.binding.filter(|_| !charges.is_empty())?;
    Some(Passed { user, charges, at, dimensions: spend.dimensions.clone(), binding })
}

/// Every limit that could refuse must be open, and of the limits on each meter one must be.
fn are_open(limits: &[LimitState], charges: &[Charge], user_known: bool) -> Result<(), Closed> {
    let could_refuse = |state: &&LimitState| state.mode == Mode::Hard && state.max.is_some();
    let is_closed = |state: &&LimitState| state.outage == Outage::Closed;
    if let Some(state) = limits.iter().filter(could_refuse).find(is_closed) {
        return Err(Closed::Limit(state.name.clone()));
    }
    let is_on = |charge: &Charge| limits.iter().any(|state| !is_closed(&state) && state.meter == charge.meter);
    if charges.is_empty() || !charges.iter().all(is_on) {
        return Err(Closed::NothingOpen);
    }
    if !user_known && limits.iter().any(|state| state.scope == Scope::User) {
        return Err(Closed::UnknownUser);
    }
    Ok(())
}

/// Whether every open limit's allowance has room.
fn have_room(
    limits: &[LimitState],
    charges: &[Charge],
    user: Option<&UserId>,
    outstanding: &Outstanding,
) -> Result<(), Closed> {
    for state in limits {
        let Outage::Open { allowance } = state.outage else { continue };
        let of_meter = charges.iter().filter(|charge| charge.meter == state.meter && charge.amount > 0);
        let amount = of_meter.fold(0_i64, |sum, charge| sum.saturating_add(charge.amount));
        let user = user.filter(|_| state.scope == Scope::User);
        if amount > 0 && outstanding.amount(&state.meter, user).saturating_add(amount) > allowance {
            return Err(Closed::Allowance(state.name.clone()));
        }
    }
    Ok(())
}
