//! Several nodes on one tenant. Each has a copy of it that may be old; a journal takes what they decide: an operation if
//! it follows the journal's last entry, one under a lease if the lease lasts and it is the next under it. Whatever they
//! do in whatever order, no hard limit is passed, nobody is refused for what is only set aside, and every copy is the
//! fold of the journal once it has read it.

use crate::world::{add_plan, at, catalog, meter};
use domain::{
    catalog::{Catalog, Enforce, Limit, Mode, Scope},
    decision::Code,
    entry::{Cause, Effect, Entry, Override},
    id::{FeatureKey, MeterKey, PlanKey, TenantId},
    lease::{Slice, Terms},
    op::{Adjustment, Charge, Fact, Movement, Op, OpError, Outcome, ProfileChange, Spend},
    tenant::Tenant,
    time::{Instant, WindowKind},
    warning::Warning,
};
use proptest::prelude::*;

const TERMS: Terms = Terms { first: 4, least: 1, share: 2, stale_ms: 5_000 };

/// What a node does next.
#[derive(Debug, Clone)]
enum Step {
    /// Charges, under its lease if it has one that has room.
    Spend { amount: i64, tokens: bool },
    /// As [`Step::Spend`], seeing all, and takes a lease with it.
    Take { amount: i64, tokens: bool },
    /// Records a fact.
    Fact { amount: i64 },
    /// A correction.
    Adjust { amount: i64 },
    /// Puts the tenant on a plan.
    Plan { large: bool },
    /// Gives more room for a while, or less.
    Override { max: i64, lasts_ms: i64 },
    /// Asks for what the plan has not, and some of what is set aside.
    Feature,
    /// As [`Step::Feature`], where it is only observed: it is charged all the same.
    Observed { amount: i64 },
    /// A fact that is kept by another catalog than leases are granted by.
    FactOfNewer { amount: i64 },
    /// Gives its lease back.
    GiveBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..9_i64, any::<bool>()).prop_map(|(amount, tokens)| Step::Spend { amount, tokens }),
        6 => (1..4_i64, prop::bool::weighted(0.3)).prop_map(|(amount, tokens)| Step::Take { amount, tokens }),
        2 => (1..30_i64).prop_map(|amount| Step::Fact { amount }),
        1 => (-20..20_i64).prop_map(|amount| Step::Adjust { amount }),
        1 => any::<bool>().prop_map(|large| Step::Plan { large }),
        2 => (10..400_i64, 1..4_000_i64).prop_map(|(max, lasts_ms)| Step::Override { max, lasts_ms }),
        1 => Just(Step::Feature),
        2 => (1..30_i64).prop_map(|amount| Step::Observed { amount }),
        2 => (1..30_i64).prop_map(|amount| Step::FactOfNewer { amount }),
        1 => Just(Step::GiveBack),
    ]
}

fn plans() -> Catalog {
    let mut catalog = catalog();
    let small = ["messages<=60/day", "messages<=25/minute", "tokens<=200/period"];
    add_plan(&mut catalog, "small", 0, &[], &small);
    add_plan(&mut catalog, "large", 1, &[], &["messages<=200/day", "tokens<=90/day:soft"]);
    catalog
}

struct Node {
    copy: Tenant,
    /// How much of the journal is in the copy.
    seq: usize,
    /// Its lease, and how many entries it made under it.
    lease: Option<(u64, u64)>,
    /// The lease it had last.
    before: Option<u64>,
}

