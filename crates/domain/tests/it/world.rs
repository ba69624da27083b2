//! A small catalog and a tenant with users, kept twice: live, and as the fold of every entry made so far. Whoever
//! applies an operation here has proved that both are the same.

use domain::{
    catalog::{Catalog, Enforce, EventBounds, Feature, Limit, LimitWindow, Meter, MeterKind, Mode, Plan, Scope},
    entry::Entry,
    id::{FeatureKey, MeterKey, PlanKey, TenantId, UserId},
    op::{Op, OpError, Outcome, ProfileChange},
    tenant::{Tenant, User},
    time::Instant,
};
use std::{collections::BTreeMap, sync::Arc};

pub const METERS: [(&str, MeterKind); 13] = [
    ("messages", MeterKind::Counter),
    ("tokens", MeterKind::Counter),
    ("time", MeterKind::Duration),
    ("documents", MeterKind::Gauge),
    ("seats", MeterKind::Gauge),
    // Enough of them to have more accounts than overrides are allowed.
    ("spare0", MeterKind::Counter),
    ("spare1", MeterKind::Counter),
    ("spare2", MeterKind::Counter),
    ("spare3", MeterKind::Counter),
    ("spare4", MeterKind::Counter),
    ("spare5", MeterKind::Counter),
    ("spare6", MeterKind::Counter),
    ("spare7", MeterKind::Counter),
];

pub const FEATURES: [&str; 2] = ["analytics", "export"];

pub const LATE_MS: i64 = 40 * 86_400_000;
pub const FUTURE_MS: i64 = 300_000;

pub fn at(text: &str) -> Instant {
    Instant::parse(text).unwrap_or_else(|| panic!("{text:?} is no instant"))
}

pub fn meter(key: &str) -> MeterKey {
    MeterKey::new(key).unwrap()
}

/// A catalog with the meters and features above and no plans yet.
pub fn catalog() -> Catalog {
    let meters = METERS.map(|(key, kind)| {
        let meter = Meter {
            key: meter(key),
            kind,
            label: key.into(),
            unit: key.into(),
            decimals: 0,
            event_type: key.into(),
            value_pointer: "/value".into(),
            counts_requests: false,
            unsettled: Default::default(),
            session: Default::default(),
        };
        (meter.key.clone(), Arc::new(meter))
    });
    let features = FEATURES.map(|key| {
        let feature = Feature {
            key: FeatureKey::new(key).unwrap(),
            title: key.into(),
            description: None,
            benefits: vec![],
            preview_url: None,
            social_proof: None,
            roi_estimate: BTreeMap::new(),
        };
        (feature.key.clone(), Arc::new(feature))
    });
    Catalog {
        version: 1,
        meters: meters.into(),
        features: features.into(),
        plans: BTreeMap::new(),
        default_plan: None,
        dimensions: vec![],
        enforce: Enforce::On,
        event_bounds: EventBounds { late_ms: LATE_MS, future_ms: FUTURE_MS },
        upgrade_url: None,
        warn_percent: 80,
        forecast: domain::catalog::ForecastTerms::DEFAULT,
        warnings: vec![80, 100],
        costs: BTreeMap::new(),
    }
}

/// Adds a plan; `features` and `limits` as the tables write them.
pub fn add_plan(catalog: &mut Catalog, key: &str, rank: i64, features: &[&str], limits: &[&str]) {
    let plan = Plan {
        key: PlanKey::new(key).unwrap(),
        label: key.into(),
        rank,
        price: None,
        public: true,
        features: features.iter().map(|key| FeatureKey::new(key).unwrap()).collect(),
        limits: limits.iter().map(|text| limit(text)).collect(),
        sessions: Default::default(),
    };
    catalog.plans.insert(plan.key.clone(), Arc::new(plan));
}

