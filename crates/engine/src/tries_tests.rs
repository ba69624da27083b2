use super::*;
use domain::op::OpError;
use futures_util::FutureExt;
use std::future::ready;

/// What comes of something that is done the `wanted`th time it is tried, and how often it was.
fn tried(wanted: u32) -> (Result<u32, EngineError>, u32) {
    let mut tries = 0;
    let once = || {
        tries += 1;
        ready(Ok((tries == wanted).then_some(tries)))
    };
    let done = until_done(once).now_or_never().expect("nothing waits");
    (done, tries)
}

#[test]
fn what_never_comes_to_an_end_is_given_up_and_the_caller_told_to_come_again() {
    assert_eq!(tried(1), (Ok(1), 1));
    assert_eq!(tried(TRIES_MAX), (Ok(TRIES_MAX), TRIES_MAX));
    assert_eq!(tried(u32::MAX), (Err(LedgerError::Overloaded { waiting: 0 }.into()), TRIES_MAX));
}

#[test]
fn an_error_is_told_at_once() {
    let mut tries = 0;
    let once = || {
        tries += 1;
        ready(Err::<Option<()>, _>(OpError::UnknownHold.into()))
    };
    let done = until_done(once).now_or_never().expect("nothing waits");
    assert_eq!((done, tries), (Err(OpError::UnknownHold.into()), 1));
}
