//! Random lives of a tenant: operations of every kind at instants that jump by milliseconds or by months, and now and
//! then backwards. Running one compares the core with the auditor after every step.

use crate::{
    auditor::{Auditor, Bucket, Owner, check_accounts, is_gauge, judge},
    table::history,
    world::{World, add_plan, at, catalog, meter},
};
use domain::{
    catalog::{Catalog, Enforce, Mode, Scope},
    entry::{Cause, Override, Status},
    id::{FeatureKey, PlanKey},
    op::{Adjustment, Charge, Fact, Movement, Op, ProfileChange, Receipt, Spend},
    time::{Instant, WindowKind, Zone},
};
use proptest::prelude::*;

const METERS: [&str; 4] = ["messages", "tokens", "documents", "seats"];
const USERS: [&str; 2] = ["ann", "bob"];
const PLANS: [&str; 3] = ["free", "basic", "pro"];
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Africa/Cairo",
];

/// What one step does.
#[derive(Debug, Clone)]
pub enum Act {
    Spend { charges: Vec<(usize, i64)>, user: Owner, feature: bool, consume: bool, observe: bool },
    Event { meter: usize, value: i64, set: bool, user: Owner, late_ms: i64 },
    Plan(usize),
    Zone(usize),
    Anchor(i64),
    Status(bool),
    Observe(bool),
    Override { meter: usize, window: WindowKind, user: bool, max: i64, for_ms: Option<i64> },
    NoOverrides,
    Correct { meter: usize, value: i64, set: bool, window: Option<WindowKind>, user: Owner },
    Refund(usize),
    Flush(Owner),
}

pub type Step = (i64, Act);

fn user() -> impl Strategy<Value = Owner> {
    prop::option::of(prop::sample::select(&USERS[..]))
}

fn kind() -> impl Strategy<Value = WindowKind> {
    prop::sample::select(&WindowKind::ALL[..])
}

/// Milliseconds, minutes, hours, days, months; and a clock that is set back.
fn jump() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..2_000_i64,
        3 => 0..300_000_i64,
        3 => 0..7_200_000_i64,
        2 => 0..200_000_000_i64,
        1 => 0..6_000_000_000_i64,
        1 => -7_200_000..0_i64,
    ]
}

fn spend() -> impl Strategy<Value = Act> {
    let charges = prop::collection::vec((0..METERS.len(), prop_oneof![5 => 0..4_i64, 1 => -3..12_i64]), 1..4);
    (charges, user(), prop::bool::weighted(0.1), prop::bool::weighted(0.8), prop::bool::weighted(0.1)).prop_map(
        |(mut charges, user, feature, consume, observe)| {
            // Counters only add up; a meter named twice is the tables' business.
            charges.sort();
            charges.dedup_by_key(|charge| charge.0);
            charges.iter_mut().filter(|charge| charge.0 < 2).for_each(|charge| charge.1 = charge.1.abs());
            Act::Spend { charges, user, feature, consume, observe }
        },
    )
}

fn event() -> impl Strategy<Value = Act> {
    let late = prop_oneof![3 => Just(0), 2 => 0..200_000_000_i64, 1 => 0..3_000_000_000_i64];
    (0..METERS.len(), 0..6_i64, any::<bool>(), user(), late).prop_map(|(meter, value, set, user, late_ms)| Act::Event {
        meter,
        value,
        set: set && meter >= 2,
        user,
        late_ms,
    })
}

fn correction() -> impl Strategy<Value = Act> {
    (0..METERS.len(), -5..8_i64, any::<bool>(), prop::option::of(kind()), user()).prop_map(
        |(meter, value, set, window, user)| {
            let value = if set { value.abs() } else { value };
            Act::Correct { meter, value, set, window: window.filter(|_| meter < 2), user }
        },
    )
}

