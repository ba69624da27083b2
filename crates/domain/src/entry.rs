//! What the ledger keeps. An entry carries *effects*: amounts and window bounds as they were decided, so that folding
//! never asks today's catalog or time-zone table about yesterday.

use crate::{
    catalog::{Enforce, LimitWindow, Mode, Scope},
    decision::Code,
    grant::{Draw, Grant, GrantId},
    hold::{Hold, HoldId},
    id::{DimensionKey, FeatureKey, MeterKey, PlanKey, UserId},
    lease::Lease,
    session::{Session, SessionEnd},
    share::Share,
    time::{Instant, Window, WindowKind, Zone},
    warning::Warning,
};
use std::sync::Arc;

/// A set of window kinds, one bit each at [`WindowKind::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KindSet(pub u8);

impl KindSet {
    /// Every kind.
    pub const ALL: KindSet = KindSet((1 << WindowKind::COUNT) - 1);
    /// No kind.
    pub const NONE: KindSet = KindSet(0);
    /// This set and one more.
    #[must_use]
    pub fn with(self, kind: WindowKind) -> Self {
        Self(self.0 | 1 << kind.index())
    }
    /// Whether the kind is in the set.
    pub fn has(self, kind: WindowKind) -> bool {
        self.0 & (1 << kind.index()) != 0
    }
}

/// A window that was closed when the entry was made. Of a minute it says no more than when something was: totals of minutes
/// are not kept ([`WindowKind::is_kept`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClosedWindow {
    /// Its kind.
    pub kind: WindowKind,
    /// Its bounds.
    pub window: Window,
}

/// Who or what made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// `POST /check` with `consume`.
    Check,
    /// An event: a fact, recorded whatever the limits say.
    Event,
    /// A request through the gateway.
    Gateway,
    /// A charge given back.
    Refund,
    /// Administration.
    Admin,
    /// The engine itself: windows that turn, unmet demand written down.
    Upkeep,
    /// A hold that was taken, settled, or lapsed.
    Hold,
    /// A session that was opened, touched or closed.
    Session,
}

impl Cause {
    /// Every cause; the position is part of the ledger's format.
    pub const ALL: [Cause; 8] = [
        Cause::Check,
        Cause::Event,
        Cause::Gateway,
        Cause::Refund,
        Cause::Admin,
        Cause::Upkeep,
        Cause::Hold,
        Cause::Session,
    ];
    /// Whether what was asked for was charged, and nothing else.
    pub(crate) fn is_a_charge(self) -> bool {
        matches!(self, Cause::Check | Cause::Gateway)
    }
    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Check => "check",
            Cause::Event => "event",
            Cause::Gateway => "gateway",
            Cause::Refund => "refund",
            Cause::Admin => "admin",
            Cause::Upkeep => "upkeep",
            Cause::Hold => "hold",
            Cause::Session => "session",
        }
    }
}

/// An idempotency key and what it was bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// 128-bit hash of tenant, source and id.
    pub id: u128,
    /// Hash of the payload, without its `time`: another payload under the same id is a conflict.
    pub fingerprint: u64,
}

/// Whether a tenant may use anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// Every decision is refused; events are still recorded.
    Suspended,
}

impl Status {
    /// The word used on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Suspended => "suspended",
        }
    }
    /// The value with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Status::Active, Status::Suspended].into_iter().find(|status| status.word() == word)
    }
}

/// A limit of one tenant that replaces the plan's on the same account, or adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Which meter.
    pub meter: MeterKey,
    /// What of it.
    pub window: LimitWindow,
    /// Whose use.
    pub scope: Scope,
    /// The largest use allowed; `None` is unlimited.
    pub max: Option<i64>,
    /// What happens at it.
    pub mode: Mode,
    /// When it stops applying; `None` is never.
    pub until: Option<Instant>,
    /// Why it was given.
    pub reason: Option<Arc<str>>,
}

impl Override {
    /// Whether both bound the same account.
    pub fn same_account(&self, other: &Override) -> bool {
        self.meter == other.meter && self.window == other.window && self.scope == other.scope
    }
}

/// What a tenant is, apart from what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What it bought.
    pub plan: PlanKey,
    /// Whether it may use anything.
    pub status: Status,
    /// Whether decisions refuse, for this tenant alone; `None` follows the catalog.
    pub enforce: Option<Enforce>,
    /// In which zone its calendar windows are cut.
    pub zone: Zone,
    /// Where its billing period is anchored.
    pub anchor: Instant,
    /// When it was first seen.
    pub created_at: Instant,
    /// Limits of its own, at most one per account.
    pub overrides: Vec<Override>,
    /// The version of the catalog that decides for it; `None` follows the one in force.
    pub catalog_pin: Option<u32>,
    /// How meters are shared among users, at most once each.
    pub shares: Vec<Share>,
}

