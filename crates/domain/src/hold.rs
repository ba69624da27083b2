//! Holds: an amount reserved for work in flight. It is committed with the true amount, released, or lapses by itself;
//! each exactly once, and always to the windows in which it was taken, even if they have closed since.

use crate::{
    catalog::{Catalog, Meter, MeterKind, Mode, Unsettled},
    decision::{Decision, LimitState},
    entry::{Binding, Cause, Effect, Entry},
    id::{MeterKey, UserId},
    in_flight::IN_FLIGHT_MAX,
    limits::refuses,
    op::{Charge, Dimensions, OpError, Outcome, checked_meter},
    tenant::{Tenant, User, Windows},
    time::{DAY_MS, Instant, WindowKind},
};

/// Names a hold: the id that its entry is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(pub u128);

/// What happens when more is committed than was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Excess {
    /// It is recorded, whatever the limits say: the work was done.
    #[default]
    Overage,
    /// It is charged if there is room; if not, nothing is settled.
    Room,
    /// Nothing is settled.
    Refuse,
}

impl Excess {
    /// Every policy; the position is part of the ledger's format.
    pub const ALL: [Excess; 3] = [Excess::Overage, Excess::Room, Excess::Refuse];

    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Excess::Overage => "overage",
            Excess::Room => "room",
            Excess::Refuse => "refuse",
        }
    }

    /// The value with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|excess| excess.word() == word)
    }
}

/// How a charge is to be held instead of made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTerms {
    /// Its name: the id of the binding.
    pub id: HoldId,
    /// For how long, milliseconds. From 1 to [`HOLD_MAX_MS`].
    pub ttl_ms: i64,
    /// What happens when more is committed.
    pub excess: Excess,
}

/// The longest a hold may last, milliseconds: a day.
pub const HOLD_MAX_MS: i64 = DAY_MS;

/// How long a hold that lapsed may still be settled with what the work took, milliseconds: a day.
const LATE_MS: i64 = DAY_MS;

/// A part of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCharge {
    /// Which meter.
    pub meter: MeterKey,
    /// How much. Never negative.
    pub amount: i64,
    /// Whether the meter is a gauge.
    pub is_level: bool,
    /// What becomes of it when nobody settles it.
    pub unsettled: Unsettled,
}

/// An amount reserved for work in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its name.
    pub id: HoldId,
    /// Whose, if a user was named.
    pub user: Option<UserId>,
    /// What is held.
    pub charges: Vec<HeldCharge>,
    /// The windows it was taken in.
    pub windows: Windows,
    /// When it was taken.
    pub taken_at: Instant,
    /// When it lapses.
    pub expires_at: Instant,
    /// What happens when more is committed.
    pub excess: Excess,
    /// Declared dimensions of what will be charged.
    pub dimensions: Dimensions,
    /// Whether it has lapsed, and that is written down. It holds nothing then; what the work took may still be told.
    pub lapsed: bool,
}

impl Hold {
    /// Whether it lapsed so long ago that nothing is accepted for it any more, whether or not that is written down.
    pub(crate) fn is_too_late(&self, at: Instant) -> bool {
        self.expires_at.plus_ms(LATE_MS) < at
    }

    /// What is held of a part still, or was charged for it when the hold lapsed.
    fn taken_of(&self, part: &HeldCharge, at: Instant) -> i64 {
        match self.lapsed {
            true => self.charged_by_lapse(part),
            false if at < self.expires_at || part.unsettled == Unsettled::Charge => part.amount,
            false => 0,
        }
    }

    /// What was charged for a part when the hold lapsed.
    fn charged_by_lapse(&self, part: &HeldCharge) -> i64 {
        match (self.lapsed, part.unsettled) {
            (true, Unsettled::Charge) => part.amount,
            _ => 0,
        }
    }
}

/// How a hold ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The work took this much. What is not named took what was held.
    Commit(Vec<Charge>),
    /// The work was not done.
    Release,
}

/// A hold to settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Which.
    pub id: HoldId,
    /// How.
    pub how: Settlement,
    /// Binds its settlement, so that it has one.
    pub binding: Option<Binding>,
}

