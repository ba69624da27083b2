//! What is asked of a cluster, and what befalls it: drawn from a seed before anything happens.

use crate::{
    random::Random,
    workload,
    world::{charge, op_id, tenant},
};
use domain::{
    catalog::{Catalog, Limit, Mode, Plan, Scope},
    grant::{Grant, GrantId},
    hold::{HoldId, Settlement},
    id::{DimensionKey, MeterKey, PlanKey, TenantId, UserId},
    op::{Adjustment, Charge, Dimensions, Movement, ProfileChange},
    session::{CloseReason, SessionId},
    time::Instant,
};
use engine::{
    requests::{Charged, Check, Event, OpId},
    session::SessionAsk,
};
use std::sync::Arc;

/// Something that is asked of a node.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A decision.
    Check(Check),
    /// Facts.
    Events(Vec<Event>),
    /// A correction.
    Adjust(TenantId, Option<UserId>, Adjustment, Option<OpId>),
    /// A change of what a tenant is, and how far its clocks are ahead then.
    Put(TenantId, ProfileChange, Option<i64>),
    /// What was used.
    Usage(TenantId, Option<UserId>),
    /// What was measured afterwards.
    Measured(TenantId, Option<UserId>, Charge),
    /// A charge given back: the oldest there is in the tenant's name.
    RefundOldest(TenantId),
    /// The charge that an attempt made, given back.
    Refund(TenantId, Option<UserId>, Charged, u64),
    /// A hold settled: one that was taken in the tenant's name lately, as this number has it, with so much more than was
    /// held; or released.
    SettleAny(TenantId, u64, Option<i64>),
    /// A hold settled.
    Settle(TenantId, HoldId, Settlement),
    /// A session opened, or gone on with.
    Open(SessionAsk),
    /// A session touched, or ended: one that was opened lately, as this number has it.
    TouchAny(TenantId, u64, Option<CloseReason>),
    /// A session touched, or ended.
    Touch(TenantId, SessionId, Option<CloseReason>),
    /// An amount granted.
    Grant(TenantId, Grant, Option<OpId>),
    /// What is left of a grant taken back: of one that was given lately, as this number has it.
    RevokeAny(TenantId, u64),
    /// What is left of a grant taken back.
    Revoke(TenantId, GrantId),
    /// A round of upkeep.
    Upkeep,
    /// Everything is written down.
    Drain,
    /// A look at what all nodes must hear of.
    Signals,
    /// The catalog of this number is put in force.
    Publish(usize),
}

/// What happens next.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client asks a node.
    Ask(usize, Ask),
    /// A node stands still for so many milliseconds.
    Pause(usize, i64),
    /// A node is killed and started again.
    Crash(usize),
    /// The database is away for so many milliseconds.
    Away(i64),
    /// So many milliseconds go by.
    Jump(i64),
    /// The clock of a node is put this far ahead.
    Skew(usize, i64),
}

