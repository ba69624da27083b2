//! What holds for every hold and every session.

pub mod acts;
mod checks;
pub mod life;

use crate::world::meter;
use acts::{Act, FINISH_MS, IDLE_MS, decided_life, whole_life};
use checks::owners;
use domain::{
    catalog::{AMOUNT_MAX, LimitWindow},
    entry::Cause,
    hold::{Excess, HoldId, HoldTerms},
    in_flight::IN_FLIGHT_MAX,
    op::{Charge, Op, OpError, Outcome, Spend},
    session::{OpenSession, Session, SessionId, SessionOp},
    tenant::Tenant,
};
use life::Life;
use proptest::prelude::*;

proptest! {
    #![proptest_config(crate::config(96, "in_flight"))]

    /// Whatever happens to a tenant with work in flight: what decisions take never passes a hard limit, what is held is
    /// the sum of what is open, nothing is counted twice or forgotten, everything ends once, and the fold of the entries
    /// is the state.
    #[test]
    fn work_in_flight_is_counted_once(steps in whole_life()) {
        let mut life = Life::begin();
        for step in &steps {
            life.step(step);
        }
        life.end();
    }

    /// What has lapsed counts no more from that instant on, whenever that is written down: early or late, the same is
    /// taken of every limit and the same is decided.
    #[test]
    fn when_lapses_are_written_changes_no_number(steps in decided_life()) {
        let (mut early, mut late) = (Life::begin(), Life::begin());
        early.eager = true;
        for step in &steps {
            prop_assert_eq!(early.step(step), late.step(step), "{:?} at {:?}", step, early.now);
            same_numbers(&early, &late);
        }
        early.end();
        late.end();
        same_numbers(&early, &late);
    }
}

fn same_numbers(one: &Life, other: &Life) {
    let at = one.now.max(one.at()).max(other.at());
    for owner in owners() {
        for key in ["messages", "tokens", "documents", "time", "spare0"] {
            for window in LimitWindow::ALL {
                let taken = |life: &Life| life.taken(owner, &meter(key), window, at);
                assert_eq!(taken(one), taken(other), "{key} {window:?} of {owner:?}");
            }
        }
    }
}

fn hold(life: &mut Life, id: u128, key: &str, amount: i64) -> Result<Outcome, OpError> {
    let charges = vec![Charge { meter: meter(key), amount }];
    let hold = Some(HoldTerms { id: HoldId(id), ttl_ms: 1000, excess: Excess::Room });
    let spend = Spend { charges, consume: true, hold, ..Spend::default() };
    let tenant: &mut Tenant = &mut life.world.state.tenant;
    tenant.apply(None, &Op::Spend(spend, Cause::Hold), life.now, &life.world.catalog)
}

fn open(life: &mut Life, id: u128, key: &str) -> Result<Outcome, OpError> {
    let (key, enforce, dimensions, ran_ms, binding) = (key.into(), None, vec![], None, None);
    let open = OpenSession { id: SessionId(id), key, meter: meter("time"), enforce, dimensions, ran_ms, binding };
    let tenant: &mut Tenant = &mut life.world.state.tenant;
    tenant.apply(None, &Op::Session(SessionOp::Open(open)), life.now, &life.world.catalog)
}

/// What is held of an unlimited meter is bounded like what is used: sums of it never stop adding up.
#[test]
fn no_more_is_held_than_an_account_can_hold() {
    let mut life = Life::begin();
    life.step(&(0, Act::Plan(2)));
    let many = 1 + (i64::MAX / AMOUNT_MAX) as u128;
    let taken = (0..many).take_while(|id| hold(&mut life, *id, "tokens", AMOUNT_MAX).is_ok()).count();
    assert!((1000..many as usize).contains(&taken), "{taken} of {many} holds");
    assert_eq!(hold(&mut life, many, "tokens", AMOUNT_MAX), Err(OpError::Overflow(meter("tokens"))));
    let all = life.taken(None, &meter("tokens"), LimitWindow::Of(domain::time::WindowKind::Day), life.at());
    assert_eq!(all, AMOUNT_MAX * taken as i64);
    for id in 0..taken {
        life.world.state.tenant.in_flight.remove_hold(HoldId(id as u128));
    }
    assert!(life.tenant().in_flight.is_empty());
}

