#![allow(clippy::unwrap_used)]

use super::{
    super::{limit::Time, sample},
    *,
};
use domain::{
    id::PlanKey,
    op::{Op, ProfileChange, Spend},
    tenant::Tenant,
    time::Instant,
};
use engine::{ports::Commit, requests::Admission};
use serde_json::{Value, json};

fn parsed(body: &str) -> Result<(Check, Ack), Problem> {
    let request: CheckRequest<'_> = serde_json::from_str(body).unwrap();
    request.into_check(None, &sample::catalog())
}

fn refused(body: &str) -> String {
    parsed(body).unwrap_err().code.into_owned()
}

#[test]
fn meter_charges_and_features_add_up_to_one_check() {
    let (check, ack) = parsed(
        r#"{"tenant_id":"acme","user_id":"ada","meter":"messages","amount":3.0,"feature":"analytics",
            "charges":[{"meter":"documents","amount":-1},{"meter":"messages"}],"consume":true,"id":"a1","ack":"memory"}"#,
    )
    .unwrap();
    let charges: Vec<_> = check.charges.iter().map(|charge| (charge.meter.as_str(), charge.amount)).collect();
    assert_eq!(charges, [("messages", 3), ("documents", -1), ("messages", 1)]);
    assert_eq!(check.features, [FeatureKey::trusted("analytics")]);
    assert_eq!((check.tenant.as_str(), check.user.as_ref().unwrap().as_str()), ("acme", "ada"));
    assert_eq!((check.consume, ack, check.id.unwrap().id.as_ref()), (true, Ack::Memory, "a1"));
}

