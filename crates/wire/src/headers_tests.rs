#![allow(clippy::unwrap_used)]

use super::*;
use crate::v1::sample;
use domain::{
    catalog::{Limit, Meter, Source},
    decision::{Code, Denial},
    id::{MeterKey, PlanKey},
    time::WindowKind,
};
use std::sync::Arc;

/// The sample catalog, with `messages` counting requests.
fn catalog() -> Catalog {
    let mut catalog = sample::catalog();
    let messages = catalog.meters.get_mut("messages").unwrap();
    *messages = Arc::new(Meter { counts_requests: true, ..messages.as_ref().clone() });
    catalog
}

fn at(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

fn state(meter: &str, window: Option<WindowKind>, max: Option<i64>, used: i64, resets_at: &str) -> LimitState {
    let limit = Arc::new(sample::limit(meter, window, max));
    LimitState { limit, source: Source::Plan, used, held: 0, granted: 0, set_aside: 0, resets_at: Some(at(resets_at)) }
}

fn decision(limits: Vec<LimitState>, denial: Option<Denial>) -> Decision {
    let allowed = denial.is_none();
    let at = at("2026-03-01T12:00:00.500Z");
    Decision {
        allowed,
        plan: PlanKey::trusted("free"),
        denial: denial.map(Box::new),
        shadow: None,
        limits,
        charged: allowed,
        at,
    }
}

fn shown(value: &Option<HeaderValue>) -> &str {
    value.as_ref().map_or("", |value| value.to_str().unwrap())
}

#[test]
fn hard_limits_on_request_meters_are_advertised_and_nothing_else() {
    let mut soft = state("messages", Some(WindowKind::Hour), Some(9), 3, "2026-03-01T13:00:00Z");
    soft.limit = Arc::new(Limit { mode: Mode::Soft, ..Limit::clone(&soft.limit) });
    let fields = rate_limit(
        &decision(
            vec![
                state("messages", Some(WindowKind::Minute), Some(100), 58, "2026-03-01T12:01:00Z"),
                state("messages", Some(WindowKind::Period), Some(36_000), 36_500, "2026-03-02T12:00:00Z"),
                state("messages", Some(WindowKind::Month), None, 1, "2026-04-01T00:00:00Z"),
                state("conversation_time", Some(WindowKind::Day), Some(60_000), 1, "2026-03-02T00:00:00Z"),
                state("documents", None, Some(5), 1, "2026-03-02T00:00:00Z"),
                soft,
            ],
            None,
        ),
        &catalog(),
    );
    assert_eq!(shown(&fields.remaining), r#""messages_minute";r=42;t=60, "messages_period";r=0;t=86400"#);
    assert_eq!(shown(&fields.policy), r#""messages_minute";q=100;w=60, "messages_period";q=36000"#);
}

#[test]
fn a_decision_without_request_meters_advertises_nothing() {
    let limits = vec![state("conversation_time", Some(WindowKind::Day), Some(60_000), 1, "2026-03-02T00:00:00Z")];
    assert_eq!(rate_limit(&decision(limits, None), &catalog()), RateLimitFields::default());
}

#[test]
fn no_reset_is_advertised_beyond_retry_after() {
    let denial = Denial {
        code: Code::RateLimitReached,
        limit: Some(0),
        feature: None,
        meter: Some(MeterKey::trusted("messages")),
        amount: 1,
        waiting_helps: true,
        retry_at: Some(at("2026-03-01T12:01:00Z")),
        upgrade: None,
    };
    let limits = vec![
        state("messages", Some(WindowKind::Minute), Some(10), 10, "2026-03-01T12:01:00Z"),
        state("messages", Some(WindowKind::Day), Some(500), 10, "2026-03-02T00:00:00Z"),
    ];
    let refused = decision(limits, Some(denial));
    let fields = rate_limit(&refused, &catalog());
    assert_eq!(refused.retry_after_s(), Some(60));
    assert_eq!(shown(&fields.remaining), r#""messages_minute";r=0;t=60"#);
    assert_eq!(shown(&fields.policy), r#""messages_minute";q=10;w=60, "messages_day";q=500"#);
}

#[test]
fn warnings_name_each_limit_and_its_percentage() {
    let limits = vec![
        state("messages", Some(WindowKind::Day), Some(100), 79, "2026-03-02T00:00:00Z"),
        state("conversation_time", Some(WindowKind::Day), Some(100), 80, "2026-03-02T00:00:00Z"),
        state("documents", None, Some(5), 7, "2026-03-02T00:00:00Z"),
    ];
    let nearly = decision(limits, None);
    assert_eq!(shown(&warning(&nearly, 80)), r#""conversation_time_day";percent=80, "documents";percent=140"#);
    assert_eq!(warning(&decision(vec![], None), 80), None);
}

#[test]
fn seconds_are_rounded_up() {
    let from = at("2026-03-01T12:00:00.500Z");
    assert_eq!(seconds_until(from, at("2026-03-01T12:01:00Z")), 60);
    assert_eq!(seconds_until(from, from), 1);
}
