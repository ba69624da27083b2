//! Catalogs without a file.

use domain::{
    catalog::{
        Catalog, Enforce, EventBounds, Feature, Limit, LimitWindow, Meter, MeterKind, Mode, OnLimit, Plan, Scope,
        Unsettled,
    },
    id::{FeatureKey, MeterKey, PlanKey},
    time::{DAY_MS, WindowKind},
};
use std::{collections::BTreeMap, sync::Arc};

/// A meter's name.
pub fn meter(key: &str) -> MeterKey {
    MeterKey::new(key).expect("a meter's key")
}

/// A plan's name.
pub fn plan(key: &str) -> PlanKey {
    PlanKey::new(key).expect("a plan's key")
}

/// A feature's name.
pub fn feature(key: &str) -> FeatureKey {
    FeatureKey::new(key).expect("a feature's key")
}

/// A hard limit on a tenant.
pub fn limit(key: &str, window: impl Into<Option<WindowKind>>, max: i64) -> Limit {
    let (key, window) = (meter(key), LimitWindow::from(window.into()));
    Limit {
        name: Limit::default_name(&key, window, Scope::Tenant).into(),
        meter: key,
        max: Some(max),
        window,
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Default::default(),
        quota: Default::default(),
    }
}

/// The same limit, on each user.
pub fn each_user(limit: Limit) -> Limit {
    let name = Limit::default_name(&limit.meter, limit.window, Scope::User).into();
    Limit { name, scope: Scope::User, ..limit }
}

/// The same limit, in another mode.
pub fn in_mode(limit: Limit, mode: Mode) -> Limit {
    Limit { mode, ..limit }
}

/// A catalog on its way.
pub struct Draft(Catalog);

impl Default for Draft {
    fn default() -> Self {
        Self(Catalog {
            version: 0,
            meters: BTreeMap::new(),
            features: BTreeMap::new(),
            plans: BTreeMap::new(),
            default_plan: None,
            dimensions: Vec::new(),
            enforce: Enforce::On,
            event_bounds: EventBounds { late_ms: 35 * DAY_MS, future_ms: 300_000 },
            upgrade_url: None,
            warn_percent: 80,
            forecast: domain::catalog::ForecastTerms::DEFAULT,
            warnings: vec![80, 100],
            costs: BTreeMap::new(),
        })
    }
}

impl Draft {
    /// With one more meter.
    #[must_use]
    pub fn meter(mut self, key: &str, kind: MeterKind) -> Self {
        let made = Meter {
            key: meter(key),
            kind,
            label: key.into(),
            unit: "".into(),
            decimals: 0,
            event_type: key.into(),
            value_pointer: "/value".into(),
            counts_requests: kind == MeterKind::Counter,
            unsettled: Default::default(),
            session: Default::default(),
        };
        self.0.meters.insert(meter(key), Arc::new(made));
        self
    }

    /// With holds on a meter charged if nobody settles them.
    #[must_use]
    pub fn charged_unsettled(mut self, key: &str) -> Self {
        if let Some(known) = self.0.meters.get_mut(&meter(key)) {
            *known = Arc::new(Meter { unsettled: Unsettled::Charge, ..Meter::clone(known) });
        }
        self
    }

    /// With sessions under a plan that may run so much longer when their time is used up, milliseconds.
    #[must_use]
    pub fn finishing(mut self, key: &str, max_ms: i64) -> Self {
        if let Some(known) = self.0.plans.get_mut(&plan(key)) {
            let mut finishing = Plan::clone(known);
            finishing.sessions.on_limit = OnLimit::Finish { max_ms };
            *known = Arc::new(finishing);
        }
        self
    }

    /// With one more feature.
    #[must_use]
    pub fn feature(mut self, key: &str) -> Self {
        let made = Feature {
            key: feature(key),
            title: key.into(),
            description: None,
            benefits: Vec::new(),
            preview_url: None,
            social_proof: None,
            roi_estimate: BTreeMap::new(),
        };
        self.0.features.insert(feature(key), Arc::new(made));
        self
    }

    /// With one more plan, of the rank after the last.
    #[must_use]
    pub fn plan(mut self, key: &str, features: &[&str], limits: Vec<Limit>) -> Self {
        let made = Plan {
            key: plan(key),
            label: key.into(),
            rank: self.0.plans.len() as i64,
            price: None,
            public: true,
            features: features.iter().map(|key| feature(key)).collect(),
            limits: limits.into_iter().collect(),
            sessions: Default::default(),
        };
        self.0.plans.insert(plan(key), Arc::new(made));
        self
    }

    /// With a plan for tenants that were never configured.
    #[must_use]
    pub fn default_plan(mut self, key: &str) -> Self {
        self.0.default_plan = Some(plan(key));
        self
    }

    /// With enforcement on or off.
    #[must_use]
    pub fn enforce(mut self, enforce: Enforce) -> Self {
        self.0.enforce = enforce;
        self
    }

    /// Done.
    pub fn done(self) -> Catalog {
        self.0
    }
}
