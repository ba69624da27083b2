//! Facts: always recorded, into the window of their time, whatever the limits say.

use crate::{
    catalog::{AMOUNT_MAX, Catalog, MeterKind},
    entry::{Cause, Effect, Entry},
    id::MeterKey,
    op::{Fact, Movement, OpError, checked_meter},
    tenant::{Accounts, Tenant, User, Windows},
    time::Instant,
};
use std::borrow::Cow;

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
            let kind = kind_checked(catalog, meter, *movement)?;
            if kind != MeterKind::Gauge && matches!(movement, Movement::Set(_)) {
                return Err(OpError::NotAGauge(meter.clone()));
            }
        }
        for (meter, movement) in merged(&fact.movements).iter() {
            let effect = match kind_checked(catalog, meter, *movement)? {
                MeterKind::Gauge => self.gauge_effect(user.as_deref(), meter, *movement, happened),
                MeterKind::Counter | MeterKind::Duration => {
                    let Movement::Add(amount) = *movement else { return Err(OpError::NotAGauge(meter.clone())) };
                    Some(Effect::Use { meter: meter.clone(), amount, open, closed: closed.clone() })
                }
            };
            let Some(effect) = effect else { continue };
            self.check_range(user.as_deref(), &effect, &windows)?;
            if let Effect::Use { meter, amount, .. } = &effect
                && self.crowds_leases(meter, *amount, at, catalog)
            {
                self.end_leases(&mut entry);
            }
            entry.effects.push(effect);
        }
        self.draw(&mut entry, catalog);
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
        let known = user.map_or(&self.accounts, |user| &user.accounts);
        if happened < known.level_set_at(meter) {
            return None;
        }
        let delta = value - known.level(meter);
        let tenant_level = self.accounts.level(meter);
        Some(Effect::Level {
            meter: meter.clone(),
            tenant_delta: delta.max(-tenant_level),
            user_delta: if user.is_some() { delta } else { 0 },
            set_at: Some(happened),
        })
    }

    /// Refuses what would carry an account past the range of its integer.
    pub(crate) fn check_range(&self, user: Option<&User>, effect: &Effect, now: &Windows) -> Result<(), OpError> {
        let (meter, fits) = match effect {
            Effect::Use { meter, amount, open, closed } => {
                let fits = |accounts: &Accounts| accounts.has_room_for_use(meter, *amount, *open, closed, now);
                (meter, fits(&self.accounts) && user.is_none_or(|user| fits(&user.accounts)))
            }
            Effect::Level { meter, tenant_delta, user_delta, .. } => {
                let fits_user = |user: &User| user.accounts.has_room_for_level(meter, *user_delta);
                (meter, self.accounts.has_room_for_level(meter, *tenant_delta) && user.is_none_or(fits_user))
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
            | Effect::Draw(_)
            | Effect::Warned(_) => return Ok(()),
        };
        if fits { Ok(()) } else { Err(OpError::Overflow(meter.clone())) }
    }
}

/// Movements in which every meter stands once: a later one follows on an earlier one of the same meter.
fn merged(movements: &[(MeterKey, Movement)]) -> Cow<'_, [(MeterKey, Movement)]> {
    let is_first = |index: usize| !movements[..index].iter().any(|(meter, _)| *meter == movements[index].0);
    if (0..movements.len()).all(is_first) {
        return Cow::Borrowed(movements);
    }
    let mut merged: Vec<(MeterKey, Movement)> = Vec::with_capacity(movements.len());
    for (meter, movement) in movements {
        match merged.iter_mut().find(|(known, _)| known == meter) {
            None => merged.push((meter.clone(), *movement)),
            Some((_, known)) => {
                *known = match (*known, *movement) {
                    (Movement::Add(first), Movement::Add(second)) => Movement::Add(first.saturating_add(second)),
                    (Movement::Set(level), Movement::Add(amount)) => Movement::Set(level.saturating_add(amount).max(0)),
                    (_, Movement::Set(level)) => Movement::Set(level),
                };
            }
        }
    }
    Cow::Owned(merged)
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
