//! Acceptance: a renewal, an upgrade, a downgrade and other ways to share in mid-period, while checks, holds and sessions
//! go on at once: afterwards an auditor reads the journal, and agrees with every account.

use crate::support::{at_once, postgres};
use domain::{
    catalog::{Catalog, Limit, LimitWindow, MeterKind},
    entry::{Cause, Effect, Entry},
    grant::{Grant, GrantId, GrantSource},
    hold::{Excess, Settlement},
    op::ProfileChange,
    session::CloseReason,
    share::{Share, ShareMode},
    time::{DAY_MS, Instant, WindowKind},
};
use engine::{
    Engine, EngineOptions,
    ports::{Clock, Ledger},
    requests::{Ack, Check, EngineError, HoldAsk},
    session::{SessionAsk, SessionTouch, Touched},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::{
    auditor::journal,
    catalog::{Draft, each_user, limit, meter, plan},
    clock::SimClock,
    random::Random,
    simulation::verify::{Demand, check_history, compare},
    world::{charge, event, spend, tenant, to_plan, user},
};

const STEP_MS: i64 = 500;
/// What clients ask for between two steps.
const ASKED_PER_STEP: u64 = 8;

fn catalog() -> Catalog {
    let mut draft = Draft::default()
        .meter("requests", MeterKind::Counter)
        .meter("tokens", MeterKind::Counter)
        .meter("talk", MeterKind::Duration);
    for (key, times) in [("free", 1), ("pro", 4)] {
        let limits = vec![
            limit("requests", WindowKind::Period, 150 * times),
            limit("requests", WindowKind::Day, 120 * times),
            each_user(limit("requests", WindowKind::Hour, 80 * times)),
            limit("tokens", WindowKind::Period, 900 * times),
            limit("talk", WindowKind::Period, 90_000 * times),
            Limit { window: LimitWindow::Session, ..limit("talk", None, 30_000) },
            Limit { window: LimitWindow::Concurrent, ..limit("talk", None, 3 * times) },
        ];
        draft = draft.plan(key, &[], limits).finishing("pro", 5_000);
    }
    draft.done()
}

/// Nodes on one ledger, and what clients were told.
struct Nodes {
    engines: Vec<Arc<Engine>>,
    clock: Arc<SimClock>,
    is_over: AtomicBool,
    next: AtomicU64,
    /// Requests that were told to be charged.
    told: AtomicI64,
    refused: AtomicU64,
    asked: AtomicU64,
}

impl Nodes {
    async fn on(ledgers: Vec<Arc<dyn Ledger>>) -> Arc<Self> {
        let clock = Arc::new(SimClock::at("2027-03-31T23:59:30Z"));
        let mut engines = Vec::new();
        for ledger in ledgers {
            let opened = Engine::open_with(ledger, clock.clone(), catalog(), "first", EngineOptions::default()).await;
            engines.push(opened.unwrap());
        }
        let (is_over, next, told, refused, asked) = Default::default();
        Arc::new(Self { engines, clock, is_over, next, told, refused, asked })
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn engine(&self, random: &mut Random) -> &Arc<Engine> {
        random.pick(&self.engines)
    }

    fn fresh(&self) -> u128 {
        u128::from(self.next.fetch_add(1, Ordering::Relaxed)) << 32 | 7
    }

    /// A client: it checks, holds, settles, talks, until all is over.
    async fn load(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut open = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let who = random.percent(70).then(|| user(random.pick::<&str>(&["al", "bo", "cy"])));
            match random.below(10) {
                0..4 => {
                    self.check(Check { user: who, ..spend("acme", vec![charge("requests", 1)]) }, &mut random).await
                }
                4..6 => self.hold(Check { user: who, ..spend("acme", vec![charge("tokens", 9)]) }, &mut random).await,
                6..9 => self.talk(&mut open, &mut random).await,
                _ => {
                    let event = event("acme", &self.fresh().to_string(), "tokens", random.between(1, 5));
                    let recorded = self.engine(&mut random).record(vec![event]).await;
                    assert!(is_told(recorded).is_none_or(|outcomes| outcomes.len() == 1));
                }
            }
        }
    }

    async fn check(&self, check: Check, random: &mut Random) {
        let admission = self.engine(random).admit(&check, Ack::Disk).await;
        let Some(admission) = is_told(admission) else { return };
        let allowed = admission.decision.allowed;
        admission.commit.wait().await.unwrap();
        self.told.fetch_add(i64::from(allowed), Ordering::SeqCst);
        self.refused.fetch_add(u64::from(!allowed), Ordering::SeqCst);
    }

    /// Taken on one node, and settled on any; some never are.
    async fn hold(&self, check: Check, random: &mut Random) {
        let terms = HoldAsk { ttl_ms: 5_000, excess: *random.pick(&Excess::ALL), fresh: self.fresh() };
        let check = Check { hold: Some(terms), ..check };
        let Some(admission) = is_told(self.engine(random).admit(&check, Ack::Disk).await) else { return };
        admission.commit.wait().await.unwrap();
        let Some(taken) = admission.hold.filter(|_| random.percent(90)) else { return };
        let how = match random.percent(70) {
            true => Settlement::Commit(vec![charge("tokens", random.between(0, 12))]),
            false => Settlement::Release,
        };
        drop(self.engine(random).settle(&tenant("acme"), taken.id, &how).await);
    }

    async fn talk(&self, open: &mut Vec<domain::session::SessionId>, random: &mut Random) {
        if open.len() < 2 && random.percent(40) {
            let ask = SessionAsk {
                tenant: tenant("acme"),
                user: random.percent(50).then(|| user("al")),
                meter: meter("talk"),
                key: None,
                id: None,
                fresh: self.fresh(),
                enforce: None,
                dimensions: Vec::new(),
            };
            let Some(answer) = is_told(self.engine(random).open_session(&ask).await) else { return };
            answer.commit.wait().await.unwrap();
            open.extend(answer.state.map(|state| state.session.id));
            return;
        }
        let Some(id) = open.last().copied() else { return };
        let close = random.percent(30).then_some(CloseReason::Closed);
        let touch = SessionTouch { id, close, enforce: None };
        match is_told(self.engine(random).touch_session(&tenant("acme"), touch).await) {
            Some(Touched::Now(answer)) => {
                answer.commit.wait().await.unwrap();
                if answer.state.is_some_and(|state| state.ended.is_some()) {
                    open.pop();
                }
            }
            Some(Touched::Before(_)) => drop(open.pop()),
            None => {}
        }
    }

    async fn change(&self, engine: usize, change: ProfileChange) {
        let engine = &self.engines[engine % self.engines.len()];
        engine.put_tenant(&tenant("acme"), &change, "test").await.unwrap();
    }

    /// What happens to the tenant meanwhile: half a minute before its period ends, and as much after.
    async fn administer(&self) {
        let share =
            |mode| ProfileChange { shares: Some(vec![Share { meter: meter("requests"), mode }]), ..Default::default() };
        let parts = Arc::new([(user("al"), 30), (user("bo"), 60)].into());
        for step in 0..120 {
            match step {
                10 => self.change(0, share(ShareMode::Equal { seats: 3 })).await,
                20 => self.change(1, to_plan("pro")).await,
                30 => self.grant(40).await,
                40 => self.change(0, share(ShareMode::Custom { users: Arc::clone(&parts), default: Some(20) })).await,
                // The period ends at step 60.
                50 => self.change(1, share(ShareMode::Pooled)).await,
                80 => self.change(0, to_plan("free")).await,
                90 => self.change(1, share(ShareMode::Equal { seats: 2 })).await,
                100 => self.grant(25).await,
                _ => {}
            }
            while self.asked.load(Ordering::SeqCst) < (step + 1) * ASKED_PER_STEP {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            self.clock.advance_ms(STEP_MS);
        }
        self.is_over.store(true, Ordering::SeqCst);
    }

    async fn grant(&self, amount: i64) {
        let id = self.fresh();
        let grant = Grant {
            id: GrantId(id),
            meter: meter("tokens"),
            amount,
            left: amount,
            priority: 0,
            granted_at: self.now(),
            expires_at: Some(self.now().plus_ms(10_000)),
            source: GrantSource::Given,
            reason: "because".into(),
        };
        self.engines[0].put_grant(&tenant("acme"), grant, (None, id), "test").await.unwrap();
    }

    async fn keep_up(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            for engine in &self.engines {
                drop(engine.upkeep().await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// What was answered; nothing where the node says to come again.
fn is_told<T>(answer: Result<T, EngineError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(EngineError::Ledger(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn journal_of(ledger: &dyn Ledger) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let page = ledger.journal(after, 1_000).await.unwrap();
        let Some((last, ..)) = page.last() else { return entries };
        after = *last;
        entries.extend(page.into_iter().filter(|(_, whose, _)| *whose == tenant("acme")).map(|(.., entry)| entry));
    }
}

async fn audit(ledgers: Vec<Arc<dyn Ledger>>, seed: u64) {
    let ledger = ledgers[0].clone();
    let nodes = Nodes::on(ledgers).await;
    // Its period ends in half a minute, as a day and a month do.
    let anchor = Instant::parse("2027-03-01T00:00:00Z");
    nodes.change(0, ProfileChange { anchor, plan: Some(plan("free")), ..Default::default() }).await;
    at_once(8, |client| {
        let nodes = nodes.clone();
        async move {
            match client {
                0 => nodes.administer().await,
                1 => nodes.keep_up().await,
                client => nodes.load(seed << 8 | client as u64).await,
            }
        }
    })
    .await;
    // What nobody settled or touched lapses, and is written down.
    nodes.clock.advance_ms(DAY_MS / 4);
    for engine in nodes.engines.iter().chain(&nodes.engines) {
        engine.upkeep().await.unwrap();
        engine.drain().await.unwrap();
    }
    let entries = journal_of(&*ledger).await;
    let mut book = journal::read(&entries, &catalog(), STEP_MS).unwrap();
    book.turn(nodes.now().ms());
    for engine in &nodes.engines {
        compare(engine, "acme", &book, Demand::Agrees).await.unwrap();
        check_history(engine, "acme", &book).await.unwrap();
    }
    let is_request = |entry: &&Entry| {
        let is_it = |effect: &Effect| matches!(effect, Effect::Use { meter, .. } if meter.as_str() == "requests");
        entry.cause == Cause::Check && entry.effects.iter().any(is_it)
    };
    assert_eq!(entries.iter().filter(is_request).count() as i64, nodes.told.load(Ordering::SeqCst));
    let has =
        |is_one: fn(&Effect) -> bool| entries.iter().flat_map(|entry| &entry.effects).filter(|e| is_one(e)).count();
    assert!(nodes.refused.load(Ordering::SeqCst) > 20, "it was no load");
    assert!(has(|effect| matches!(effect, Effect::HoldSettled { .. })) > 20);
    assert!(has(|effect| matches!(effect, Effect::SessionClosed(_))) > 5);
    assert!(has(|effect| matches!(effect, Effect::Draw(_))) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn books_agree_after_renewals_and_changes_under_load() {
    for seed in 1..3 {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("ledger.db"), SqliteOptions::default()).unwrap();
        audit(vec![ledger], seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn books_of_two_nodes_agree_after_renewals_and_changes_under_load() {
    for seed in 1..3 {
        let ledgers = postgres(2).await;
        audit(ledgers.iter().map(|ledger| ledger.clone() as Arc<dyn Ledger>).collect(), seed).await;
        for ledger in ledgers {
            ledger.close().await;
        }
    }
}
