#![allow(clippy::unwrap_used)]

use super::*;
use crate::v1::sample;
use domain::{
    catalog::{Limit, Scope},
    entry::{Cause, Status},
    id::{FeatureKey, MeterKey, PlanKey, TenantId},
    op::{Charge, Op, ProfileChange, Spend},
    session::{OpenSession, SessionId, SessionOp},
    tenant::Tenant,
    time::{Instant, WindowKind},
};
use engine::ports::Commit;
use serde_json::Value;

/// The sample catalog with a minute's rate, an upgrade text with everything in it, and one limit answered with 402.
fn catalog() -> Catalog {
    let mut catalog = sample::catalog();
    let free = catalog.plans.get_mut("free").unwrap();
    let mut plan = free.as_ref().clone();
    let known = plan.limits.iter().cloned().chain([sample::limit("messages", Some(WindowKind::Minute), Some(10))]);
    let answer_402 = |limit: &Limit| limit.meter.as_str() == "conversation_time";
    plan.limits = known.map(|limit| Limit { answer_402: answer_402(&limit), ..limit }).collect();
    *free = Arc::new(plan);
    let analytics = catalog.features.get_mut("analytics").unwrap();
    *analytics = Arc::new(Feature {
        description: Some("Longer horizons.".into()),
        benefits: vec![Benefit { text: "90 days ahead".into(), icon: Some("calendar".into()) }],
        preview_url: Some("https://app.example/preview/{feature}?plan={plan}".into()),
        social_proof: Some("Used by half of our customers.".into()),
        roi_estimate: BTreeMap::from([
            ("monthly_savings_min".into(), RoiValue::Integer(800)),
            ("currency".into(), RoiValue::Text("€".into())),
        ]),
        ..analytics.as_ref().clone()
    });
    catalog
}

/// What a tenant on the free plan is answered for one spend. `before` is spent first.
fn answered(
    catalog: &Catalog,
    before: &[(&str, i64)],
    charges: &[(&str, i64)],
    features: &[&str],
    status: Status,
) -> Response<Vec<u8>> {
    let now = Instant::parse("2026-03-01T12:00:30Z").unwrap();
    let change = ProfileChange { plan: Some(PlanKey::trusted("free")), status: Some(status), ..Default::default() };
    let (mut tenant, _) = Tenant::create(TenantId::trusted("acme"), &change, now, catalog).unwrap().unwrap();
    let mut spend = |charges: &[(&str, i64)], features: &[&str]| {
        let charge = |(meter, amount): &(&str, i64)| Charge { meter: MeterKey::trusted(meter), amount: *amount };
        let spend = Spend {
            charges: charges.iter().map(charge).collect(),
            features: features.iter().copied().map(FeatureKey::trusted).collect(),
            consume: true,
            ..Spend::default()
        };
        tenant.apply(None, &Op::Spend(spend, Cause::Gateway), now, catalog).unwrap()
    };
    if !before.is_empty() {
        assert!(spend(before, &[]).decision.unwrap().allowed);
    }
    let outcome = spend(charges, features);
    let admission = Admission {
        hold: None,
        tenant: TenantId::trusted("acme"),
        user: None,
        decision: outcome.decision.unwrap(),
        denial_id: Some(engine::ports::DenialId(7)),
        repeated: false,
        outage: false,
        charged: None,
        dimensions: Vec::new(),
        leased: false,
        catalog_pin: None,
        commit: Commit::Done,
    };
    let response = response(&admission, charges.first().copied(), catalog).unwrap();
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    let check = CheckAnswer::of(&admission, charges.first().copied(), catalog).to_json();
    assert_eq!(body["decision"], serde_json::from_slice::<Value>(&check).unwrap());
    response
}

fn shown(response: &Response<Vec<u8>>) -> String {
    let mut text = format!("{}\n", response.status());
    for (name, value) in response.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    text.push_str(&serde_json::to_string_pretty(&body).unwrap());
    text
}

#[test]
fn a_missing_feature_is_answered_in_the_first_seeds_shape() {
    insta::assert_snapshot!(shown(&answered(&catalog(), &[], &[], &["analytics"], Status::Active)));
}

#[test]
fn nothing_is_invented_where_the_catalog_says_nothing() {
    let mut catalog = sample::catalog();
    catalog.upgrade_url = None;
    let response = answered(&catalog, &[], &[], &["analytics"], Status::Active);
    let details = &serde_json::from_slice::<Value>(response.body()).unwrap()["details"];
    for absent in ["roi_estimate", "social_proof"] {
        assert!(details.get(absent).is_none(), "{absent}");
    }
    for null in ["description", "preview_url", "upgrade_url"] {
        assert_eq!(details[null], Value::Null, "{null}");
    }
    assert_eq!(details["benefits"], serde_json::json!([]));
}

