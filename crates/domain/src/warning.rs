//! Warnings: that use has reached a part of a limit, told once for each limit, part and window.
//!
//! A warning is an effect of the entry that carries use there, so it is as durable and as single as the charge itself,
//! whichever node made it. What was told is remembered in the state of the tenant, or of the user whose limit it is.
//!
//! - *What warns.* Limits on what adds up in a billing period, a month or a day, and on levels: hard and soft ones,
//!   whether or not they are only observed. Rates of an hour or a minute are over before anybody could act on it; a
//!   session tells who is in it itself; a shadow limit is nobody's business but the operator's.
//! - *What counts* is what is used, not what is held: what is held may be given back, and a warning can't.
//! - *How often.* Once in a window. Another maximum in the same window (another plan, an override) warns again only if
//!   it is larger: then it is another amount that use has reached. A level warns again once it has fallen below.
//! - *When.* With the entry that moves the meter; a change of what the tenant is looks at all of its meters. Use in
//!   windows that are over warns nobody.

use crate::{
    catalog::{AMOUNT_MAX, Catalog, Limit, LimitWindow, Mode, Plan, Scope},
    decision::LimitState,
    entry::{Effect, Entry, KindSet},
    id::MeterKey,
    lease::end_all,
    op::Outcome,
    tenant::{Tenant, User, Windows},
    time::{Instant, Window, WindowKind},
};
use std::sync::Arc;

/// The largest part of a limit that can be warned of, in percent: facts may exceed a limit.
pub const WARN_PERCENT_MAX: u16 = 1_000;
/// How many parts of a limit a catalog may warn of.
pub const WARN_PERCENTS_MAX: usize = 8;

/// That use has reached a part of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The limit's name.
    pub limit: Arc<str>,
    /// Of which meter.
    pub meter: MeterKey,
    /// What of it the limit bounds.
    pub window: LimitWindow,
    /// Whose use. A user's is that of the entry.
    pub scope: Scope,
    /// Which part of the limit, in percent.
    pub percent: u16,
    /// What was used then.
    pub used: i64,
    /// The largest use allowed then.
    pub max: i64,
    /// The window in which it was used; `None` for a level.
    pub during: Option<Window>,
    /// When.
    pub at: Instant,
}

impl Warning {
    /// The use from which on it is given.
    pub fn reached_at(&self) -> i64 {
        reached_at(self.max, self.percent)
    }

    fn is_of(&self, limit: &Limit, percent: u16) -> bool {
        self.percent == percent && self.window == limit.window && self.scope == limit.scope && self.limit == limit.name
    }

    fn is_open(&self, windows: &Windows) -> bool {
        let start = |kind: WindowKind| windows[kind.index()].start;
        match (self.window.kind(), &self.during) {
            (Some(kind), Some(window)) => window.start == start(kind),
            (None, None) => true,
            _ => false,
        }
    }
}

/// The use at which so many percent of a limit are reached: rounded up, and never nothing at all.
pub fn reached_at(max: i64, percent: u16) -> i64 {
    // At most 2^53 times 1,000.
    let parts = max.clamp(0, AMOUNT_MAX) * i64::from(percent.min(WARN_PERCENT_MAX));
    ((parts + 99) / 100).max(1)
}

/// The warnings that were given in windows that are open. Most have none, and need no room for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings(Option<Box<List>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List(Vec<Warning>);

impl Warnings {
    /// Warnings as they were stored.
    pub fn restore(list: Vec<Warning>) -> Self {
        Self(if list.is_empty() { None } else { Some(Box::new(List(list))) })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Every one that is remembered, the oldest first. Those of windows that are over may be among them.
    pub fn iter(&self) -> impl Iterator<Item = &Warning> {
        self.0.iter().flat_map(|list| &list.0)
    }

    /// Whether so much of a limit, or of a larger one of its name, was warned of in the window that is open.
    fn has(&self, limit: &Limit, percent: u16, windows: &Windows) -> bool {
        let covers = |known: &Warning| known.max >= limit.max.unwrap_or(i64::MAX) && known.is_open(windows);
        self.iter().any(|known| known.is_of(limit, percent) && known.meter == limit.meter && covers(known))
    }

    /// Remembers one, in the place of what it says anew.
    pub(crate) fn put(&mut self, warning: &Warning, windows: &Windows) {
        let is_same = |known: &Warning| {
            (known.percent, known.window, known.scope) == (warning.percent, warning.window, warning.scope)
                && known.limit == warning.limit
                && known.meter == warning.meter
        };
        self.keep(|known| known.is_open(windows) && !is_same(known));
        self.0.get_or_insert_default().0.push(warning.clone());
    }

    /// Forgets those of windows that are over.
    pub(crate) fn turn(&mut self, windows: &Windows) {
        self.keep(|known| known.is_open(windows));
    }

    /// Forgets what a level has fallen below.
    pub(crate) fn fall(&mut self, meter: &MeterKey, level: i64) {
        let is_below =
            |known: &Warning| known.window == LimitWindow::Level && known.meter == *meter && level < known.reached_at();
        self.keep(|known| !is_below(known));
    }

    fn keep(&mut self, is_kept: impl FnMut(&Warning) -> bool) {
        let Some(list) = &mut self.0 else { return };
        list.0.retain(is_kept);
        if list.0.is_empty() {
            self.0 = None;
        }
    }
}

/// Whether an entry could have carried use of a meter anywhere.
fn is_moved(entry: &Entry, meter: &MeterKey) -> bool {
    entry.effects.iter().any(|effect| match effect {
        Effect::Use { meter: moved, open, .. } => moved == meter && *open != KindSet::NONE,
        Effect::Level { meter: moved, .. } => moved == meter,
        Effect::Profile(_) => true,
        _ => false,
    })
}

/// Whether a limit over such a window is warned of.
fn can_warn(limit: &Limit) -> bool {
    use WindowKind::{Day, Month, Period};
    limit.mode != Mode::Shadow
        && limit.max.is_some()
        && matches!(limit.window, LimitWindow::Level | LimitWindow::Of(Period | Month | Day))
}

impl Tenant {
    /// The warnings that were given in the windows of `now`, to the tenant or to one of its users, the oldest first.
    pub fn warnings_at(&self, user: Option<&User>, now: Instant) -> Vec<Warning> {
        let windows = self.windows_at(self.instant(now));
        let given = user.map_or(&self.warnings, |user| &user.warnings);
        given.iter().filter(|warning| warning.is_open(&windows)).cloned().collect()
    }

