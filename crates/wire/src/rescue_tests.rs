#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    catalog::{Limit, Mode, Scope, Source},
    id::MeterKey,
    time::{Instant, WindowKind},
};

fn denial(code: Code, waiting_helps: bool) -> Denial {
    Denial { code, limit: Some(0), feature: None, meter: None, amount: 1, waiting_helps, retry_at: None, upgrade: None }
}

fn limit(answer_402: bool) -> LimitState {
    let limit = Limit {
        name: "messages_day".into(),
        meter: MeterKey::trusted("messages"),
        window: Some(WindowKind::Day).into(),
        scope: Scope::Tenant,
        mode: Mode::Hard,
        max: Some(1),
        answer_402,
        outage: Default::default(),
        quota: Default::default(),
    };
    LimitState {
        limit: limit.into(),
        source: Source::Plan,
        used: 1,
        held: 0,
        granted: 0,
        set_aside: 0,
        resets_at: Some(Instant::EPOCH),
    }
}

#[test]
fn every_code_has_a_status_and_its_own_word() {
    for code in Code::ALL {
        match kind_of_code(code) {
            None => assert_eq!(code, Code::Allowed),
            Some(kind) => assert_eq!(kind.code, code.word()),
        }
    }
}

#[test]
fn kinds_are_told_apart_by_their_code() {
    for (index, kind) in ALL_KINDS.iter().enumerate() {
        assert!((400..600).contains(&kind.status), "{kind:?}");
        assert!(ALL_KINDS[..index].iter().all(|other| other.code != kind.code), "{kind:?}");
    }
}

#[test]
fn waiting_answers_429_and_paying_answers_402() {
    let limit_429 = limit(false);
    let limit_402 = limit(true);
    for (code, waiting_helps, limit, status) in [
        (Code::PeriodLimitReached, true, &limit_429, 429),
        (Code::PeriodLimitReached, true, &limit_402, 402),
        (Code::PeriodLimitReached, false, &limit_429, 402),
        (Code::RateLimitReached, true, &limit_429, 429),
        (Code::RateLimitReached, false, &limit_429, 402),
        (Code::GaugeLimitReached, false, &limit_429, 402),
        (Code::SessionLimitReached, true, &limit_429, 429),
        (Code::ConcurrencyLimitReached, true, &limit_429, 429),
        (Code::FeatureNotInPlan, false, &limit_429, 402),
        (Code::TenantSuspended, false, &limit_429, 402),
    ] {
        assert_eq!(denial_status(&denial(code, waiting_helps), Some(limit)), status, "{code:?} {waiting_helps}");
    }
}

#[test]
fn a_failing_ledger_says_when_to_try_again_and_nothing_about_itself() {
    let full = problem_of(&LedgerError::Overloaded { waiting: 9 }.into());
    assert_eq!((full.status, &*full.code, full.retry_after_s), (503, "overloaded", Some(1)));
    let broken = problem_of(&LedgerError::Unwritable("disk full at /var/secret".into()).into());
    assert_eq!((broken.status, &*broken.code, broken.retry_after_s), (503, "ledger_unavailable", Some(5)));
    assert!(!broken.detail.contains("/var"), "{}", broken.detail);
}

#[test]
fn operations_without_meaning_are_sentences() {
    let problem = problem_of(&OpError::NegativeAmount(MeterKey::trusted("messages")).into());
    assert_eq!((problem.status, &*problem.code), (422, "negative_amount"));
    assert_eq!(problem.detail, "Messages only adds up: its amount must not be negative.");
}
