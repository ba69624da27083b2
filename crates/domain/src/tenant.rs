//! The state of a tenant and of its users: the fold of their entries.

use crate::{
    catalog::AMOUNT_MAX,
    demand::PendingDenials,
    entry::{ClosedWindow, Effect, Entry, KindSet, Profile},
    id::{MeterKey, TenantId, UserId},
    time::{Frame, Instant, Window, WindowKind},
};

/// The bounds of one window of each kind, at [`WindowKind::index`].
pub type Windows = [Window; WindowKind::COUNT];

/// What was used of one meter in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// The window. A slot whose window is not the tenant's open one is stale: it holds the last closed total.
    pub window: Window,
    /// What was used. Never negative.
    pub used: i64,
    /// Unmet demand. Never negative.
    pub denied: i64,
}

/// One meter of one tenant or user: a slot for each kind of window and a level. All kinds are kept whatever today's
/// plan asks for, so that any plan, override or catalog that comes later finds the use that was already made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// At [`WindowKind::index`].
    pub slots: [Slot; WindowKind::COUNT],
    /// The level of a gauge. Never negative.
    pub level: i64,
    /// When the level was last set from outside; the epoch if never.
    pub level_set_at: Instant,
}

impl Account {
    /// The slot of a kind, if it is of the window that starts with `window`.
    pub fn slot(&self, kind: WindowKind, window: &Window) -> Option<&Slot> {
        Some(&self.slots[kind.index()]).filter(|slot| slot.window.start == window.start)
    }
}

/// What a closed window gained since the last checkpoint; history is the sum of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedTotal {
    /// Which meter.
    pub meter: MeterKey,
    /// Which window.
    pub closed: ClosedWindow,
    /// Use gained.
    pub used: i64,
    /// Unmet demand gained.
    pub denied: i64,
}

/// The accounts of a tenant or a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// One for each meter touched so far. Few: searched in order.
    pub list: Vec<(MeterKey, Account)>,
    /// Totals of closed windows not yet written to history. The checkpoint takes them.
    pub closed: Vec<ClosedTotal>,
}

impl Accounts {
    /// The account of a meter, if it was ever touched.
    pub fn get(&self, meter: &MeterKey) -> Option<&Account> {
        self.list.iter().find(|(key, _)| key == meter).map(|(_, account)| account)
    }

    fn get_or_open(&mut self, meter: &MeterKey) -> usize {
        if let Some(index) = self.list.iter().position(|(key, _)| key == meter) {
            return index;
        }
        self.list.push((meter.clone(), Account::default()));
        self.list.len() - 1
    }

    /// What was used of a meter in the window that starts with `window`; 0 if the slot is of another one.
    pub fn used(&self, meter: &MeterKey, kind: WindowKind, window: &Window) -> i64 {
        self.slot(meter, kind, window).map_or(0, |slot| slot.used)
    }

    /// The slot of a meter, if it is of the window that starts with `window`.
    pub fn slot(&self, meter: &MeterKey, kind: WindowKind, window: &Window) -> Option<&Slot> {
        self.get(meter)?.slot(kind, window)
    }

    /// The level of a gauge.
    pub fn level(&self, meter: &MeterKey) -> i64 {
        self.get(meter).map_or(0, |account| account.level)
    }