/// Everything that leaves frames alone and takes nothing away.
fn plain() -> impl Strategy<Value = Act> {
    let own = (0..2_usize, kind(), any::<bool>(), 0..12_i64, prop::option::of(0..90_000_000_i64));
    prop_oneof![
        12 => spend(),
        5 => event(),
        2 => (0..PLANS.len()).prop_map(Act::Plan),
        1 => prop::bool::weighted(0.3).prop_map(Act::Status),
        1 => prop::bool::weighted(0.3).prop_map(Act::Observe),
        1 => own.prop_map(|(meter, window, user, max, for_ms)| Act::Override { meter, window, user, max, for_ms }),
        1 => Just(Act::NoOverrides),
        2 => any::<usize>().prop_map(Act::Refund),
        1 => user().prop_map(Act::Flush),
    ]
}

pub fn plain_life() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((jump(), plain()), 1..40)
}

pub fn whole_life() -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        24 => plain(),
        2 => (0..ZONES.len()).prop_map(Act::Zone),
        1 => (0..140_000_i64).prop_map(Act::Anchor),
        2 => correction(),
    ];
    prop::collection::vec((jump(), act), 1..40)
}

fn plans() -> Catalog {
    let mut catalog = catalog();
    catalog.meters.retain(|key, _| METERS.contains(&key.as_str()));
    let free = ["messages<=5/day", "messages<=3/minute", "tokens<=20/period", "documents<=3", "messages<=9/month:soft"];
    add_plan(&mut catalog, "free", 0, &[], &free);
    let basic =
        ["messages<=6/hour", "messages<=12/period", "messages<=4/day/user", "tokens<=5/day:shadow", "seats<=2/user"];
    add_plan(&mut catalog, "basic", 1, &[], &basic);
    add_plan(&mut catalog, "pro", 2, &["analytics"], &["messages<=unlimited/day", "tokens<=30/month", "documents<=9"]);
    catalog
}

/// A charge that may be given back, and what the auditor knows of it.
#[derive(Clone)]
struct Given {
    receipt: Box<Receipt>,
    user: Owner,
    levels: Vec<(i64, i64)>,
    then: [Bucket; WindowKind::COUNT],
}

/// A tenant, its auditor, and the time.
#[derive(Clone)]
pub struct Life {
    pub world: World,
    pub auditor: Auditor,
    pub now: Instant,
    given: Vec<Given>,
}

impl Life {
    pub fn begin() -> Self {
        let now = at("2027-01-31T10:00Z");
        let change = ProfileChange { plan: Some(PlanKey::new("free").unwrap()), ..ProfileChange::default() };
        let world = World::create(plans(), &change, now).unwrap().unwrap();
        Self { world, auditor: Auditor::new(Zone::utc(), now, now), now, given: vec![] }
    }

    pub fn step(&mut self, (jump_ms, act): &Step) -> String {
        self.now = self.now.plus_ms(*jump_ms);
        let entries = self.world.entries.len();
        let at = self.auditor.instant(self.now);
        let outcome = match act {
            Act::Spend { charges, user, feature, consume, observe } => {
                self.spend(charges, *user, *feature, *consume, *observe)
            }
            Act::Event { meter: index, value, set, user, late_ms } => {
                let movement = if *set { Movement::Set(*value) } else { Movement::Add(*value) };
                let time = (*late_ms > 0).then(|| self.now.plus_ms(-late_ms));
                let fact = Fact {
                    movements: vec![(meter(METERS[*index]), movement)],
                    time,
                    dimensions: vec![],
                    binding: None,
                };
                self.auditor.apply(&owners(*user), &meter(METERS[*index]), movement, at, time.unwrap_or(at).min(at));
                self.apply(*user, &Op::Record(fact))
            }
            Act::Correct { meter: index, value, set, window, user } => {
                self.correct(METERS[*index], *value, *set, *window, *user)
            }
            Act::Refund(index) => self.refund(*index),
            Act::Flush(user) => {
                self.world.flush(*user, self.now);
                "flushed".into()
            }
            change => self.configure(change),
        };
        if self.world.entries.len() > entries {
            self.auditor.entry_at(at);
        }
        check_accounts(&self.auditor, &self.world, &USERS, self.now);
        outcome
    }

