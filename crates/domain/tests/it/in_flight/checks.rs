//! What must hold after every step, and at the end.

use super::{
    acts::{METERS, USERS},
    life::{Life, Record},
};
use crate::{
    auditor::{Owner, limits_in_force},
    table::history,
    world::meter,
};
use domain::{
    catalog::{LimitWindow, Mode, Scope, Unsettled},
    entry::Effect,
    hold::HoldId,
    id::{MeterKey, UserId},
    in_flight::InFlight,
    session::{CloseReason, Session, SessionId},
    tenant::{Accounts, Tenant, Windows},
    time::{DAY_MS, Instant, WindowKind},
};
use std::collections::{BTreeMap, BTreeSet};

impl Life {
    /// Decisions carry nothing past a hard limit that was not past it before.
    pub fn check_limits(&self, before: &Life) {
        let at = self.at();
        for limit in limits_in_force(&self.world, at) {
            let (LimitWindow::Of(_) | LimitWindow::Level | LimitWindow::Concurrent) = limit.window else { continue };
            let Some(max) = limit.max.filter(|_| limit.mode == Mode::Hard) else { continue };
            let owners: &[Owner] = match limit.scope {
                Scope::Tenant => &[None],
                Scope::User => &[Some("ann"), Some("bob")],
            };
            for owner in owners {
                let (was, is) = (
                    before.taken(*owner, &limit.meter, limit.window, at),
                    self.taken(*owner, &limit.meter, limit.window, at),
                );
                assert!(
                    is <= max.max(was),
                    "{is} of {max} taken on {} {:?} of {owner:?}, {was} before",
                    limit.meter,
                    limit.window
                );
            }
        }
    }

    /// What is used and held at an instant, added up from what there is.
    pub fn taken(&self, owner: Owner, meter: &MeterKey, window: LimitWindow, at: Instant) -> i64 {
        let tenant = self.tenant();
        let user = self.account_of(owner);
        if owner.is_some() && user.is_none() {
            return 0;
        }
        let accounts = user.map_or(&tenant.accounts, |user| &user.accounts);
        match window {
            LimitWindow::Of(kind) => {
                let open = tenant.windows_at(at)[kind.index()];
                accounts.used(meter, kind, &open) + held(tenant, owner, meter, Some((kind, open.start)), at)
            }
            LimitWindow::Level => accounts.level(meter) + held(tenant, owner, meter, None, at),
            _ => open_sessions(tenant, owner, meter, at),
        }
    }

    /// The index of what is held is what there is, and what would be made of it anew.
    pub fn check_index(&self) {
        let tenant = self.tenant();
        let mut anew = InFlight::default();
        tenant.in_flight.holds().for_each(|hold| anew.restore_hold(hold.clone()));
        tenant.in_flight.sessions().for_each(|session| anew.put_session(session.clone()));
        assert_eq!(anew.lapses_next(), tenant.in_flight.lapses_next());
        for at in [self.at(), self.at().plus_ms(40_000)] {
            assert!(anew.lapsed(at).eq(tenant.in_flight.lapsed(at)));
            for owner in owners() {
                for key in METERS {
                    let (key, user) = (meter(key), owner.map(|name| UserId::new(name).unwrap()));
                    for index in [&anew, &tenant.in_flight] {
                        let windows = tenant.windows_at(at);
                        for kind in WindowKind::ALL {
                            let window = windows[kind.index()];
                            let found = index.held(&key, user.as_ref(), kind, &window, at);
                            assert_eq!(
                                found,
                                held(tenant, owner, &key, Some((kind, window.start)), at),
                                "{key} {kind:?}"
                            );
                        }
                        assert_eq!(index.held_level(&key, user.as_ref(), at), held(tenant, owner, &key, None, at));
                        let open = index.open_sessions(&key, user.as_ref(), at);
                        assert_eq!(open, open_sessions(tenant, owner, &key, at));
                    }
                }
            }
        }
    }

    /// What is counted in the windows that are open, and what is held, is what the records say.
    pub fn check_counts(&self) {
        let (tenant, at) = (self.tenant(), self.at());
        let windows = tenant.windows_at(at);
        for owner in owners() {
            let Some(accounts) = self.accounts(owner) else { continue };
            for key in METERS {
                let of = |record: &&Record| record.meter == key && (owner.is_none() || record.user == owner);
                let records = || self.records.iter().filter(of);
                if key == "documents" {
                    let level: i64 = records().map(|record| record.amount).sum();
                    assert_eq!(accounts.level(&meter(key)), level, "{key} of {owner:?}");
                    continue;
                }
                for kind in WindowKind::ALL {
                    let window = windows[kind.index()];
                    let counted: i64 = records().map(|record| record.in_window(kind, window.start)).sum();
                    assert_eq!(accounts.used(&meter(key), kind, &window), counted, "{key} {kind:?} of {owner:?}");
                }
            }
        }
        let open: BTreeSet<HoldId> = tenant.in_flight.holds().filter(|hold| !hold.lapsed).map(|hold| hold.id).collect();
        let known = self.holds.iter().filter(|known| !known.settled && !known.lapsed).map(|known| known.hold.id);
        assert_eq!(open, known.collect(), "what is held is what nobody settled");
    }