/// The name of a run of identical denials: they share an id and are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialKey {
    /// Start of the minute.
    pub minute: Instant,
    /// Whether it was only recorded (observe mode or a shadow limit).
    pub shadow: bool,
    /// Why.
    pub code: Code,
    /// Whose, if the request named a user.
    pub user: Option<UserId>,
    /// The limit's name, or the feature's key; empty for a suspension.
    pub subject: Arc<str>,
}

/// A run of identical denials with the numbers of its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenialRun {
    /// Its name.
    pub key: DenialKey,
    /// How many denials this entry adds to the run.
    pub count: i64,
    /// The amounts asked for, together.
    pub amount: i64,
    /// The meter asked for.
    pub meter: Option<MeterKey>,
    /// The feature asked for.
    pub feature: Option<FeatureKey>,
    /// The plan at that time.
    pub plan: PlanKey,
    /// What was used when the first was refused.
    pub used: i64,
    /// What was allowed; `None` where the refusal is not about a limit.
    pub max: Option<i64>,
    /// When the window of the limit ends.
    pub resets_at: Option<Instant>,
    /// When the first of this entry happened.
    pub first_at: Instant,
    /// When the last of this entry happened.
    pub last_at: Instant,
}

/// One change to a tenant's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The tenant is what the profile says from here on.
    Profile(Box<Profile>),
    /// A window of the tenant opened (or, for the one that is open, ends at another instant).
    Turn {
        /// Its kind.
        kind: WindowKind,
        /// Its bounds.
        window: Window,
    },
    /// Use of a counter. With a user in the entry, the user's accounts move too.
    Use {
        /// Which meter.
        meter: MeterKey,
        /// By how much; negative gives back.
        amount: i64,
        /// The open windows it counts in.
        open: KindSet,
        /// The closed windows it counts in.
        closed: Vec<ClosedWindow>,
    },
    /// A gauge moved. With a user in the entry, the user's level moves too.
    Level {
        /// Which meter.
        meter: MeterKey,
        /// By how much the tenant's level moves.
        tenant_delta: i64,
        /// By how much the user's level moves.
        user_delta: i64,
        /// When the level was observed, if it was set rather than moved.
        set_at: Option<Instant>,
    },
    /// Unmet demand on a meter: never use. With a user in the entry, the user's accounts count it too.
    Denied {
        /// Which meter.
        meter: MeterKey,
        /// How much was asked for.
        amount: i64,
        /// The open windows it counts in.
        open: KindSet,
        /// The closed windows it counts in.
        closed: Vec<ClosedWindow>,
    },
    /// Denials that happened, to be explained later.
    Denials(Box<DenialRun>),
    /// The leases there are from here on.
    Leases(Vec<Lease>),
    /// The entry was made under a lease. Stands before what it charged.
    Under {
        /// Which lease.
        epoch: u64,
    },
    /// A hold is from here on what this says: it was taken, or has lapsed.
    Hold(Box<Hold>),
    /// A hold was settled, by what else the entry charges.
    HoldSettled {
        /// Which.
        id: HoldId,
    },
    /// A session is from here on what this says: it was opened or touched. What it took stands beside it.
    Session(Box<Session>),
    /// A session was closed.
    SessionClosed(Box<SessionEnd>),
    /// A grant is from here on what this says.
    Grant(Box<Grant>),
    /// What is left of a grant was taken back.
    GrantRevoked {
        /// Which.
        id: GrantId,
    },
    /// Use that stands in the same entry comes out of a grant.
    Draw(Box<Draw>),
    /// What stands before it in the entry has carried use to a part of a limit: told once.
    Warned(Box<Warning>),
}

/// One line of a tenant's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tenant's instant: never earlier than that of the entry before. (Entries that were made on several nodes at
    /// once, under leases, are in the order in which they were committed.)
    pub at: Instant,
    /// The version of the catalog it was decided on.
    pub catalog: u32,
    /// Who or what made it.
    pub cause: Cause,
    /// Its idempotency key, if it has one.
    pub binding: Option<Binding>,
    /// The user it is about.
    pub user: Option<UserId>,
    /// Declared dimensions, sorted by key.
    pub dimensions: Vec<(DimensionKey, Arc<str>)>,
    /// Who asked (an API key's id) and why, for administrative entries.
    pub note: Option<Arc<str>>,
    /// What changed, in order.
    pub effects: Vec<Effect>,
}

impl Entry {
    /// The lease it was made under.
    pub fn under(&self) -> Option<u64> {
        match self.effects.first() {
            Some(Effect::Under { epoch }) => Some(*epoch),
            _ => None,
        }
    }
}
