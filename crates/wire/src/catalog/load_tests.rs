//! Goal: what a good catalog means. Method: small catalogs, loaded, and the values that come out.

#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    catalog::{Enforce, Limit, Mode, Outage, Scope},
    time::WindowKind,
};
use http::Method;

fn loaded(text: &str) -> Loaded {
    match load(text, "tidegate.toml") {
        Ok(loaded) => loaded,
        Err(problems) => {
            panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
        }
    }
}

/// The catalog of the design's §9, word for word.
const DESIGN: &str = r#"
[meters.messages]
kind = "counter"
label = "Messages"
[meters.documents]
kind = "gauge"
[meters.conversation_time]
kind = "duration"
[features.analytics]
title = "Unlock advanced analytics"
[plans.free]
rank = 0
price = { amount = 0, currency = "USD", per = "month" }
limits = [{ meter = "messages", max = 50, per = "day" }, { meter = "conversation_time", max = "60m", per = "period" }, { meter = "documents", max = 5 }]
[plans.professional]
rank = 2
price = { amount = 99, currency = "USD", per = "month" }
features = ["analytics"]
limits = [{ meter = "messages", max = "unlimited" }, { meter = "messages", max = 500, per = "day", scope = "user", mode = "soft" }]
[[routes]]
match = "POST /v1/chat/completions"
charge = [{ meter = "messages" }]
[[routes]]
match = "GET /tenants/{tenant}/analytics/*"
feature = "analytics"
"#;

#[test]
fn the_designs_catalog_loads() {
    let Loaded { catalog, gateway, .. } = loaded(DESIGN);
    let free = catalog.plan("free").unwrap();
    let limit = |name: &str, meter: &str, max, window| Limit {
        name: name.into(),
        meter: MeterKey::trusted(meter),
        max,
        window,
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Outage::Closed,
    };
    assert_eq!(
        free.limits,
        [
            limit("messages_day", "messages", Some(50), Some(WindowKind::Day)),
            limit("conversation_time_period", "conversation_time", Some(3_600_000), Some(WindowKind::Period)),
            limit("documents", "documents", Some(5), None),
        ]
    );
    let professional = catalog.plan("professional").unwrap();
    let price = professional.price.as_ref().unwrap();
    assert_eq!((price.amount_cents, &*price.currency, &*price.per), (9900, "USD", "month"));
    assert_eq!(professional.label.as_ref(), "Professional");
    assert_eq!(professional.limits[0], limit("messages_period", "messages", None, Some(WindowKind::Period)));
    assert_eq!(
        professional.limits[1],
        Limit {
            scope: Scope::User,
            mode: Mode::Soft,
            ..limit("messages_day_user", "messages", Some(500), Some(WindowKind::Day))
        }
    );
    assert_eq!(catalog.enforce, Enforce::On);
    assert_eq!((catalog.warn_percent, &catalog.default_plan), (80, &None));
    assert_eq!((catalog.event_bounds.late_ms, catalog.event_bounds.future_ms), (604_800_000, 300_000));
    let messages = catalog.meter("messages").unwrap();
    assert_eq!((&*messages.unit, &*messages.event_type, &*messages.value_pointer), ("messages", "messages", "/value"));
    assert!(messages.counts_requests);
    assert!(!catalog.meter("documents").unwrap().counts_requests);
    assert_eq!(catalog.meter("conversation_time").unwrap().unit.as_ref(), "ms");
    let names: Vec<&str> = gateway.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["POST /v1/chat/completions", "GET /tenants/{tenant}/analytics/*"]);
    let analytics = &gateway.routes[1];
    assert_eq!(analytics.method, Some(Method::GET));
    assert_eq!(
        analytics.pattern,
        [Segment::Literal("tenants".into()), Segment::Tenant, Segment::Literal("analytics".into()), Segment::Rest]
    );
    assert_eq!(analytics.features.len(), 1);
    assert_eq!(gateway.unmatched, Unmatched::Forward);
}

