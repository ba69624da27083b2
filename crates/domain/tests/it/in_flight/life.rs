//! Random lives with holds and sessions, and a ledger of their own that says what must have been counted: records of
//! amounts and stretches of time, added up anew whenever somebody asks.

use super::acts::{Act, FINISH_MS, HELD, IDLE_MS, KEYS, LATE_MS, METERS, PLANS, Step, ZONES, plans};
use crate::{
    auditor::{Owner, limits_in_force},
    world::{World, at, meter},
};
use domain::{
    catalog::{Enforce, LimitWindow, Mode, Scope, Unsettled},
    decision::Code,
    entry::{Cause, Override, Status},
    hold::{Excess, Hold, HoldId, HoldTerms, Settle, Settlement},
    id::{MeterKey, PlanKey, UserId},
    in_flight::Lapse,
    op::{Adjustment, Charge, Fact, Movement, Op, OpError, Outcome, ProfileChange, Receipt, Spend},
    session::{CloseReason, OpenSession, Session, SessionId, SessionOp, TouchSession},
    tenant::{Tenant, User, Windows},
    time::{Instant, WindowKind, Zone},
};
use std::collections::BTreeSet;

/// What was counted: an amount in the windows of an instant, or a stretch of time.
#[derive(Debug, Clone)]
pub struct Record {
    pub meter: &'static str,
    pub user: Owner,
    pub amount: i64,
    /// The first millisecond after it; it began so long before as it is long, if it is time that ran.
    to: Instant,
    is_time: bool,
    /// The windows it was decided to be in, if it is settled later.
    then: Option<Windows>,
}

impl Record {
    /// How much of it lies in a window that is open.
    pub fn in_window(&self, kind: WindowKind, start: Instant) -> i64 {
        match &self.then {
            Some(then) if then[kind.index()].start == start => self.amount,
            Some(_) => 0,
            None if self.is_time => self.amount.min((self.to.ms() - start.ms()).max(0)),
            None if self.to >= start => self.amount,
            None => 0,
        }
    }
}

#[derive(Debug, Clone)]
pub struct HoldKnown {
    pub hold: Hold,
    user: Owner,
    pub settled: bool,
    /// Whether its lapse was written down.
    pub lapsed: bool,
}

/// A tenant, its records, and the time.
#[derive(Clone)]
pub struct Life {
    pub world: World,
    pub now: Instant,
    /// Lapses are written down as soon as they are due, or only when a step says so.
    pub eager: bool,
    pub records: Vec<Record>,
    pub holds: Vec<HoldKnown>,
    sessions: Vec<(SessionId, Owner)>,
    given: Vec<(Box<Receipt>, Record)>,
    next_id: u128,
    /// Sessions whose limits changed since their slice was held.
    unsure: BTreeSet<SessionId>,
}

impl Life {
    pub fn begin() -> Self {
        let now = at("2027-01-31T23:58Z");
        let change = ProfileChange { plan: Some(PlanKey::new("cut").unwrap()), ..ProfileChange::default() };
        let world = World::create(plans(), &change, now).unwrap().unwrap();
        let (records, holds, sessions, given, unsure) = Default::default();
        Self { world, now, eager: false, records, holds, sessions, given, next_id: 1, unsure }
    }

    pub fn tenant(&self) -> &Tenant {
        &self.world.state.tenant
    }

    pub fn at(&self) -> Instant {
        self.tenant().instant(self.now)
    }

    /// Whether nothing is refused.
    fn is_observed(&self) -> bool {
        self.tenant().profile.enforce == Some(Enforce::Observe)
    }

    pub fn account_of(&self, owner: Owner) -> Option<&User> {
        self.world.state.users.get(&UserId::new(owner?).unwrap())
    }

    /// Does a step; says what came of it, without numbers that depend on when lapses are written.
    pub fn step(&mut self, (jump_ms, act): &Step) -> String {
        self.now = self.now.plus_ms(*jump_ms);
        if self.eager {
            self.lapse();
        }
        let before = self.without_past();
        let (text, is_bounded) = self.act(act);
        if is_bounded && !self.is_observed() {
            self.check_limits(&before);
        }
        self.check_index();
        self.check_counts();
        text
    }

    /// What there is now, without the entries that made it.
    fn without_past(&self) -> Self {
        let (sessions, holds, given, records) = Default::default();
        let (world, unsure) = (self.world.twin(), BTreeSet::new());
        Self { world, unsure, sessions, holds, given, records, ..*self }
    }

