//! Goal: what a good catalog means. Method: small catalogs, loaded, and the values that come out.

#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    catalog::{Enforce, Limit, Mode, Outage, RoiValue, Scope},
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
    let limit = |name: &str, meter: &str, max, window: Option<WindowKind>| Limit {
        name: name.into(),
        meter: MeterKey::trusted(meter),
        max,
        window: window.into(),
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Outage::Closed,
        quota: Default::default(),
    };
    assert_eq!(
        free.limits.iter().cloned().collect::<Vec<_>>(),
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
    assert_eq!((catalog.warn_percent, &catalog.warnings, &catalog.default_plan), (80, &vec![80, 100], &None));
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
        let of_tenant = plan.limits.on(&key).iter().find(|limit| limit.scope == Scope::Tenant);
        of_tenant.unwrap().max
    };
    plans.iter().map(max).collect()
}

#[test]
fn the_chat_example_has_the_second_seeds_numbers() {
    let Loaded { catalog, gateway, warnings, .. } = example("chat");
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
    let Loaded { catalog, gateway, warnings, .. } = example("bakery");
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

/// Every key of every section, with values that are not the defaults.
const EVERYTHING: &str = include_str!("problem_cases/every_key.toml");

fn everything() -> Loaded {
    loaded(EVERYTHING)
}

#[test]
fn every_key_of_the_core_means_something() {
    let catalog = everything().catalog;
    assert_eq!(catalog.enforce, Enforce::Observe);
    assert_eq!(catalog.default_plan.as_ref().unwrap().as_str(), "small");
    assert!(catalog.upgrade_url.as_ref().unwrap().starts_with("https://shop"));
    assert_eq!((catalog.warn_percent, &catalog.warnings), (90, &vec![50, 90, 120]));
    assert_eq!((catalog.event_bounds.late_ms, catalog.event_bounds.future_ms), (86_400_000, 0));
    let terms = catalog.forecast;
    assert_eq!((terms.critical_days, terms.warning_days, terms.days_min), (3, 21, 10));
    let tokens = catalog.meter("tokens").unwrap();
    assert_eq!((&*tokens.label, &*tokens.unit, &*tokens.event_type), ("Tokens", "tokens", "llm.done"));
    assert_eq!(&*tokens.value_pointer, "/usage/total_tokens");
    assert!(tokens.counts_requests && !catalog.meter("calls").unwrap().counts_requests);
    assert_eq!(catalog.meter("credit").unwrap().decimals, 2);
    let export = &catalog.features["export"];
    assert_eq!((&*export.title, export.description.as_deref()), ("Export", Some("All of it")));
    assert_eq!(export.benefits.iter().map(|benefit| benefit.icon.as_deref()).collect::<Vec<_>>(), [None, Some("box")]);
    assert_eq!((export.preview_url.as_deref(), export.social_proof.as_deref()), (Some("/preview"), Some("Ours")));
    assert_eq!(export.roi_estimate["days"], RoiValue::Integer(7));
    assert_eq!(export.roi_estimate["currency"], RoiValue::Text("€".into()));
    let small = catalog.plan("small").unwrap();
    assert_eq!((&*small.label, small.rank, small.public), ("Small one", -1, false));
    let price = small.price.as_ref().unwrap();
    assert_eq!((price.amount_cents, &*price.currency, &*price.per), (990, "EUR", "year"));
    assert_eq!(
        small.limits[0],
        Limit {
            name: "mine".into(),
            meter: MeterKey::trusted("tokens"),
            max: Some(5),
            window: Some(WindowKind::Month).into(),
            scope: Scope::User,
            mode: Mode::Shadow,
            answer_402: true,
            outage: Outage::Closed,
            quota: Default::default(),
        }
    );
    let maxima: Vec<Option<i64>> = small.limits.iter().map(|limit| limit.max).collect();
    assert_eq!(maxima, [Some(5), Some(155), Some(15), Some(1 << 30)]);
    let open = |allowance| Outage::Open { allowance };
    let outages: Vec<Outage> = small.limits.iter().map(|limit| limit.outage).collect();
    assert_eq!(outages, [Outage::Closed, open(16), open(5), Outage::Closed]);
    let dimensions: Vec<(&str, usize, usize)> =
        catalog.dimensions.iter().map(|own| (own.key.as_str(), own.values.len(), own.value_max_bytes)).collect();
    let route_name_bytes = "PUT /files/{size}/a%20b/".len();
    assert_eq!(dimensions, [("model", 2, 5), ("route", 1, route_name_bytes), ("size", 1, 5)]);
}

#[test]
fn every_key_of_snapshots_means_something() {
    let rules = everything().snapshots;
    let expected = domain::cron::Cron::parse("30 1 * * 1-5").ok();
    assert_eq!((rules.schedule, rules.zone.name(), rules.keep_days), (expected, "Europe/Madrid", 90));
    let app = &rules.sources["app"];
    assert_eq!((app.kind, app.timeout_ms, app.rows_max), (SourceKind::Postgres, 5_000, 5_000));
    assert_eq!(app.url, Setting::Environment("TIDEGATE_SOURCE_APP".into()));
    assert_eq!(rules.sources["files"].url, Setting::Plain("app.db".into()));
    assert_eq!(rules.sources["cache"].url, Setting::File("secrets/redis".into()));
    let authorization = Some(Setting::Environment("TIDEGATE_SOURCE_SERVICE".into()));
    assert_eq!(rules.sources["service"].authorization, authorization);
    let stored = &rules.collectors["stored"];
    assert!(stored.knows_days() && !stored.missing_is_zero && stored.value_max == 1_000);
    let How::Keys { pattern, .. } = &rules.collectors["calls"].how else { panic!("keys") };
    assert_eq!(pattern.around("2026-03-01"), ("calls:".to_owned(), ":2026-03-01".to_owned()));
    assert!(!rules.collectors["credit"].knows_days() && rules.collectors["credit"].missing_is_zero);
    // Without the section days are closed at two in the morning.
    let rules = loaded("[meters.a]\nkind = \"counter\"\n[plans.free]\nrank = 0").snapshots;
    assert_eq!((rules.schedule.is_some(), rules.keep_days, rules.collectors.len()), (true, 400, 0));
    assert!(loaded("[snapshots]\nschedule = \"off\"\n[plans.free]\nrank = 0").snapshots.schedule.is_none());
}

#[test]
fn every_key_of_the_gateway_means_something() {
    let gateway = everything().gateway;
    assert_eq!((gateway.default_upstream.as_deref(), gateway.unmatched), (Some("second"), Unmatched::Refuse));
    let second = &gateway.upstreams["second"];
    assert_eq!(second.url, "https://[::1]:8443/base");
    assert_eq!((second.connect_timeout_ms, second.response_timeout_ms), (250, Some(120_000)));
    assert_eq!(second.ca_file.as_deref(), Some("certificates/authority.pem"));
    let first = &gateway.upstreams["first"];
    assert_eq!((first.connect_timeout_ms, first.response_timeout_ms), (5000, None));
    let put = gateway.routes.iter().find(|route| !route.public).unwrap();
    assert_eq!((&*put.name, put.method.as_ref()), ("PUT /files/{size}/a%20b/", Some(&Method::PUT)));
    let segments = [Segment::Literal("files".into()), Segment::Capture("size".into()), Segment::Literal("a b".into())];
    assert_eq!(put.pattern, segments);
    assert_eq!(put.upstream.as_deref(), Some("first"));
    let amounts: Vec<AmountSource> = put.charges.iter().map(|charge| charge.amount.clone()).collect();
    let header =
        |name: &'static str, default| AmountSource::Header { name: http::HeaderName::from_static(name), default };
    assert_eq!(
        amounts,
        [
            header("x-tokens", Some(3)),
            header("x-more", None),
            AmountSource::RequestBytes,
            AmountSource::ResponseBytes,
            AmountSource::Constant(-1),
            AmountSource::Constant(1),
        ]
    );
    assert_eq!((put.charge_when, put.commit_first, put.enforce), (ChargeWhen::Success, true, Some(Enforce::On)));
    let dimensions: Vec<(&str, &ValueSource)> = put.dimensions.iter().map(|(key, from)| (key.as_str(), from)).collect();
    assert_eq!(
        dimensions,
        [
            ("model", &ValueSource::Header(http::HeaderName::from_static("x-model"))),
            ("route", &ValueSource::RouteName),
            ("size", &ValueSource::Capture("size".into())),
        ]
    );
    let open = gateway.routes.iter().find(|route| route.public).unwrap();
    assert_eq!((&*open.name, &open.method, open.dimensions.len()), ("open", &None, 0));
    let [
        IdentitySource::Jwt(jwt),
        IdentitySource::TrustedHeader { tenant, user, from },
        IdentitySource::ApiKey { header },
    ] = gateway.identity.as_slice()
    else {
        panic!("{:?}", gateway.identity);
    };
    assert_eq!((&*jwt.issuer, jwt.audience.len(), &*jwt.algorithms[0], jwt.leeway_s), ("me", 2, "ES256", 30));
    assert_eq!(jwt.keys, JwtKeys::PublicKeyFile("keys/public.pem".into()));
    assert_eq!((&*jwt.tenant_claim, jwt.user_claim.as_deref()), ("/org/id", Some("/sub")));
    assert_eq!((tenant.as_str(), user.as_ref().unwrap().as_str(), from.len()), ("x-tenant", "x-user", 3));
    assert!(from[1].contains("::1".parse().unwrap()) && !from[1].contains("::2".parse().unwrap()));
    assert_eq!(header.as_ref().unwrap().as_str(), "x-api-key");
}

#[test]
fn dimensions_keep_only_what_is_declared() {
    let catalog = everything().catalog;
    let pairs = [("size", "x"), ("model", "gpt-99"), ("secret", "s"), ("size", "y"), ("route", "open")];
    let kept = bounded(&catalog, pairs.into_iter());
    let kept: Vec<(&str, &str)> = kept.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
    assert_eq!(kept, [("model", "other"), ("route", "other"), ("size", "x")]);
}

#[test]
fn the_smallest_catalog_is_one_plan() {
    let loaded = loaded("[plans.free]\nrank = 0\n");
    assert_eq!(loaded.catalog.plans.len(), 1);
    assert_eq!(loaded.gateway.default_upstream, None);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}
