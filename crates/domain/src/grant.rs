//! Grants: amounts on top of what the plan allows, each with a priority and an end. What is used is drawn from the pools
//! in order: by priority, then what ends soonest; the plan's own allowance is one of them and ends with its window.

use crate::{
    account::Accounts,
    catalog::{AMOUNT_MAX, Catalog, Limit, LimitWindow, MeterKind, Mode, Plan, Scope},
    entry::{Binding, Cause, ClosedWindow, Effect, Entry, KindSet},
    id::MeterKey,
    op::{OpError, checked_meter},
    tenant::{Tenant, Windows},
    time::{Instant, WindowKind},
};
use std::sync::Arc;

/// Names a grant: the id that its entry is bound to; of what was rolled over, the period and the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u128);

/// How many grants a tenant may have at once. Those that ended, or are used up, make room.
pub const GRANTS_MAX: usize = 100;

/// The priority of the plan's own allowance, and of a grant that names none. Lower is spent first.
pub const PRIORITY_DEFAULT: i64 = 0;

/// Why there is a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantSource {
    /// It was given.
    Given,
    /// It is what was left of the period before.
    Rollover,
}

/// An amount on top of what the plan allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// Of which meter.
    pub meter: MeterKey,
    /// How much was granted.
    pub amount: i64,
    /// What is left of it. Never negative.
    pub left: i64,
    /// Lower is spent first.
    pub priority: i64,
    /// When it was granted.
    pub granted_at: Instant,
    /// When it ends; `None` is never.
    pub expires_at: Option<Instant>,
    /// Why there is one.
    pub source: GrantSource,
    /// Who gave it, and why.
    pub reason: Arc<str>,
}

impl Grant {
    /// Whether it may be drawn from.
    pub fn is_open(&self, at: Instant) -> bool {
        self.left > 0 && self.expires_at.is_none_or(|end| at < end)
    }
}

/// The grants of a tenant, and what was drawn from them.
#[derive(Debug, Clone, Default)]
pub struct Grants(Option<Box<Inner>>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Inner {
    list: Vec<Grant>,
    /// What of the use in each window came out of grants, and not out of the plan's allowance.
    drawn: Accounts,
}

impl PartialEq for Grants {
    fn eq(&self, other: &Self) -> bool {
        let empty = Inner::default();
        self.0.as_deref().unwrap_or(&empty) == other.0.as_deref().unwrap_or(&empty)
    }
}

impl Grants {
    /// Grants as they were stored.
    pub fn restore(list: Vec<Grant>, drawn: Accounts) -> Self {
        Self(if list.is_empty() && drawn.is_empty() { None } else { Some(Box::new(Inner { list, drawn })) })
    }

    /// Whether there never were any.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Every grant, the oldest first; those that ended lately among them.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter().flat_map(|inner| &inner.list)
    }

    /// What of the use in each window came out of grants.
    pub fn drawn(&self) -> Option<&Accounts> {
        self.0.as_ref().map(|inner| &inner.drawn)
    }

    /// Those on a meter that may be drawn from.
    pub(crate) fn open_on(&self, meter: &MeterKey, at: Instant) -> impl Iterator<Item = &Grant> {
        self.iter().filter(move |grant| grant.meter == *meter && grant.is_open(at))
    }

    /// What is left of those on a meter.
    pub(crate) fn left_on(&self, meter: &MeterKey, at: Instant) -> i64 {
        match &self.0 {
            None => 0,
            Some(_) => self.open_on(meter, at).fold(0, |sum, grant| sum.saturating_add(grant.left)),
        }
    }

    pub(crate) fn drawn_in(&self, meter: &MeterKey, kind: WindowKind, windows: &Windows) -> i64 {
        self.drawn().map_or(0, |drawn| drawn.used(meter, kind, &windows[kind.index()]))
    }

    /// Puts a grant in, or in the place of what it was before. Of those that ended, none that is used up is kept.
    pub(crate) fn put(&mut self, grant: Grant, at: Instant) {
        let inner = self.0.get_or_insert_default();
        inner.list.retain(|known| known.id != grant.id && known.is_open(at));
        inner.list.push(grant);
    }

    pub(crate) fn remove(&mut self, id: GrantId) {
        if let Some(inner) = &mut self.0 {
            inner.list.retain(|known| known.id != id);
        }
    }

    pub(crate) fn draw(&mut self, draw: &Draw, now: &Windows) {
        let inner = self.0.get_or_insert_default();
        if let Some(grant) = inner.list.iter_mut().find(|grant| grant.id == draw.grant) {
            grant.left = grant.left.saturating_sub(draw.amount).clamp(0, grant.amount);
        }
        inner.drawn.add_use(&draw.meter, draw.amount, draw.open, &draw.closed, now);
        // What was used in them is history already.
        drop(inner.drawn.take_closed());
    }
}

