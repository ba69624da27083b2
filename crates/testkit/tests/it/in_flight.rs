//! Holds, sessions, grants and shares on several nodes of one PostgreSQL: one takes, dies, and another settles.

use crate::support::{at_once, postgres};
use domain::{
    catalog::{Catalog, Limit, LimitWindow, MeterKind},
    grant::{Grant, GrantId, GrantSource},
    hold::{Excess, HoldId, Settlement},
    lease::Terms,
    op::{OpError, ProfileChange},
    session::CloseReason,
    share::{Share, ShareMode},
    time::{Instant, WindowKind},
};
use engine::{
    Engine, EngineOptions, LeaseOptions,
    ports::{Clock, Ledger},
    requests::{Check, EngineError, HoldAsk},
    session::{SessionAsk, SessionTouch, Touched},
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use stores::postgres::PostgresLedger;
use testkit::{
    catalog::{Draft, limit, meter},
    clock::SimClock,
    world::{admit, by_user, charge, of_meter, op_id, spend, tenant, to_plan, user, with_id},
};

fn catalog() -> Catalog {
    let limits = vec![
        limit("tokens", WindowKind::Period, 600),
        limit("talk", WindowKind::Period, 600_000),
        Limit { window: LimitWindow::Concurrent, ..limit("talk", None, 1) },
    ];
    let draft = Draft::default().meter("tokens", MeterKind::Counter).meter("talk", MeterKind::Duration);
    draft.plan("free", &[], limits).done()
}

/// A node's clock: what time it says is off by so much; what passes does not jump.
struct Off(Arc<SimClock>, AtomicI64);

impl Clock for Off {
    fn now(&self) -> Instant {
        self.0.now().plus_ms(self.1.load(Ordering::SeqCst))
    }
    fn steady_ms(&self) -> i64 {
        self.0.now().ms()
    }
}

struct Nodes {
    ledgers: Vec<Arc<PostgresLedger>>,
    engines: Vec<Arc<Engine>>,
    clock: Arc<SimClock>,
}

impl Nodes {
    async fn two() -> Self {
        let clock = Arc::new(SimClock::at("2027-03-02T12:00:00Z"));
        // Leases are taken at the first sight of another node.
        let terms = Terms { first: 8, least: 1, ..Terms::DEFAULT };
        let leases = LeaseOptions { lost_within_ms: i64::MAX, terms, ..LeaseOptions::DEFAULT };
        let options = EngineOptions { leases, ..EngineOptions::default() };
        let ledgers = postgres(2).await;
        let mut engines = Vec::new();
        for ledger in &ledgers {
            let opened = Engine::open_with(ledger.clone(), clock.clone(), catalog(), "first", options).await;
            engines.push(opened.unwrap());
        }
        engines[0].put_tenant(&tenant("acme"), &to_plan("free"), "test").await.unwrap();
        Self { ledgers, engines, clock }
    }

    /// A node is gone, and nothing it kept in memory is written.
    async fn die(&mut self, node: usize) {
        self.engines.remove(node);
        self.ledgers.remove(node).close().await;
    }

    async fn numbers(&self, node: usize, key: &str) -> (i64, i64) {
        let (_, usage) = self.engines[node].usage(&tenant("acme"), None).await.unwrap();
        let meter = of_meter(&usage, key);
        (meter.used, meter.held)
    }

    /// Both ask for one at a time, for so many in all; how many passed.
    async fn storm(&self, count: usize, check: impl Fn(usize) -> Check) -> usize {
        let checks: Vec<Check> = (0..count).map(check).collect();
        let passed = at_once(8, |client| {
            let (engine, its) = (self.engines[client % 2].clone(), checks.iter().skip(client).step_by(8).cloned());
            let its: Vec<Check> = its.collect();
            async move {
                let mut passed = 0;
                for check in its {
                    passed += usize::from(admit(&engine, &check).await.unwrap().decision.allowed);
                }
                passed
            }
        });
        passed.await.into_iter().sum()
    }
}

fn held(check: Check, ttl_ms: i64) -> Check {
    Check { hold: Some(HoldAsk { ttl_ms, excess: Excess::Overage, fresh: 1 }), ..check }
}

fn session(fresh: u128) -> SessionAsk {
    let (tenant, meter, key) = (tenant("acme"), meter("talk"), Some("one".into()));
    SessionAsk { tenant, user: None, meter, key, id: None, fresh, enforce: None, dimensions: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_held_before_it_died_is_settled_on_another_once() {
    let mut nodes = Nodes::two().await;
    let check = held(with_id(spend("acme", vec![charge("tokens", 100)]), "h1"), 60_000);
    let taken = admit(&nodes.engines[0], &check).await.unwrap().hold.unwrap();
    nodes.die(0).await;
    assert_eq!(nodes.numbers(0, "tokens").await, (0, 100));
    // Who was not answered asks again: it is the same hold.
    let again = admit(&nodes.engines[0], &check).await.unwrap();
    assert!(again.repeated && again.hold == Some(taken));
    let settle = async |how: &Settlement| nodes.engines[0].settle(&tenant("acme"), taken.id, how).await;
    let took = Settlement::Commit(vec![charge("tokens", 130)]);
    assert!(!settle(&took).await.unwrap().repeated);
    assert!(settle(&took).await.unwrap().repeated);
    assert!(matches!(settle(&Settlement::Release).await, Err(EngineError::IdempotencyConflict { .. })));
    assert_eq!(nodes.numbers(0, "tokens").await, (130, 0));
    let unknown = nodes.engines[0].settle(&tenant("acme"), HoldId(5), &Settlement::Release).await;
    assert_eq!(unknown.unwrap_err(), EngineError::Op(OpError::UnknownHold));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_held_before_it_died_lapses_on_another_once() {
    let mut nodes = Nodes::two().await;
    let check = held(spend("acme", vec![charge("tokens", 600)]), 1_000);
    admit(&nodes.engines[0], &check).await.unwrap();
    assert_eq!(nodes.numbers(1, "tokens").await, (0, 600));
    nodes.die(0).await;
    let one = spend("acme", vec![charge("tokens", 1)]);
    assert!(!admit(&nodes.engines[0], &one).await.unwrap().decision.allowed);
    nodes.clock.advance_ms(1_000);
    assert!(admit(&nodes.engines[0], &one).await.unwrap().decision.allowed);
    nodes.engines[0].upkeep().await.unwrap();
    assert_eq!(nodes.numbers(0, "tokens").await, (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_on_another_node_and_frees_its_slot_when_nobody_touches_it() {
    let mut nodes = Nodes::two().await;
    let opened = nodes.engines[0].open_session(&session(1)).await.unwrap().state.unwrap();
    nodes.clock.advance_ms(7_000);
    let touch = SessionTouch { id: opened.session.id, close: None, enforce: None };
    let touched = nodes.engines[1].touch_session(&tenant("acme"), touch).await.unwrap();
    let Touched::Now(answer) = touched else { panic!("{touched:?}") };
    assert_eq!(answer.state.unwrap().session.accrued_ms, 7_000);
    nodes.die(0).await;
    let other = SessionAsk { key: Some("two".into()), ..session(2) };
    assert!(nodes.engines[0].open_session(&other).await.unwrap().state.is_none(), "there is one open");
    nodes.clock.advance_ms(300_000);
    let opened_now = nodes.engines[0].open_session(&other).await.unwrap().state.unwrap();
    let told = nodes.engines[0].touch_session(&tenant("acme"), touch).await.unwrap();
    let end = match told {
        Touched::Before(end) => end,
        Touched::Now(answer) => answer.state.unwrap().ended.unwrap(),
    };
    assert_eq!((end.reason, end.accrued_ms), (CloseReason::Idle, 7_000));
    let close = SessionTouch { id: opened_now.session.id, close: Some(CloseReason::Closed), enforce: None };
    nodes.engines[0].touch_session(&tenant("acme"), close).await.unwrap();
    nodes.engines[0].upkeep().await.unwrap();
    assert_eq!(nodes.numbers(0, "talk").await, (7_000, 0));
}

/// A session that is opened again under its id is no other, and was not touched, whichever node is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_opened_once_under_its_id_on_whatever_node() {
    let nodes = Nodes::two().await;
    let ask = SessionAsk { key: None, id: Some(op_id("", "s1")), ..session(1) };
    let opened = nodes.engines[0].open_session(&ask).await.unwrap().state.unwrap();
    nodes.clock.advance_ms(50);
    for engine in [&nodes.engines[1], &nodes.engines[0], &nodes.engines[1]] {
        let again = engine.open_session(&ask).await.unwrap();
        assert!(again.repeated);
        assert_eq!(again.state.unwrap().session, opened.session);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_and_holds_and_shares_beside_leases_let_exactly_as_many_pass() {
    let nodes = Nodes::two().await;
    let one = |_| spend("acme", vec![charge("tokens", 1)]);
    // Both nodes get in each other's way, and take leases.
    assert_eq!(nodes.storm(160, one).await, 160);
    let id = 9;
    let (meter_key, now) = (meter("tokens"), nodes.clock.now());
    let grant = Grant {
        id: GrantId(id),
        meter: meter_key.clone(),
        amount: 50,
        left: 50,
        priority: 0,
        granted_at: now,
        expires_at: None,
        source: GrantSource::Given,
        reason: "because".into(),
    };
    nodes.engines[0].put_grant(&tenant("acme"), grant, (None, id), "test").await.unwrap();
    let taken = admit(&nodes.engines[1], &held(spend("acme", vec![charge("tokens", 90)]), 60_000)).await.unwrap();
    // 600 and 50, less 160 and 90: 400 are left, of which one user may have no more than 120.
    let mode = ShareMode::Custom { users: Arc::new([(user("al"), 120)].into()), default: None };
    let shares = Some(vec![Share { meter: meter_key, mode }]);
    let change = ProfileChange { shares, ..ProfileChange::default() };
    nodes.engines[1].put_tenant(&tenant("acme"), &change, "test").await.unwrap();
    assert_eq!(nodes.storm(200, |_| by_user(one(0), "al")).await, 120);
    assert_eq!(nodes.storm(400, |_| by_user(one(0), "bo")).await, 280);
    nodes.engines[0].settle(&tenant("acme"), taken.hold.unwrap().id, &Settlement::Release).await.unwrap();
    // Pooled again, it finds the use that was made.
    let pooled = ProfileChange { shares: Some(Vec::new()), ..ProfileChange::default() };
    nodes.engines[0].put_tenant(&tenant("acme"), &pooled, "test").await.unwrap();
    assert_eq!(nodes.storm(150, |_| by_user(one(0), "al")).await, 90);
    for engine in &nodes.engines {
        engine.drain().await.unwrap();
    }
    assert_eq!(nodes.numbers(0, "tokens").await, (650, 0));
    assert_eq!(nodes.engines[1].grants(&tenant("acme")).await.unwrap()[0].left, 0);
    let mut leased = 0;
    let mut after = 0;
    loop {
        let page = nodes.ledgers[0].journal(after, 1_000).await.unwrap();
        let Some((last, ..)) = page.last() else { break };
        after = *last;
        leased += page.iter().filter(|(.., entry)| entry.under().is_some()).count();
    }
    assert!(leased > 0, "nothing was charged under a lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_makes_nothing_look_newer_than_it_is() {
    let clock = Arc::new(SimClock::at("2027-03-02T12:00:00Z"));
    let off = Arc::new(Off(clock.clone(), AtomicI64::new(900)));
    let ledgers = postgres(2).await;
    let here = Engine::open(ledgers[0].clone(), off.clone(), catalog(), "first").await.unwrap();
    let there = Engine::open(ledgers[1].clone(), clock.clone(), catalog(), "first").await.unwrap();
    there.put_tenant(&tenant("acme"), &to_plan("free"), "test").await.unwrap();
    let ask = Check { consume: false, ..spend("acme", vec![charge("tokens", 1)]) };
    let mut used = 0;
    for back_ms in [1_800, 600, -900, 1_500] {
        clock.advance_ms(1_000);
        let (_, usage) = here.usage(&tenant("acme"), None).await.unwrap();
        assert_eq!(of_meter(&usage, "tokens").used, used);
        admit(&there, &spend("acme", vec![charge("tokens", 5)])).await.unwrap();
        used += 5;
        off.1.fetch_sub(back_ms, Ordering::SeqCst);
        let (_, usage) = here.usage(&tenant("acme"), None).await.unwrap();
        assert_eq!(of_meter(&usage, "tokens").used, used, "set back by {back_ms} ms, right after");
        // What is only asked may be as old as 200 ms, whatever time it seems to be.
        admit(&there, &spend("acme", vec![charge("tokens", 5)])).await.unwrap();
        used += 5;
        clock.advance_ms(EngineOptions::default().recent_ms + 1);
        off.1.fetch_sub(100, Ordering::SeqCst);
        let asked = admit(&here, &ask).await.unwrap();
        assert_eq!(asked.decision.limits[0].used, used, "set back by {back_ms} ms, and later");
    }
}