struct Cluster {
    catalog: Catalog,
    journal: Vec<Entry>,
    /// The fold of the journal.
    truth: Tenant,
    nodes: Vec<Node>,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        let catalog = plans();
        let change = ProfileChange { plan: Some(PlanKey::new("small").unwrap()), ..Default::default() };
        let begin = at("2027-01-31T23:58:00Z");
        let (tenant, entry) =
            Tenant::create(TenantId::new("acme").unwrap(), &change, begin, &catalog).unwrap().unwrap();
        let node = || Node { copy: tenant.clone(), seq: 1, lease: None, before: None };
        let nodes = (0..nodes).map(|_| node()).collect();
        Self { catalog, journal: vec![entry], truth: tenant, nodes }
    }

    /// Reads the journal from where the node's copy is; what it did under a lease is in there as well.
    fn read(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.copy, node.seq, node.lease) = (self.truth.clone(), self.journal.len(), None);
    }

    fn append(&mut self, entry: &Entry) {
        self.truth.fold(None, entry);
        self.journal.push(entry.clone());
        if entry.catalog == self.catalog.version {
            self.check_warned(entry);
        }
    }

    /// Whoever charged it: what use has reached of a limit on what an entry moved was told of by then, and once.
    fn check_warned(&self, entry: &Entry) {
        let moved = entry.effects.iter().filter_map(|effect| match effect {
            Effect::Use { meter, .. } => Some(meter),
            _ => None,
        });
        for key in moved {
            for limit in self.limits(key, entry.at).iter().filter(|limit| limit.mode != Mode::Shadow) {
                let kind = limit.window.kind().unwrap();
                let window = self.truth.windows[kind.index()];
                let used = self.truth.accounts.used(key, kind, &window);
                for percent in [80, 100] {
                    let is_reached = used * 100 >= limit.max.unwrap() * i64::from(percent);
                    if kind == WindowKind::Minute || !is_reached {
                        continue;
                    }
                    let told = self.journal.iter().flat_map(|entry| &entry.effects).filter_map(|effect| match effect {
                        Effect::Warned(one) => Some(&**one),
                        _ => None,
                    });
                    let is_its = |one: &&Warning| {
                        (&one.meter, one.window, one.percent, one.during) == (key, limit.window, percent, Some(window))
                    };
                    let mut amounts: Vec<i64> = told.filter(is_its).map(|one| one.max).collect();
                    assert!(amounts.iter().any(|max| *max >= limit.max.unwrap()), "{percent} % of {limit:?}: {used}");
                    let count = amounts.len();
                    amounts.sort_unstable();
                    amounts.dedup();
                    assert_eq!(amounts.len(), count, "{percent} % of {limit:?} was told of twice");
                }
            }
        }
    }

    /// The limits on a meter, overrides in their place.
    fn limits(&self, key: &MeterKey, at: Instant) -> Vec<Limit> {
        let limits =
            self.catalog.plans[&self.truth.profile.plan].limits.on(key).iter().map(|limit| Limit::clone(limit));
        let mut limits: Vec<Limit> = limits.collect();
        for own in self.truth.profile.overrides.iter().filter(|own| own.until.is_none_or(|until| at < until)) {
            let is_same = |limit: &&mut Limit| limit.meter == own.meter && limit.window == own.window;
            if let Some(limit) = limits.iter_mut().find(is_same) {
                (limit.max, limit.mode) = (own.max, own.mode);
            }
        }
        limits
    }

    /// Does something that sees all.
    fn do_seeing(&mut self, node: usize, op: &Op, now: Instant, take: bool) -> Result<Outcome, OpError> {
        self.read(node);
        let epoch = self.journal.len() as u64 + 1;
        let before = self.nodes[node].before;
        let copy = &mut self.nodes[node].copy;
        let mut outcome = copy.apply(None, op, now, &self.catalog)?;
        if let Some(entry) = &mut outcome.entry {
            let is_allowed = outcome.decision.as_ref().is_some_and(|decision| decision.allowed);
            if take && is_allowed && copy.grant(entry, epoch, before, op, &TERMS, &self.catalog) {
                self.nodes[node].lease = Some((epoch, 0));
                self.nodes[node].before = Some(epoch);
            }
            let entry = entry.clone();
            self.append(&entry);
            let node = &mut self.nodes[node];
            node.seq += 1;
            assert_eq!(without_pending(&node.copy), self.truth, "the node has what the journal has");
        }
        Ok(outcome)
    }

    /// Tries to do something under the node's lease.
    fn do_leased(&mut self, node: usize, op: &Op, now: Instant) -> Option<Outcome> {
        let (epoch, made) = self.nodes[node].lease?;
        let outcome = self.nodes[node].copy.apply_under(epoch, None, op, now, &self.catalog).unwrap()?;
        let lasts = self.truth.leases.iter().any(|lease| (lease.epoch, lease.entries) == (epoch, made));
        if !lasts {
            // The journal does not take it: what the node has is outdated.
            self.read(node);
            return None;
        }
        let entry = outcome.entry.clone().expect("what is allowed under a lease is written");
        assert_eq!(entry.under(), Some(epoch));
        self.append(&entry);
        self.nodes[node].lease = Some((epoch, made + 1));
        Some(outcome)
    }

    fn used(&self, key: &str, kind: WindowKind, now: Instant) -> i64 {
        let windows = self.truth.windows_at(self.truth.instant(now));
        self.truth.accounts.used(&meter(key), kind, &windows[kind.index()])
    }

    /// Room under the hard limits on a meter.
    fn room(&self, key: &str, now: Instant) -> i64 {
        self.room_at(key, self.truth.instant(now))
    }

    /// Room under the hard limits that are in force at an instant.
    fn room_at(&self, key: &str, at: Instant) -> i64 {
        let limits = self.catalog.plans[&self.truth.profile.plan].limits.on(&meter(key));
        let hard = limits.iter().filter(|limit| limit.mode == Mode::Hard);
        let max = |limit: &Limit| {
            let mut own = self.truth.profile.overrides.iter();
            let own = own.find(|own| own.meter == limit.meter && own.window == limit.window);
            own.filter(|own| own.until.is_none_or(|until| at < until)).map_or(limit.max, |own| own.max).unwrap()
        };
        hard.map(|limit| max(limit) - self.used(key, limit.window.kind().unwrap(), at)).min().unwrap_or(i64::MAX)
    }

    fn spend(&mut self, node: usize, amount: i64, key: &str, now: Instant, take: bool) {
        let charges = vec![Charge { meter: meter(key), amount }];
        let op = Op::Spend(Spend { charges, consume: true, ..Spend::default() }, Cause::Check);
        let (seen, under_lease) = (self.room(key, now), self.room_at(key, self.nodes[node].copy.instant(now)));
        let leased = if take { None } else { self.do_leased(node, &op, now) };
        // A limit that ended meanwhile by another's clock is in force still for who is under a lease and behind.
        let room = if leased.is_some() { under_lease } else { seen };
        let outcome = leased.unwrap_or_else(|| self.do_seeing(node, &op, now, take).unwrap());
        let allowed = outcome.decision.unwrap().allowed;
        assert_eq!(allowed, amount <= room, "{amount} of {key} with room for {room}");
    }

    fn take(&mut self, node: usize, step: &Step, now: Instant) {
        match step {
            Step::Spend { amount, tokens } => {
                self.spend(node, *amount, if *tokens { "tokens" } else { "messages" }, now, false);
            }
            Step::Take { amount, tokens } => {
                self.spend(node, *amount, if *tokens { "tokens" } else { "messages" }, now, true);
            }
            Step::Fact { amount } => {
                let movements = vec![(meter("messages"), Movement::Add(*amount))];
                let op = Op::Record(Fact { movements, time: None, dimensions: vec![], binding: None });
                if self.do_leased(node, &op, now).is_none() {
                    self.do_seeing(node, &op, now, false).unwrap();
                }
            }
            Step::Adjust { amount } => {
                let (meter, movement) = (meter("messages"), Movement::Add(*amount));
                let op = Op::Adjust(Adjustment { meter, movement, window: None, on: None, binding: None });
                self.do_seeing(node, &op, now, false).unwrap();
            }
            Step::Plan { large } => {
                let plan = PlanKey::new(if *large { "large" } else { "small" }).unwrap();
                let op = Op::Configure(ProfileChange { plan: Some(plan), ..Default::default() });
                self.do_seeing(node, &op, now, false).unwrap();
                assert!(self.truth.leases.is_empty(), "what was set aside was by another plan");
            }
            Step::Override { max, lasts_ms } => {
                let own = Override {
                    meter: meter("messages"),
                    window: Some(WindowKind::Day).into(),
                    scope: Scope::Tenant,
                    max: Some(*max),
                    mode: Mode::Hard,
                    until: Some(now.plus_ms(*lasts_ms)),
                    reason: None,
                };
                let op = Op::Configure(ProfileChange { put_overrides: vec![own], ..Default::default() });
                self.do_seeing(node, &op, now, false).unwrap();
            }
            Step::Feature => {
                let charges = vec![Charge { meter: meter("messages"), amount: 1 }];
                let features = vec![FeatureKey::new("analytics").unwrap()];
                let op = Op::Spend(Spend { charges, features, consume: true, ..Spend::default() }, Cause::Check);
                assert!(self.do_leased(node, &op, now).is_none(), "there is something to refuse");
                self.read(node);
                let leases = self.truth.leases.clone();
                let turns = self.truth.windows_at(self.truth.instant(now)) != self.truth.windows;
                let refused = self.do_seeing(node, &op, now, false).unwrap().decision.unwrap();
                assert_eq!(refused.code(), Code::FeatureNotInPlan);
                // That has nothing to do with what is set aside, unless windows turned.
                assert!(self.truth.leases == leases || turns);
            }
            Step::Observed { amount } => {
                let charges = vec![Charge { meter: meter("messages"), amount: *amount }];
                let features = vec![FeatureKey::new("analytics").unwrap()];
                let enforce = Some(Enforce::Observe);
                let op =
                    Op::Spend(Spend { charges, features, enforce, consume: true, ..Spend::default() }, Cause::Check);
                let observed = self.do_seeing(node, &op, now, false).unwrap().decision.unwrap();
                assert!(observed.allowed && observed.charged && observed.shadow.is_some());
            }
            Step::FactOfNewer { amount } => {
                let mut newer = Catalog { version: 2, ..plans() };
                add_plan(&mut newer, "small", 0, &[], &["messages<=6000/day"]);
                let movements = vec![(meter("messages"), Movement::Add(*amount))];
                let op = Op::Record(Fact { movements, time: None, dimensions: vec![], binding: None });
                let ours = std::mem::replace(&mut self.catalog, newer);
                self.do_seeing(node, &op, now, false).unwrap();
                self.catalog = ours;
            }
            Step::GiveBack => {
                let Some((epoch, _)) = self.nodes[node].lease else { return };
                self.read(node);
                let Some(entry) = self.nodes[node].copy.give_back(epoch, now, &self.catalog) else { return };
                self.append(&entry);
                self.nodes[node].seq += 1;
                assert!(self.truth.leases.iter().all(|lease| lease.epoch != epoch));
            }
        }
    }
}

