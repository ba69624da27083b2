//! What a door may ask of a tenant, and why an operation can't be decided at all.

use crate::{
    catalog::{AMOUNT_MAX, Catalog, Enforce, Meter, MeterKind},
    day::Day,
    decision::Decision,
    entry::{Binding, Cause, DenialKey, Effect, Entry, Override, Status},
    grant::{Draw, GrantChange},
    hold::{HoldTerms, Settle},
    id::{DimensionKey, FeatureKey, MeterKey, PlanKey},
    in_flight::Lapse,
    session::{SessionOp, SessionState},
    share::{Share, ShareError},
    tenant::{Tenant, User, Windows},
    time::{Instant, WindowKind, Zone},
};
use std::sync::Arc;

/// Declared dimensions of an operation.
pub type Dimensions = Vec<(DimensionKey, Arc<str>)>;

/// An amount of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Which meter.
    pub meter: MeterKey,
    /// How much, in the meter's smallest unit. Negative gives back, on gauges only.
    pub amount: i64,
}

/// May these charges be made, all or none? And if `consume`: make them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spend {
    /// What is charged. May be empty when only features are asked for. A meter named twice is summed.
    pub charges: Vec<Charge>,
    /// What the plan must have.
    pub features: Vec<FeatureKey>,
    /// Whether an allowed operation is charged, and a refused one counted as unmet demand.
    pub consume: bool,
    /// Whether a charge may have to be given back: then a receipt is made.
    pub refundable: bool,
    /// Whether this door refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Declared dimensions the entry keeps.
    pub dimensions: Dimensions,
    /// The idempotency key, if there is one.
    pub binding: Option<Binding>,
    /// Hold the charges instead of making them. Means something only with `consume`.
    pub hold: Option<HoldTerms>,
}

/// How a gauge moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// Use of a counter, or a gauge moved by this much.
    Add(i64),
    /// A gauge observed at this level.
    Set(i64),
}

/// Something that happened: always recorded, whatever the limits say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What moved; several meters may read one event.
    pub movements: Vec<(MeterKey, Movement)>,
    /// When it happened; `None` is now.
    pub time: Option<Instant>,
    /// Declared dimensions the entry keeps.
    pub dimensions: Dimensions,
    /// The idempotency key.
    pub binding: Option<Binding>,
}

/// What a tenant should be from now on; `None` leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileChange {
    /// What it bought.
    pub plan: Option<PlanKey>,
    /// Whether it may use anything.
    pub status: Option<Status>,
    /// Whether decisions refuse; `Some(None)` follows the catalog again.
    pub enforce: Option<Option<Enforce>>,
    /// In which zone its calendar windows are cut.
    pub zone: Option<Zone>,
    /// Where its billing period is anchored.
    pub anchor: Option<Instant>,
    /// Limits of its own to put in place, each replacing one on the same account.
    pub put_overrides: Vec<Override>,
    /// Limits of its own to remove, by account.
    pub remove_overrides: Vec<Override>,
    /// Which version of the catalog decides for it, which is the one that the change is judged by; `Some(None)` follows
    /// the one in force again.
    pub catalog_pin: Option<Option<u32>>,
    /// How meters are shared among users, all of them anew.
    pub shares: Option<Vec<Share>>,
}

/// A correction by an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Which meter.
    pub meter: MeterKey,
    /// Set to a value, or move by one.
    pub movement: Movement,
    /// In which window alone. `None`: a move counts in every open window, a set in the billing period.
    pub window: Option<WindowKind>,
    /// On which day of the tenant's time zone: what is added is use of that day alone, and of none of its other windows. `None`
    /// is now.
    pub on: Option<Day>,
    /// The idempotency key, if there is one.
    pub binding: Option<Binding>,
}

/// What a charge took, so that it can be given back to the very accounts it was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Counters charged.
    pub uses: Vec<Charge>,
    /// Gauges moved, by how much the tenant's level did.
    pub levels: Vec<Charge>,
    /// The same gauges in the same order, by how much the user's level did; zeros where no user was named.
    pub user_levels: Vec<Charge>,
    /// What of that came out of grants.
    pub draws: Vec<Draw>,
    /// The windows that were open.
    pub windows: Windows,
}

