//! What was used: the accounts of a tenant or of a user.
//!
//! There are many of them, and every decision reads some, so they are kept small: what every meter has lies together,
//! what few meters have (levels, unmet demand, totals that wait for history) lies aside.

use crate::{
    catalog::AMOUNT_MAX,
    entry::{ClosedWindow, KindSet},
    id::MeterKey,
    tenant::Windows,
    time::{Instant, Window, WindowKind},
};

/// What was used of one meter in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// The window. A slot whose window is not the tenant's open one is stale: it holds the last closed total. The end is
    /// kept only where totals are kept as history ([`WindowKind::is_kept`]); of other kinds it is the start.
    pub window: Window,
    /// What was used. Never negative.
    pub used: i64,
    /// Unmet demand. Never negative.
    pub denied: i64,
}

/// One meter of one tenant or user: a slot for each kind of window and a level. All kinds are kept whatever today's
/// plan asks for, so that any plan, override or catalog that comes later finds the use that was already made.
///
/// This is how an account is shown, stored and restored; in memory it is smaller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// At [`WindowKind::index`].
    pub slots: [Slot; WindowKind::COUNT],
    /// The level of a gauge. Never negative.
    pub level: i64,
    /// When the level was last set from outside; the epoch if never.
    pub level_set_at: Instant,
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

/// How many kinds of windows are kept as history: the first ones of [`WindowKind::ALL`].
const KEPT: usize = 3;

/// The use of one meter, at [`WindowKind::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counter {
    starts: [Instant; WindowKind::COUNT],
    used: [i64; WindowKind::COUNT],
    ends: [Instant; KEPT],
}

impl Counter {
    /// What was used in the window of `kind` that is open; 0 if the slot is of another one.
    pub(crate) fn used(&self, kind: WindowKind, window: &Window) -> i64 {
        if self.starts[kind.index()] == window.start { self.used[kind.index()] } else { 0 }
    }

    fn window(&self, kind: WindowKind) -> Window {
        let start = self.starts[kind.index()];
        Window { start, end: self.ends.get(kind.index()).copied().unwrap_or(start) }
    }

