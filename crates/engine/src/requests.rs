//! What doors ask of the engine, and what they get.

use crate::ports::{Commit, DenialId, LedgerError, Seq};
use domain::{
    catalog::Enforce,
    decision::Decision,
    entry::{Cause, Profile},
    hold::{Excess, HoldId},
    id::{FeatureKey, TenantId, UserId},
    op::{Charge, Dimensions, Fact, OpError, Receipt},
    time::Instant,
};
use std::sync::Arc;

/// When an answer may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// When it is durable.
    #[default]
    Disk,
    /// At once: outside the promise of durability.
    Memory,
}

/// An idempotency key from outside: unique per tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpId {
    /// Where the id comes from: an event's `source`; empty for our own calls.
    pub source: Arc<str>,
    /// The id.
    pub id: Arc<str>,
}

/// A decision that is asked for.
#[derive(Debug, Clone)]
pub struct Check {
    /// Whose.
    pub tenant: TenantId,
    /// The user, if one is named.
    pub user: Option<UserId>,
    /// What is charged.
    pub charges: Vec<Charge>,
    /// What the plan must have.
    pub features: Vec<FeatureKey>,
    /// Whether to charge.
    pub consume: bool,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Declared dimensions.
    pub dimensions: Dimensions,
    /// The idempotency key. Only [`Cause::Check`] has one: the gateway never deduplicates by what a client sends.
    pub id: Option<OpId>,
    /// [`Cause::Check`] or [`Cause::Gateway`].
    pub cause: Cause,
    /// Hold the charges instead of making them. Needs `consume`.
    pub hold: Option<HoldAsk>,
    /// What the caller sent in the place of the first charge, where a price list made it: a repeat is one whatever it costs
    /// by now.
    pub sent: Option<Arc<str>>,
}

/// How a charge is to be held instead of made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldAsk {
    /// For how long, milliseconds.
    pub ttl_ms: i64,
    /// What happens when more is committed.
    pub excess: Excess,
    /// A number that nobody has drawn before: the name of the hold if it is taken without an id.
    pub fresh: u128,
}

/// A hold that was taken, now or before under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenHold {
    /// Its name.
    pub id: HoldId,
    /// When it lapses; `None` where it is not in flight any more.
    pub expires_at: Option<Instant>,
}

/// A decision that was made.
#[derive(Debug)]
pub struct Admission {
    /// Whose.
    pub tenant: TenantId,
    /// The user.
    pub user: Option<UserId>,
    /// The decision.
    pub decision: Decision,
    /// The denial's id, for a refusal that was counted.
    pub denial_id: Option<DenialId>,
    /// Whether this repeats an operation that was accepted before.
    pub repeated: bool,
    /// Whether it was decided on what is known while the ledger could not be written.
    pub outage: bool,
    /// The hold that was taken.
    pub hold: Option<TakenHold>,
    /// What the gateway charged, to be given back if the work could not be begun.
    pub charged: Option<Charged>,
    /// Dimensions of the charge, for a refund.
    pub dimensions: Dimensions,
    /// Whether it was decided under a lease, or beside one: its numbers may lack what other nodes charged lately. That is
    /// never so for a refusal.
    pub leased: bool,
    /// The version of the catalog that the tenant is pinned to, if it was decided on that one.
    pub catalog_pin: Option<u32>,
    /// Resolves when the answer may go out.
    pub commit: Commit,
}

/// A charge that was made, and where: to be given back if the work could not be begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Charged {
    /// What was charged.
    pub receipt: Box<Receipt>,
    /// In which memory it was made.
    pub(crate) epoch: u64,
    /// Its entry.
    pub(crate) seq: Seq,
    /// The id under which it passed, if it was made while the ledger could not be written.
    pub(crate) passed: Option<u128>,
}

impl Charged {
    /// Whether there is nothing to give back.
    pub fn is_nothing(&self) -> bool {
        self.receipt.uses.is_empty() && self.receipt.levels.is_empty()
    }
}

/// An event: a fact about a tenant.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose.
    pub tenant: TenantId,
    /// The user, if one is named.
    pub user: Option<UserId>,
    /// The idempotency key; every event has one.
    pub id: OpId,
    /// What happened. Its `binding` is filled in by the engine.
    pub fact: Fact,
}

/// What became of one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome {
    /// Recorded.
    Accepted,
    /// Recorded before; nothing changed.
    Duplicate,
    /// Not recorded.
    Rejected(EngineError),
}

/// A tenant, as administration sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantCard {
    /// Its id.
    pub id: TenantId,
    /// What it is.
    pub profile: Profile,
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The operation has no meaning.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The tenant is unknown, and the catalog has no `default_plan`.
    #[error(
        "the tenant {0:?} is unknown; create it with PUT /api/v1/tenants/{{id}} or set default_plan in the catalog"
    )]
    UnknownTenant(TenantId),
    /// Another payload was accepted under this id.
    #[error("the id was used before for another payload, at {at:?}")]
    IdempotencyConflict {
        /// When it was used.
        at: Instant,
        /// Where.
        seq: Seq,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Plans that tenants are on are missing from a new catalog.
    #[error("tenants are on plans that the new catalog lacks: {0}")]
    PlansInUse(Arc<str>),
    /// No catalog of this version was in force.
    #[error("no catalog has version {0}")]
    UnknownCatalog(u32),
    /// History that is not kept any more, at least not so fine.
    #[error("history by these stretches of time is kept since {since:?}")]
    HistoryNotKept {
        /// What it is asked for before.
        since: Instant,
    },
    /// History has not caught up with what was recorded.
    #[error("history is behind what was recorded; it catches up by itself")]
    HistoryBehind,
    /// More users and dimensions than an answer may tell apart.
    #[error("the answer would tell more than {max} series apart")]
    TooManySeries {
        /// How many it may.
        max: usize,
    },
    /// A tenant is pinned to a catalog that can't be read.
    #[error("catalog version {version}, which the tenant is pinned to, can't be read: {why}")]
    UnreadableCatalog {
        /// Its version.
        version: u32,
        /// What is wrong with it.
        why: Arc<str>,
    },
}
