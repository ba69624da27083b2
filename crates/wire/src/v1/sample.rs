//! A small catalog for the tests of this crate.

use domain::{
    catalog::{
        Catalog, Dimension, Enforce, EventBounds, Feature, Limit, Meter, MeterKind, Mode, Outage, Plan, Price, Scope,
    },
    id::{DimensionKey, FeatureKey, MeterKey, PlanKey},
    time::WindowKind,
};
use std::{collections::BTreeMap, sync::Arc};

fn meter(key: &str, kind: MeterKind, event_type: &str, value_pointer: &str) -> (MeterKey, Arc<Meter>) {
    let key = MeterKey::trusted(key);
    let mut label = key.as_str().replace('_', " ");
    label[..1].make_ascii_uppercase();
    let meter = Meter {
        key: key.clone(),
        kind,
        label: label.into(),
        unit: if kind == MeterKind::Duration { "ms".into() } else { key.as_str().into() },
        decimals: 0,
        event_type: event_type.into(),
        value_pointer: value_pointer.into(),
        counts_requests: false,
        unsettled: Default::default(),
        session: Default::default(),
    };
    (key, Arc::new(meter))
}

pub(crate) fn limit(meter: &str, window: Option<WindowKind>, max: Option<i64>) -> Limit {
    let meter = MeterKey::trusted(meter);
    Limit {
        name: Limit::default_name(&meter, window.into(), Scope::Tenant).into(),
        meter,
        max,
        window: window.into(),
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Outage::Closed,
        quota: Default::default(),
    }
}

fn plan(key: &str, rank: i64, cents: i64, features: &[&str], limits: Vec<Limit>) -> (PlanKey, Arc<Plan>) {
    let key = PlanKey::trusted(key);
    let mut label = key.as_str().to_owned();
    label[..1].make_ascii_uppercase();
    let plan = Plan {
        key: key.clone(),
        label: label.into(),
        rank,
        price: Some(Price { amount_cents: cents, currency: "USD".into(), per: "month".into() }),
        public: true,
        features: features.iter().copied().map(FeatureKey::trusted).collect(),
        limits: limits.into_iter().collect(),
        sessions: Default::default(),
    };
    (key, Arc::new(plan))
}

/// Two plans; `messages` and `characters` read the same events.
pub(crate) fn catalog() -> Catalog {
    let analytics = Feature {
        key: FeatureKey::trusted("analytics"),
        title: "Unlock advanced analytics".into(),
        description: None,
        benefits: Vec::new(),
        preview_url: None,
        social_proof: None,
        roi_estimate: BTreeMap::new(),
    };
    Catalog {
        version: 1,
        meters: BTreeMap::from([
            meter("messages", MeterKind::Counter, "messages", "/value"),
            meter("characters", MeterKind::Counter, "messages", "/text/characters"),
            meter("conversation_time", MeterKind::Duration, "conversation_time", "/value"),
            meter("documents", MeterKind::Gauge, "documents", "/value"),
        ]),
        features: BTreeMap::from([(analytics.key.clone(), Arc::new(analytics))]),
        plans: BTreeMap::from([
            plan(
                "free",
                0,
                0,
                &[],
                vec![
                    limit("messages", Some(WindowKind::Day), Some(50)),
                    limit("conversation_time", Some(WindowKind::Period), Some(3_600_000)),
                    limit("documents", None, Some(5)),
                ],
            ),
            plan("professional", 2, 9_900, &["analytics"], vec![limit("messages", Some(WindowKind::Day), None)]),
        ]),
        default_plan: None,
        dimensions: vec![Dimension {
            key: DimensionKey::trusted("model"),
            values: vec!["small".into(), "large".into()],
            value_max_bytes: 16,
        }],
        enforce: Enforce::On,
        event_bounds: EventBounds { late_ms: 35 * 86_400_000, future_ms: 300_000 },
        upgrade_url: Some("https://app.example/upgrade?to={plan}&from={from}&feature={feature}&t={tenant}".into()),
        warn_percent: 80,
        forecast: domain::catalog::ForecastTerms::DEFAULT,
        warnings: vec![80, 100],
        costs: BTreeMap::new(),
    }
}