    fn open(&mut self, kind: WindowKind, window: Window) {
        self.starts[kind.index()] = window.start;
        if let Some(end) = self.ends.get_mut(kind.index()) {
            *end = window.end;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Level {
    level: i64,
    set_at: Instant,
}

/// What few accounts have.
#[derive(Debug, Clone, Default)]
struct Aside {
    levels: Vec<(MeterKey, Level)>,
    /// Unmet demand of the windows of the counters of the same meters.
    denied: Vec<(MeterKey, [i64; WindowKind::COUNT])>,
    closed: Vec<ClosedTotal>,
}

/// The accounts of a tenant or a user. Two are equal if they say the same, in whatever order.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// One for each counter touched so far. Few: searched in order.
    counters: Vec<(MeterKey, Counter)>,
    aside: Option<Box<Aside>>,
}

/// The place of a meter in a list. Names from one catalog are one piece of memory, so that looking for that alone nearly
/// always finds it, without reading any name.
fn place_of<T>(list: &[(MeterKey, T)], meter: &MeterKey) -> Option<usize> {
    same_place(list, meter).or_else(|| list.iter().position(|(key, _)| key == meter))
}

/// The place of a key that is the same piece of memory. It looks at every key rather than stop at the right one: where
/// that is can't be foreseen, and a wrong guess costs more than a few comparisons.
fn same_place<T>(list: &[(MeterKey, T)], meter: &MeterKey) -> Option<usize> {
    let places = list.iter().enumerate();
    let place = places.fold(usize::MAX, |found, (place, (key, _))| if key.is_same(meter) { place } else { found });
    (place < list.len()).then_some(place)
}

/// The place of a meter in a list, made where there is none.
fn place_made<T: Default>(list: &mut Vec<(MeterKey, T)>, meter: &MeterKey) -> usize {
    if let Some(place) = same_place(list, meter) {
        return place;
    }
    if let Some(place) = list.iter().position(|(key, _)| key == meter) {
        // What was read from disk has a name of its own until it is touched.
        list[place].0 = meter.clone();
        return place;
    }
    list.reserve_exact(1);
    list.push((meter.clone(), T::default()));
    list.len() - 1
}

impl Accounts {
    /// An account as it was stored.
    pub fn restore(&mut self, meter: MeterKey, account: &Account) {
        let counted = |slot: &Slot| *slot != Slot::default();
        if account.slots.iter().any(counted) {
            let place = place_made(&mut self.counters, &meter);
            let counter = &mut self.counters[place].1;
            for kind in WindowKind::ALL {
                counter.open(kind, account.slots[kind.index()].window);
                counter.used[kind.index()] = account.slots[kind.index()].used;
            }
            let denied = account.slots.map(|slot| slot.denied);
            if denied.iter().any(|denied| *denied != 0) {
                let list = &mut self.aside().denied;
                let place = place_made(list, &meter);
                list[place].1 = denied;
            }
        }
        let level = Level { level: account.level, set_at: account.level_set_at };
        if level != Level::default() {
            let list = &mut self.aside().levels;
            let place = place_made(list, &meter);
            list[place].1 = level;
        }
    }

    /// The account of a meter, if it was ever touched.
    pub fn get(&self, meter: &MeterKey) -> Option<Account> {
        let (counter, level) = (self.counter(meter), self.level_of(meter));
        if counter.is_none() && level.is_none() {
            return None;
        }
        let denied = self.denied_of(meter).copied().unwrap_or_default();
        let slots = counter.map(|counter| {
            WindowKind::ALL.map(|kind| {
                let (window, used) = (counter.window(kind), counter.used[kind.index()]);
                Slot { window, used, denied: denied[kind.index()] }
            })
        });
        let level = level.copied().unwrap_or_default();
        Some(Account { slots: slots.unwrap_or_default(), level: level.level, level_set_at: level.set_at })
    }

    /// Every account, in an order that says nothing.
    pub fn all(&self) -> impl Iterator<Item = (&MeterKey, Account)> {
        let levels = self.aside.iter().flat_map(|aside| &aside.levels).map(|(meter, _)| meter);
        let only_level = levels.filter(|meter| self.counter(meter).is_none());
        let meters = self.counters.iter().map(|(meter, _)| meter).chain(only_level);
        meters.filter_map(|meter| Some((meter, self.get(meter)?)))
    }

    /// Totals of closed windows not yet written to history.
    pub fn closed(&self) -> &[ClosedTotal] {
        self.aside.as_deref().map_or(&[], |aside| &aside.closed)
    }

    /// Takes the totals of closed windows: they are written to history once. The checkpoint does so.
    pub fn take_closed(&mut self) -> Vec<ClosedTotal> {
        let Some(aside) = self.aside.as_deref_mut() else { return Vec::new() };
        let closed = std::mem::take(&mut aside.closed);
        if aside.levels.is_empty() && aside.denied.is_empty() {
            self.aside = None;
        }
        closed
    }

    /// A copy that takes the totals of closed windows along.
    #[must_use]
    pub fn taken(&mut self) -> Self {
        let closed = self.take_closed();
        let mut copy = self.clone();
        if !closed.is_empty() {
            copy.aside().closed = closed;
        }
        copy
    }

    /// Whether no meter was touched so far.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.aside.is_none()
    }

    /// What was used of a meter in the window that starts with `window`; 0 if the slot is of another one.
    pub fn used(&self, meter: &MeterKey, kind: WindowKind, window: &Window) -> i64 {
        self.counter(meter).map_or(0, |counter| counter.used(kind, window))
    }

    /// What was used of a meter in a window that may be over: 0 where none was opened since, `None` where another was.
    pub(crate) fn known_use(&self, meter: &MeterKey, kind: WindowKind, window: &Window) -> Option<i64> {
        let Some(counter) = self.counter(meter) else { return Some(0) };
        let start = counter.starts[kind.index()];
        match start.cmp(&window.start) {
            std::cmp::Ordering::Equal => Some(counter.used[kind.index()]),
            std::cmp::Ordering::Less => Some(0),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Unmet demand on a meter in the window that starts with `window`; 0 if the slot is of another one.
    pub fn denied(&self, meter: &MeterKey, kind: WindowKind, window: &Window) -> i64 {
        let is_open = |counter: &Counter| counter.starts[kind.index()] == window.start;
        let denied = self.denied_of(meter).filter(|_| self.counter(meter).is_some_and(is_open));
        denied.map_or(0, |denied| denied[kind.index()])
    }

    /// The level of a gauge.
    pub fn level(&self, meter: &MeterKey) -> i64 {
        self.level_of(meter).map_or(0, |level| level.level)
    }

    /// When the level of a gauge was last set from outside; the epoch if never.
    pub(crate) fn level_set_at(&self, meter: &MeterKey) -> Instant {
        self.level_of(meter).map_or(Instant::EPOCH, |level| level.set_at)
    }

    /// The use of a meter, if there was any.
    pub(crate) fn counter(&self, meter: &MeterKey) -> Option<&Counter> {
        place_of(&self.counters, meter).map(|place| &self.counters[place].1)
    }

    fn level_of(&self, meter: &MeterKey) -> Option<&Level> {
        let levels = &self.aside.as_deref()?.levels;
        place_of(levels, meter).map(|place| &levels[place].1)
    }

    fn denied_of(&self, meter: &MeterKey) -> Option<&[i64; WindowKind::COUNT]> {
        let denied = &self.aside.as_deref()?.denied;
        place_of(denied, meter).map(|place| &denied[place].1)
    }

    fn aside(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// Use, in the open windows in `open` and in closed ones.
    pub(crate) fn add_use(
        &mut self,
        meter: &MeterKey,
        amount: i64,
        open: KindSet,
        closed: &[ClosedWindow],
        now: &Windows,
    ) {
        let place = place_made(&mut self.counters, meter);
        self.open_windows(place, open, now);
        let counter = &mut self.counters[place].1;
        for kind in WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)) {
            let used = &mut counter.used[kind.index()];
            *used = add_to_total(*used, amount);
        }
        for late in closed {
            let counter = &mut self.counters[place].1;
            if counter.starts[late.kind.index()] == late.window.start {
                let used = &mut counter.used[late.kind.index()];
                *used = add_to_total(*used, amount);
            } else if amount != 0 && late.kind.is_kept() {
                let (meter, closed) = (self.counters[place].0.clone(), *late);
                self.aside().closed.push(ClosedTotal { meter, closed, used: amount, denied: 0 });
            }
        }
    }

    /// Unmet demand, in the open windows in `open` and in closed ones.
    pub(crate) fn add_denied(
        &mut self,
        meter: &MeterKey,
        amount: i64,
        open: KindSet,
        closed: &[ClosedWindow],
        now: &Windows,
    ) {
        let place = place_made(&mut self.counters, meter);
        self.open_windows(place, open, now);
        if amount == 0 {
            return;
        }
        let (meter, counter) = (self.counters[place].0.clone(), self.counters[place].1);
        let aside = self.aside();
        let place = place_made(&mut aside.denied, &meter);
        let denied = &mut aside.denied[place].1;
        for kind in WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)) {
            denied[kind.index()] = add_to_demand(denied[kind.index()], amount);
        }
        for late in closed {
            if counter.starts[late.kind.index()] == late.window.start {
                denied[late.kind.index()] = add_to_demand(denied[late.kind.index()], amount);
            } else if late.kind.is_kept() {
                let meter = meter.clone();
                aside.closed.push(ClosedTotal { meter, closed: *late, used: 0, denied: amount });
            }
        }
        aside.denied.retain(|(_, denied)| denied.iter().any(|denied| *denied != 0));
    }