#[test]
fn a_used_up_day_is_answered_in_the_second_seeds_shape() {
    let mut catalog = catalog();
    let free = catalog.plans.get_mut("free").unwrap();
    let mut plan = free.as_ref().clone();
    plan.limits = plan.limits.iter().filter(|limit| limit.window.kind() != Some(WindowKind::Minute)).cloned().collect();
    *free = Arc::new(plan);
    let response = answered(&catalog, &[("messages", 50)], &[("messages", 1)], &[], Status::Active);
    insta::assert_snapshot!(shown(&response));
}

#[test]
fn a_short_wait_may_be_sat_out() {
    let response = answered(&catalog(), &[("messages", 10)], &[("messages", 1)], &[], Status::Active);
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "30");
    assert!(!response.headers().contains_key("x-should-retry"));
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!((&body["code"], &body["error_type"]), (&"rate_limit_reached".into(), &"rate_limit_exceeded".into()));
}

#[test]
fn a_limit_may_ask_for_402() {
    let spent = [("conversation_time", 3_600_000)];
    let response = answered(&catalog(), &spent, &[("conversation_time", 1)], &[], Status::Active);
    assert_eq!(response.status(), 402);
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!((&body["details"]["used"], &body["details"]["limit"]), (&"1h 0m".into(), &"1h 0m".into()));
}

/// What a tenant is answered that opens one session, lets it run for so long, touching it by the minute, and then opens
/// one under this key.
fn session_answered(catalog: &Catalog, ran_ms: i64, key: &str) -> Response<Vec<u8>> {
    let now = Instant::parse("2026-03-01T12:00:30Z").unwrap();
    let change = ProfileChange { plan: Some(PlanKey::trusted("free")), ..Default::default() };
    let (mut tenant, _) = Tenant::create(TenantId::trusted("acme"), &change, now, catalog).unwrap().unwrap();
    let mut open = |key: &str, at: Instant| {
        let open = OpenSession {
            id: SessionId(at.ms() as u128),
            key: key.into(),
            meter: MeterKey::trusted("conversation_time"),
            enforce: None,
            dimensions: Vec::new(),
            ran_ms: None,
            binding: None,
        };
        tenant.apply(None, &Op::Session(SessionOp::Open(open)), at, catalog).unwrap()
    };
    for minute in 0..=ran_ms / 60_000 - 1 {
        assert!(open("conversation-1", now.plus_ms(minute * 60_000)).decision.unwrap().allowed);
    }
    let admission = Admission {
        hold: None,
        tenant: TenantId::trusted("acme"),
        user: None,
        decision: open(key, now.plus_ms(ran_ms)).decision.unwrap(),
        denial_id: Some(engine::ports::DenialId(7)),
        repeated: false,
        outage: false,
        charged: None,
        dimensions: Vec::new(),
        leased: false,
        catalog_pin: None,
        commit: Commit::Done,
    };
    session_response(&admission, Some(("conversation_time", 60_000)), Some(key), catalog).unwrap()
}

/// With limits on sessions as well.
fn with_sessions() -> Catalog {
    let mut catalog = sample::catalog();
    let free = catalog.plans.get_mut("free").unwrap();
    let mut plan = free.as_ref().clone();
    let of = |window: LimitWindow, max: i64| Limit {
        name: Limit::default_name(&MeterKey::trusted("conversation_time"), window, Scope::Tenant).into(),
        window,
        ..sample::limit("conversation_time", None, Some(max))
    };
    let more = [of(LimitWindow::Session, 1_800_000), of(LimitWindow::Concurrent, 1)];
    plan.limits = plan.limits.iter().cloned().chain(more).collect();
    *free = Arc::new(plan);
    catalog
}

#[test]
fn a_session_as_long_as_it_may_be_is_answered_in_the_second_seeds_shape() {
    insta::assert_snapshot!(shown(&session_answered(&with_sessions(), 1_800_000, "conversation-1")));
}

#[test]
fn as_many_sessions_as_there_may_be_are_counted_and_have_a_code_of_their_own() {
    insta::assert_snapshot!(shown(&session_answered(&with_sessions(), 60_000, "conversation-2")));
}

#[test]
fn more_than_the_whole_limit_is_answered_with_402_and_no_wait() {
    let response = answered(&catalog(), &[], &[("messages", 51)], &[], Status::Active);
    assert_eq!(response.status(), 402);
    assert!(!response.headers().contains_key("retry-after"));
}

#[test]
fn a_full_gauge_is_answered_with_402() {
    insta::assert_snapshot!(shown(&answered(
        &catalog(),
        &[("documents", 5)],
        &[("documents", 1)],
        &[],
        Status::Active
    )));
}

#[test]
fn a_suspended_tenant_is_answered_with_402() {
    insta::assert_snapshot!(shown(&answered(&catalog(), &[], &[("messages", 1)], &[], Status::Suspended)));
}