#[test]
fn what_has_no_meaning_is_named() {
    for (body, code) in [
        (r#"{"tenant_id":"a","meter":"nope"}"#, "unknown_meter"),
        (r#"{"tenant_id":"a","feature":"nope"}"#, "unknown_feature"),
        (r#"{"tenant_id":"a/b","meter":"messages"}"#, "invalid_body"),
        (r#"{"tenant_id":"","meter":"messages"}"#, "invalid_body"),
        (r#"{"tenant_id":"a","user_id":"","meter":"messages"}"#, "invalid_body"),
        (r#"{"tenant_id":"a","amount":2}"#, "invalid_body"),
        (r#"{"tenant_id":"a","meter":"messages","id":""}"#, "invalid_body"),
        (r#"{"tenant_id":"a","meter":"messages","hold":{"ttl":"60"}}"#, "invalid_body"),
        (r#"{"tenant_id":"a","meter":"messages","hold":{"ttl":"-60s"}}"#, "invalid_body"),
        (r#"{"tenant_id":"a","meter":"messages","hold":{"ttl":"60s","excess":"all"}}"#, "invalid_body"),
    ] {
        assert_eq!(refused(body), code, "{body}");
    }
}

#[test]
fn a_hold_implies_that_it_is_charged() {
    let (check, _) = parsed(r#"{"tenant_id":"a","meter":"messages","hold":{"ttl":"1m30s","excess":"room"}}"#).unwrap();
    assert!(check.consume);
    let hold = check.hold.unwrap();
    assert_eq!((hold.ttl_ms, hold.excess), (90_000, domain::hold::Excess::Room));
    let (check, _) = parsed(r#"{"tenant_id":"a","meter":"messages","hold":{"ttl":"60s"}}"#).unwrap();
    assert_eq!(check.hold.unwrap().excess, domain::hold::Excess::Overage);
}

#[test]
fn shapes_that_are_not_asked_for_are_refused_with_the_field_named() {
    for (body, word) in [
        (r#"{"tenant_id":"a","metre":"messages"}"#, "metre"),
        (r#"{"tenant_id":"a","tenant_id":"b"}"#, "tenant_id"),
        (r#"{"meter":"messages"}"#, "tenant_id"),
        (r#"{"tenant_id":"a","amount":5.5}"#, "5.5"),
        (r#"{"tenant_id":"a","ack":"paper"}"#, "paper"),
        (r#"{"tenant_id":"a","charges":[{"meter":"m","user":"x"}]}"#, "user"),
        (r#"{"tenant_id":"a","hold":{}}"#, "ttl"),
        (r#"{"tenant_id":"a","hold":{"ttl":60}}"#, "60"),
        (r#"{"tenant_id":"a","hold":{"ttl":"60s","keep":true}}"#, "keep"),
    ] {
        let error = serde_json::from_str::<CheckRequest<'_>>(body).unwrap_err().to_string();
        assert!(error.contains(word), "{body}: {error}");
    }
}

#[test]
fn the_bodys_id_and_the_header_are_the_same_thing() {
    let id = |body, header| op_id(body, header).map(|id| id.map(|id| id.id.to_string()));
    assert_eq!(id(None, None).unwrap(), None);
    assert_eq!(id(Some("a"), None).unwrap().as_deref(), Some("a"));
    assert_eq!(id(None, Some("a")).unwrap().as_deref(), Some("a"));
    assert_eq!(id(Some("a"), Some("a")).unwrap().as_deref(), Some("a"));
    assert_eq!(id(Some("a"), Some("b")).unwrap_err().code, "two_ids");
    assert!(id(Some("a\n"), None).is_err());
    assert!(id(Some(&"x".repeat(ID_MAX_BYTES + 1)), None).is_err());
}

/// The answer to one spend by a tenant on the free plan.
fn answer(charges: &[(&str, i64)], features: &[&str]) -> Value {
    let catalog = sample::catalog();
    let now = Instant::parse("2026-03-01T12:00:00Z").unwrap();
    let change = ProfileChange { plan: Some(PlanKey::trusted("free")), ..Default::default() };
    let (mut tenant, _) = Tenant::create(TenantId::trusted("acme"), &change, now, &catalog).unwrap().unwrap();
    let spend = Spend {
        refundable: true,
        charges: charges
            .iter()
            .map(|(meter, amount)| Charge { meter: MeterKey::trusted(meter), amount: *amount })
            .collect(),
        features: features.iter().copied().map(FeatureKey::trusted).collect(),
        ..Spend::default()
    };
    let outcome = tenant.apply(None, &Op::Spend(spend, Cause::Check), now, &catalog).unwrap();
    let admission = Admission {
        hold: None,
        tenant: TenantId::trusted("acme"),
        user: None,
        decision: outcome.decision.unwrap(),
        denial_id: None,
        repeated: false,
        outage: false,
        charged: None,
        dimensions: Vec::new(),
        leased: false,
        catalog_pin: None,
        commit: Commit::Done,
    };
    let answer = CheckAnswer::of(&admission, charges.first().copied(), &catalog);
    written(&answer)
}

/// What is written by hand, which must be what serde writes.
fn written(answer: &CheckAnswer<'_>) -> Value {
    let json = answer.to_json();
    assert_eq!(String::from_utf8(json.clone()).unwrap(), serde_json::to_string(answer).unwrap());
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn every_member_is_written_as_serde_writes_it() {
    let limit = super::super::limit::LimitShape {
        name: "a \"name\" with \\ and \n",
        meter: "messages",
        window: "day",
        scope: "user",
        mode: "soft",
        source: "override",
        max: None,
        used: i64::MAX,
        held: -1,
        remaining: None,
        resets_at: None,
        percent: None,
    };
    let answer = CheckAnswer {
        allowed: false,
        code: "period_limit_reached",
        denied_by: Some("é \u{1f}"),
        message: "\"quoted\"".into(),
        tenant_id: "acme",
        plan: "free",
        meter: None,
        amount: -5,
        limits: vec![limit.clone(), limit],
        hold_id: Some("hold".into()),
        expires_at: Some(Time(Instant::from_ms(0))),
        retry_after_s: Some(7),
        denial_id: Some("den_0".into()),
        shadow: Some(ShadowShape { code: "rate_limit_reached", denied_by: None, message: "x".into() }),
        upgrade: Some(UpgradeShape { plan: "basic", url: Some("/u?a=\"b\"".into()) }),
        outage: true,
    };
    assert_eq!(written(&answer)["limits"].as_array().unwrap().len(), 2);
}

#[test]
fn an_allowed_answer_has_every_number_and_nothing_more() {
    assert_eq!(
        answer(&[("messages", 5)], &[]),
        json!({
            "allowed": true, "code": "allowed", "message": "Allowed.", "tenant_id": "acme", "plan": "free",
            "meter": "messages", "amount": 5,
            "limits": [{
                "name": "messages_day", "meter": "messages", "window": "day", "scope": "tenant", "mode": "hard",
                "source": "plan", "max": 50, "used": 0, "held": 0, "remaining": 50,
                "resets_at": "2026-03-02T00:00:00Z", "percent": 0,
            }],
        })
    );
}

#[test]
fn a_refusal_names_the_limit_the_wait_and_the_upgrade() {
    let answer = answer(&[("messages", 1), ("documents", 6)], &[]);
    assert_eq!(answer["code"], "gauge_limit_reached");
    assert_eq!(answer["denied_by"], "documents");
    assert_eq!((&answer["meter"], &answer["amount"]), (&json!("documents"), &json!(6)));
    assert_eq!(answer["message"], "Documents: 0 of 5 in use, 6 more asked for.");
    assert_eq!(answer["upgrade"]["plan"], "professional");
    assert_eq!(answer["upgrade"]["url"], "https://app.example/upgrade?to=professional&from=free&feature=&t=acme");
    assert_eq!(answer["limits"][1]["window"], "none");
    assert_eq!(answer["limits"][1]["resets_at"], Value::Null);
    assert!(answer.get("retry_after_s").is_none());
}

#[test]
fn a_missing_feature_is_named_and_asks_for_no_amount() {
    let answer = answer(&[], &["analytics"]);
    assert_eq!((&answer["code"], &answer["denied_by"]), (&json!("feature_not_in_plan"), &json!("analytics")));
    assert_eq!((&answer["meter"], &answer["amount"]), (&Value::Null, &json!(0)));
    assert!(answer["message"].as_str().unwrap().contains("Unlock advanced analytics"));
}