fn without_pending(tenant: &Tenant) -> Tenant {
    Tenant { pending: Default::default(), ..tenant.clone() }
}

proptest! {
    #![proptest_config(crate::config(256, "auditor"))]

    #[test]
    fn no_limit_is_passed_and_nobody_is_refused_for_what_is_set_aside(
        steps in prop::collection::vec((0..3_usize, 0..900_i64, step()), 1..120),
    ) {
        let mut cluster = Cluster::new(3);
        let mut now = at("2027-01-31T23:58:00Z");
        let mut leased = 0;
        for (node, passed_ms, step) in steps {
            now = now.plus_ms(passed_ms);
            // Clocks differ: a node may be behind the others.
            let skewed = now.plus_ms(-300 * node as i64);
            cluster.take(node, &step, skewed);
            leased += usize::from(cluster.nodes[node].lease.is_some());
        }
        // The journal alone leads to the same.
        let mut folded = Tenant::born(cluster.truth.id.clone(), &cluster.journal[0]).unwrap();
        cluster.journal.iter().for_each(|entry| folded.fold(None, entry));
        prop_assert_eq!(&folded, &cluster.truth);
        prop_assert!(leased <= cluster.journal.len());
    }
}

#[test]
fn slices_follow_use_and_shrink_with_what_is_left() {
    let mut cluster = Cluster::new(1);
    let now = at("2027-01-31T23:58:00Z");
    let of_minute = |slice: &&Slice| slice.kind == WindowKind::Minute;
    let slice = |cluster: &Cluster| {
        let slices = &cluster.truth.leases.first()?.slices;
        slices.iter().find(of_minute).map(|slice| slice.size)
    };
    cluster.spend(0, 1, "messages", now, true);
    // First as the terms say: less than a part of what is left of the minute.
    assert_eq!(slice(&cluster), Some(4));
    let mut sizes = Vec::new();
    while cluster.room("messages", now) > 1 {
        // Three under the lease in a millisecond, then another lease.
        (0..3).for_each(|_| cluster.spend(0, 1, "messages", now, false));
        cluster.spend(0, 1, "messages", now.plus_ms(1), true);
        sizes.push(slice(&cluster));
    }
    // Much was used of it at once: it grows, as far as there is room, and then follows what is left.
    assert_eq!(sizes, [Some(10), Some(8), Some(6), Some(4), Some(2), None]);
}