/// `messages<=3/day/user:soft`
pub fn limit(text: &str) -> Limit {
    let (key, rest) = text.split_once("<=").unwrap_or_else(|| panic!("{text:?} is no limit"));
    let (rest, mode) = rest.split_once(':').unwrap_or((rest, "hard"));
    let mut parts = rest.split('/');
    let max = match parts.next().unwrap() {
        "unlimited" => None,
        number => Some(number.parse().unwrap_or_else(|_| panic!("{text:?} has no number"))),
    };
    let (window, scope) = account(parts);
    Limit {
        name: Limit::default_name(&meter(key), window, scope).into(),
        meter: meter(key),
        max,
        window,
        scope,
        mode: [Mode::Hard, Mode::Soft, Mode::Shadow].into_iter().find(|known| known.word() == mode).unwrap(),
        answer_402: false,
        outage: Default::default(),
        quota: Default::default(),
    }
}

/// `day/user`, each part optional.
pub fn account<'a>(parts: impl Iterator<Item = &'a str>) -> (LimitWindow, Scope) {
    let (mut window, mut scope) = (LimitWindow::Level, Scope::Tenant);
    for part in parts {
        match part {
            "user" => scope = Scope::User,
            word => window = LimitWindow::from_word(word).unwrap_or_else(|| panic!("{word:?} is no window")),
        }
    }
    (window, scope)
}

/// Tenant and users: live, and folded from the entries alone.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub tenant: Tenant,
    pub users: BTreeMap<UserId, User>,
}

impl State {
    pub fn fold(&mut self, entry: &Entry) {
        let user = entry.user.as_ref().map(|id| self.users.entry(id.clone()).or_insert_with(|| User::new(id.clone())));
        self.tenant.fold(user, entry);
    }

    /// What is the fold of entries: all but the denials that wait.
    pub fn folded(&self) -> Self {
        let mut state = self.clone();
        state.tenant.pending = Default::default();
        state.users.retain(|_, user| !user.accounts.is_empty());
        state
    }
}

#[derive(Debug, Clone)]
pub struct World {
    pub catalog: Catalog,
    pub state: State,
    pub entries: Vec<Entry>,
}

impl World {
    pub fn create(catalog: Catalog, change: &ProfileChange, now: Instant) -> Result<Option<World>, OpError> {
        let Some((tenant, entry)) = Tenant::create(TenantId::new("acme").unwrap(), change, now, &catalog)? else {
            return Ok(None);
        };
        let world = World { catalog, state: State { tenant, users: BTreeMap::new() }, entries: vec![entry] };
        world.check_replay();
        Ok(Some(world))
    }

    pub fn apply(&mut self, user: Option<&str>, op: &Op, now: Instant) -> Result<Outcome, OpError> {
        let before = self.state.clone();
        let outcome = self.state.tenant.apply(user_of(&mut self.state.users, user), op, now, &self.catalog);
        match &outcome {
            Ok(outcome) => self.entries.extend(outcome.entry.clone()),
            Err(_) => assert_eq!(self.state.folded(), before.folded(), "an operation without meaning changes nothing"),
        }
        outcome
    }

    pub fn flush(&mut self, user: Option<&str>, now: Instant) -> Option<Entry> {
        let entry = self.state.tenant.flush_denials(user_of(&mut self.state.users, user), now, &self.catalog);
        self.entries.extend(entry.clone());
        entry
    }

    /// The same world without its past.
    pub fn twin(&self) -> World {
        World { catalog: self.catalog.clone(), state: self.state.clone(), entries: vec![] }
    }

    /// The fold of all entries is the state.
    pub fn check_replay(&self) {
        assert_eq!(self.replayed().folded(), self.state.folded(), "the fold of the entries must be the state");
    }

    pub fn replayed(&self) -> State {
        let tenant = Tenant::born(self.state.tenant.id.clone(), &self.entries[0]).unwrap();
        let mut state = State { tenant, users: BTreeMap::new() };
        self.entries.iter().for_each(|entry| state.fold(entry));
        state
    }
}

fn user_of<'a>(users: &'a mut BTreeMap<UserId, User>, name: Option<&str>) -> Option<&'a mut User> {
    let id = UserId::new(name?).unwrap();
    Some(users.entry(id.clone()).or_insert_with(|| User::new(id)))
}
