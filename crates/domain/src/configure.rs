//! What a tenant is: created, changed, moved to another plan, anchor or time zone. Use is never touched.

use crate::{
    catalog::{AMOUNT_MAX, Catalog},
    entry::{Cause, Effect, Entry, Override, Profile, Status},
    id::TenantId,
    op::{OVERRIDES_MAX, OpError, ProfileChange},
    share,
    tenant::Tenant,
    time::{Frame, Instant, Window, WindowKind, Zone},
};

impl Tenant {
    /// A tenant seen for the first time, on `change.plan` or the catalog's default plan, and the entry that makes it.
    ///
    /// # Errors
    /// [`OpError::UnknownPlan`], and what [`Op::Configure`](crate::op::Op::Configure) may refuse. `Ok(None)` where
    /// neither the change nor the catalog names a plan.
    pub fn create(
        id: TenantId,
        change: &ProfileChange,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Option<(Tenant, Entry)>, OpError> {
        let Some(plan) = change.plan.clone().or_else(|| catalog.default_plan.clone()) else { return Ok(None) };
        let profile = Profile {
            plan,
            status: Status::Active,
            enforce: None,
            zone: Zone::utc(),
            anchor: now,
            created_at: now,
            overrides: Vec::new(),
            catalog_pin: None,
            shares: Vec::new(),
        };
        let profile = changed(profile, change, catalog)?;
        let mut tenant = Tenant::unborn(id, profile.clone());
        let mut entry = tenant.entry(Cause::Admin, None, now, catalog);
        entry.effects.insert(0, Effect::Profile(Box::new(profile)));
        tenant.fold(None, &entry);
        Ok(Some((tenant, entry)))
    }

    pub(crate) fn configure(
        &mut self,
        change: &ProfileChange,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Entry, OpError> {
        let at = self.instant(now);
        let profile = changed(self.profile.clone(), change, catalog)?;
        let mut entry = self.entry(Cause::Admin, None, at, catalog);
        let frame = Frame { anchor: profile.anchor, zone: profile.zone.clone() };
        let reframed = frame != self.frame();
        entry.effects.push(Effect::Profile(Box::new(profile)));
        self.end_leases(&mut entry);
        if reframed {
            let open = self.windows_at(at);
            entry.effects.extend(WindowKind::ALL.into_iter().filter_map(|kind| {
                let window = open[kind.index()];
                let end = frame.boundary_at_or_after(kind, window.end);
                (end != window.end).then_some(Effect::Turn { kind, window: Window { start: window.start, end } })
            }));
        }
        self.fold(None, &entry);
        Ok(entry)
    }
}

fn changed(mut profile: Profile, change: &ProfileChange, catalog: &Catalog) -> Result<Profile, OpError> {
    if let Some(plan) = &change.plan {
        profile.plan = plan.clone();
    }
    let Some(plan) = catalog.plans.get(&profile.plan) else { return Err(OpError::UnknownPlan(profile.plan)) };
    profile.plan = plan.key.clone();
    profile.catalog_pin = change.catalog_pin.unwrap_or(profile.catalog_pin);
    profile.status = change.status.unwrap_or(profile.status);
    profile.enforce = change.enforce.unwrap_or(profile.enforce);
    profile.zone = change.zone.clone().unwrap_or(profile.zone);
    profile.anchor = change.anchor.unwrap_or(profile.anchor);
    for gone in &change.remove_overrides {
        profile.overrides.retain(|own| !own.same_account(gone));
    }
    for put in &change.put_overrides {
        check_override(put, catalog)?;
        profile.overrides.retain(|own| !own.same_account(put));
        profile.overrides.push(put.clone());
    }
    if let Some(shares) = &change.shares {
        profile.shares = share::checked(shares, catalog)?;
    }
    if profile.overrides.len() > OVERRIDES_MAX {
        return Err(OpError::TooManyOverrides(OVERRIDES_MAX));
    }
    Ok(profile)
}

fn check_override(put: &Override, catalog: &Catalog) -> Result<(), OpError> {
    let meter = catalog.meters.get(&put.meter).ok_or_else(|| OpError::UnknownMeter(put.meter.clone()))?;
    if put.max.is_some_and(|max| max < 0) {
        return Err(OpError::NegativeAmount(put.meter.clone()));
    }
    if put.max.is_some_and(|max| max > AMOUNT_MAX) {
        return Err(OpError::AmountTooLarge(put.meter.clone()));
    }
    if !put.window.fits(meter.kind) {
        return Err(OpError::WindowDoesNotFit(put.meter.clone()));
    }
    Ok(())
}
