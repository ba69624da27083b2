//! The limits in force for a tenant, with their numbers, and the one place that says whether one refuses.

use crate::{
    account::Accounts,
    catalog::{Limit, Mode, Plan, Scope, Source},
    decision::{Code, LimitState},
    entry::Override,
    id::MeterKey,
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
        let books = Books::of(self, user, meter, windows);
        let limits = plan.limits.on(meter);
        if self.profile.overrides.is_empty() {
            for limit in limits.iter().filter(|limit| books.applies(limit.scope)) {
                states.push(books.state(Arc::clone(limit), Source::Plan));
            }
            return;
        }
        let in_force = |own: &&Override| own.meter == *meter && own.until.is_none_or(|until| at < until);
        let overrides = || self.profile.overrides.iter().filter(in_force).filter(|own| books.applies(own.scope));
        let is_on = |own: &Override, limit: &Limit| limit.window == own.window && limit.scope == own.scope;
        for limit in limits.iter().filter(|limit| books.applies(limit.scope)) {
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
            };
            states.push(books.state(Arc::new(limit), Source::Override));
        }
    }
}

/// What was used of one meter, by whom, looked up once whatever the number of limits.
struct Books<'a> {
    windows: &'a Windows,
    tenant: Book<'a>,
    user: Option<Book<'a>>,
    /// Where room may be set aside.
    leased: Option<&'a Tenant>,
}

struct Book<'a> {
    accounts: &'a Accounts,
    meter: &'a MeterKey,
    counter: Option<&'a crate::account::Counter>,
}

impl<'a> Books<'a> {
    fn of(tenant: &'a Tenant, user: Option<&'a User>, meter: &'a MeterKey, windows: &'a Windows) -> Self {
        let book = |accounts: &'a Accounts| Book { accounts, meter, counter: accounts.counter(meter) };
        // Leases are of windows that are open.
        let leased = (!tenant.leases.is_empty() && *windows == tenant.windows).then_some(tenant);
        Self { windows, tenant: book(&tenant.accounts), user: user.map(|user| book(&user.accounts)), leased }
    }

    /// A limit on users bounds nothing where no user is named.
    fn applies(&self, scope: Scope) -> bool {
        scope == Scope::Tenant || self.user.is_some()
    }

    fn used(&self, limit: &Limit) -> i64 {
        let book = match limit.scope {
            Scope::Tenant => Some(&self.tenant),
            Scope::User => self.user.as_ref(),
        };
        let Some(book) = book else { return 0 };
        match limit.window {
            None => book.accounts.level(book.meter),
            Some(kind) => book.counter.map_or(0, |counter| counter.used(kind, &self.windows[kind.index()])),
        }
    }

    fn state(&self, limit: Arc<Limit>, source: Source) -> LimitState {
        let used = self.used(&limit);
        let resets_at = limit.window.map(|kind| self.windows[kind.index()].end);
        let set_aside = self.set_aside(&limit);
        LimitState { limit, source, used, held: 0, set_aside, resets_at }
    }

    fn set_aside(&self, limit: &Limit) -> i64 {
        match (self.leased, limit.window, limit.scope, limit.mode) {
            (Some(tenant), Some(kind), Scope::Tenant, Mode::Hard) => tenant.set_aside(self.tenant.meter, kind),
            _ => 0,
        }
    }
}

/// A limit refuses what would carry use past it. Giving back and asking for nothing never do, even past the limit;
/// asking for something does when the limit is full.
pub(crate) fn refuses(state: &LimitState, amount: i64) -> bool {
    let Some(max) = state.max else { return false };
    let taken = state.used.saturating_add(state.held).saturating_add(state.set_aside);
    amount > 0 && taken.saturating_add(amount) > max
}

/// The code of a refusal by a limit over such a window.
pub(crate) fn code_of(window: Option<WindowKind>) -> Code {
    match window {
        None => Code::GaugeLimitReached,
        Some(WindowKind::Period | WindowKind::Month | WindowKind::Day) => Code::PeriodLimitReached,
        Some(WindowKind::Hour | WindowKind::Minute) => Code::RateLimitReached,
    }
}