    /// Adds to the open windows in `open` and to the closed ones.
    fn add(&mut self, meter: &MeterKey, gain: Gain, open: KindSet, closed: &[ClosedWindow], now: &Windows) {
        let index = self.get_or_open(meter);
        let account = &mut self.list[index].1;
        for kind in WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)) {
            let window = now[kind.index()];
            let slot = &mut account.slots[kind.index()];
            if slot.window.start != window.start {
                let gone = std::mem::replace(slot, Slot { window, ..Slot::default() });
                if kind.is_kept() && (gone.used != 0 || gone.denied != 0) {
                    let closed = ClosedWindow { kind, window: gone.window };
                    let (used, denied) = (gone.used, gone.denied);
                    self.closed.push(ClosedTotal { meter: meter.clone(), closed, used, denied });
                }
            }
            slot.window.end = window.end;
            slot.gain(gain);
        }
        for late in closed {
            let slot = &mut account.slots[late.kind.index()];
            if slot.window.start == late.window.start {
                slot.gain(gain);
            } else if gain.used != 0 || gain.denied != 0 {
                let Gain { used, denied } = gain;
                self.closed.push(ClosedTotal { meter: meter.clone(), closed: *late, used, denied });
            }
        }
    }

    fn move_level(&mut self, meter: &MeterKey, delta: i64, set_at: Option<Instant>) {
        let index = self.get_or_open(meter);
        let account = &mut self.list[index].1;
        account.level = add_to_total(account.level, delta);
        if let Some(at) = set_at {
            account.level_set_at = account.level_set_at.max(at);
        }
    }

    /// Whether the windows that would count `amount` more use have room for it in their integers. Unmet demand and
    /// windows that are over don't matter: neither may keep a tenant from using what it has.
    pub(crate) fn has_room_for_use(
        &self,
        meter: &MeterKey,
        amount: i64,
        open: KindSet,
        closed: &[ClosedWindow],
        now: &Windows,
    ) -> bool {
        let Some(account) = self.get(meter) else { return true };
        let opened = WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)).map(|kind| (kind, now[kind.index()]));
        let counted = opened.chain(closed.iter().map(|late| (late.kind, late.window)));
        counted
            .map(|(kind, window)| (account.slots[kind.index()], window))
            .filter(|(slot, window)| slot.window.start == window.start)
            .all(|(slot, _)| in_range(slot.used, amount))
    }

    /// Whether a level can move by this much.
    pub(crate) fn has_room_for_level(&self, meter: &MeterKey, delta: i64) -> bool {
        in_range(self.level(meter), delta)
    }
}

/// What an effect adds to a window.
#[derive(Debug, Clone, Copy)]
struct Gain {
    used: i64,
    denied: i64,
}

impl Slot {
    fn gain(&mut self, gain: Gain) {
        self.used = add_to_total(self.used, gain.used);
        // Unmet demand is what clients ask for, however wild: it stops at the largest amount instead of failing.
        self.denied = add_to_total(self.denied, gain.denied).min(AMOUNT_MAX);
    }
}

/// Totals are never negative, and never wrap: what would pass the range was refused before it became an entry.
fn add_to_total(total: i64, delta: i64) -> i64 {
    total.saturating_add(delta).max(0)
}

/// Totals keep one largest amount clear of the end of their integer, so that sums over a few of them can't pass it.
fn in_range(total: i64, delta: i64) -> bool {
    total.checked_add(delta).is_some_and(|sum| sum <= i64::MAX - AMOUNT_MAX)
}

/// A tenant: what it is, and what it used.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// What it is.
    pub profile: Profile,
    /// The instant of its last entry: the next can't be earlier.
    pub last: Instant,
    /// The windows that are open.
    pub windows: Windows,
    /// The windows that were open before.
    pub previous: Windows,
    /// What it used.
    pub accounts: Accounts,
    /// Denials counted but not yet written down. Not part of the fold.
    pub pending: PendingDenials,
}

/// A user of a tenant: what it used. Its windows are the tenant's.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// What it used.
    pub accounts: Accounts,
}

impl User {
    /// A user of whom nothing is known yet.
    pub fn new(id: UserId) -> Self {
        Self { id, accounts: Accounts::default() }
    }
}

impl Tenant {
    /// A tenant before its first entry, which must be one that gives it a profile.
    pub fn unborn(id: TenantId, profile: Profile) -> Self {
        Self {
            id,
            profile,
            last: Instant::EPOCH,
            windows: Windows::default(),
            previous: Windows::default(),
            accounts: Accounts::default(),
            pending: PendingDenials::default(),
        }
    }

    /// Builds a tenant from the first entry of its ledger; `None` if that entry gives no profile.
    pub fn born(id: TenantId, first: &Entry) -> Option<Self> {
        let profile = first.effects.iter().find_map(|effect| match effect {
            Effect::Profile(profile) => Some(profile.as_ref().clone()),
            _ => None,
        })?;
        Some(Self::unborn(id, profile))
    }

    /// What shapes the tenant's windows.
    pub fn frame(&self) -> Frame {
        Frame { anchor: self.profile.anchor, zone: self.profile.zone.clone() }
    }

    /// The instant an operation at `now` happens at: never before the tenant's last.
    pub fn instant(&self, now: Instant) -> Instant {
        now.max(self.last)
    }

    /// The windows that are open at `at`, which must not be before [`Tenant::last`].
    pub fn windows_at(&self, at: Instant) -> Windows {
        let mut windows = self.windows;
        if windows.iter().all(|window| at < window.end) {
            return windows;
        }
        let frame = self.frame();
        for kind in WindowKind::ALL {
            let open = &mut windows[kind.index()];
            if at >= open.end {
                let mut next = frame.window(kind, at);
                next.start = next.start.max(open.end);
                *open = next;
            }
        }
        windows
    }