impl Receipt {
    /// A part of what counters were charged: what was drawn from grants last is given back first.
    #[must_use]
    pub fn part(&self, uses: Vec<Charge>) -> Self {
        let mut draws = Vec::new();
        for Charge { meter, amount } in &uses {
            let mut left = *amount;
            for draw in self.draws.iter().rev().filter(|draw| draw.meter == *meter) {
                let part = left.min(draw.amount).max(0);
                left -= part;
                draws.extend((part > 0).then(|| Draw { amount: part, ..draw.clone() }));
            }
        }
        Self { uses, levels: Vec::new(), user_levels: Vec::new(), draws, windows: self.windows }
    }
}

/// One operation on a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A decision; charged if it says so.
    Spend(Spend, Cause),
    /// A fact.
    Record(Fact),
    /// A change of what the tenant is.
    Configure(ProfileChange),
    /// A correction.
    Adjust(Adjustment),
    /// A charge given back.
    Refund(Receipt),
    /// A hold that ends.
    Settle(Settle),
    /// A session that is opened, touched or closed.
    Session(SessionOp),
    /// What has lapsed, to be written down.
    Lapse(Lapse),
    /// A change of what is granted.
    Grant(GrantChange),
}

/// What an operation led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The decision, for a [`Op::Spend`].
    pub decision: Option<Decision>,
    /// What was charged, for a [`Op::Spend`] that consumed and may have to be given back.
    pub receipt: Option<Box<Receipt>>,
    /// What must be appended to the ledger; already folded into the state.
    pub entry: Option<Entry>,
    /// The run of denials that a refusal (or a shadowed one) was counted in.
    pub denial: Option<DenialKey>,
    /// How the session stands, for an [`Op::Session`].
    pub session: Option<Box<SessionState>>,
}

/// Why an operation can't be decided: the caller asked for something that has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The catalog has no such meter.
    #[error("the catalog has no meter {0:?}")]
    UnknownMeter(MeterKey),
    /// The catalog has no such feature.
    #[error("the catalog has no feature {0:?}")]
    UnknownFeature(FeatureKey),
    /// The catalog has no such plan.
    #[error("the catalog has no plan {0:?}")]
    UnknownPlan(PlanKey),
    /// Neither charges nor features.
    #[error("nothing was asked for: give a meter, a feature or charges")]
    Empty,
    /// A negative amount on a meter that only adds up.
    #[error("{0} only adds up: its amount must not be negative")]
    NegativeAmount(MeterKey),
    /// An amount beyond [`AMOUNT_MAX`].
    #[error("the amount on {0} is beyond 2^53 - 1")]
    AmountTooLarge(MeterKey),
    /// `set` on a counter.
    #[error("{0} is not a gauge: it can't be set by an event")]
    NotAGauge(MeterKey),
    /// A window given for a gauge, or a kind of window that makes no sense here.
    #[error("{0} is a gauge: its level has no window")]
    GaugeHasNoWindow(MeterKey),
    /// The account would pass the range of its integer.
    #[error("the account of {0} can't hold that much")]
    Overflow(MeterKey),
    /// The event is older than the catalog accepts.
    #[error("the event is too old: it is dated {at:?}, and events are accepted for {late_ms} ms")]
    TooLate {
        /// Its time.
        at: Instant,
        /// The bound.
        late_ms: i64,
    },
    /// The event is further in the future than the catalog accepts.
    #[error("the event is dated {at:?}, more than {future_ms} ms ahead of the server's clock")]
    TooEarly {
        /// Its time.
        at: Instant,
        /// The bound.
        future_ms: i64,
    },
    /// An override of a gauge with a window, or of a counter without.
    #[error("a limit on {0} needs a window if it is a counter, and none if it is a gauge")]
    WindowDoesNotFit(MeterKey),
    /// Shares that have no meaning.
    #[error(transparent)]
    Shares(#[from] ShareError),
    /// More overrides than one tenant may have.
    #[error("a tenant may have at most {0} overrides")]
    TooManyOverrides(usize),
    /// A hold that would last too long, or not at all.
    #[error("a hold lasts from 1 ms to {max_ms} ms, not {ttl_ms}")]
    HoldTime {
        /// What was asked for.
        ttl_ms: i64,
        /// The bound.
        max_ms: i64,
    },
    /// A hold of nothing.
    #[error("there is nothing to hold: give a meter and an amount above 0")]
    NothingToHold,
    /// More holds or sessions than a tenant may have at once.
    #[error("a tenant may have at most {0} holds and as many sessions at once")]
    TooManyInFlight(usize),
    /// No hold has this id, or it lapsed too long ago, or it was settled.
    #[error("there is no such hold to settle")]
    UnknownHold,
    /// A meter that the hold is not about.
    #[error("the hold does not hold {0}")]
    NotHeld(MeterKey),
    /// More was committed than was held, and the hold does not allow that.
    #[error("{held} of {meter} were held, and the hold does not let {took} be committed")]
    HoldExceeded {
        /// Which meter.
        meter: MeterKey,
        /// What was held.
        held: i64,
        /// What was to be committed.
        took: i64,
    },
    /// A session on a meter that is not one of time.
    #[error("{0} is not a duration: it has no sessions")]
    NotADuration(MeterKey),
    /// No open session has this id.
    #[error("there is no such open session")]
    UnknownSession,
    /// No grant has this id.
    #[error("there is no such grant")]
    UnknownGrant,
    /// A grant that would be over before it begins.
    #[error("the grant would end before it begins")]
    GrantOver,
    /// More grants than a tenant may have at once.
    #[error("a tenant may have at most {0} grants at once")]
    TooManyGrants(usize),
}

