//! Books kept apart from the engine's: other code, other arithmetic, the same promises. A [`Book`] is told what was asked
//! and says what must have been answered.

pub mod calendar;
pub mod grants;
pub mod holds;
pub mod journal;
mod limits;
pub mod sessions;
pub mod warnings;

use crate::auditor::{
    calendar::{KINDS, natural},
    grants::{GrantBook, Taking},
    holds::HeldBook,
    sessions::OpenBook,
};
use domain::{
    catalog::{Catalog, Enforce, MeterKind},
    decision::Code,
    entry::{Override, Status},
    hold::HoldId,
    id::{FeatureKey, MeterKey, PlanKey, UserId},
    op::{Charge, Movement, ProfileChange},
    session::SessionId,
    share::Share,
    time::WindowKind,
};
use std::collections::BTreeMap;

/// Whose account: the tenant's, or one user's.
pub type Who = Option<UserId>;

/// What an auditor knows about one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Book {
    /// Its plan.
    pub plan: PlanKey,
    /// Whether it is suspended.
    pub status: Status,
    /// Whether it is refused anything.
    pub enforce: Option<Enforce>,
    /// How far its clocks are ahead of UTC.
    pub offset_ms: i64,
    /// Where its periods start.
    pub anchor_ms: i64,
    /// Limits of its own.
    pub overrides: Vec<Override>,
    /// How meters are shared among its users.
    pub shares: Vec<Share>,
    /// Start and end of its open windows.
    pub windows: [(i64, i64); 5],
    used: BTreeMap<(Who, MeterKey, usize, i64), i64>,
    /// All that was ever used in windows of a kind.
    pub ever: BTreeMap<(Who, MeterKey, usize), i64>,
    /// All that was ever counted in days, with what was taken back beyond what there was.
    pub recorded: BTreeMap<(Who, MeterKey), i64>,
    /// Unmet demand, by the start of the period.
    pub denied: BTreeMap<(Who, MeterKey, i64), i64>,
    levels: BTreeMap<(Who, MeterKey), (i64, i64)>,
    holds: BTreeMap<HoldId, HeldBook>,
    /// What lapsed holds were charged that may not be written down yet: it is shown as held until then.
    unwritten: BTreeMap<(Who, MeterKey), i64>,
    sessions: BTreeMap<SessionId, OpenBook>,
    /// How long a session is remembered after it was idle, milliseconds: a clock may have said so too early.
    pub patience_ms: i64,
    grants: Vec<GrantBook>,
    /// What of the use in each window came out of grants.
    drawn: BTreeMap<(MeterKey, usize, i64), i64>,
    /// When it was asked last.
    now_ms: i64,
    /// Whether more was given back than a correction had left. A total that is open stops at nothing; history, which is
    /// added up later, keeps the difference.
    pub is_overdrawn: bool,
}

/// What was asked of a tenant.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// By whom.
    pub who: &'a Who,
    /// For what.
    pub charges: &'a [Charge],
    /// With which features.
    pub features: &'a [FeatureKey],
    /// Whether to charge.
    pub consume: bool,
}

/// What was charged, to be given back.
#[derive(Debug, Clone)]
pub struct Taken {
    who: Who,
    uses: Vec<Charge>,
    windows: [(i64, i64); 5],
    /// Meter, by how much the tenant's level moved, and the user's.
    levels: Vec<(MeterKey, i64, i64)>,
    draws: Vec<Taking>,
}

impl Book {
    /// A tenant that was just created.
    pub fn new(plan: PlanKey, now_ms: i64) -> Self {
        let mut book = Self {
            plan,
            status: Status::Active,
            enforce: None,
            offset_ms: 0,
            anchor_ms: now_ms,
            overrides: Vec::new(),
            shares: Vec::new(),
            windows: [(0, 0); 5],
            used: BTreeMap::new(),
            ever: BTreeMap::new(),
            recorded: BTreeMap::new(),
            denied: BTreeMap::new(),
            levels: BTreeMap::new(),
            holds: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            sessions: BTreeMap::new(),
            patience_ms: 0,
            grants: Vec::new(),
            drawn: BTreeMap::new(),
            now_ms,
            is_overdrawn: false,
        };
        book.turn(now_ms);
        book
    }

    /// Whether both say the same, apart from what was denied.
    pub fn agrees_but_for_demand(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.denied.clone_from(&other.denied);
        same == *other
    }