    fn act(&mut self, act: &Act) -> (String, bool) {
        match act {
            Act::Spend { meter, amount, user } => (self.spend(METERS[*meter], *amount, *user), true),
            Act::Refund(index) => (self.refund(*index), true),
            Act::Hold { charges, user, ttl_ms, excess } => (self.hold(charges, *user, *ttl_ms, *excess), true),
            Act::Commit { hold, more } => self.settle(*hold, Some(*more)),
            Act::Release(hold) => self.settle(*hold, None),
            Act::Open { key, user, ran_ms } => self.open(KEYS[*key], *user, *ran_ms),
            Act::Touch { session, ran_ms, close } => self.touch(*session, *ran_ms, *close),
            Act::Lapse => (self.lapse(), true),
            Act::Event { meter: index, amount, user } => {
                let movements = vec![(meter(METERS[*index]), Movement::Add(*amount))];
                let fact = Fact { movements, time: None, dimensions: vec![], binding: None };
                (self.fact(METERS[*index], *amount, *user, &Op::Record(fact)), false)
            }
            Act::Adjust { meter: index, amount, user } => {
                let (meter, movement) = (meter(METERS[*index]), Movement::Add(*amount));
                let adjustment = Adjustment { meter, movement, window: None, on: None, binding: None };
                (self.fact(METERS[*index], *amount, *user, &Op::Adjust(adjustment)), false)
            }
            change => (self.configure(change), false),
        }
    }

    fn apply(&mut self, user: Owner, op: &Op) -> Result<Outcome, OpError> {
        self.world.apply(user, op, self.now)
    }

    fn record(&mut self, meter: &'static str, user: Owner, amount: i64) -> Record {
        let record = Record { meter, user, amount, to: self.at(), is_time: false, then: None };
        self.records.push(record.clone());
        record
    }

    fn fact(&mut self, meter: &'static str, amount: i64, user: Owner, op: &Op) -> String {
        self.apply(user, op).unwrap();
        self.record(meter, user, amount);
        "a fact".into()
    }

    fn spend(&mut self, key: &'static str, amount: i64, user: Owner) -> String {
        let charges = vec![Charge { meter: meter(key), amount }];
        let spend = Spend { charges, consume: true, refundable: key != "documents", ..Spend::default() };
        let outcome = self.apply(user, &Op::Spend(spend, Cause::Check)).unwrap();
        if outcome.decision.as_ref().is_some_and(|decision| decision.allowed) {
            let record = self.record(key, user, amount);
            self.given.extend(outcome.receipt.clone().map(|receipt| (receipt, record)));
        }
        code(&outcome)
    }

    fn refund(&mut self, index: usize) -> String {
        if self.given.is_empty() {
            return "nothing to give back".into();
        }
        let (receipt, record) = self.given.remove(index % self.given.len());
        let then = Some(receipt.windows);
        self.apply(record.user, &Op::Refund(*receipt)).unwrap();
        self.records.push(Record { amount: -record.amount, then, ..record });
        "given back".into()
    }

    fn hold(&mut self, charges: &[(usize, i64)], user: Owner, ttl_ms: i64, excess: Excess) -> String {
        let charges = charges.iter().map(|(index, amount)| Charge { meter: meter(HELD[*index]), amount: *amount });
        let id = HoldId(self.next_id);
        self.next_id += 1;
        let hold = Some(HoldTerms { id, ttl_ms, excess });
        let spend = Spend { charges: charges.collect(), consume: true, hold, ..Spend::default() };
        let at = self.at();
        let outcome = self.apply(user, &Op::Spend(spend, Cause::Hold)).unwrap();
        if outcome.decision.as_ref().is_some_and(|decision| decision.allowed) {
            let hold = self.tenant().in_flight.hold(id).unwrap().clone();
            assert_eq!(hold.expires_at, at.plus_ms(ttl_ms));
            assert_eq!(hold.windows, self.tenant().windows_at(at));
            self.holds.push(HoldKnown { hold, user, settled: false, lapsed: false });
        }
        code(&outcome)
    }