impl Tenant {
    /// The effect that holds what would else be charged.
    pub(crate) fn hold_effect<'a>(
        &self,
        user: Option<&User>,
        terms: &HoldTerms,
        charges: impl Iterator<Item = (&'a Meter, i64)>,
        dimensions: &Dimensions,
        (at, windows): (Instant, &Windows),
    ) -> Effect {
        let charges = charges.filter(|(_, amount)| *amount > 0).map(|(meter, amount)| HeldCharge {
            meter: meter.key.clone(),
            amount,
            is_level: meter.kind == MeterKind::Gauge,
            unsettled: meter.unsettled,
        });
        Effect::Hold(Box::new(Hold {
            id: terms.id,
            user: user.map(|user| user.id.clone()),
            charges: charges.collect(),
            windows: *windows,
            taken_at: at,
            expires_at: at.plus_ms(terms.ttl_ms),
            excess: terms.excess,
            dimensions: dimensions.clone(),
            lapsed: false,
        }))
    }

    /// Whether another hold can be taken.
    pub(crate) fn check_hold(&self, terms: &HoldTerms, charges: &[Charge], at: Instant) -> Result<(), OpError> {
        if !(1..=HOLD_MAX_MS).contains(&terms.ttl_ms) {
            return Err(OpError::HoldTime { ttl_ms: terms.ttl_ms, max_ms: HOLD_MAX_MS });
        }
        if charges.iter().all(|charge| charge.amount == 0) {
            return Err(OpError::NothingToHold);
        }
        if let Some(charge) = charges.iter().find(|charge| charge.amount < 0) {
            return Err(OpError::NegativeAmount(charge.meter.clone()));
        }
        let is_counted = |hold: &&Hold| !hold.is_too_late(at);
        if self.in_flight.holds_count() >= IN_FLIGHT_MAX
            && self.in_flight.holds().filter(is_counted).count() >= IN_FLIGHT_MAX
        {
            return Err(OpError::TooManyInFlight(IN_FLIGHT_MAX));
        }
        Ok(())
    }

    /// Settles a hold. What is refused leaves it as it is.
    pub(crate) fn settle(
        &mut self,
        mut user: Option<&mut User>,
        settle: &Settle,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let at = self.instant(now);
        let Some(hold) = self.in_flight.hold(settle.id).filter(|hold| !hold.is_too_late(at)).cloned() else {
            return Err(OpError::UnknownHold);
        };
        let took = took(&hold, &settle.how, catalog)?;
        let windows = self.windows_at(at);
        let mut crowds = false;
        for (part, took) in hold.charges.iter().zip(&took) {
            let more = took - hold.taken_of(part, at);
            if *took > part.amount && !self.may_exceed(user.as_deref(), &hold, (part, more), at, catalog) {
                return Err(OpError::HoldExceeded { meter: part.meter.clone(), held: part.amount, took: *took });
            }
            crowds |= self.crowds_leases(&part.meter, more, at, catalog);
        }
        let effects = self.settlement_effects(user.as_deref(), &hold, &took, &windows);
        for effect in &effects {
            self.check_range(user.as_deref(), effect, &windows)?;
        }
        let mut entry = self.entry(Cause::Hold, user.as_deref(), at, catalog);
        entry.binding = settle.binding;
        entry.dimensions = hold.dimensions.clone();
        if crowds {
            self.end_leases(&mut entry);
        }
        entry.effects.push(Effect::HoldSettled { id: hold.id });
        entry.effects.extend(effects);
        self.draw(&mut entry, catalog);
        self.fold(user.as_deref_mut(), &entry);
        let decision = self.settled(user.as_deref(), &hold, &took, at, catalog);
        Ok(Outcome { decision: Some(decision), ..Outcome::of_entry(entry) })
    }