    /// When it was asked last.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Opens the windows of an instant.
    pub fn turn(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.lapse_holds();
        self.forget_idle();
        for (kind, window) in self.windows.iter_mut().enumerate() {
            if now_ms >= window.1 {
                let (start, end) = natural(kind, now_ms, self.anchor_ms, self.offset_ms);
                *window = (start.max(window.1), end);
            }
        }
    }

    /// Moves anchor or clocks: open windows keep their start, and end at the first new boundary not before their end.
    pub fn reframe(&mut self, now_ms: i64, anchor_ms: i64, offset_ms: i64) {
        self.turn(now_ms);
        if (anchor_ms, offset_ms) == (self.anchor_ms, self.offset_ms) {
            return;
        }
        (self.anchor_ms, self.offset_ms) = (anchor_ms, offset_ms);
        for (kind, window) in self.windows.iter_mut().enumerate() {
            let (start, end) = natural(kind, window.1, anchor_ms, offset_ms);
            window.1 = if start == window.1 { start } else { end };
        }
    }

    /// Use in the open window of a kind; a gauge's level without one.
    pub fn used(&self, who: &Who, meter: &MeterKey, kind: Option<WindowKind>) -> i64 {
        let Some(kind) = kind.map(WindowKind::index) else { return self.level(who, meter) };
        self.used.get(&(who.clone(), meter.clone(), kind, self.windows[kind].0)).copied().unwrap_or(0)
    }

    fn level(&self, who: &Who, meter: &MeterKey) -> i64 {
        self.levels.get(&(who.clone(), meter.clone())).map_or(0, |level| level.0)
    }

    /// Decides, and charges or counts; gives the code of the answer and what was taken.
    pub fn spend(
        &mut self,
        asked: &Asked<'_>,
        now_ms: i64,
        catalog: &Catalog,
        route: Option<Enforce>,
    ) -> (Code, Option<Taken>) {
        self.turn(now_ms);
        let mut code = self.verdict(asked, now_ms, catalog);
        if self.observes(route, catalog) {
            code = Code::Allowed;
        }
        if !asked.consume {
            return (code, None);
        }
        if code != Code::Allowed {
            let period = self.windows[WindowKind::Period.index()].0;
            for charge in asked.charges.iter().filter(|charge| charge.amount > 0) {
                for account in accounts(asked.who) {
                    *self.denied.entry((account, charge.meter.clone(), period)).or_default() += charge.amount;
                }
            }
            return (code, None);
        }
        let (uses, levels, draws) = Default::default();
        let mut taken = Taken { who: asked.who.clone(), uses, windows: self.windows, levels, draws };
        for charge in asked.charges {
            if catalog.meters[&charge.meter].kind == MeterKind::Gauge {
                let of_tenant = self.move_level(&None, &charge.meter, charge.amount);
                let of_user = match asked.who {
                    Some(_) => self.move_level(asked.who, &charge.meter, charge.amount),
                    None => 0,
                };
                taken.levels.push((charge.meter.clone(), of_tenant, of_user));
            } else {
                taken.draws.extend(self.use_up(asked.who, &charge.meter, charge.amount, self.windows, catalog));
                taken.uses.push(charge.clone());
            }
        }
        (code, Some(taken))
    }

    /// Whether nothing is refused.
    fn observes(&self, route: Option<Enforce>, catalog: &Catalog) -> bool {
        match (route, self.enforce) {
            (Some(Enforce::Observe), _) => true,
            (_, Some(own)) => own == Enforce::Observe,
            (route, None) => route.unwrap_or(catalog.enforce) == Enforce::Observe,
        }
    }

    /// Gives back what was taken, in the windows it was taken from.
    pub fn give_back(&mut self, taken: &Taken, now_ms: i64) {
        self.turn(now_ms);
        for charge in &taken.uses {
            let left = |account: &Who, kind: usize| {
                let account = (account.clone(), charge.meter.clone(), kind, taken.windows[kind].0);
                self.used.get(&account).copied().unwrap_or(0)
            };
            let is_short = |account: &Who| (0..5).any(|kind| left(account, kind) < charge.amount);
            self.is_overdrawn |= accounts(&taken.who).iter().any(is_short);
            self.add(&taken.who, &charge.meter, -charge.amount, taken.windows);
        }
        self.put_back(&taken.draws, taken.windows);
        for (meter, of_tenant, of_user) in &taken.levels {
            self.move_level(&None, meter, -of_tenant);
            if taken.who.is_some() {
                self.move_level(&taken.who, meter, -of_user);
            }
        }
    }

