//! What may happen to work in flight, and the plans that bound it.

use crate::{
    auditor::Owner,
    world::{add_plan, catalog, meter},
};
use domain::{
    catalog::{Catalog, OnLimit, Plan, SessionPolicy, SessionTerms, Unsettled},
    hold::Excess,
    id::PlanKey,
    session::CloseReason,
    time::{DAY_MS, WindowKind},
};
use proptest::prelude::*;

pub const USERS: [&str; 2] = ["ann", "bob"];
/// What may be held: the first is given back when nobody settles it, the second was used, the third is a level.
pub const HELD: [&str; 3] = ["messages", "tokens", "documents"];
pub const METERS: [&str; 5] = ["messages", "tokens", "documents", "time", "spare0"];
pub const PLANS: [&str; 3] = ["cut", "tight", "finish"];
pub const ZONES: [&str; 3] = ["UTC", "Asia/Kathmandu", "America/New_York"];
pub const KEYS: [&str; 3] = ["one", "two", "three"];
pub const IDLE_MS: i64 = 60_000;
const SLICE_MS: i64 = 15_000;
pub const FINISH_MS: i64 = 20_000;
/// How late what a hold took may still be told.
pub const LATE_MS: i64 = DAY_MS;

/// What one step does.
#[derive(Debug, Clone)]
pub enum Act {
    Spend { meter: usize, amount: i64, user: Owner },
    Refund(usize),
    Hold { charges: Vec<(usize, i64)>, user: Owner, ttl_ms: i64, excess: Excess },
    Commit { hold: usize, more: Option<i64> },
    Release(usize),
    Open { key: usize, user: Owner, ran_ms: Option<i64> },
    Touch { session: usize, ran_ms: Option<i64>, close: Option<CloseReason> },
    Lapse,
    Event { meter: usize, amount: i64, user: Owner },
    Adjust { meter: usize, amount: i64, user: Owner },
    Plan(usize),
    Zone(usize),
    Status(bool),
    Observe(bool),
    Override { time: bool, window: usize, user: bool, max: i64, for_ms: Option<i64> },
    NoOverrides,
}

pub type Step = (i64, Act);

fn user() -> impl Strategy<Value = Owner> {
    prop::option::of(prop::sample::select(&USERS[..]))
}

fn jump() -> impl Strategy<Value = i64> {
    prop_oneof![
        2 => Just(0),
        6 => 0..20_000_i64,
        4 => 0..90_000_i64,
        2 => 0..7_200_000_i64,
        1 => 0..200_000_000_i64,
        1 => 0..4_000_000_000_i64,
    ]
}

fn hold() -> impl Strategy<Value = Act> {
    let charges = prop::collection::btree_map(0..HELD.len(), 1..5_i64, 1..3);
    let ttl = prop_oneof![3 => 1..120_000_i64, 1 => 1..=DAY_MS];
    (charges, user(), ttl, prop::sample::select(&Excess::ALL[..])).prop_map(|(charges, user, ttl_ms, excess)| {
        Act::Hold { charges: charges.into_iter().collect(), user, ttl_ms, excess }
    })
}

/// What only decisions change, by one plan and a clock that never goes back.
fn decided() -> impl Strategy<Value = Act> {
    let close = prop::option::weighted(0.3, prop::sample::select(vec![CloseReason::Closed, CloseReason::Forced]));
    prop_oneof![
        3 => (0..3_usize, 0..4_i64, user()).prop_map(|(meter, amount, user)| Act::Spend { meter, amount, user }),
        1 => any::<usize>().prop_map(Act::Refund),
        5 => hold(),
        4 => (any::<usize>(), prop::option::of(0..8_i64)).prop_map(|(hold, more)| Act::Commit { hold, more }),
        2 => any::<usize>().prop_map(Act::Release),
        5 => (0..KEYS.len(), user()).prop_map(|(key, user)| Act::Open { key, user, ran_ms: None }),
        8 => (any::<usize>(), close).prop_map(|(session, close)| Act::Touch { session, ran_ms: None, close }),
        2 => Just(Act::Lapse),
    ]
}

/// Everything that may be in flight while it is.
fn any_act() -> impl Strategy<Value = Act> {
    let own =
        (any::<bool>(), 0..WindowKind::COUNT + 2, any::<bool>(), 0..60_000_i64, prop::option::of(0..9_000_000_i64));
    prop_oneof![
        30 => decided(),
        3 => (any::<usize>(), 0..90_000_i64)
            .prop_map(|(session, ran)| Act::Touch { session, ran_ms: Some(ran), close: None }),
        2 => (0..KEYS.len(), user(), 0..90_000_i64)
            .prop_map(|(key, user, ran)| Act::Open { key, user, ran_ms: Some(ran) }),
        2 => (0..4_usize, 0..6_i64, user()).prop_map(|(meter, amount, user)| Act::Event { meter, amount, user }),
        1 => (0..4_usize, 0..6_i64, user()).prop_map(|(meter, amount, user)| Act::Adjust { meter, amount, user }),
        2 => (0..PLANS.len()).prop_map(Act::Plan),
        1 => (0..ZONES.len()).prop_map(Act::Zone),
        1 => prop::bool::weighted(0.4).prop_map(Act::Status),
        1 => prop::bool::weighted(0.4).prop_map(Act::Observe),
        2 => own.prop_map(|(time, window, user, max, for_ms)| Act::Override { time, window, user, max, for_ms }),
        1 => Just(Act::NoOverrides),
    ]
}

pub fn decided_life() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((jump(), decided()), 1..50)
}

pub fn whole_life() -> impl Strategy<Value = Vec<Step>> {
    let back = prop_oneof![12 => jump(), 1 => -7_200_000..0_i64];
    prop::collection::vec((back, any_act()), 1..50)
}

pub fn plans() -> Catalog {
    let mut catalog = catalog();
    catalog.meters.retain(|key, _| METERS.contains(&key.as_str()));
    let change = |catalog: &mut Catalog, key: &str, change: &dyn Fn(&mut domain::catalog::Meter)| {
        let mut known = (*catalog.meters[&meter(key)]).clone();
        change(&mut known);
        catalog.meters.insert(meter(key), known.into());
    };
    change(&mut catalog, "tokens", &|meter| meter.unsettled = Unsettled::Charge);
    change(&mut catalog, "time", &|time| {
        time.session =
            SessionTerms { idle_timeout_ms: IDLE_MS, debit_interval_ms: SLICE_MS, counted_by: Some(meter("spare0")) };
    });
    let cut = [
        "messages<=6/day",
        "messages<=3/minute/user",
        "tokens<=9/hour",
        "documents<=5",
        "documents<=3/user",
        "time<=200000/day",
        "time<=70000/hour/user",
        "time<=90000/session",
        "time<=3/concurrent",
        "time<=1/concurrent/user",
        "spare0<=7/day",
    ];
    add_plan(&mut catalog, "cut", 0, &[], &cut);
    let tight =
        ["messages<=2/period", "tokens<=4/minute", "time<=25000/minute", "time<=40000/session", "time<=2/concurrent"];
    add_plan(&mut catalog, "tight", 1, &[], &tight);
    add_plan(&mut catalog, "finish", 2, &[], &["messages<=9/hour", "time<=50000/hour", "time<=30000/session/user"]);
    let finish = PlanKey::new("finish").unwrap();
    let plan = Plan::clone(&catalog.plans[&finish]);
    let sessions = SessionPolicy { on_limit: OnLimit::Finish { max_ms: FINISH_MS }, warn_before_ms: None };
    catalog.plans.insert(finish, Plan { sessions, ..plan }.into());
    catalog
}