impl Ask {
    /// Whose it is, if it is a tenant's.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Ask::Check(check) => Some(&check.tenant),
            Ask::Events(events) => events.first().map(|event| &event.tenant),
            Ask::Adjust(tenant, ..)
            | Ask::Put(tenant, ..)
            | Ask::Usage(tenant, _)
            | Ask::Measured(tenant, ..)
            | Ask::RefundOldest(tenant)
            | Ask::Refund(tenant, ..)
            | Ask::SettleAny(tenant, ..)
            | Ask::Settle(tenant, ..)
            | Ask::TouchAny(tenant, ..)
            | Ask::Touch(tenant, ..)
            | Ask::Grant(tenant, ..)
            | Ask::RevokeAny(tenant, _)
            | Ask::Revoke(tenant, _) => Some(tenant),
            Ask::Open(ask) => Some(&ask.tenant),
            Ask::Upkeep | Ask::Drain | Ask::Signals | Ask::Publish(_) => None,
        }
    }

    /// Whether it may be asked again.
    pub fn has_id(&self) -> bool {
        match self {
            Ask::Check(check) => check.id.is_some() && check.consume,
            Ask::Events(_) => true,
            Ask::Adjust(.., id) | Ask::Grant(.., id) => id.is_some(),
            Ask::Open(ask) => ask.id.is_some(),
            Ask::Settle(..) => true,
            _ => false,
        }
    }

    /// Something else under the same id.
    #[must_use]
    pub fn changed(&self) -> Self {
        let mut other = self.clone();
        let more = |movement: &mut Movement| match movement {
            Movement::Add(amount) | Movement::Set(amount) => *amount += 1,
        };
        match &mut other {
            Ask::Check(check) => match check.charges.first_mut() {
                Some(charge) => charge.amount += 1,
                None => check.charges.push(charge("tokens", 1)),
            },
            Ask::Events(events) => {
                events.iter_mut().flat_map(|event| &mut event.fact.movements).for_each(|(_, movement)| more(movement));
            }
            Ask::Adjust(_, _, adjustment, _) => more(&mut adjustment.movement),
            Ask::Grant(_, grant, _) => grant.amount += 1,
            Ask::Open(ask) => ask.key = Some("another".into()),
            Ask::Settle(.., how) => {
                *how = match how {
                    Settlement::Release => Settlement::Commit(Vec::new()),
                    Settlement::Commit(_) => Settlement::Release,
                }
            }
            _ => {}
        }
        other
    }
}

/// A mark that an entry keeps of the event that made it.
pub(super) fn mark(text: &str) -> Dimensions {
    vec![(DimensionKey::new("mark").expect("a dimension's key"), text.into())]
}

/// When every world begins.
pub(super) fn beginning() -> Instant {
    Instant::parse("2027-01-30T22:00:00Z").expect("an instant")
}

/// The size of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Tenants.
    pub tenants: usize,
    /// Steps.
    pub steps: usize,
    /// Whether all want the same of one tenant.
    pub crowded: bool,
    /// How many in a hundred take, settle, open, touch, grant or take back.
    pub in_flight: u64,
}

/// Draws a script.
pub fn draw(random: &mut Random, size: Size, catalogs: usize, jitter_ms: i64) -> Vec<Step> {
    // Some worlds are quieter than others.
    let faults = *random.pick(&[0, 4, 10]);
    (0..size.steps).map(|number| step(random, size, number, catalogs, jitter_ms, faults)).collect()
}

fn step(random: &mut Random, size: Size, number: usize, catalogs: usize, jitter_ms: i64, faults: u64) -> Step {
    let node = random.below(size.nodes as u64) as usize;
    if random.percent(faults) {
        return match random.below(10) {
            0..3 => Step::Pause(node, *random.pick(&[20, 200, 900, 5_000])),
            3..5 => Step::Crash(node),
            5..7 => Step::Away(random.between(5, 400)),
            _ => Step::Skew(node, random.between(-jitter_ms, jitter_ms)),
        };
    }
    let name = format!("t{}", 1 + random.below(size.tenants as u64));
    let tenant = tenant(&name);
    if random.percent(size.in_flight) {
        return Step::Ask(node, in_flight(random, &name, number));
    }
    if size.crowded && random.percent(70) {
        return Step::Ask(node, Ask::Check(crowded_check(random, &name, number)));
    }
    let ask = match random.below(100) {
        0..40 => Ask::Check(check(random, &name, number)),
        40..54 => Ask::Events(events(random, &name, number)),
        54..58 => {
            let id = random.percent(60).then(|| op_id("", &format!("a{number}")));
            Ask::Adjust(tenant, workload::who(random), workload::adjustment(random), id)
        }
        58..63 => {
            let (change, offset_ms) = workload::change(random, beginning());
            Ask::Put(tenant, change, offset_ms)
        }
        63..70 => Ask::Usage(tenant, workload::who(random)),
        70..73 => Ask::Measured(tenant, workload::who(random), charge("tokens", random.between(1, 60))),
        73..78 => Ask::RefundOldest(tenant),
        78..88 => Ask::Upkeep,
        88..93 => Ask::Signals,
        93..95 => Ask::Publish(random.below(catalogs as u64) as usize),
        _ => return Step::Jump(workload::pause_ms(random)),
    };
    Step::Ask(node, ask)
}

