//! Work in flight: the holds and sessions of a tenant, and what they hold of its limits.
//!
//! What is kept is the holds and the sessions themselves. Sums are an index of them, so nothing can be counted twice;
//! what has lapsed counts no more from that instant on, whenever that is written down.

use crate::{
    catalog::{AMOUNT_MAX, Unsettled},
    hold::{HeldCharge, Hold, HoldId},
    id::{MeterKey, UserId},
    session::{Session, SessionId},
    tenant::Windows,
    time::{Instant, Window, WindowKind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many holds and sessions a tenant may have at once, of each. A hold counts until a day after it lapsed.
pub const IN_FLIGHT_MAX: usize = 10_000;

/// What ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lapse {
    /// A hold that nobody settled.
    Hold(HoldId),
    /// A session that nobody touched.
    Session(SessionId),
}

/// The holds and sessions of a tenant. Most have none, and need no room for it.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Option<Box<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    holds: BTreeMap<HoldId, Hold>,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions by what their caller calls them.
    by_key: BTreeMap<(MeterKey, Option<UserId>, Arc<str>), SessionId>,
    lapses: BTreeSet<(Instant, Lapse)>,
    /// Holds whose lapse is written down, and when they lapsed.
    lapsed_holds: BTreeSet<(Instant, HoldId)>,
    held: Held,
    open: OpenCounts,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.holds().eq(other.holds()) && self.sessions().eq(other.sessions())
    }
}

impl InFlight {
    /// Whether there is neither hold nor session.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Every hold that is open, or lapsed lately, in order of id.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.0.iter().flat_map(|inner| inner.holds.values())
    }

    /// Every session that is open, in order of id. Those that were not touched in time are among them until that is
    /// written down.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.0.iter().flat_map(|inner| inner.sessions.values())
    }

    /// A hold.
    pub fn hold(&self, id: HoldId) -> Option<&Hold> {
        self.0.as_ref()?.holds.get(&id)
    }

    /// An open session.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.0.as_ref()?.sessions.get(&id)
    }

    /// The open session that its caller gave this name.
    pub fn session_named(&self, meter: &MeterKey, user: Option<&UserId>, key: &Arc<str>) -> Option<&Session> {
        let inner = self.0.as_ref()?;
        let id = inner.by_key.get(&(meter.clone(), user.cloned(), key.clone()))?;
        inner.sessions.get(id)
    }

    /// What has lapsed by `at` and is not written down yet, the oldest first.
    pub fn lapsed(&self, at: Instant) -> impl Iterator<Item = Lapse> {
        let due = move |(when, _): &&(Instant, Lapse)| *when <= at;
        self.0.iter().flat_map(move |inner| inner.lapses.iter().take_while(due)).map(|(_, what)| *what)
    }

    /// When the next one lapses.
    pub fn lapses_next(&self) -> Option<Instant> {
        self.0.as_ref()?.lapses.first().map(|(when, _)| *when)
    }

    /// How many holds there are.
    pub fn holds_count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.holds.len())
    }

    /// How many sessions there are.
    pub fn sessions_count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.sessions.len())
    }

    /// What is held of a meter in a window, for the tenant or for one of its users.
    pub fn held(&self, meter: &MeterKey, user: Option<&UserId>, kind: WindowKind, window: &Window, at: Instant) -> i64 {
        let Some(inner) = &self.0 else { return 0 };
        let held = inner.held.of(meter, user).map_or(0, |slots| slots.in_window(kind, window));
        if held == 0 {
            return 0;
        }
        let is_its = |is_level: bool, windows: &Windows| !is_level && windows[kind.index()].start == window.start;
        held.saturating_sub(inner.lapsed(at, (meter, user), is_its))
    }

    /// What is held of a meter in a window that may be over.
    pub(crate) fn held_then(&self, meter: &MeterKey, user: Option<&UserId>, kind: WindowKind, window: &Window) -> i64 {
        let is_its = |whose: &Option<UserId>, windows: &Windows| {
            (user.is_none() || whose.as_ref() == user) && windows[kind.index()].start == window.start
        };
        let holds = self.holds().filter(|hold| !hold.lapsed && is_its(&hold.user, &hold.windows));
        let parts = holds.flat_map(|hold| &hold.charges).filter(|part| part.meter == *meter && !part.is_level);
        let sessions = self.sessions().filter(|session| session.meter == *meter);
        let slices = sessions.filter(|session| is_its(&session.user, &session.windows)).map(|session| session.held_ms);
        parts.map(|part| part.amount).chain(slices).fold(0, i64::saturating_add)
    }

    /// What is held of the level of a gauge, for the tenant or for one of its users.
    pub fn held_level(&self, meter: &MeterKey, user: Option<&UserId>, at: Instant) -> i64 {
        let Some(inner) = &self.0 else { return 0 };
        let held = inner.held.of(meter, user).map_or(0, |slots| slots.level);
        if held == 0 {
            return 0;
        }
        held.saturating_sub(inner.lapsed(at, (meter, user), |is_level, _| is_level))
    }

    /// Whether the sums of what is held can take so much more.
    pub(crate) fn has_room_for(&self, meter: &MeterKey, user: Option<&UserId>, amount: i64) -> bool {
        let Some(inner) = &self.0 else { return true };
        let fits = |slots: &Slots| {
            let sums = slots.amounts.iter().chain([&slots.level]);
            sums.max().is_none_or(|held| held.saturating_add(amount) <= i64::MAX - AMOUNT_MAX)
        };
        inner.held.of(meter, None).is_none_or(fits) && inner.held.of(meter, user).is_none_or(fits)
    }

    /// How many sessions are open on a meter, for the tenant or for one of its users.
    pub fn open_sessions(&self, meter: &MeterKey, user: Option<&UserId>, at: Instant) -> i64 {
        let Some(inner) = &self.0 else { return 0 };
        let is_its =
            |session: &&Session| session.meter == *meter && user.is_none_or(|user| session.user.as_ref() == Some(user));
        let due = inner.lapses.iter().take_while(|(when, _)| *when <= at);
        let sessions = due.filter_map(|(_, lapse)| match lapse {
            Lapse::Session(id) => inner.sessions.get(id),
            Lapse::Hold(_) => None,
        });
        let open = inner.open.of(meter, user).copied().unwrap_or(0);
        open - sessions.filter(is_its).count() as i64
    }

    /// Puts a hold in, or in the place of what it was before. What lapsed longer than a day before `at` is forgotten.
    pub fn put_hold(&mut self, hold: Hold, at: Instant) {
        self.restore_hold(hold);
        if let Some(inner) = &mut self.0 {
            inner.forget(at);
        }
        self.shrink();
    }

    /// Puts a hold in as it was stored.
    pub fn restore_hold(&mut self, hold: Hold) {
        let inner = self.0.get_or_insert_default();
        inner.take_hold(hold.id);
        inner.move_hold(&hold, 1);
        inner.holds.insert(hold.id, hold);
    }

    /// Takes a hold out.
    pub fn remove_hold(&mut self, id: HoldId) -> Option<Hold> {
        let hold = self.0.as_mut()?.take_hold(id);
        self.shrink();
        hold
    }

    /// Puts a session in, or in the place of what it was before.
    pub fn put_session(&mut self, session: Session) {
        let inner = self.0.get_or_insert_default();
        inner.take_session(session.id);
        inner.move_session(&session, 1);
        inner.by_key.insert(session.name(), session.id);
        inner.sessions.insert(session.id, session);
    }

    /// Takes a session out.
    pub fn remove_session(&mut self, id: SessionId) -> Option<Session> {
        let session = self.0.as_mut()?.take_session(id);
        self.shrink();
        session
    }

    fn shrink(&mut self) {
        if self.0.as_ref().is_some_and(|inner| inner.holds.is_empty() && inner.sessions.is_empty()) {
            self.0 = None;
        }
    }
}