    /// Adds to the entry of an operation that was just applied the warnings that it is the first to find due, and
    /// remembers them. Where room is set aside that would carry use to the next one unseen, all leases end.
    pub(crate) fn warn(&mut self, user: Option<&mut User>, outcome: &mut Outcome, catalog: &Catalog) {
        let (Some(entry), Some(first)) = (&mut outcome.entry, catalog.warnings.first()) else { return };
        // Of a charge the numbers are at hand.
        let found;
        let states = match &outcome.decision {
            Some(decision) if decision.charged && outcome.session.is_none() && entry.cause.is_a_charge() => {
                &decision.limits
            }
            _ => {
                found = self.moved_limits(user.as_deref(), entry, catalog);
                &found
            }
        };
        let is_due = |state: &&LimitState| {
            can_warn(state)
                && (!self.leases.is_empty() || state.used >= reached_at(state.max.unwrap_or(i64::MAX), *first))
        };
        let mut is_crowded = false;
        let mut due: Vec<Warning> = Vec::new();
        // Nearly always there is none.
        for state in states.iter().filter(is_due).filter(|state| is_moved(entry, &state.meter)) {
            for percent in &catalog.warnings {
                let Some(left) = self.left_to_warning(user.as_deref(), state, *percent) else { continue };
                if left > 0 {
                    let set_aside = state.window.kind().map_or(0, |kind| self.set_aside(&state.meter, kind));
                    is_crowded |= set_aside >= left;
                    break;
                }
                due.push(self.warning(state, *percent, entry.at));
            }
        }
        if is_crowded {
            self.leases.clear();
            end_all(entry);
        }
        let mut user = user;
        for warning in due {
            self.remember(user.as_deref_mut(), &warning);
            entry.effects.push(Effect::Warned(Box::new(warning)));
        }
    }

    fn remember(&mut self, user: Option<&mut User>, warning: &Warning) {
        match (warning.scope, user) {
            (Scope::Tenant, _) => self.warnings.put(warning, &self.windows),
            (Scope::User, Some(user)) => user.warnings.put(warning, &self.windows),
            (Scope::User, None) => {}
        }
    }

    /// How much is left to use of a limit until so much of it is to be warned of; `None` where that was done.
    fn left_to_warning(&self, user: Option<&User>, state: &LimitState, percent: u16) -> Option<i64> {
        let given = match state.scope {
            Scope::Tenant => Some(&self.warnings),
            Scope::User => user.map(|user| &user.warnings),
        };
        if given.is_some_and(|given| given.has(state, percent, &self.windows)) {
            return None;
        }
        state.max.map(|max| reached_at(max, percent).saturating_sub(state.used).max(0))
    }

    /// As [`Tenant::left_to_warning`], until the next warning of a limit, whichever it is.
    pub(crate) fn left_to_next_warning(
        &self,
        user: Option<&User>,
        state: &LimitState,
        catalog: &Catalog,
    ) -> Option<i64> {
        let percents = catalog.warnings.iter().filter(|_| can_warn(state));
        percents.filter_map(|percent| self.left_to_warning(user, state, *percent)).min()
    }

    fn warning(&self, state: &LimitState, percent: u16, at: Instant) -> Warning {
        Warning {
            limit: state.name.clone(),
            meter: state.meter.clone(),
            window: state.window,
            scope: state.scope,
            percent,
            used: state.used,
            max: state.max.unwrap_or(i64::MAX),
            during: state.window.kind().map(|kind| self.windows[kind.index()]),
            at,
        }
    }

    /// The limits on what an entry that was just folded has moved, as they stand now; those on all meters, where it
    /// changes what the tenant is.
    fn moved_limits(&self, user: Option<&User>, entry: &Entry, catalog: &Catalog) -> Vec<LimitState> {
        let Ok(plan) = self.plan(catalog) else { return Vec::new() };
        let moved = |effect: &'_ Effect| match effect {
            Effect::Use { meter, .. } | Effect::Level { meter, .. } => vec![meter.clone()],
            Effect::Profile(_) => self.limited_meters(plan),
            _ => Vec::new(),
        };
        let mut meters: Vec<MeterKey> = Vec::new();
        for meter in entry.effects.iter().flat_map(moved).filter(|meter| is_moved(entry, meter)) {
            if !meters.contains(&meter) {
                meters.push(meter);
            }
        }
        let mut states = Vec::new();
        for meter in &meters {
            self.push_limit_states(&mut states, user, plan, meter, &self.windows, entry.at);
        }
        states
    }

    fn limited_meters(&self, plan: &Plan) -> Vec<MeterKey> {
        let own = self.profile.overrides.iter().map(|own| &own.meter);
        plan.limits.iter().map(|limit| &limit.meter).chain(own).cloned().collect()
    }
}
