//! The limits in force for a tenant, with their numbers, and the one place that says whether one refuses.

use crate::{
    account::Accounts,
    catalog::{Limit, LimitWindow, Mode, Plan, Scope, Source},
    decision::{Code, LimitState},
    entry::Override,
    grant::{Grant, adds_to},
    id::{MeterKey, UserId},
    tenant::{Tenant, User, Windows},
    time::{Instant, WindowKind},
};
use std::sync::Arc;

impl Tenant {
    /// The limits on one meter under a plan, with the tenant's overrides in place, and their numbers.
    pub(crate) fn push_limit_states(
        &self,
        states: &mut Vec<LimitState>,
        user: Option<&User>,
        plan: &Plan,
        meter: &MeterKey,
        windows: &Windows,
        at: Instant,
    ) {
        self.push_limits(states, plan, Books::of(self, user, meter, windows, at), at);
    }

    /// As [`Tenant::push_limit_states`], with those on sessions.
    pub(crate) fn push_session_limits(
        &self,
        states: &mut Vec<LimitState>,
        user: Option<&User>,
        plan: &Plan,
        meter: &MeterKey,
        (windows, at): (&Windows, Instant),
        session: SessionUse,
    ) {
        let books = Books { session: Some(session), ..Books::of(self, user, meter, windows, at) };
        self.push_limits(states, plan, books, at);
    }

    fn push_limits(&self, states: &mut Vec<LimitState>, plan: &Plan, mut books: Books<'_>, at: Instant) {
        if !std::ptr::eq(books.windows, &self.windows) && *books.windows != self.windows {
            books.rolled = self.rollovers(books.windows, plan);
            books.has_grants |= !books.rolled.is_empty();
        }
        let books = &books;
        let first = states.len();
        self.push_unshared(states, plan, books, at);
        let meter = books.tenant.meter;
        let Some(share) = self.profile.shares.iter().find(|share| share.meter == *meter) else { return };
        let Some(user) = books.user.as_ref().and_then(|book| book.user) else { return };
        let parts = states[first..].iter().filter_map(|state| share.limit_of(user, &state.limit));
        let parts: Vec<LimitState> = parts.map(|limit| books.state(Arc::new(limit), Source::Override)).collect();
        states.extend(parts);
    }

    fn push_unshared(&self, states: &mut Vec<LimitState>, plan: &Plan, books: &Books<'_>, at: Instant) {
        let meter = books.tenant.meter;
        let limits = plan.limits.on(meter);
        if self.profile.overrides.is_empty() {
            for limit in limits.iter().filter(|limit| books.applies(limit.window, limit.scope)) {
                states.push(books.state(Arc::clone(limit), Source::Plan));
            }
            return;
        }
        let in_force = |own: &&Override| own.meter == *meter && own.until.is_none_or(|until| at < until);
        let overrides =
            || self.profile.overrides.iter().filter(in_force).filter(|own| books.applies(own.window, own.scope));
        let is_on = |own: &Override, limit: &Limit| limit.window == own.window && limit.scope == own.scope;
        for limit in limits.iter().filter(|limit| books.applies(limit.window, limit.scope)) {
            states.push(match overrides().find(|own| is_on(own, limit)) {
                None => books.state(Arc::clone(limit), Source::Plan),
                Some(own) => {
                    let limit = Limit { max: own.max, mode: own.mode, ..Limit::clone(limit) };
                    books.state(Arc::new(limit), Source::Override)
                }
            });
        }
        for own in overrides().filter(|own| !limits.iter().any(|limit| is_on(own, limit))) {
            let limit = Limit {
                name: Limit::default_name(meter, own.window, own.scope).into(),
                meter: meter.clone(),
                max: own.max,
                window: own.window,
                scope: own.scope,
                mode: own.mode,
                answer_402: false,
                outage: Default::default(),
                quota: Default::default(),
            };
            states.push(books.state(Arc::new(limit), Source::Override));
        }
    }
}

/// What a session took so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SessionUse {
    pub(crate) used_ms: i64,
    pub(crate) held_ms: i64,
    /// Whether it is among those that are open, and so not in its own way.
    pub(crate) is_open: bool,
}

/// What was used of one meter, by whom, looked up once whatever the number of limits.
struct Books<'a> {
    of: &'a Tenant,
    windows: &'a Windows,
    at: Instant,
    tenant: Book<'a>,
    user: Option<Book<'a>>,
    /// Limits on sessions apply where there is one.
    session: Option<SessionUse>,
    has_leases: bool,
    has_holds: bool,
    has_grants: bool,
    /// What the next entry will roll over, where the period has ended.
    rolled: Vec<Grant>,
}

struct Book<'a> {
    accounts: &'a Accounts,
    user: Option<&'a UserId>,
    meter: &'a MeterKey,
    counter: Option<&'a crate::account::Counter>,
}