    fn apply(&mut self, user: Owner, op: &Op) -> String {
        let twin = self.world.twin().apply(user, op, self.now);
        let outcome = self.world.apply(user, op, self.now);
        assert_eq!(outcome, twin, "the same state and operation give the same outcome");
        format!("{:?}", outcome.map(|outcome| outcome.decision))
    }

    fn spend(&mut self, wanted: &[(usize, i64)], user: Owner, feature: bool, consume: bool, observe: bool) -> String {
        let charges: Vec<Charge> =
            wanted.iter().map(|(index, amount)| Charge { meter: meter(METERS[*index]), amount: *amount }).collect();
        let spend = Spend {
            refundable: true,
            charges: charges.clone(),
            features: feature.then(|| FeatureKey::new("analytics").unwrap()).into_iter().collect(),
            consume,
            enforce: observe.then_some(Enforce::Observe),
            dimensions: vec![],
            binding: None,
            hold: None,
        };
        let twin = self.world.twin().apply(user, &Op::Spend(spend.clone(), Cause::Check), self.now).unwrap();
        let before = self.auditor.clone();
        let outcome = self.world.apply(user, &Op::Spend(spend, Cause::Check), self.now).unwrap();
        assert_eq!(outcome, twin, "the same state and operation give the same outcome");
        let decision = outcome.decision.unwrap();
        let lacks = feature && self.world.state.tenant.profile.plan.as_str() != "pro";
        judge(&before, &self.world, &decision, &charges, lacks, user);
        if !consume {
            assert!(outcome.entry.is_none() && !decision.charged, "a dry check writes nothing");
        } else if decision.allowed {
            self.charged(&charges, user, decision.at, outcome.receipt);
        } else {
            for charge in charges.iter().filter(|charge| charge.amount > 0) {
                self.auditor.count(&owners(user), &charge.meter, (0, charge.amount), decision.at, decision.at);
            }
        }
        format!("{:?} {}", decision.code(), decision.at.rfc3339())
    }

    fn charged(&mut self, charges: &[Charge], user: Owner, at: Instant, receipt: Option<Box<Receipt>>) {
        let owners = owners(user);
        let mut levels = Vec::new();
        for charge in charges.iter().filter(|charge| charge.amount != 0) {
            let level = |auditor: &Auditor, owner: Owner| auditor.level(owner, &charge.meter);
            let before = (level(&self.auditor, None), user.map_or(0, |_| level(&self.auditor, user)));
            self.auditor.apply(&owners, &charge.meter, Movement::Add(charge.amount), at, at);
            if is_gauge(&charge.meter) {
                let after = (level(&self.auditor, None), user.map_or(0, |_| level(&self.auditor, user)));
                levels.push((after.0 - before.0, after.1 - before.1));
            }
        }
        let then = self.auditor.buckets_at(at);
        self.given.extend(receipt.map(|receipt| Given { receipt, user, levels, then }));
    }

    fn refund(&mut self, index: usize) -> String {
        if self.given.is_empty() {
            return "nothing to give back".into();
        }
        let given = self.given.remove(index % self.given.len());
        let (at, owners) = (self.auditor.instant(self.now), owners(given.user));
        for charge in &given.receipt.uses {
            self.auditor.give_back(&owners, &charge.meter, charge.amount, at, &given.then);
        }
        for (charge, (tenant, user)) in given.receipt.levels.iter().zip(&given.levels) {
            self.auditor.move_level(&owners[..1], &charge.meter, -tenant);
            self.auditor.move_level(&owners[1..], &charge.meter, -user);
        }
        self.apply(given.user, &Op::Refund(*given.receipt))
    }