    /// Whether limits bound it: what is done already is a fact where the policy or the time says so.
    fn settle(&mut self, index: usize, more: Option<Option<i64>>) -> (String, bool) {
        if self.holds.is_empty() {
            return ("no hold".into(), true);
        }
        let place = index % self.holds.len();
        let known = self.holds[place].clone();
        let at = self.at();
        let how = match more {
            None => Settlement::Release,
            Some(None) => Settlement::Commit(vec![]),
            Some(Some(took)) => {
                let first = known.hold.charges[0].meter.clone();
                Settlement::Commit(vec![Charge { meter: first, amount: took }])
            }
        };
        let op = Op::Settle(Settle { id: known.hold.id, how, binding: None });
        let is_forgotten = known.hold.expires_at.plus_ms(LATE_MS) < at;
        let outcome = self.apply(known.user, &op);
        match outcome {
            Err(OpError::UnknownHold) => {
                assert!(known.settled || is_forgotten, "a hold that may be settled is known: {known:?}");
                return ("no such hold".into(), true);
            }
            Err(OpError::HoldExceeded { .. }) => {
                assert!(known.hold.excess != Excess::Overage && more.flatten().unwrap() > known.hold.charges[0].amount);
                return ("too much".into(), true);
            }
            other => other.unwrap(),
        };
        assert!(!known.settled && !is_forgotten, "a hold is settled once, and in time: {known:?}");
        self.holds[place].settled = true;
        for (number, part) in known.hold.charges.iter().enumerate() {
            let took = match more {
                None => 0,
                Some(told) => told.filter(|_| number == 0).unwrap_or(part.amount),
            };
            let charged = if known.lapsed && part.unsettled == Unsettled::Charge { part.amount } else { 0 };
            self.settled(&known, &part.meter, took - charged);
        }
        let was_held = known.hold.expires_at > at;
        ("settled".into(), was_held && known.hold.excess != Excess::Overage)
    }

    fn settled(&mut self, known: &HoldKnown, of: &MeterKey, amount: i64) {
        let meter = HELD.into_iter().find(|key| *key == of.as_str()).unwrap();
        let then = Some(known.hold.windows);
        self.records.push(Record { meter, user: known.user, amount, to: self.at(), is_time: false, then });
    }

    fn open(&mut self, key: &str, user: Owner, ran_ms: Option<i64>) -> (String, bool) {
        let id = SessionId(self.next_id);
        self.next_id += 1;
        let (time, whose) = (meter("time"), user.map(|name| UserId::new(name).unwrap()));
        let before = self.tenant().in_flight.session_named(&time, whose.as_ref(), &key.into()).cloned();
        let open =
            OpenSession { id, key: key.into(), meter: time, enforce: None, dimensions: vec![], ran_ms, binding: None };
        let outcome = self.apply(user, &Op::Session(SessionOp::Open(open))).unwrap();
        let ran = before.as_ref().map(|session| self.ran(session, ran_ms));
        let goes_on = ran.is_some_and(|ran| ran < IDLE_MS);
        let mut is_bounded = true;
        if let Some(before) = before.filter(|_| goes_on) {
            if before.is_finishing && code(&outcome) != "Allowed" {
                let session = self.tenant().in_flight.session(before.id);
                assert_eq!(session, Some(&before), "what is refused in a session that finishes charges nothing");
            } else {
                is_bounded = self.ran_on(&before, user, ran.unwrap(), &outcome);
            }
        } else if outcome.session.is_some() {
            self.record("spare0", user, 1);
            self.sessions.push((id, user));
        }
        (code(&outcome), is_bounded)
    }

    fn touch(&mut self, index: usize, ran_ms: Option<i64>, close: Option<CloseReason>) -> (String, bool) {
        if self.sessions.is_empty() {
            return ("no session".into(), true);
        }
        let (id, user) = self.sessions[index % self.sessions.len()];
        let before = self.tenant().in_flight.session(id).cloned();
        let touch = TouchSession { id, ran_ms, close, enforce: None, binding: None };
        let outcome = self.apply(user, &Op::Session(SessionOp::Touch(touch)));
        let Some(before) = before else {
            assert_eq!(outcome, Err(OpError::UnknownSession), "what has ended stays so");
            return ("ended".into(), true);
        };
        let (outcome, ran) = (outcome.unwrap(), self.ran(&before, ran_ms));
        if ran >= IDLE_MS {
            assert!(self.tenant().in_flight.session(id).is_none());
            assert_eq!(outcome.session.unwrap().ended.unwrap().ended_at, before.touched_at);
            return ("ended".into(), true);
        }
        let is_bounded = self.ran_on(&before, user, ran, &outcome);
        (code(&outcome), is_bounded)
    }

    fn ran(&self, session: &Session, measured_ms: Option<i64>) -> i64 {
        measured_ms.unwrap_or(self.at().ms() - session.touched_at.ms()).clamp(0, IDLE_MS)
    }

    /// What of a run is held: not of a session that seems to be idle, and in the windows in which it was held alone.
    fn covered(&self, session: &Session, ran: i64) -> i64 {
        if self.at() >= session.idle_at() {
            return 0;
        }
        let limits = limits_in_force(&self.world, self.at());
        let bounding = limits
            .iter()
            .filter(|limit| limit.meter == session.meter && limit.mode == Mode::Hard && limit.max.is_some());
        let ends = bounding.filter_map(|limit| limit.window.kind()).map(|kind| session.windows[kind.index()].end.ms());
        let left = ends.map(|end| (end - self.at().plus_ms(-ran).ms()).max(0)).min().unwrap_or(i64::MAX);
        ran.min(session.held_ms).min(left)
    }