    /// The effects that open the windows of `at`; empty while all are open still.
    pub(crate) fn turn_effects(&self, at: Instant) -> Vec<Effect> {
        if self.windows.iter().all(|window| at < window.end) {
            return Vec::new();
        }
        let windows = self.windows_at(at);
        let turned = |kind: &WindowKind| windows[kind.index()] != self.windows[kind.index()];
        WindowKind::ALL
            .into_iter()
            .filter(turned)
            .map(|kind| Effect::Turn { kind, window: windows[kind.index()] })
            .collect()
    }

    /// Sorts the windows that `then` (a set of window bounds of the past) stands for into those that are still open
    /// among `now` and those that are closed and kept.
    pub(crate) fn split_windows(then: &Windows, now: &Windows) -> (KindSet, Vec<ClosedWindow>) {
        let mut open = KindSet::NONE;
        let mut closed = Vec::new();
        for kind in WindowKind::ALL {
            let window = then[kind.index()];
            if window.start == now[kind.index()].start {
                open = open.with(kind);
            } else if kind.is_kept() {
                closed.push(ClosedWindow { kind, window });
            }
        }
        (open, closed)
    }

    /// The windows around an instant of the past, given the windows that are open `now`.
    pub(crate) fn windows_of_past(&self, at: Instant, now: &Windows) -> Windows {
        if now.iter().all(|window| window.start <= at) {
            return *now;
        }
        let frame = self.frame();
        let mut windows = *now;
        for kind in WindowKind::ALL {
            let open = now[kind.index()];
            // When windows have just turned, what was open is now the one before.
            let before = if self.windows[kind.index()].start == open.start {
                self.previous[kind.index()]
            } else {
                self.windows[kind.index()]
            };
            if open.start <= at {
                continue;
            }
            windows[kind.index()] = if before.contains(at) {
                before
            } else {
                let mut window = frame.window(kind, at);
                if at >= before.end {
                    window.start = window.start.max(before.end);
                    window.end = window.end.min(open.start);
                } else {
                    window.end = window.end.min(before.start);
                }
                window
            };
        }
        windows
    }

    /// Folds an entry into the state, and into that of the user it names. This is the only place where state changes,
    /// live and on replay alike.
    pub fn fold(&mut self, user: Option<&mut User>, entry: &Entry) {
        debug_assert_eq!(entry.user.as_ref(), user.as_deref().map(|user| &user.id), "the entry's user must be at hand");
        self.fold_tenant(entry);
        if let Some(user) = user {
            user.fold(entry, &self.windows);
        }
    }

    fn fold_tenant(&mut self, entry: &Entry) {
        self.last = self.last.max(entry.at);
        for effect in &entry.effects {
            match effect {
                Effect::Profile(profile) => self.profile = profile.as_ref().clone(),
                Effect::Turn { kind, window } => {
                    let open = &mut self.windows[kind.index()];
                    if open.start != window.start {
                        self.previous[kind.index()] = *open;
                    }
                    *open = *window;
                }
                Effect::Use { meter, amount, open, closed } => {
                    let gain = Gain { used: *amount, denied: 0 };
                    self.accounts.add(meter, gain, *open, closed, &self.windows);
                }
                Effect::Denied { meter, amount, open, closed } => {
                    let gain = Gain { used: 0, denied: *amount };
                    self.accounts.add(meter, gain, *open, closed, &self.windows);
                }
                Effect::Level { meter, tenant_delta, set_at, .. } => {
                    let set_at = set_at.filter(|_| entry.user.is_none());
                    self.accounts.move_level(meter, *tenant_delta, set_at);
                }
                Effect::Denials(_) => {}
            }
        }
    }
}

impl User {
    /// Folds what an entry changes of its user. `windows` are the tenant's, as the entry left them.
    fn fold(&mut self, entry: &Entry, windows: &Windows) {
        for effect in &entry.effects {
            match effect {
                Effect::Use { meter, amount, open, closed } => {
                    let gain = Gain { used: *amount, denied: 0 };
                    self.accounts.add(meter, gain, *open, closed, windows);
                }
                Effect::Denied { meter, amount, open, closed } => {
                    let gain = Gain { used: 0, denied: *amount };
                    self.accounts.add(meter, gain, *open, closed, windows);
                }
                Effect::Level { meter, user_delta, set_at, .. } => {
                    self.accounts.move_level(meter, *user_delta, *set_at);
                }
                Effect::Profile(_) | Effect::Turn { .. } | Effect::Denials(_) => {}
            }
        }
    }
}