impl Inner {
    fn take_hold(&mut self, id: HoldId) -> Option<Hold> {
        let hold = self.holds.remove(&id)?;
        self.move_hold(&hold, -1);
        Some(hold)
    }

    fn take_session(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.move_session(&session, -1);
        self.by_key.remove(&session.name());
        Some(session)
    }

    /// Drops the holds for which nothing is accepted any more.
    fn forget(&mut self, at: Instant) {
        while let Some((_, id)) = self.lapsed_holds.first().copied() {
            if !self.holds.get(&id).is_some_and(|hold| hold.is_too_late(at)) {
                return;
            }
            self.take_hold(id);
        }
    }

    fn move_hold(&mut self, hold: &Hold, sign: i64) {
        if hold.lapsed {
            mark(&mut self.lapsed_holds, (hold.expires_at, hold.id), sign);
            return;
        }
        mark(&mut self.lapses, (hold.expires_at, Lapse::Hold(hold.id)), sign);
        for part in hold.charges.iter() {
            self.held.add(&part.meter, hold.user.as_ref(), part.is_level, part.amount * sign, &hold.windows);
        }
    }

    fn move_session(&mut self, session: &Session, sign: i64) {
        mark(&mut self.lapses, (session.idle_at(), Lapse::Session(session.id)), sign);
        self.held.add(&session.meter, session.user.as_ref(), false, session.held_ms * sign, &session.windows);
        self.open.add(&session.meter, session.user.as_ref(), sign);
    }