/// How many overrides one tenant may have.
pub const OVERRIDES_MAX: usize = 100;

impl Tenant {
    /// Applies an operation at `now`: decides, folds what follows into the state, and hands back what must be
    /// appended. `user` must be given for an operation that is about one.
    ///
    /// # Errors
    /// [`OpError`] where the operation has no meaning; then nothing has changed.
    pub fn apply(
        &mut self,
        mut user: Option<&mut User>,
        op: &Op,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        let mut outcome = self.apply_unwarned(user.as_deref_mut(), op, now, catalog)?;
        self.warn(user, &mut outcome, catalog);
        Ok(outcome)
    }

    /// As [`Tenant::apply`], where nothing can be reached that has to be warned of.
    pub(crate) fn apply_unwarned(
        &mut self,
        user: Option<&mut User>,
        op: &Op,
        now: Instant,
        catalog: &Catalog,
    ) -> Result<Outcome, OpError> {
        match op {
            Op::Spend(spend, cause) => self.spend(user, spend, *cause, now, catalog),
            Op::Record(fact) => self.record(user, fact, now, catalog).map(Outcome::of_entry),
            Op::Configure(change) => self.configure(change, now, catalog).map(Outcome::of_entry),
            Op::Adjust(adjustment) => self.adjust(user, adjustment, now, catalog).map(Outcome::of_entry),
            Op::Refund(receipt) => Ok(Outcome::of_entry(self.refund(user, receipt, now, catalog))),
            Op::Grant(change) => self.change_grants(change, now, catalog).map(Outcome::of_entry),
            Op::Settle(settle) => self.settle(user, settle, now, catalog),
            Op::Session(session) => self.session(user, session, now, catalog),
            Op::Lapse(lapse) => {
                let entry = match *lapse {
                    Lapse::Hold(id) => self.lapse_hold(user, id, now, catalog),
                    Lapse::Session(id) => self.lapse_session(user, id, now, catalog),
                };
                Ok(Outcome { entry, ..Outcome::default() })
            }
        }
    }

    /// An entry about `user` at `at`, with the windows of `at` opened first.
    pub(crate) fn entry(&self, cause: Cause, user: Option<&User>, at: Instant, catalog: &Catalog) -> Entry {
        let mut entry = Entry {
            at,
            catalog: catalog.version,
            cause,
            binding: None,
            user: user.map(|user| user.id.clone()),
            dimensions: Vec::new(),
            note: None,
            effects: self.turn_effects(at),
        };
        if !entry.effects.is_empty() {
            if let Ok(plan) = self.plan(catalog) {
                let rolled = self.rollovers(&self.windows_at(at), plan);
                entry.effects.extend(rolled.into_iter().map(|grant| Effect::Grant(Box::new(grant))));
            }
            // What was set aside was room of windows that are over.
            self.end_leases(&mut entry);
        }
        entry
    }
}

impl Outcome {
    pub(crate) fn of_entry(entry: Entry) -> Self {
        Self { entry: Some(entry), ..Self::default() }
    }
}

/// The meter of a charge, if the amount makes sense on it.
pub(crate) fn checked_meter<'a>(catalog: &'a Catalog, key: &MeterKey, amount: i64) -> Result<&'a Meter, OpError> {
    let meter = catalog.meters.get(key).ok_or_else(|| OpError::UnknownMeter(key.clone()))?;
    if amount.unsigned_abs() > AMOUNT_MAX as u64 {
        return Err(OpError::AmountTooLarge(key.clone()));
    }
    if amount < 0 && meter.kind != MeterKind::Gauge {
        return Err(OpError::NegativeAmount(key.clone()));
    }
    Ok(meter)
}
