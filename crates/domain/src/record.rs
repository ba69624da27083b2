//! Facts: always recorded, into the window of their time, whatever the limits say.

use crate::{
    catalog::{AMOUNT_MAX, Catalog, MeterKind},
    entry::{Cause, Effect, Entry},
    id::MeterKey,
    op::{Fact, Movement, OpError, checked_meter},
    tenant::{Tenant, User},
    time::Instant,
};

impl Tenant {
    pub(crate) fn record(
        &mut self,
        user: Option<&mut User>,
        fact: &Fact,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Entry, OpError> {
        if fact.movements.is_empty() {
            return Err(OpError::Empty);
        }
        check_bounds(fact.time, now, catalog)?;
        let at = self.instant(now);
        let happened = fact.time.unwrap_or(at).min(at);
        let windows = self.windows_at(at);
        let then = self.windows_of_past(happened, &windows);
        let (open, closed) = Tenant::split_windows(&then, &windows);

        let mut entry = self.entry(Cause::Event, user.as_deref(), at, catalog);
        entry.binding = fact.binding;
        entry.dimensions = fact.dimensions.clone();
        for (meter, movement) in &fact.movements {
            let effect = match kind_checked(catalog, meter, *movement)? {
                MeterKind::Gauge => self.gauge_effect(user.as_deref(), meter, *movement, happened),
                MeterKind::Counter | MeterKind::Duration => {
                    let Movement::Add(amount) = *movement else { return Err(OpError::NotAGauge(meter.clone())) };
                    Some(Effect::Use { meter: meter.clone(), amount, open, closed: closed.clone() })
                }
            };
            self.check_range(user.as_deref(), effect.as_ref())?;
            entry.effects.extend(effect);
        }
        self.fold(user, &entry);
        Ok(entry)
    }

    /// What a gauge event moves; `None` for a level that was observed before the one known.
    fn gauge_effect(
        &self,
        user: Option<&User>,
        meter: &MeterKey,
        movement: Movement,
        happened: Instant,
    ) -> Option<Effect> {
        let value = match movement {
            Movement::Add(amount) => return Some(self.level_effect(user, meter, amount)),
            Movement::Set(value) => value,
        };
        let known = match user {
            Some(user) => user.accounts.get(meter),
            None => self.accounts.get(meter),
        };
        if known.is_some_and(|account| happened < account.level_set_at) {
            return None;
        }
        let delta = value - known.map_or(0, |account| account.level);
        let tenant_level = self.accounts.level(meter);
        Some(Effect::Level {
            meter: meter.clone(),
            tenant_delta: delta.max(-tenant_level),
            user_delta: if user.is_some() { delta } else { 0 },
            set_at: Some(happened),
        })
    }

    pub(crate) fn check_range(&self, user: Option<&User>, effect: Option<&Effect>) -> Result<(), OpError> {
        let (meter, amount) = match effect {
            Some(Effect::Use { meter, amount, .. }) => (meter, *amount),
            Some(Effect::Level { meter, tenant_delta, user_delta, .. }) => (meter, *tenant_delta.max(user_delta)),
            _ => return Ok(()),
        };
        let fits = Tenant::has_room_in_range(&self.accounts, meter, amount)
            && user.is_none_or(|user| Tenant::has_room_in_range(&user.accounts, meter, amount));
        if fits { Ok(()) } else { Err(OpError::Overflow(meter.clone())) }
    }
}

fn check_bounds(time: Option<Instant>, now: Instant, catalog: &Catalog) -> Result<(), OpError> {
    let Some(time) = time else { return Ok(()) };
    let bounds = catalog.event_bounds;
    if time < now.plus_ms(-bounds.late_ms) {
        return Err(OpError::TooLate { at: time, late_ms: bounds.late_ms });
    }
    if time > now.plus_ms(bounds.future_ms) {
        return Err(OpError::TooEarly { at: time, future_ms: bounds.future_ms });
    }
    Ok(())
}

pub(crate) fn kind_checked(catalog: &Catalog, meter: &MeterKey, movement: Movement) -> Result<MeterKind, OpError> {
    let amount = match movement {
        Movement::Add(amount) => amount,
        Movement::Set(value) if (0..=AMOUNT_MAX).contains(&value) => value,
        Movement::Set(value) if value < 0 => return Err(OpError::NegativeAmount(meter.clone())),
        Movement::Set(_) => return Err(OpError::AmountTooLarge(meter.clone())),
    };
    Ok(checked_meter(catalog, meter, amount)?.kind)
}