#[test]
fn so_many_holds_and_sessions_and_no_more() {
    let mut life = Life::begin();
    life.step(&(0, Act::Plan(2)));
    for id in 0..IN_FLIGHT_MAX as u128 {
        assert!(hold(&mut life, id, "tokens", 1).unwrap().decision.unwrap().allowed);
    }
    assert_eq!(hold(&mut life, u128::MAX, "tokens", 1), Err(OpError::TooManyInFlight(IN_FLIGHT_MAX)));
    // One that is settled makes room.
    life.world.state.tenant.in_flight.remove_hold(HoldId(7));
    assert!(hold(&mut life, u128::MAX, "tokens", 1).is_ok());

    let first = open(&mut life, 0, "talk 0").unwrap().session.unwrap().session;
    assert!(first.held_ms > 0);
    for number in 1..IN_FLIGHT_MAX {
        // Without what is held, or the limits on time would come first.
        let session = Session {
            id: SessionId(number as u128),
            key: format!("talk {number}").into(),
            held_ms: 0,
            ..first.clone()
        };
        life.world.state.tenant.in_flight.put_session(session);
    }
    assert_eq!(open(&mut life, u128::MAX, "another").map(|_| ()), Err(OpError::TooManyInFlight(IN_FLIGHT_MAX)));
    // One that is open goes on, also within the millisecond in which it was opened.
    let went_on = open(&mut life, u128::MAX, "talk 7").unwrap().session.unwrap();
    assert!(went_on.was_open && went_on.session.id == SessionId(7));
}

/// What a clock that does not jump measured is charged, neither more nor less, whatever the wall clock did meanwhile.
#[test]
fn a_clock_that_jumps_neither_pays_nor_steals() {
    for jump_ms in [0, 1, 10_000, 3_600_000, -3_600_000, 40 * 86_400_000] {
        let mut life = Life::begin();
        let ran = |ran_ms| Act::Touch { session: 0, ran_ms: Some(ran_ms), close: None };
        life.step(&(0, Act::NoOverrides));
        life.step(&(0, Act::Open { key: 0, user: None, ran_ms: None }));
        for _ in 0..3 {
            life.step(&(jump_ms, ran(10_000)));
        }
        let session = life.tenant().in_flight.sessions().next().unwrap();
        assert_eq!((session.accrued_ms, session.overage_ms), (30_000, 0), "{jump_ms}");
        // What ran as long as it takes to be idle was not touched in time: it ended when it was touched last.
        life.step(&(jump_ms, ran(IDLE_MS)));
        assert_eq!(life.tenant().in_flight.sessions_count(), 0);
        life.end();
    }
}

/// Under a plan that lets answers finish, so much more is charged and not a millisecond past it.
#[test]
fn a_session_finishes_within_its_time() {
    let mut life = Life::begin();
    life.step(&(0, Act::Plan(2)));
    life.step(&(0, Act::Open { key: 0, user: None, ran_ms: None }));
    let (mut accrued_ms, mut overage_ms) = (0, 0);
    for _ in 0..20 {
        life.step(&(7_000, Act::Touch { session: 0, ran_ms: None, close: None }));
        let Some(session) = life.tenant().in_flight.sessions().next() else { break };
        (accrued_ms, overage_ms) = (session.accrued_ms, session.overage_ms);
    }
    assert_eq!((accrued_ms, overage_ms), (63_000, 13_000), "50 s an hour, and then it may finish");
    let used = life.taken(None, &meter("time"), LimitWindow::Of(domain::time::WindowKind::Period), life.at());
    assert_eq!(used, 50_000 + FINISH_MS);
    life.end();
}