#[test]
fn the_starter_loads_without_problems_or_warnings() {
    let loaded = loaded(&starter("https://app.example.com:8443/base"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.catalog.enforce, Enforce::Observe);
    assert_eq!(loaded.gateway.upstreams["app"].url, "https://app.example.com:8443/base");
    assert_eq!(loaded.gateway.default_upstream.as_deref(), Some("app"));
    assert_eq!(loaded.gateway.identity, [IdentitySource::ApiKey { header: None }]);
    assert_eq!(loaded.catalog.plans.len(), 2);
}

fn example(name: &str) -> Loaded {
    let path = format!("{}/../../examples/{name}/tidegate.toml", env!("CARGO_MANIFEST_DIR"));
    loaded(&std::fs::read_to_string(path).unwrap())
}

/// `plan -> max` of one meter, with the window of the first plan that bounds it.
fn maxima(catalog: &Catalog, meter: &str, plans: &[&str]) -> Vec<Option<i64>> {
    let max = |plan: &&str| {
        let key = MeterKey::trusted(meter);
        let plan = catalog.plan(plan).unwrap();
        let of_tenant = plan.limits_on(&key).find(|limit| limit.scope == Scope::Tenant);
        of_tenant.unwrap().max
    };
    plans.iter().map(max).collect()
}

#[test]
fn the_chat_example_has_the_second_seeds_numbers() {
    let Loaded { catalog, gateway, warnings } = example("chat");
    assert_eq!(warnings, Vec::<String>::new());
    let plans = ["free", "basic", "professional", "enterprise"];
    let minutes = |minutes: i64| Some(minutes * 60_000);
    for (meter, expected) in [
        ("conversation_time", [minutes(60), minutes(300), minutes(1200), None]),
        ("users", [Some(1), Some(3), Some(10), None]),
        ("pages", [Some(50), Some(500), Some(2000), None]),
        ("documents", [Some(5), Some(50), Some(200), None]),
        ("spreadsheets", [Some(0), Some(10), Some(20), None]),
        ("web_scraping_single_page", [Some(0), Some(50), Some(200), None]),
        ("web_scraping_multipage", [Some(0), Some(0), Some(10), Some(50)]),
        ("reports", [Some(0), Some(0), Some(5), Some(20)]),
        ("multimodal_images", [Some(0), Some(100), Some(500), None]),
    ] {
        assert_eq!(maxima(&catalog, meter, &plans), expected, "{meter}");
    }
    let prices = plans.map(|plan| catalog.plan(plan).unwrap().price.as_ref().unwrap().amount_cents);
    assert_eq!(prices, [0, 2900, 9900, 49_900]);
    let has = |feature: &str| {
        plans.map(|plan| catalog.plan(plan).unwrap().features.iter().any(|own| own.as_str() == feature))
    };
    assert_eq!(has("api_access"), [false, false, true, true]);
    assert_eq!(has("sla_support"), [false, false, false, true]);
    assert_eq!(has("priority_support"), [false, false, false, true]);
    assert!(gateway.routes.iter().any(|route| &*route.name == "chat" && route.method == Some(Method::POST)));
    assert!(catalog.meter("messages").unwrap().counts_requests);
}

#[test]
fn the_bakery_example_has_nine_meters_and_guards_analytics() {
    let Loaded { catalog, gateway, warnings } = example("bakery");
    assert_eq!(warnings, Vec::<String>::new());
    let meters: Vec<&str> = catalog.meters.keys().map(MeterKey::as_str).collect();
    let expected = [
        "api_calls",
        "file_storage",
        "forecasts",
        "locations",
        "products",
        "recipes",
        "suppliers",
        "training_jobs",
        "users",
    ];
    assert_eq!(meters, expected);
    assert_eq!(maxima(&catalog, "products", &["starter", "professional", "enterprise"]), [Some(50), Some(500), None]);
    let analytics = &catalog.features["analytics"];
    assert_eq!(analytics.benefits[0].text.as_ref(), "90-day forecast horizon (vs 7 days)");
    assert!(analytics.social_proof.is_none() && analytics.roi_estimate.is_empty(), "no claim is shipped");
    let names: Vec<&str> = gateway.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names.last(), Some(&"everything-else"), "the catch-all comes last: {names:?}");
    let route = gateway.routes.iter().find(|route| &*route.name == "analytics").unwrap();
    assert_eq!(route.features[0].as_str(), "analytics");
    let values = &catalog.dimensions[0].values;
    assert_eq!(values.len(), gateway.routes.len());
}