    /// A session ran so long: at least what was held is charged, at most what it ran, in the time that it ran.
    fn ran_on(&mut self, before: &Session, user: Owner, ran: i64, outcome: &Outcome) -> bool {
        let state = outcome.session.as_deref().unwrap();
        let session = &state.session;
        let charged = session.accrued_ms - before.accrued_ms;
        let covered = self.covered(before, ran);
        assert!(charged >= covered && charged <= ran, "{charged} of {ran} ms, {before:?}");
        let over = session.overage_ms - before.overage_ms;
        assert!((0..=charged).contains(&over) && session.overage_ms <= FINISH_MS, "{session:?}");
        let (to, is_bounded) = (self.at().plus_ms(charged - ran), self.is_sure(before) && over == 0);
        let limits = limits_in_force(&self.world, self.at());
        let bounds = |limit: &&domain::catalog::Limit| limit.meter.as_str() == "time" && limit.mode == Mode::Hard;
        if self.is_observed() || limits.iter().filter(bounds).count() == 0 {
            assert_eq!(charged, ran, "without a limit all of it is charged");
        }
        self.records.push(Record { meter: "time", user, amount: charged, to, is_time: true, then: None });
        self.unsure.remove(&session.id);
        is_bounded
    }

    /// What lapsed by a clock that jumped, or was held under other limits, is charged all the same.
    fn is_sure(&self, before: &Session) -> bool {
        before.idle_at() > self.at() && !self.unsure.contains(&before.id)
    }

    /// Writes down all that has lapsed.
    pub fn lapse(&mut self) -> String {
        let due: Vec<Lapse> = self.tenant().in_flight.lapsed(self.at()).collect();
        for lapse in due {
            let user = match lapse {
                Lapse::Hold(id) => {
                    let place = self.holds.iter().position(|known| known.hold.id == id).unwrap();
                    let known = self.holds[place].clone();
                    assert!(!known.settled && !known.lapsed, "a hold lapses once, unless it is settled");
                    self.holds[place].lapsed = true;
                    for part in known.hold.charges.iter().filter(|part| part.unsettled == Unsettled::Charge) {
                        self.settled(&known, &part.meter, part.amount);
                    }
                    known.user
                }
                Lapse::Session(id) => self.sessions.iter().find(|(known, _)| *known == id).unwrap().1,
            };
            assert!(self.apply(user, &Op::Lapse(lapse)).unwrap().entry.is_some(), "what is due lapses");
            assert!(self.apply(user, &Op::Lapse(lapse)).unwrap().entry.is_none(), "and once");
        }
        "lapsed".into()
    }

    fn configure(&mut self, act: &Act) -> String {
        let mut change = ProfileChange::default();
        match act {
            Act::Plan(index) => change.plan = Some(PlanKey::new(PLANS[*index]).unwrap()),
            Act::Zone(index) => change.zone = Zone::named(ZONES[*index]),
            Act::Status(suspended) => {
                change.status = Some(if *suspended { Status::Suspended } else { Status::Active });
            }
            Act::Observe(observe) => change.enforce = Some(observe.then_some(Enforce::Observe)),
            Act::Override { time, window, user, max, for_ms } => {
                let windows: Vec<LimitWindow> =
                    LimitWindow::ALL.into_iter().filter(|window| *window != LimitWindow::Level).collect();
                let window = windows[window % if *time { windows.len() } else { WindowKind::COUNT }];
                let max = if window == LimitWindow::Concurrent || !time { max % 7 } else { *max };
                change.put_overrides.push(Override {
                    meter: meter(if *time { "time" } else { "messages" }),
                    window,
                    scope: if *user { Scope::User } else { Scope::Tenant },
                    max: Some(max),
                    mode: Mode::Hard,
                    until: for_ms.map(|ms| self.now.plus_ms(ms)),
                    reason: None,
                });
            }
            _ => change.remove_overrides = self.tenant().profile.overrides.clone(),
        }
        self.apply(None, &Op::Configure(change)).unwrap();
        self.unsure.extend(self.world.state.tenant.in_flight.sessions().map(|session| session.id));
        "configured".into()
    }
}

fn code(outcome: &Outcome) -> String {
    format!("{:?}", outcome.decision.as_ref().map_or(Code::Allowed, |decision| decision.code()))
}