fn in_flight(random: &mut Random, name: &str, number: usize) -> Ask {
    let tenant = tenant(name);
    match random.below(100) {
        0..28 => {
            Ask::Check(Check { dimensions: mark(&number.to_string()), ..workload::hold(random, name, number as u64) })
        }
        28..54 => Ask::SettleAny(tenant, random.below(4), random.percent(75).then(|| random.between(-9, 3))),
        54..68 => Ask::Open(workload::session(random, name, number as u64)),
        68..90 => {
            let closes = random.percent(30);
            let how = *random.pick(&[CloseReason::Closed, CloseReason::Forced]);
            Ask::TouchAny(tenant, random.below(4), closes.then_some(how))
        }
        90..98 => {
            let grant = workload::grant(random, beginning(), (number as u128) << 32 | 3);
            Ask::Grant(tenant, grant, random.percent(50).then(|| op_id("", &format!("g{number}"))))
        }
        _ => Ask::RevokeAny(tenant, random.below(4)),
    }
}

fn check(random: &mut Random, name: &str, number: usize) -> Check {
    let mut check = workload::check(random, name, &format!("c{number}"), true);
    check.dimensions = mark(&number.to_string());
    if random.percent(5) {
        // Only whether the plan has something: nothing is charged.
        check.charges.clear();
        check.features = vec![crate::catalog::feature("analytics")];
    }
    check
}

/// What many ask at once.
fn crowded_check(random: &mut Random, name: &str, number: usize) -> Check {
    let mut check = check(random, name, number);
    let meter = *random.pick(&["tokens", "requests"]);
    check.charges = vec![charge(meter, random.between(1, 4))];
    check.features.clear();
    check
}

fn events(random: &mut Random, name: &str, number: usize) -> Vec<Event> {
    let count = 1 + random.below(4);
    let mut events: Vec<Event> = Vec::new();
    for index in 0..count {
        let mut event = workload::event(random, name, &format!("e{number}-{index}"), beginning());
        event.fact.dimensions = mark(&format!("{number}-{index}"));
        events.push(event);
        if random.percent(15) {
            events.push(events[index as usize % events.len()].clone());
        }
    }
    events
}

/// Catalogs of a world: limits differ, some have a plan for whoever comes, some lack one.
pub fn catalogs(random: &mut Random, crowded: bool) -> Vec<Catalog> {
    let has_default = random.percent(50);
    let draw = |number: usize| {
        let mut catalog = workload::catalog(random);
        if crowded {
            make_roomy(&mut catalog);
        }
        catalog.default_plan = has_default.then(|| crate::catalog::plan("free"));
        if number > 0 && random.percent(25) {
            catalog.plans.remove(&crate::catalog::plan("team"));
        }
        catalog
    };
    (0..5).map(draw).collect()
}

/// Gives room for many at once, and bounds no user.
fn make_roomy(catalog: &mut Catalog) {
    for plan in catalog.plans.values_mut() {
        let mut roomy = Plan::clone(plan);
        let is_of_user = |limit: &Limit| limit.scope == Scope::User && limit.mode == Mode::Hard;
        let limits = roomy.limits.iter().filter(|limit| !is_of_user(limit));
        let roomier = |limit: &Limit| Limit { max: limit.max.map(|max| max.saturating_mul(6)), ..limit.clone() };
        roomy.limits = limits.map(roomier).collect();
        *plan = Arc::new(roomy);
    }
}

/// The plans of a catalog.
pub(super) fn plans_of(catalog: &Catalog) -> Vec<PlanKey> {
    catalog.plans.keys().cloned().collect()
}

/// The amounts that are asked for, by meter.
pub(super) fn demand(check: &Check) -> impl Iterator<Item = (&MeterKey, i64)> {
    let asked = check.charges.iter().filter(|charge| charge.amount > 0);
    asked.map(|charge| (&charge.meter, charge.amount))
}

/// Whether a check that is allowed leaves an entry that charges.
pub(super) fn is_written(check: &Check) -> bool {
    check.consume && (check.id.is_some() || check.charges.iter().any(|charge| charge.amount != 0))
}