    /// Lets the slots of these kinds be those of the windows that are open now; what others held goes to history.
    fn open_windows(&mut self, place: usize, open: KindSet, now: &Windows) {
        let counter = &mut self.counters[place].1;
        let mut stale = KindSet::NONE;
        for kind in WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)) {
            let window = now[kind.index()];
            if counter.starts[kind.index()] != window.start {
                stale = stale.with(kind);
            } else {
                counter.open(kind, window);
            }
        }
        if stale != KindSet::NONE {
            self.close(place, stale, now);
        }
    }

    #[cold]
    fn close(&mut self, place: usize, stale: KindSet, now: &Windows) {
        let (meter, counter) = &mut self.counters[place];
        let known = self.aside.as_deref().map_or(&[][..], |aside| &aside.denied);
        let unmet = place_of(known, meter);
        for kind in WindowKind::ALL.into_iter().filter(|kind| stale.has(*kind)) {
            let window = counter.window(kind);
            let used = std::mem::take(&mut counter.used[kind.index()]);
            counter.open(kind, now[kind.index()]);
            let denied = match (unmet, self.aside.as_deref_mut()) {
                (Some(place), Some(aside)) => std::mem::take(&mut aside.denied[place].1[kind.index()]),
                _ => 0,
            };
            if kind.is_kept() && (used != 0 || denied != 0) {
                let (meter, closed) = (meter.clone(), ClosedWindow { kind, window });
                let aside = self.aside.get_or_insert_default();
                aside.closed.push(ClosedTotal { meter, closed, used, denied });
            }
        }
        if let (Some(_), Some(aside)) = (unmet, self.aside.as_deref_mut()) {
            aside.denied.retain(|(_, denied)| denied.iter().any(|denied| *denied != 0));
        }
    }

    pub(crate) fn move_level(&mut self, meter: &MeterKey, delta: i64, set_at: Option<Instant>) {
        let levels = &mut self.aside().levels;
        let place = place_made(levels, meter);
        let known = &mut levels[place].1;
        known.level = add_to_total(known.level, delta);
        if let Some(at) = set_at {
            known.set_at = known.set_at.max(at);
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
        let Some(counter) = self.counter(meter) else { return true };
        let opened = WindowKind::ALL.into_iter().filter(|kind| open.has(*kind));
        opened.into_iter().all(|kind| in_range(counter.used(kind, &now[kind.index()]), amount))
            && closed.iter().all(|late| in_range(counter.used(late.kind, &late.window), amount))
    }

    /// Whether a level can move by this much.
    pub(crate) fn has_room_for_level(&self, meter: &MeterKey, delta: i64) -> bool {
        in_range(self.level(meter), delta)
    }
}

impl PartialEq for Accounts {
    fn eq(&self, other: &Self) -> bool {
        let empty = Account::default();
        let holds = |one: &Self, other: &Self| {
            one.all().all(|(meter, account)| other.get(meter).as_ref().unwrap_or(&empty) == &account)
        };
        self.closed() == other.closed() && holds(self, other) && holds(other, self)
    }
}
impl Eq for Accounts {}

/// Totals are never negative, and never wrap: what would pass the range was refused before it became an entry.
fn add_to_total(total: i64, delta: i64) -> i64 {
    total.saturating_add(delta).max(0)
}

/// Unmet demand is what clients ask for, however wild: it stops at the largest amount instead of failing.
fn add_to_demand(total: i64, delta: i64) -> i64 {
    add_to_total(total, delta).min(AMOUNT_MAX)
}

/// Totals keep one largest amount clear of the end of their integer, so that sums over a few of them can't pass it.
fn in_range(total: i64, delta: i64) -> bool {
    total.checked_add(delta).is_some_and(|sum| sum <= i64::MAX - AMOUNT_MAX)
}
