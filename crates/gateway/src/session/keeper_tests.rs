use super::*;
use domain::{id::MeterKey, session::Session, time::Instant};

fn state(held_ms: i64, may_run_ms: Option<i64>) -> SessionState {
    let session = Session {
        id: SessionId(1),
        key: "chat".into(),
        meter: MeterKey::trusted("time"),
        user: None,
        opened_at: Instant::EPOCH,
        touched_at: Instant::EPOCH,
        idle_timeout_ms: 300_000,
        accrued_ms: 0,
        overage_ms: 0,
        held_ms,
        windows: Default::default(),
        is_finishing: false,
        dimensions: vec![],
    };
    SessionState { session, ended: None, was_open: false, may_run_ms, limited_by: None }
}

#[test]
fn a_session_is_touched_before_what_is_held_has_run() {
    let policy = SessionPolicy::default();
    assert_eq!(next_touch_ms(&state(60_000, None), &policy, false), 54_000);
    assert_eq!(next_touch_ms(&state(60_000, Some(100_000)), &policy, false), 54_000);
    // The last slice runs to its end.
    assert_eq!(next_touch_ms(&state(60_000, Some(60_000)), &policy, false), 60_000);
    assert_eq!(next_touch_ms(&state(7, Some(7)), &policy, false), 7);
    // But not when it would seem to be idle.
    assert_eq!(next_touch_ms(&state(300_000, Some(300_000)), &policy, false), 270_000);
}

#[test]
fn a_warning_comes_in_time_and_once() {
    let policy = SessionPolicy { warn_before_ms: Some(20_000), ..SessionPolicy::default() };
    assert_eq!(next_touch_ms(&state(60_000, Some(60_000)), &policy, false), 40_000);
    assert_eq!(next_touch_ms(&state(60_000, Some(60_000)), &policy, true), 60_000);
    assert!(is_to_be_warned(&state(20_000, Some(20_000)), &policy));
    assert!(!is_to_be_warned(&state(20_000, Some(20_001)), &policy));
    assert!(!is_to_be_warned(&state(20_000, None), &policy));
    let mut finishing = state(0, Some(5_000));
    finishing.session.is_finishing = true;
    assert!(!is_to_be_warned(&finishing, &policy));
    assert_eq!(next_touch_ms(&finishing, &policy, false), 5_000, "what may only finish is looked at when it must end");
}