impl<'a> Books<'a> {
    fn of(tenant: &'a Tenant, user: Option<&'a User>, meter: &'a MeterKey, windows: &'a Windows, at: Instant) -> Self {
        let book = |accounts: &'a Accounts, user: Option<&'a UserId>| Book {
            accounts,
            user,
            meter,
            counter: accounts.counter(meter),
        };
        Self {
            of: tenant,
            windows,
            at,
            tenant: book(&tenant.accounts, None),
            user: user.map(|user| book(&user.accounts, Some(&user.id))),
            session: None,
            // Leases are of windows that are open.
            has_leases: !tenant.leases.is_empty() && *windows == tenant.windows,
            has_holds: !tenant.in_flight.is_empty(),
            has_grants: !tenant.grants.is_empty(),
            rolled: Vec::new(),
        }
    }

    /// A limit on users bounds nothing where no user is named, one on sessions nothing where there is none.
    fn applies(&self, window: LimitWindow, scope: Scope) -> bool {
        (scope == Scope::Tenant || self.user.is_some()) && (self.session.is_some() || !window.is_of_sessions())
    }

    fn state(&self, limit: Arc<Limit>, source: Source) -> LimitState {
        let book = match limit.scope {
            Scope::Tenant => Some(&self.tenant),
            Scope::User => self.user.as_ref(),
        };
        let (used, held) = book.map_or((0, 0), |book| (self.used(book, limit.window), self.held(book, limit.window)));
        let (from_grants, granted) = if self.has_grants { self.granted(&limit) } else { (0, 0) };
        // A correction may have taken away use that had come out of grants.
        let used = if from_grants > 0 { (used - from_grants).max(0) } else { used };
        let resets_at = limit.window.kind().map(|kind| self.windows[kind.index()].end);
        let set_aside = self.set_aside(&limit);
        LimitState { limit, source, used, held, granted, set_aside, resets_at }
    }

    fn used(&self, book: &Book<'_>, window: LimitWindow) -> i64 {
        match window {
            LimitWindow::Level => book.accounts.level(book.meter),
            LimitWindow::Of(kind) => book.counter.map_or(0, |counter| counter.used(kind, &self.windows[kind.index()])),
            LimitWindow::Session => self.session.map_or(0, |session| session.used_ms),
            LimitWindow::Concurrent => {
                let itself = i64::from(self.session.is_some_and(|session| session.is_open));
                (self.of.in_flight.open_sessions(book.meter, book.user, self.at) - itself).max(0)
            }
        }
    }

    fn held(&self, book: &Book<'_>, window: LimitWindow) -> i64 {
        if !self.has_holds {
            return 0;
        }
        let in_flight = &self.of.in_flight;
        match window {
            LimitWindow::Level => in_flight.held_level(book.meter, book.user, self.at),
            LimitWindow::Of(kind) => in_flight.held(book.meter, book.user, kind, &self.windows[kind.index()], self.at),
            LimitWindow::Session => self.session.map_or(0, |session| session.held_ms),
            LimitWindow::Concurrent => 0,
        }
    }

    /// What of the use in the window came out of grants, and what is left of them.
    fn granted(&self, limit: &Limit) -> (i64, i64) {
        match limit.window.kind().filter(|_| adds_to(limit)) {
            None => (0, 0),
            Some(kind) => {
                let (grants, meter) = (&self.of.grants, self.tenant.meter);
                let rolled = self.rolled.iter().filter(|grant| grant.meter == *meter).map(|grant| grant.left);
                let left = grants.left_on(meter, self.at).saturating_add(rolled.sum());
                (grants.drawn_in(meter, kind, self.windows), left)
            }
        }
    }

    fn set_aside(&self, limit: &Limit) -> i64 {
        match (self.has_leases, limit.window, limit.scope, limit.mode) {
            (true, LimitWindow::Of(kind), Scope::Tenant, Mode::Hard) => self.of.set_aside(self.tenant.meter, kind),
            _ => 0,
        }
    }
}

/// A limit refuses what would carry use past it. Giving back and asking for nothing never do, even past the limit;
/// asking for something does when the limit is full.
pub(crate) fn refuses(state: &LimitState, amount: i64) -> bool {
    let Some(max) = state.max else { return false };
    let taken = state.used.saturating_add(state.held).saturating_add(state.set_aside);
    amount > 0 && taken.saturating_add(amount) > most(max, state)
}

/// What may be used in all: the limit, what grants add, and what may be used past it.
fn most(max: i64, state: &LimitState) -> i64 {
    max.saturating_add(state.granted).saturating_add(state.quota.overdraft)
}

/// What a limit has room for; `None` is no bound. Never negative.
pub(crate) fn room(state: &LimitState) -> Option<i64> {
    let taken = state.used.saturating_add(state.held).saturating_add(state.set_aside);
    state.max.map(|max| most(max, state).saturating_sub(taken).max(0))
}

/// The code of a refusal by a limit over such a window.
pub(crate) fn code_of(window: LimitWindow) -> Code {
    match window {
        LimitWindow::Level => Code::GaugeLimitReached,
        LimitWindow::Of(WindowKind::Period | WindowKind::Month | WindowKind::Day) => Code::PeriodLimitReached,
        LimitWindow::Of(WindowKind::Hour | WindowKind::Minute) => Code::RateLimitReached,
        LimitWindow::Session => Code::SessionLimitReached,
        LimitWindow::Concurrent => Code::ConcurrencyLimitReached,
    }
}