#[test]
fn who_needs_what_is_set_aside_gets_it_and_ends_all_leases() {
    let mut cluster = Cluster::new(2);
    let now = at("2027-01-31T23:58:00Z");
    cluster.spend(0, 1, "messages", now, true);
    let set_aside = cluster.truth.leases[0].slices.clone();
    assert!(set_aside.iter().all(|slice| slice.left == 4));
    // Room for 24 in this minute, of which 4 are set aside.
    cluster.spend(1, 24, "messages", now, false);
    assert!(cluster.truth.leases.is_empty());
    let ends = |entry: &Entry| entry.effects.iter().any(|effect| *effect == Effect::Leases(vec![]));
    assert!(ends(cluster.journal.last().unwrap()));
    let charges = vec![Charge { meter: meter("messages"), amount: 1 }];
    let op = Op::Spend(Spend { charges, consume: true, ..Spend::default() }, Cause::Check);
    assert!(cluster.do_leased(0, &op, now).is_none(), "the lease does not last");
    let refused = cluster.do_seeing(0, &op, now, false).unwrap().decision.unwrap();
    assert!(!refused.allowed);
    assert_eq!(refused.limits.iter().map(|limit| limit.used).collect::<Vec<_>>(), [25, 25]);
}

#[test]
fn nothing_that_is_warned_of_is_reached_unseen_under_a_lease() {
    let mut cluster = Cluster::new(2);
    let now = at("2027-02-01T10:00:00Z");
    // 80 % of 60 a day are 48; at most 25 in a minute.
    cluster.spend(1, 20, "messages", now, false);
    cluster.spend(1, 20, "messages", now.plus_ms(60_000), false);
    let now = now.plus_ms(120_000);
    cluster.spend(0, 1, "messages", now, true);
    let left = |cluster: &Cluster| cluster.truth.leases.first()?.left(&meter("messages"), WindowKind::Day);
    assert_eq!(left(&cluster), Some(3), "half of the six that are left before it");
    // Four more by another leave three until it is reached: as many as are set aside.
    cluster.spend(1, 4, "messages", now, false);
    assert!(cluster.truth.leases.is_empty());
    assert!(cluster.truth.warnings.is_empty());
    cluster.spend(0, 3, "messages", now, false);
    let told: Vec<_> = cluster.truth.warnings.iter().map(|one| (one.percent, one.used)).collect();
    assert_eq!(told, [(80, 48)]);
}
