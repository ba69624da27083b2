//! Room of a tenant's limits that is set aside for one node, so that several can charge the tenant at once.
//!
//! A lease is a part of the tenant's state like any other: a grant and an end are effects of entries, so every node that
//! folds the journal knows what is set aside. What is charged under a lease comes out of its slices, and everybody else
//! decides as if the slices were used already. So use can't pass a limit, whoever charges first. Nobody is refused for
//! what is only set aside: who would be ends all leases in the same entry, and has the room.

use crate::{
    catalog::{Catalog, Limit, MeterKind, Mode, Scope},
    decision::LimitState,
    entry::{Cause, Effect, Entry, Status},
    id::{MeterKey, UserId},
    limits::refuses,
    op::{Fact, Movement, Op, OpError, Outcome, Spend},
    share::ShareMode,
    tenant::{Tenant, User},
    time::{Instant, WindowKind},
};

/// Room of one meter in one open window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Which meter.
    pub meter: MeterKey,
    /// In which window.
    pub kind: WindowKind,
    /// What was set aside.
    pub size: i64,
    /// What is left of it. Never negative.
    pub left: i64,
}

/// What is set aside for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name: the position of the entry that granted it.
    pub epoch: u64,
    /// How many entries were made under it.
    pub entries: u64,
    /// The catalog it was granted by. It is good for no other.
    pub catalog: u32,
    /// When it was granted.
    pub granted_at: Instant,
    /// What is set aside: at most one slice for each meter and window.
    pub slices: Vec<Slice>,
}

/// How large slices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The first slice has room for so many of the charges that asked for it.
    pub first: i64,
    /// A slice that has not room for so many charges is not worth it.
    pub least: i64,
    /// A slice is at most one part in so many of what is left.
    pub share: i64,
    /// Leases older than this are ended when another is granted, milliseconds: their nodes renew them more often.
    pub stale_ms: i64,
}

impl Terms {
    /// What suits nearly everybody.
    pub const DEFAULT: Self = Self { first: 256, least: 16, share: 4, stale_ms: 10_000 };
}

impl Lease {
    /// What is left for a meter in a window; `None` if nothing was set aside.
    pub fn left(&self, meter: &MeterKey, kind: WindowKind) -> Option<i64> {
        self.slice(meter, kind).map(|slice| slice.left)
    }

    fn slice(&self, meter: &MeterKey, kind: WindowKind) -> Option<&Slice> {
        self.slices.iter().find(|slice| slice.meter == *meter && slice.kind == kind)
    }

    /// Takes what an entry that was made under it charged.
    pub(crate) fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        for effect in &entry.effects {
            let Effect::Use { meter, amount, open, .. } = effect else { continue };
            for slice in self.slices.iter_mut().filter(|slice| slice.meter == *meter && open.has(slice.kind)) {
                slice.left = slice.left.saturating_sub((*amount).max(0)).max(0);
            }
        }
    }

    /// What a node that used this lease until `at` may use of a meter in two seconds.
    fn used_in_two_seconds(&self, meter: &MeterKey, kind: WindowKind, at: Instant) -> Option<i64> {
        let slice = self.slice(meter, kind)?;
        let took_ms = (at.ms() - self.granted_at.ms()).max(1);
        let used = i128::from(slice.size - slice.left) * 2_000 / i128::from(took_ms);
        // It never grows by more than this at once: the first moments of a lease say little.
        Some(i64::try_from(used).unwrap_or(i64::MAX).min(slice.size.saturating_mul(8)))
    }
}

