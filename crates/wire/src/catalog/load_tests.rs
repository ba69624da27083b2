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