/// Use that comes out of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Which grant.
    pub grant: GrantId,
    /// Which meter.
    pub meter: MeterKey,
    /// How much; negative gives back.
    pub amount: i64,
    /// The open windows it counts in.
    pub open: KindSet,
    /// The closed windows it counts in.
    pub closed: Vec<ClosedWindow>,
}

/// A change of a tenant's grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantChange {
    /// One more.
    Put {
        /// The grant; nothing is drawn from it yet.
        grant: Grant,
        /// Binds it, so that it is given once.
        binding: Option<Binding>,
    },
    /// What is left of one is taken back.
    Revoke(GrantId),
}

/// Whether grants add to a limit: to quotas of the tenant, not to rates, levels and sessions.
pub(crate) fn adds_to(limit: &Limit) -> bool {
    let is_quota = matches!(limit.window, LimitWindow::Of(WindowKind::Period | WindowKind::Month | WindowKind::Day));
    limit.scope == Scope::Tenant && is_quota
}

impl Tenant {
    /// Changes the grants.
    pub(crate) fn change_grants(
        &mut self,
        change: &GrantChange,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Entry, OpError> {
        let at = self.instant(now);
        let mut entry = self.entry(Cause::Admin, None, at, catalog);
        match change {
            GrantChange::Put { grant, binding } => {
                self.check_grant(grant, at, catalog)?;
                entry.binding = *binding;
                let grant = Grant { left: grant.amount, granted_at: at, ..grant.clone() };
                entry.effects.push(Effect::Grant(Box::new(grant)));
            }
            GrantChange::Revoke(id) => {
                if !self.grants.iter().any(|grant| grant.id == *id) {
                    return Err(OpError::UnknownGrant);
                }
                entry.effects.push(Effect::GrantRevoked { id: *id });
            }
        }
        self.end_leases(&mut entry);
        self.fold(None, &entry);
        Ok(entry)
    }

    fn check_grant(&self, grant: &Grant, at: Instant, catalog: &Catalog) -> Result<(), OpError> {
        let meter = checked_meter(catalog, &grant.meter, grant.amount)?;
        if meter.kind == MeterKind::Gauge {
            return Err(OpError::GaugeHasNoWindow(grant.meter.clone()));
        }
        if grant.amount <= 0 {
            return Err(OpError::NegativeAmount(grant.meter.clone()));
        }
        if grant.expires_at.is_some_and(|end| end <= at) {
            return Err(OpError::GrantOver);
        }
        let is_its = |known: &&Grant| known.meter == grant.meter;
        let sum = self.grants.iter().filter(is_its).fold(grant.amount, |sum, known| sum.saturating_add(known.left));
        if sum > AMOUNT_MAX {
            return Err(OpError::AmountTooLarge(grant.meter.clone()));
        }
        if self.grants.iter().filter(|known| known.is_open(at)).count() >= GRANTS_MAX {
            return Err(OpError::TooManyGrants(GRANTS_MAX));
        }
        Ok(())
    }

    /// Adds to an entry what its use draws from grants. Nothing where the plan does not bound a meter.
    pub(crate) fn draw(&self, entry: &mut Entry, catalog: &Catalog) {
        if self.grants.is_empty() && !entry.effects.iter().any(|effect| matches!(effect, Effect::Grant(_))) {
            return;
        }
        let Ok(plan) = self.plan(catalog) else { return };
        let windows = self.windows_at(entry.at);
        // What is rolled over is rolled over by this very entry.
        let mut grants = self.grants.clone();
        for effect in &entry.effects {
            if let Effect::Grant(grant) = effect {
                grants.put(grant.as_ref().clone(), entry.at);
            }
        }
        let mut draws: Vec<Draw> = Vec::new();
        let mut before: Vec<(MeterKey, i64)> = Vec::new();
        for effect in &entry.effects {
            let Effect::Use { meter, amount, open, closed } = effect else { continue };
            if *amount <= 0 || !open.has(WindowKind::Period) {
                continue;
            }
            let used = before.iter().filter(|(known, _)| known == meter).map(|(_, amount)| amount).sum::<i64>();
            let pools = self.pools(plan, meter, &grants, (used, entry.at), &windows);
            let mut left = *amount;
            for pool in pools {
                let part = left.min(pool.room);
                left -= part;
                match pool.grant {
                    None => before.push((meter.clone(), part)),
                    Some(grant) if part > 0 => {
                        let draw =
                            Draw { grant, meter: meter.clone(), amount: part, open: *open, closed: closed.clone() };
                        grants.draw(&draw, &windows);
                        draws.push(draw);
                    }
                    Some(_) => {}
                }
            }
        }
        entry.effects.extend(draws.into_iter().map(|draw| Effect::Draw(Box::new(draw))));
    }

    /// The pools of a meter in the order in which they are spent; none where the plan does not bound it.
    fn pools(
        &self,
        plan: &Plan,
        meter: &MeterKey,
        grants: &Grants,
        (used, at): (i64, Instant),
        windows: &Windows,
    ) -> Vec<Pool> {
        let mut states = Vec::new();
        self.push_limit_states(&mut states, None, plan, meter, windows, at);
        let quotas = states.iter().filter(|state| adds_to(state) && state.mode == Mode::Hard);
        let rooms = quotas.filter_map(|state| {
            Some((state.max?.saturating_sub(state.used).saturating_sub(used).max(0), state.resets_at))
        });
        let Some((room, ends_at)) = rooms.min_by_key(|(room, _)| *room) else { return Vec::new() };
        let mut pools = vec![Pool { priority: PRIORITY_DEFAULT, ends_at, grant: None, room }];
        let open = grants.open_on(meter, at);
        pools.extend(open.map(|grant| Pool {
            priority: grant.priority,
            ends_at: grant.expires_at,
            grant: Some(grant.id),
            room: grant.left,
        }));
        // What never ends is spent last; of what ends at once, the plan's own allowance, which may be rolled over.
        pools.sort_by_key(|pool| {
            (pool.priority, pool.ends_at.is_none(), pool.ends_at, pool.grant.is_none(), pool.grant)
        });
        pools
    }

    /// What is left of the period that ends with these windows, and stays for the next one.
    pub(crate) fn rollovers(&self, windows: &Windows, plan: &Plan) -> Vec<Grant> {
        let (old, new) = (self.windows[WindowKind::Period.index()], windows[WindowKind::Period.index()]);
        if old.start == new.start || self.last == Instant::EPOCH {
            return Vec::new();
        }
        let rolls =
            plan.limits.iter().filter(|limit| adds_to(limit) && limit.window == LimitWindow::Of(WindowKind::Period));
        rolls
            .filter_map(|limit| {
                let (max, keeps) = (limit.max?, limit.quota.rollover_max?);
                // Of a period in which nothing happened at all, everything is left.
                let is_last = old.end == new.start;
                let used = self.accounts.used(&limit.meter, WindowKind::Period, &old)
                    - self.grants.drawn_in(&limit.meter, WindowKind::Period, &self.windows);
                let left = if is_last { max.saturating_sub(used) } else { max };
                let amount = left.min(keeps);
                (amount > 0).then(|| Grant {
                    id: GrantId(rollover_id(&limit.meter, new.start)),
                    meter: limit.meter.clone(),
                    amount,
                    left: amount,
                    priority: PRIORITY_DEFAULT,
                    granted_at: new.start,
                    expires_at: Some(new.end),
                    source: GrantSource::Rollover,
                    reason: "left of the period before".into(),
                })
            })
            .collect()
    }
}

/// One for each period and meter: FNV-1a over the meter's key.
fn rollover_id(meter: &MeterKey, start: Instant) -> u128 {
    let hash = meter
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (start.ms() as u128) << 64 | u128::from(hash)
}

/// Where use comes out of.
struct Pool {
    priority: i64,
    ends_at: Option<Instant>,
    /// `None` is the plan's own allowance.
    grant: Option<GrantId>,
    room: i64,
}