    fn correct(&mut self, key: &str, value: i64, set: bool, window: Option<WindowKind>, user: Owner) -> String {
        let (key, at) = (meter(key), self.auditor.instant(self.now));
        let movement = if set { Movement::Set(value) } else { Movement::Add(value) };
        let owners = owners(user);
        match (is_gauge(&key), movement) {
            (true, movement) => self.auditor.apply(&owners, &key, movement, at, at),
            (false, Movement::Add(amount)) => self.auditor.correct(&owners, &key, amount, at, window),
            (false, Movement::Set(value)) => {
                let kind = window.unwrap_or(WindowKind::Period);
                let delta = value - self.auditor.used(user, &key, Some(kind), at);
                self.auditor.correct(&owners, &key, delta, at, Some(kind));
            }
        }
        let adjustment = Adjustment { meter: key, movement, window, on: None, binding: None };
        self.apply(user, &Op::Adjust(adjustment))
    }

    fn configure(&mut self, act: &Act) -> String {
        let mut change = ProfileChange::default();
        match act {
            Act::Plan(index) => change.plan = Some(PlanKey::new(PLANS[*index]).unwrap()),
            Act::Zone(index) => change.zone = Zone::named(ZONES[*index]),
            Act::Anchor(quarters) => change.anchor = Some(Instant::from_ms(quarters * 900_000 + 1_700_000_100_000)),
            Act::Status(suspended) => {
                change.status = Some(if *suspended { Status::Suspended } else { Status::Active });
            }
            Act::Observe(observe) => change.enforce = Some(observe.then_some(Enforce::Observe)),
            Act::Override { meter: index, window, user, max, for_ms } => change.put_overrides.push(Override {
                meter: meter(METERS[*index]),
                window: Some(*window).into(),
                scope: if *user { Scope::User } else { Scope::Tenant },
                max: Some(*max),
                mode: Mode::Hard,
                until: for_ms.map(|ms| self.now.plus_ms(ms)),
                reason: None,
            }),
            _ => change.remove_overrides = self.world.state.tenant.profile.overrides.clone(),
        }
        let before = self.world.state.tenant.clone();
        let at = before.instant(self.now);
        let outcome = self.apply(None, &Op::Configure(change));
        let tenant = &self.world.state.tenant;
        for (kind, (old, new)) in WindowKind::ALL.iter().zip(before.windows_at(at).iter().zip(tenant.windows_at(at))) {
            assert_eq!(old.start, new.start, "{kind:?}: what is open keeps its start");
            assert!(new.end >= old.end, "{kind:?}: what is open never ends earlier");
        }
        self.auditor.entry_at(at);
        self.auditor.reframe(tenant.profile.zone.clone(), tenant.profile.anchor);
        outcome
    }

    /// Writes down every denial that waits, then compares the history of every kind that is kept.
    pub fn end(&mut self) {
        for user in [None, Some("ann"), Some("bob")] {
            self.world.flush(user, self.now);
        }
        assert!(self.world.state.tenant.pending.is_empty());
        self.world.check_replay();
        let state = &self.world.state;
        let users = state.users.values().map(|user| {
            let name = USERS.into_iter().find(|name| *name == user.id.as_str());
            (name, &user.accounts)
        });
        for (owner, accounts) in [(None, &state.tenant.accounts)].into_iter().chain(users) {
            assert!(accounts.closed().iter().all(|total| total.closed.kind.is_kept()), "history is of days and longer");
            for key in METERS.into_iter().filter(|key| !self.auditor.corrected.contains(&meter(key))) {
                for kind in WindowKind::ALL.into_iter().filter(|kind| kind.is_kept()) {
                    let rows = history(accounts, key, kind);
                    let sum = rows.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
                    assert_eq!(sum, self.auditor.total(owner, &meter(key), kind), "{key} of {owner:?} by {kind:?}");
                }
            }
        }
    }
}

/// Whom an operation about this user concerns: the tenant always.
fn owners(user: Owner) -> Vec<Owner> {
    [None].into_iter().chain(user.map(Some)).collect()
}