    /// What has lapsed and returns by that. (What is charged when it lapses stays held until it is.)
    fn lapsed(
        &self,
        at: Instant,
        (meter, user): (&MeterKey, Option<&UserId>),
        is_its: impl Fn(bool, &Windows) -> bool,
    ) -> i64 {
        let of_user = |whose: &Option<UserId>| user.is_none() || whose.as_ref() == user;
        let of_hold = |hold: &Hold| {
            let is_its = |part: &&HeldCharge| {
                part.meter == *meter && part.unsettled == Unsettled::Release && is_its(part.is_level, &hold.windows)
            };
            hold.charges.iter().filter(is_its).fold(0_i64, |sum, part| sum.saturating_add(part.amount))
        };
        let due = self.lapses.iter().take_while(|(when, _)| *when <= at);
        let amounts = due.map(|(_, lapse)| match lapse {
            Lapse::Hold(id) => self.holds.get(id).filter(|hold| of_user(&hold.user)).map_or(0, of_hold),
            Lapse::Session(id) => {
                let of = |session: &&Session| {
                    of_user(&session.user) && session.meter == *meter && is_its(false, &session.windows)
                };
                self.sessions.get(id).filter(of).map_or(0, |session| session.held_ms)
            }
        });
        amounts.fold(0, i64::saturating_add)
    }
}

fn mark<T: Ord>(all: &mut BTreeSet<T>, one: T, sign: i64) {
    match sign > 0 {
        true => all.insert(one),
        false => all.remove(&one),
    };
}

/// A value for each meter, of the tenant and of each user.
#[derive(Debug, Clone)]
struct ByMeter<T> {
    of_all: Vec<(MeterKey, T)>,
    of_users: BTreeMap<UserId, Vec<(MeterKey, T)>>,
}

impl<T> Default for ByMeter<T> {
    fn default() -> Self {
        Self { of_all: Vec::new(), of_users: BTreeMap::new() }
    }
}

impl<T: Default> ByMeter<T> {
    fn of(&self, meter: &MeterKey, user: Option<&UserId>) -> Option<&T> {
        let list = user.map_or(Some(&self.of_all), |user| self.of_users.get(user))?;
        list.iter().find(|(key, _)| key == meter).map(|(_, value)| value)
    }

    /// Changes the value of the tenant and that of the user; what is nothing afterwards is dropped.
    fn change(
        &mut self,
        meter: &MeterKey,
        user: Option<&UserId>,
        change: impl Fn(&mut T),
        is_nothing: impl Fn(&T) -> bool,
    ) {
        let change = |list: &mut Vec<(MeterKey, T)>| {
            let place = list.iter().position(|(key, _)| key == meter).unwrap_or_else(|| {
                list.push((meter.clone(), T::default()));
                list.len() - 1
            });
            change(&mut list[place].1);
            if is_nothing(&list[place].1) {
                list.swap_remove(place);
            }
        };
        change(&mut self.of_all);
        let Some(user) = user else { return };
        let list = self.of_users.entry(user.clone()).or_default();
        change(list);
        if list.is_empty() {
            self.of_users.remove(user);
        }
    }
}

/// How many sessions are open.
type OpenCounts = ByMeter<i64>;

impl OpenCounts {
    fn add(&mut self, meter: &MeterKey, user: Option<&UserId>, sign: i64) {
        self.change(meter, user, |count| *count += sign, |count| *count == 0);
    }
}

/// What is held.
type Held = ByMeter<Slots>;

/// What is held of one meter: in the newest window of each kind that something is held in, and of its level. What was
/// held in older windows bounds nothing any more.
#[derive(Debug, Clone, Copy, Default)]
struct Slots {
    starts: [Instant; WindowKind::COUNT],
    amounts: [i64; WindowKind::COUNT],
    level: i64,
}

impl Slots {
    fn in_window(&self, kind: WindowKind, window: &Window) -> i64 {
        if self.starts[kind.index()] == window.start { self.amounts[kind.index()] } else { 0 }
    }

    fn add(&mut self, is_level: bool, amount: i64, windows: &Windows) {
        if is_level {
            self.level = self.level.saturating_add(amount);
            return;
        }
        for kind in WindowKind::ALL {
            let (start, held) = (&mut self.starts[kind.index()], &mut self.amounts[kind.index()]);
            let window = windows[kind.index()].start;
            if *start == window {
                *held = held.saturating_add(amount);
            } else if *start < window && amount > 0 {
                (*start, *held) = (window, amount);
            }
        }
    }
}

impl Held {
    fn add(&mut self, meter: &MeterKey, user: Option<&UserId>, is_level: bool, amount: i64, windows: &Windows) {
        if amount != 0 {
            let is_nothing = |slots: &Slots| slots.level == 0 && slots.amounts.iter().all(|amount| *amount == 0);
            self.change(meter, user, |slots| slots.add(is_level, amount, windows), is_nothing);
        }
    }
}