impl Tenant {
    /// Applies an operation under a lease; `None`, and nothing has changed, if it can't be: the lease has no room for
    /// it, or does not last, or the operation is one that must see everything. What is appended then must be what comes
    /// next under this lease.
    ///
    /// # Errors
    /// As [`Tenant::apply`].
    pub fn apply_under(
        &mut self,
        epoch: u64,
        user: Option<&mut User>,
        op: &Op,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Option<Outcome>, OpError> {
        let Some(place) = self.leases.iter().position(|lease| lease.epoch == epoch) else { return Ok(None) };
        // To its holder the lease is not set aside.
        let lease = self.leases.remove(place);
        let done = match self.covers(&lease, user.as_deref(), op, now, catalog) {
            true => self.apply_unwarned(user, op, now, catalog).map(Some),
            false => Ok(None),
        };
        // Nothing that is covered ends leases.
        debug_assert!(place <= self.leases.len(), "the others are still there");
        self.leases.insert(place.min(self.leases.len()), lease);
        let mut done = done?;
        if let Some(entry) = done.as_mut().and_then(|outcome| outcome.entry.as_mut()) {
            entry.effects.insert(0, Effect::Under { epoch });
            self.leases.iter_mut().filter(|lease| lease.epoch == epoch).for_each(|lease| lease.take(entry));
        }
        Ok(done)
    }

    /// Whether an operation could be applied under a lease now.
    pub fn is_covered(&mut self, epoch: u64, user: Option<&User>, op: &Op, now: Instant, catalog: &Catalog) -> bool {
        let Some(place) = self.leases.iter().position(|lease| lease.epoch == epoch) else { return false };
        let lease = self.leases.remove(place);
        let covers = self.covers(&lease, user, op, now, catalog);
        self.leases.insert(place, lease);
        covers
    }

    fn covers(&self, lease: &Lease, user: Option<&User>, op: &Op, now: Instant, catalog: &Catalog) -> bool {
        let at = self.instant(now);
        // What was set aside was so by limits that are still the same.
        let is_over = |until: Instant| lease.granted_at < until && until <= at;
        // Those of others, too: what is done by another catalog than theirs may end them.
        let is_of_catalog = |lease: &Lease| lease.catalog == catalog.version;
        let lasts = is_of_catalog(lease)
            && self.leases.iter().all(is_of_catalog)
            && self.windows.iter().all(|window| at < window.end)
            && !self.profile.overrides.iter().any(|own| own.until.is_some_and(is_over));
        let fits = |meter: &MeterKey, amount| self.has_slices(lease, user, (meter, amount), at, catalog);
        lasts
            && match op {
                Op::Spend(spend, _) => self.covers_spend(spend, catalog, fits),
                Op::Record(fact) => self.covers_fact(fact, fits),
                Op::Refund(receipt) => receipt.levels.is_empty() && receipt.windows == self.windows,
                Op::Configure(_) | Op::Adjust(_) | Op::Settle(_) | Op::Session(_) | Op::Lapse(_) | Op::Grant(_) => {
                    false
                }
            }
    }

    fn covers_spend(&self, spend: &Spend, catalog: &Catalog, fits: impl Fn(&MeterKey, i64) -> bool) -> bool {
        let has = |feature| self.plan(catalog).is_ok_and(|plan| plan.has(feature));
        self.profile.status == Status::Active
            && spend.hold.is_none()
            && spend.features.iter().all(has)
            && is_each_once(spend.charges.iter().map(|charge| &charge.meter))
            && spend.charges.iter().all(|charge| fits(&charge.meter, charge.amount))
    }

    fn covers_fact(&self, fact: &Fact, fits: impl Fn(&MeterKey, i64) -> bool) -> bool {
        fact.time.is_none_or(|time| self.windows.iter().all(|window| window.start <= time))
            && is_each_once(fact.movements.iter().map(|(meter, _)| meter))
            && fact.movements.iter().all(|(meter, movement)| match movement {
                Movement::Add(amount) => fits(meter, *amount),
                Movement::Set(_) => false,
            })
    }

    /// Whether every limit that could refuse an amount has room for it set aside.
    fn has_slices(
        &self,
        lease: &Lease,
        user: Option<&User>,
        (meter, amount): (&MeterKey, i64),
        at: Instant,
        catalog: &Catalog,
    ) -> bool {
        let Ok(plan) = self.plan(catalog) else { return false };
        if self.grants.left_on(meter, at) > 0 {
            // What it would draw from is one for all.
            return false;
        }
        if amount < 0 || catalog.meters.get(meter).is_none_or(|meter| meter.kind == MeterKind::Gauge) {
            return false;
        }
        let mut states = Vec::new();
        self.push_limit_states(&mut states, user, plan, meter, &self.windows, at);
        let has_slice = |state: &LimitState| {
            let left = slice_of(state).and_then(|kind| lease.left(meter, kind));
            amount == 0 || left.is_some_and(|left| left >= amount)
        };
        states.iter().all(|state| match state.mode {
            Mode::Soft => self.left_to_next_warning(user, state, catalog).is_none() || has_slice(state),
            Mode::Shadow => !refuses(state, amount),
            Mode::Hard => state.max.is_none() || !refuses(state, amount) && has_slice(state),
        })
    }

    /// Grants a lease under the name `epoch` in the entry of an operation that was just applied, in the place of one that
    /// its node had before. `false` if there is not room enough to be worth it; then that one ends all the same.
    pub fn grant(
        &mut self,
        entry: &mut Entry,
        epoch: u64,
        replaces: Option<u64>,
        op: &Op,
        terms: &Terms,
        catalog: &Catalog,
    ) -> bool {
        let at = entry.at;
        let before = self.leases.len();
        let is_replaced = |lease: &Lease| Some(lease.epoch) == replaces;
        let replaced = self.leases.iter().find(|lease| is_replaced(lease)).cloned();
        self.leases.retain(|lease| !is_replaced(lease) && at.ms() - lease.granted_at.ms() < terms.stale_ms);
        let mut asked = charged(op);
        for slice in replaced.iter().flat_map(|lease| &lease.slices) {
            if !asked.iter().any(|(meter, _)| *meter == slice.meter) {
                asked.push((slice.meter.clone(), 1));
            }
        }
        let slices = self.slices(&asked, replaced.as_ref(), at, terms, catalog);
        let granted = slices.is_some() && !asked.is_empty();
        if let Some(slices) = slices.filter(|_| granted) {
            self.leases.push(Lease { epoch, entries: 0, catalog: catalog.version, granted_at: at, slices });
        }
        if granted || self.leases.len() < before {
            entry.effects.push(Effect::Leases(self.leases.clone()));
        }
        granted
    }

    fn slices(
        &self,
        asked: &[(MeterKey, i64)],
        replaced: Option<&Lease>,
        at: Instant,
        terms: &Terms,
        catalog: &Catalog,
    ) -> Option<Vec<Slice>> {
        let plan = self.plan(catalog).ok()?;
        // Limits on users bound whoever comes: no room of theirs is set aside.
        let anybody = User::new(UserId::trusted(""));
        let mut slices: Vec<Slice> = Vec::new();
        for (meter, amount) in asked {
            if self.grants.left_on(meter, at) > 0 {
                return None;
            }
            if catalog.meters.get(meter).is_none_or(|meter| meter.kind == MeterKind::Gauge) || *amount < 0 {
                return None;
            }
            // So do shares, also those that leave some users alone: others would have to leave the lease each time.
            if self.profile.shares.iter().any(|share| share.meter == *meter && share.mode != ShareMode::Pooled) {
                return None;
            }
            let mut states = Vec::new();
            self.push_limit_states(&mut states, Some(&anybody), plan, meter, &self.windows, at);
            for state in states.iter().filter(|state| state.max.is_some()) {
                if state.mode == Mode::Shadow && refuses(state, *amount) {
                    return None;
                }
                // What is charged under a lease reaches nothing that somebody has to be warned of.
                let unwarned = self.left_to_next_warning(Some(&anybody), state, catalog).map(|left| left - 1);
                let allowed = state.max.filter(|_| state.mode == Mode::Hard);
                let allowed = allowed.map(|max| max.saturating_sub(state.used).saturating_sub(state.held));
                let Some(room) = unwarned.into_iter().chain(allowed).min() else { continue };
                let kind = slice_of(state)?;
                let room = room.saturating_sub(self.set_aside(meter, kind)).max(0);
                let recent = replaced.and_then(|lease| lease.used_in_two_seconds(meter, kind, at));
                let wanted = recent.unwrap_or(0).max(amount.saturating_mul(terms.first));
                let size = wanted.min(room / terms.share.max(1));
                if size < amount.saturating_mul(terms.least).max(1) {
                    return None;
                }
                match slices.iter_mut().find(|slice| slice.meter == *meter && slice.kind == kind) {
                    Some(slice) => slice.size = slice.size.min(size),
                    None => slices.push(Slice { meter: meter.clone(), kind, size, left: size }),
                }
            }
        }
        slices.iter_mut().for_each(|slice| slice.left = slice.size);
        Some(slices)
    }

    /// The entry that ends a lease, folded into the state; `None` if there is no such lease.
    pub fn give_back(&mut self, epoch: u64, now: Instant, catalog: &Catalog) -> Option<Entry> {
        self.leases.iter().position(|lease| lease.epoch == epoch)?;
        let mut entry = self.entry(Cause::Upkeep, None, self.instant(now), catalog);
        if !ends_leases(&entry) {
            let left = self.leases.iter().filter(|lease| lease.epoch != epoch).cloned().collect();
            entry.effects.push(Effect::Leases(left));
        }
        self.fold(None, &entry);
        Some(entry)
    }

    /// Ends all leases in an entry that is about to be folded, if there are any.
    pub(crate) fn end_leases(&self, entry: &mut Entry) {
        if !self.leases.is_empty() {
            end_all(entry);
        }
    }

    /// Whether a fact leaves less room than is set aside.
    pub(crate) fn crowds_leases(&self, meter: &MeterKey, amount: i64, at: Instant, catalog: &Catalog) -> bool {
        if self.leases.is_empty() || amount <= 0 {
            return false;
        }
        // What was set aside by another catalog can't be judged by this one.
        if self.leases.iter().any(|lease| lease.catalog != catalog.version) {
            return true;
        }
        let Ok(plan) = self.plan(catalog) else { return true };
        let mut states = Vec::new();
        self.push_limit_states(&mut states, None, plan, meter, &self.windows_at(at), at);
        states.iter().any(|state| state.set_aside > 0 && refuses(state, amount))
    }

    /// What is set aside of a meter in a window.
    pub(crate) fn set_aside(&self, meter: &MeterKey, kind: WindowKind) -> i64 {
        let left = self.leases.iter().filter_map(|lease| lease.left(meter, kind));
        left.fold(0, i64::saturating_add)
    }
}

/// The window of which a limit's room can be set aside.
fn slice_of(limit: &Limit) -> Option<WindowKind> {
    limit.window.kind().filter(|_| limit.scope == Scope::Tenant)
}

/// Ends all leases in an entry.
pub(crate) fn end_all(entry: &mut Entry) {
    if !ends_leases(entry) {
        entry.effects.push(Effect::Leases(Vec::new()));
    }
}

fn ends_leases(entry: &Entry) -> bool {
    entry.effects.iter().any(|effect| matches!(effect, Effect::Leases(left) if left.is_empty()))
}

fn is_each_once<'a>(meters: impl Iterator<Item = &'a MeterKey> + Clone) -> bool {
    let mut rest = meters.clone();
    meters.into_iter().all(|meter| {
        rest.next();
        rest.clone().all(|other| other != meter)
    })
}

/// What an operation charges, each meter once.
fn charged(op: &Op) -> Vec<(MeterKey, i64)> {
    let mut asked: Vec<(MeterKey, i64)> = Vec::new();
    let mut add = |meter: &MeterKey, amount: i64| match asked.iter_mut().find(|(known, _)| known == meter) {
        Some((_, sum)) => *sum = sum.saturating_add(amount),
        None => asked.push((meter.clone(), amount)),
    };
    match op {
        Op::Spend(spend, _) => spend.charges.iter().for_each(|charge| add(&charge.meter, charge.amount)),
        Op::Record(fact) => fact.movements.iter().for_each(|(meter, movement)| match movement {
            Movement::Add(amount) => add(meter, *amount),
            Movement::Set(_) => {}
        }),
        Op::Configure(_)
        | Op::Adjust(_)
        | Op::Refund(_)
        | Op::Settle(_)
        | Op::Session(_)
        | Op::Lapse(_)
        | Op::Grant(_) => {}
    }
    asked
}
