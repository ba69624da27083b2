//! Sessions: stretches of use that accrue time while they are open.
//!
//! Time is taken in slices that are held ahead, cut at the ends of windows that are bounded, and smaller where little is
//! left, so that one session does not keep others from running. What ran since the last
//! touch is charged at the next one, to the windows in which it ran: what was held at any rate, what ran longer as far as
//! there is room, and under a plan that lets answers finish, so much past it.

mod end;
mod judge;
mod open;
mod step;
mod time;

use crate::{
    catalog::{AMOUNT_MAX, Enforce},
    entry::Binding,
    id::{MeterKey, UserId},
    op::Dimensions,
    tenant::Windows,
    time::Instant,
};
use std::sync::Arc;

/// Names a session: the id that the entry which opened it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

/// Longest name that a caller may give a session, in bytes.
pub const SESSION_KEY_MAX_BYTES: usize = 200;

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// What its caller calls it: a conversation, a stream.
    pub key: Arc<str>,
    /// The meter of time that it feeds.
    pub meter: MeterKey,
    /// Whose, if a user was named.
    pub user: Option<UserId>,
    /// When it was opened.
    pub opened_at: Instant,
    /// When it was touched last: what ran until then is charged.
    pub touched_at: Instant,
    /// After how long without a touch it has ended when it was touched last, milliseconds.
    pub idle_timeout_ms: i64,
    /// What was charged for it, milliseconds.
    pub accrued_ms: i64,
    /// What of that was past a limit, milliseconds.
    pub overage_ms: i64,
    /// What is held ahead from the last touch on, milliseconds.
    pub held_ms: i64,
    /// The windows in which that is held.
    pub windows: Windows,
    /// Whether a limit is reached, and it may only finish.
    pub is_finishing: bool,
    /// Declared dimensions of what is charged.
    pub dimensions: Dimensions,
}

impl Session {
    /// When it has ended if nobody touches it.
    pub fn idle_at(&self) -> Instant {
        self.touched_at.plus_ms(self.idle_timeout_ms)
    }

    /// What its caller calls it; `None` where it was given no name, and has that of its id.
    pub fn given_key(&self) -> Option<&str> {
        Some(&*self.key).filter(|key| **key != *format!("{:032x}", self.id.0))
    }

    pub(crate) fn name(&self) -> (MeterKey, Option<UserId>, Arc<str>) {
        (self.meter.clone(), self.user.clone(), self.key.clone())
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Its caller closed it.
    Closed,
    /// Nobody touched it in time.
    Idle,
    /// A limit was reached.
    Limit,
    /// An administrator closed it.
    Forced,
}

impl CloseReason {
    /// Every reason; the position is part of the ledger's format.
    pub const ALL: [CloseReason; 4] = [CloseReason::Closed, CloseReason::Idle, CloseReason::Limit, CloseReason::Forced];

    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            CloseReason::Closed => "closed",
            CloseReason::Idle => "idle",
            CloseReason::Limit => "limit",
            CloseReason::Forced => "forced",
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// Which.
    pub id: SessionId,
    /// What its caller called it.
    pub key: Arc<str>,
    /// The meter that it fed.
    pub meter: MeterKey,
    /// When it was opened.
    pub opened_at: Instant,
    /// When it ended.
    pub ended_at: Instant,
    /// What was charged for it, milliseconds.
    pub accrued_ms: i64,
    /// What of that was past a limit, milliseconds.
    pub overage_ms: i64,
    /// Why.
    pub reason: CloseReason,
}

/// What is asked of a session. Its user is that of the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOp {
    /// Open one, or touch the one that is open under this name.
    Open(OpenSession),
    /// It goes on, or ends.
    Touch(TouchSession),
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Its name, if it is opened: the id of the binding, where there is one.
    pub id: SessionId,
    /// What its caller calls it.
    pub key: Arc<str>,
    /// The meter of time that it feeds.
    pub meter: MeterKey,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Declared dimensions of what is charged.
    pub dimensions: Dimensions,
    /// How long the one that is open ran since it was touched, milliseconds, if it was measured by a clock that does not
    /// jump.
    pub ran_ms: Option<i64>,
    /// Binds it, so that it is opened once.
    pub binding: Option<Binding>,
}

/// A session that goes on, or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TouchSession {
    /// Which.
    pub id: SessionId,
    /// How long it ran since it was touched, milliseconds, if that was measured by a clock that does not jump.
    pub ran_ms: Option<i64>,
    /// Why it ends, if it does.
    pub close: Option<CloseReason>,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Binds its end, so that it has one.
    pub binding: Option<Binding>,
}

/// How a session stands after an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// The session, as it is, or was when it ended.
    pub session: Session,
    /// How it ended, if it did.
    pub ended: Option<SessionEnd>,
    /// Whether it was open before.
    pub was_open: bool,
    /// How long it may still run if nobody else uses the same limits, milliseconds; `None` is without end.
    pub may_run_ms: Option<i64>,
    /// The limit that ends it then: an index into [`Decision::limits`](crate::decision::Decision).
    pub limited_by: Option<usize>,
}

impl SessionState {
    /// Within which time it must be touched for what it runs to be held ahead, milliseconds.
    pub fn touch_within_ms(&self) -> i64 {
        let ahead =
            if self.session.is_finishing { self.may_run_ms.unwrap_or(AMOUNT_MAX) } else { self.session.held_ms };
        ahead.min(self.session.idle_timeout_ms)
    }
}