    fn accounts(&self, owner: Owner) -> Option<&Accounts> {
        match owner {
            None => Some(&self.tenant().accounts),
            owner => self.account_of(owner).map(|user| &user.accounts),
        }
    }

    /// Everything ends; every total adds up; everything ended once; the fold of the entries is the state.
    pub fn end(&mut self) {
        self.now = self.now.plus_ms(3 * DAY_MS);
        self.lapse();
        self.check_index();
        self.check_counts();
        for owner in owners() {
            let Some(accounts) = self.accounts(owner) else { continue };
            for (key, kind) in METERS.into_iter().flat_map(|key| WindowKind::ALL.map(|kind| (key, kind))) {
                let of = |record: &&Record| record.meter == key && (owner.is_none() || record.user == owner);
                let total: i64 = self.records.iter().filter(of).map(|record| record.amount).sum();
                if kind.is_kept() && key != "documents" {
                    let counted: i64 = history(accounts, key, kind).values().map(|(used, _)| used).sum();
                    assert_eq!(counted, total, "all of {key} by {kind:?} of {owner:?}");
                }
            }
        }
        assert_eq!(self.tenant().in_flight.sessions_count(), 0);
        assert_eq!(self.tenant().in_flight.lapses_next(), None);
        self.check_ends();
        self.world.check_replay();
    }

    fn check_ends(&self) {
        let mut sessions: BTreeMap<SessionId, bool> = BTreeMap::new();
        let mut holds: BTreeMap<HoldId, (bool, bool)> = BTreeMap::new();
        for effect in self.world.entries.iter().flat_map(|entry| &entry.effects) {
            match effect {
                Effect::Session(session) => {
                    assert!(!*sessions.entry(session.id).or_default(), "ended, and yet it goes on")
                }
                Effect::SessionClosed(end) => {
                    let ended = sessions.get_mut(&end.id).unwrap();
                    assert!(!std::mem::replace(ended, true), "a session ends once");
                    assert!(end.ended_at >= end.opened_at || end.accrued_ms > 0 || end.reason != CloseReason::Idle);
                }
                Effect::Hold(hold) => {
                    let (lapsed, settled) = holds.entry(hold.id).or_default();
                    assert!(!(*settled || *lapsed && hold.lapsed), "a hold lapses once, unless it is settled");
                    *lapsed |= hold.lapsed;
                }
                Effect::HoldSettled { id } => {
                    assert!(!std::mem::replace(&mut holds.get_mut(id).unwrap().1, true), "a hold is settled once");
                }
                _ => {}
            }
        }
        assert!(sessions.values().all(|ended| *ended), "every session ends");
    }
}
pub fn owners() -> impl Iterator<Item = Owner> {
    [None].into_iter().chain(USERS.map(Some))
}

/// What is held, added up from all there is: of a window, or of the level. What lapsed and was used stays held until
/// that is written down.
fn held(tenant: &Tenant, owner: Owner, meter: &MeterKey, window: Option<(WindowKind, Instant)>, at: Instant) -> i64 {
    let is_of = |user: &Option<UserId>| owner.is_none() || user.as_ref().map(UserId::as_str) == owner;
    let is_in = |windows: &Windows| window.is_some_and(|(kind, start)| windows[kind.index()].start == start);
    let mut sum = 0;
    for hold in tenant.in_flight.holds().filter(|hold| is_of(&hold.user) && !hold.lapsed) {
        for part in hold.charges.iter().filter(|part| part.meter == *meter) {
            let is_held = hold.expires_at > at || part.unsettled == Unsettled::Charge;
            let is_its = if part.is_level { window.is_none() } else { is_in(&hold.windows) };
            sum += if is_held && is_its { part.amount } else { 0 };
        }
    }
    for session in tenant.in_flight.sessions().filter(|session| is_of(&session.user) && session.meter == *meter) {
        sum += if session.idle_at() > at && is_in(&session.windows) { session.held_ms } else { 0 };
    }
    sum
}

fn open_sessions(tenant: &Tenant, owner: Owner, meter: &MeterKey, at: Instant) -> i64 {
    let is_its = |session: &&Session| {
        session.meter == *meter
            && session.idle_at() > at
            && (owner.is_none() || session.user.as_ref().map(UserId::as_str) == owner)
    };
    tenant.in_flight.sessions().filter(is_its).count() as i64
}