    /// A fact about one meter, which happened at `at_ms`.
    pub fn record(
        &mut self,
        who: &Who,
        meter: &MeterKey,
        movement: Movement,
        (at_ms, now_ms): (i64, i64),
        catalog: &Catalog,
    ) {
        self.turn(now_ms);
        match (movement, catalog.meters[meter].kind) {
            (Movement::Add(amount), MeterKind::Gauge) => {
                for account in accounts(who) {
                    self.move_level(&account, meter, amount);
                }
            }
            (Movement::Set(value), _) => {
                let known = self.levels.get(&(who.clone(), meter.clone())).copied().unwrap_or((0, 0));
                if at_ms >= known.1 {
                    self.set_level(who, meter, value, at_ms);
                }
            }
            (Movement::Add(amount), _) => {
                let mut windows = self.windows;
                for (kind, window) in windows.iter_mut().enumerate().filter(|(_, window)| at_ms < window.0) {
                    // Which closed window it is does not show; that it is no open one does.
                    *window = (-1 - kind as i64, 0);
                }
                self.use_up(who, meter, amount, windows, catalog);
            }
        }
    }

    /// Another plan, status, anchor, share or whatever a tenant is.
    pub fn configure(&mut self, change: &ProfileChange, offset_ms: Option<i64>, now_ms: i64) {
        self.turn(now_ms);
        self.plan = change.plan.clone().unwrap_or_else(|| self.plan.clone());
        self.status = change.status.unwrap_or(self.status);
        self.enforce = change.enforce.unwrap_or(self.enforce);
        self.shares = change.shares.clone().unwrap_or_else(|| std::mem::take(&mut self.shares));
        for own in change.put_overrides.iter().chain(&change.remove_overrides) {
            self.overrides.retain(|known| !known.same_account(own));
        }
        self.overrides.extend(change.put_overrides.iter().cloned());
        let anchor_ms = change.anchor.map_or(self.anchor_ms, |anchor| anchor.ms());
        self.reframe(now_ms, anchor_ms, offset_ms.unwrap_or(self.offset_ms));
    }

    /// A correction.
    pub fn adjust(&mut self, who: &Who, meter: &MeterKey, movement: Movement, now_ms: i64, kind: MeterKind) {
        self.turn(now_ms);
        match (movement, kind) {
            (Movement::Add(amount), MeterKind::Gauge) => {
                for account in accounts(who) {
                    self.move_level(&account, meter, amount);
                }
            }
            (Movement::Set(value), MeterKind::Gauge) => self.set_level(who, meter, value, now_ms),
            (Movement::Add(amount), _) => self.add(who, meter, amount, self.windows),
            (Movement::Set(value), _) => {
                let amount = value - self.used(who, meter, Some(WindowKind::Period));
                let mut windows = [(i64::MIN, 0); 5];
                windows[0] = self.windows[0];
                self.add(who, meter, amount, windows);
            }
        }
    }

    fn set_level(&mut self, who: &Who, meter: &MeterKey, value: i64, at_ms: i64) {
        let delta = value - self.level(who, meter);
        self.move_level(&None, meter, delta);
        if who.is_some() {
            self.move_level(who, meter, delta);
        }
        let level = self.levels.entry((who.clone(), meter.clone())).or_default();
        level.1 = level.1.max(at_ms);
    }

    fn move_level(&mut self, who: &Who, meter: &MeterKey, amount: i64) -> i64 {
        let level = self.levels.entry((who.clone(), meter.clone())).or_default();
        let moved = amount.max(-level.0);
        level.0 += moved;
        moved
    }

    /// Adds to the accounts in these windows; a window from the first instant there is stands for none.
    fn add(&mut self, who: &Who, meter: &MeterKey, amount: i64, windows: [(i64, i64); 5]) {
        for account in accounts(who) {
            for (kind, window) in windows.iter().enumerate().filter(|(_, window)| window.0 != i64::MIN) {
                let used = self.used.entry((account.clone(), meter.clone(), kind, window.0)).or_default();
                let before = *used;
                *used = (*used + amount).max(0);
                let ever = self.ever.entry((account.clone(), meter.clone(), kind)).or_default();
                *ever += *used - before;
            }
            if windows[WindowKind::Day.index()].0 != i64::MIN {
                *self.recorded.entry((account, meter.clone())).or_default() += amount;
            }
        }
    }
}

/// The accounts an operation moves.
fn accounts(who: &Who) -> Vec<Who> {
    match who {
        None => vec![None],
        Some(_) => vec![None, who.clone()],
    }
}

/// All kinds of windows whose closed totals are kept.
pub fn kept_kinds() -> impl Iterator<Item = WindowKind> {
    KINDS.into_iter().filter(|kind| kind.is_kept())
}
