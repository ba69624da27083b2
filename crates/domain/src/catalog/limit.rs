//! Limits: what a plan bounds, whose, and what happens then.

use super::MeterKind;
use crate::{id::MeterKey, time::WindowKind};
use std::{ops::Index, sync::Arc};

/// Whose use a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of the tenant's.
    Tenant,
    /// One user's; applies when the operation names a user.
    User,
}

impl Scope {
    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Tenant => "tenant",
            Scope::User => "user",
        }
    }
}

/// What happens at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Refused.
    Hard,
    /// Allowed, and said so.
    Soft,
    /// Allowed silently; what would have been refused is counted.
    Shadow,
}

impl Mode {
    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Hard => "hard",
            Mode::Soft => "soft",
            Mode::Shadow => "shadow",
        }
    }
}

/// Where a limit came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tenant's plan.
    Plan,
    /// An override of this tenant.
    Override,
}

impl Source {
    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Source::Plan => "plan",
            Source::Override => "override",
        }
    }
}

/// What the doors do while the ledger can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outage {
    /// Refuse with 503.
    #[default]
    Closed,
    /// Let through, as long as what passed and is not in the ledger yet stays within the allowance. Means something only
    /// where the ledger is another machine's, and needs a spool.
    Open {
        /// How much may pass: for the tenant, or for each user where the limit is the users' own.
        allowance: i64,
    },
}

/// What of a meter a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitWindow {
    /// The level of a gauge.
    Level,
    /// What adds up in a window.
    Of(WindowKind),
    /// The time of one session.
    Session,
    /// How many sessions are open at once.
    Concurrent,
}

impl From<Option<WindowKind>> for LimitWindow {
    /// Without a window: a level.
    fn from(kind: Option<WindowKind>) -> Self {
        kind.map_or(LimitWindow::Level, LimitWindow::Of)
    }
}

impl LimitWindow {
    /// Everything a limit may bound.
    pub const ALL: [LimitWindow; WindowKind::COUNT + 3] = [
        LimitWindow::Level,
        LimitWindow::Of(WindowKind::Period),
        LimitWindow::Of(WindowKind::Month),
        LimitWindow::Of(WindowKind::Day),
        LimitWindow::Of(WindowKind::Hour),
        LimitWindow::Of(WindowKind::Minute),
        LimitWindow::Session,
        LimitWindow::Concurrent,
    ];

    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            LimitWindow::Level => "none",
            LimitWindow::Of(kind) => kind.word(),
            LimitWindow::Session => "session",
            LimitWindow::Concurrent => "concurrent",
        }
    }

    /// The value with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.word() == word)
    }

    /// The kind of window in which what is bounded adds up.
    pub fn kind(self) -> Option<WindowKind> {
        match self {
            LimitWindow::Of(kind) => Some(kind),
            LimitWindow::Level | LimitWindow::Session | LimitWindow::Concurrent => None,
        }
    }

    /// Whether a meter of this kind can be bounded so.
    pub fn fits(self, meter: MeterKind) -> bool {
        match self {
            LimitWindow::Level => meter == MeterKind::Gauge,
            LimitWindow::Of(_) => meter != MeterKind::Gauge,
            LimitWindow::Session | LimitWindow::Concurrent => meter == MeterKind::Duration,
        }
    }

    /// Whether it bounds sessions alone, and nothing that is charged without one.
    pub fn is_of_sessions(self) -> bool {
        matches!(self, LimitWindow::Session | LimitWindow::Concurrent)
    }
}

/// A bound on one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Unique within the plan: given, or built from meter, window and scope.
    pub name: Arc<str>,
    /// Which meter.
    pub meter: MeterKey,
    /// The largest use allowed; `None` is unlimited.
    pub max: Option<i64>,
    /// In which window.
    pub window: LimitWindow,
    /// Whose use.
    pub scope: Scope,
    /// What happens at the limit.
    pub mode: Mode,
    /// Whether the gateway answers 402 instead of 429 when this limit of a long window is reached.
    pub answer_402: bool,
    /// What happens while the ledger is away.
    pub outage: Outage,
    /// What is left to use past it, and what stays of it.
    pub quota: Quota,
}

/// How a quota ends. Both are nothing unless a plan says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// So much may be used past the limit, to be recorded as overage. Never negative.
    pub overdraft: i64,
    /// Of what is left when the billing period ends, at most so much may be used in the next one; `None` is nothing.
    pub rollover_max: Option<i64>,
}

impl Limit {
    /// The name a limit gets when the catalog gives none: `messages_day`, `messages_day_user`, `documents`.
    pub fn default_name(meter: &MeterKey, window: LimitWindow, scope: Scope) -> String {
        let mut name = meter.as_str().to_owned();
        if window != LimitWindow::Level {
            name.push('_');
            name.push_str(window.word());
        }
        if scope == Scope::User {
            name.push_str("_user");
        }
        name
    }

    /// Whether both bound the same account.
    pub fn same_account(&self, other: &Limit) -> bool {
        self.meter == other.meter && self.window == other.window && self.scope == other.scope
    }
}

/// The limits of a plan: a list in the order of the catalog, and at hand by meter for every decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    list: Vec<Arc<Limit>>,
    by_meter: Vec<(MeterKey, Vec<Arc<Limit>>)>,
    any_open: bool,
}

impl Limits {
    /// Every limit, in the order of the catalog.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Limit> {
        self.list.iter().map(|limit| &**limit)
    }

    /// Whether one of them lets pass while the ledger can't be written.
    pub fn any_open(&self) -> bool {
        self.any_open
    }

    /// The limits on one meter, in the order of the catalog.
    pub fn on(&self, meter: &MeterKey) -> &[Arc<Limit>] {
        // Keys of one catalog are one piece of memory: nearly always none has to be read.
        let same = self.by_meter.iter().find(|(key, _)| key.is_same(meter));
        let found = same.or_else(|| self.by_meter.iter().find(|(key, _)| key == meter));
        found.map_or(&[], |(_, limits)| limits)
    }
}

impl FromIterator<Limit> for Limits {
    fn from_iter<I: IntoIterator<Item = Limit>>(limits: I) -> Self {
        let mut made = Self::default();
        for limit in limits.into_iter().map(Arc::new) {
            made.any_open |= limit.outage != Outage::Closed;
            match made.by_meter.iter_mut().find(|(key, _)| *key == limit.meter) {
                Some((_, known)) => known.push(Arc::clone(&limit)),
                None => made.by_meter.push((limit.meter.clone(), vec![Arc::clone(&limit)])),
            }
            made.list.push(limit);
        }
        made
    }
}

impl Index<usize> for Limits {
    type Output = Limit;

    fn index(&self, place: usize) -> &Limit {
        &self.list[place]
    }
}
