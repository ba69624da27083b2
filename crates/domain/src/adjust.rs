//! Corrections by an administrator, and charges given back.

use crate::{
    catalog::{Catalog, MeterKind},
    day::Day,
    entry::{Cause, Effect, Entry, KindSet},
    grant::Draw,
    id::MeterKey,
    op::{Adjustment, Charge, Movement, OpError, Receipt},
    record::kind_checked,
    tenant::{Tenant, User},
    time::{Instant, WindowKind},
};

impl Tenant {
    pub(crate) fn adjust(
        &mut self,
        user: Option<&mut User>,
        adjustment: &Adjustment,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Entry, OpError> {
        let at = self.instant(now);
        let effect = self.adjustment_effect(user.as_deref(), adjustment, at, catalog)?;
        self.check_range(user.as_deref(), &effect, &self.windows_at(at))?;
        let mut entry = self.entry(Cause::Admin, user.as_deref(), at, catalog);
        entry.binding = adjustment.binding;
        entry.effects.push(effect);
        self.end_leases(&mut entry);
        self.fold(user, &entry);
        Ok(entry)
    }

    fn adjustment_effect(
        &self,
        user: Option<&User>,
        adjustment: &Adjustment,
        at: Instant,
        catalog: &Catalog,
    ) -> Result<Effect, OpError> {
        let meter = &adjustment.meter;
        // A correction may take use away, which an event may not: check it by its size.
        let sized = match adjustment.movement {
            Movement::Add(amount) => Movement::Add(amount.saturating_abs()),
            set => set,
        };
        let accounts = user.map_or(&self.accounts, |user| &user.accounts);
        if kind_checked(catalog, meter, sized)? == MeterKind::Gauge {
            if adjustment.window.is_some() || adjustment.on.is_some() {
                return Err(OpError::GaugeHasNoWindow(meter.clone()));
            }
            let (delta, at) = match adjustment.movement {
                Movement::Add(amount) => (amount, None),
                Movement::Set(value) => (value - accounts.level(meter), Some(at)),
            };
            let mut effect = self.level_effect(user, meter, delta);
            if let Effect::Level { set_at, .. } = &mut effect {
                *set_at = at;
            }
            return Ok(effect);
        }
        if let Some(day) = adjustment.on {
            return self.use_on(day, meter, adjustment.movement, at);
        }
        let (amount, open) = match (adjustment.movement, adjustment.window) {
            (Movement::Add(amount), None) => (amount, KindSet::ALL),
            (Movement::Add(amount), Some(kind)) => (amount, KindSet::NONE.with(kind)),
            (Movement::Set(value), kind) => {
                let kind = kind.unwrap_or(WindowKind::Period);
                let window = self.windows_at(at)[kind.index()];
                (value - accounts.used(meter, kind, &window), KindSet::NONE.with(kind))
            }
        };
        Ok(Effect::Use { meter: meter.clone(), amount, open, closed: Vec::new() })
    }

    /// Use of a day alone, that is over or open: no other window that is open gains it. It counts at an instant that has the
    /// day's date in UTC as well, so that history by UTC days has it on that date; of a day that is not over yet, now at the latest.
    fn use_on(&self, day: Day, meter: &MeterKey, movement: Movement, at: Instant) -> Result<Effect, OpError> {
        let Movement::Add(amount) = movement else { return Err(OpError::NotAGauge(meter.clone())) };
        let start = self.profile.zone.start_of(day);
        if start > at {
            return Err(OpError::TooEarly { at: start, future_ms: 0 });
        }
        let when = self.profile.zone.middle_of(day).min(at);
        let now = self.windows_at(at);
        let (open, mut closed) = Tenant::split_windows(&self.windows_of_past(when, &now), &now);
        closed.retain(|late| matches!(late.kind, WindowKind::Day | WindowKind::Minute));
        let open = if open.has(WindowKind::Day) { KindSet::NONE.with(WindowKind::Day) } else { KindSet::NONE };
        Ok(Effect::Use { meter: meter.clone(), amount, open, closed })
    }

    pub(crate) fn refund(
        &mut self,
        user: Option<&mut User>,
        receipt: &Receipt,
        now: Instant,
        catalog: &Catalog,
    ) -> Entry {
        let at = self.instant(now);
        let (open, closed) = Tenant::split_windows(&receipt.windows, &self.windows_at(at));
        let mut entry = self.entry(Cause::Refund, user.as_deref(), at, catalog);
        for Charge { meter, amount } in &receipt.uses {
            let (meter, amount) = (meter.clone(), -amount);
            entry.effects.push(Effect::Use { meter, amount, open, closed: closed.clone() });
        }
        for draw in &receipt.draws {
            let draw = Draw { amount: -draw.amount, open, closed: closed.clone(), ..draw.clone() };
            entry.effects.push(Effect::Draw(Box::new(draw)));
        }
        for (level, of_user) in receipt.levels.iter().zip(&receipt.user_levels) {
            let effect = self.level_effect_of(user.as_deref(), &level.meter, -level.amount, -of_user.amount);
            entry.effects.push(effect);
        }
        self.fold(user, &entry);
        entry
    }
}