    /// Whether more may be committed than was held.
    fn may_exceed(
        &self,
        user: Option<&User>,
        hold: &Hold,
        (part, more): (&HeldCharge, i64),
        at: Instant,
        catalog: &Catalog,
    ) -> bool {
        let windows = self.windows_at(at);
        let mut limits = Vec::new();
        match (hold.excess, self.plan(catalog)) {
            (Excess::Overage, _) => return true,
            (Excess::Refuse, _) | (Excess::Room, Err(_)) => return false,
            (Excess::Room, Ok(plan)) => {
                self.push_limit_states(&mut limits, user, plan, &part.meter, &windows, at);
            }
        }
        // A window that has closed since is no longer bounded; it is charged there all the same.
        let is_open = |kind: WindowKind| hold.windows[kind.index()].start == windows[kind.index()].start;
        let bounds = |state: &&LimitState| state.mode == Mode::Hard && state.window.kind().is_none_or(is_open);
        // Nobody is refused for what is only set aside: then all leases end.
        limits.iter_mut().for_each(|state| state.set_aside = 0);
        !limits.iter().filter(bounds).any(|state| refuses(state, more))
    }

    /// The charges that settle a hold, less what was charged when it lapsed.
    fn settlement_effects(&self, user: Option<&User>, hold: &Hold, took: &[i64], now: &Windows) -> Vec<Effect> {
        let (open, closed) = Tenant::split_windows(&hold.windows, now);
        let mut effects = Vec::with_capacity(took.len());
        for (part, took) in hold.charges.iter().zip(took) {
            let amount = took - hold.charged_by_lapse(part);
            if amount == 0 {
                continue;
            }
            let meter = part.meter.clone();
            effects.push(match part.is_level {
                true => self.level_effect(user, &meter, amount),
                false => Effect::Use { meter, amount, open, closed: closed.clone() },
            });
        }
        effects
    }

    fn settled(&self, user: Option<&User>, hold: &Hold, took: &[i64], at: Instant, catalog: &Catalog) -> Decision {
        let mut limits = Vec::new();
        if let Ok(plan) = self.plan(catalog) {
            for part in &hold.charges {
                self.push_limit_states(&mut limits, user, plan, &part.meter, &self.windows_at(at), at);
            }
        }
        Decision {
            allowed: true,
            plan: self.profile.plan.clone(),
            denial: None,
            shadow: None,
            limits,
            charged: took.iter().any(|took| *took > 0),
            at,
        }
    }

    /// Writes down that a hold has lapsed; `None` if it has not, or that is written down.
    pub(crate) fn lapse_hold(
        &mut self,
        user: Option<&mut User>,
        id: HoldId,
        now: Instant,
        catalog: &Catalog,
    ) -> Option<Entry> {
        let at = self.instant(now);
        let hold = self.in_flight.hold(id).filter(|hold| !hold.lapsed && hold.expires_at <= at)?.clone();
        let lapsed = Hold { lapsed: true, ..hold.clone() };
        let charged: Vec<i64> = hold.charges.iter().map(|part| lapsed.charged_by_lapse(part)).collect();
        let mut entry = self.entry(Cause::Hold, user.as_deref(), at, catalog);
        entry.dimensions = hold.dimensions.clone();
        entry.effects.push(Effect::Hold(Box::new(lapsed)));
        let effects = self.settlement_effects(user.as_deref(), &hold, &charged, &self.windows_at(at));
        let fits = |effect: &Effect| self.check_range(user.as_deref(), effect, &self.windows_at(at)).is_ok();
        entry.effects.extend(effects.into_iter().filter(fits));
        self.draw(&mut entry, catalog);
        self.fold(user, &entry);
        Some(entry)
    }
}

/// How much each part of a hold took.
fn took(hold: &Hold, how: &Settlement, catalog: &Catalog) -> Result<Vec<i64>, OpError> {
    let charges = match how {
        Settlement::Release => return Ok(vec![0; hold.charges.len()]),
        Settlement::Commit(charges) => charges,
    };
    let mut told: Vec<Option<i64>> = vec![None; hold.charges.len()];
    for Charge { meter, amount } in charges {
        let part = hold.charges.iter().position(|part| part.meter == *meter);
        let Some(part) = part else { return Err(OpError::NotHeld(meter.clone())) };
        if *amount < 0 {
            return Err(OpError::NegativeAmount(meter.clone()));
        }
        let sum = told[part].unwrap_or(0).saturating_add(*amount);
        checked_meter(catalog, meter, sum)?;
        told[part] = Some(sum);
    }
    Ok(told.iter().zip(&hold.charges).map(|(told, part)| told.unwrap_or(part.amount)).collect())
}
