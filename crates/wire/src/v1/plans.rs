//! `GET /api/v1/plans`: the public comparison.

use super::text::{limit_text, limit_unit};
use domain::{
    catalog::{Catalog, Feature, Limit, Meter, Plan, Price},
    id::FeatureKey,
};
use serde::Serialize;

/// What is on offer, and what the words in it mean.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Plans)]
pub struct PlansAnswer<'a> {
    /// Public plans, by rank.
    pub plans: Vec<PlanShape<'a>>,
    /// Meters, by key.
    pub meters: Vec<MeterShape<'a>>,
    /// Features, by key.
    pub features: Vec<FeatureShape<'a>>,
}

/// A plan.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Plan)]
pub struct PlanShape<'a> {
    /// Its key.
    #[schema(example = "free")]
    pub plan: &'a str,
    /// For people.
    pub label: &'a str,
    /// A plan of a higher rank is an upgrade.
    pub rank: i64,
    /// What it costs; null where it is negotiated.
    pub price: Option<PriceShape<'a>>,
    /// What it has.
    pub features: Vec<&'a str>,
    /// What it allows. A meter without a limit here is not limited.
    pub limits: Vec<PlanLimitShape<'a>>,
}

/// A price.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Price)]
pub struct PriceShape<'a> {
    /// In units of the currency.
    #[schema(value_type = f64, example = 99)]
    pub amount: serde_json::Number,
    /// In hundredths of the currency's unit.
    pub amount_cents: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: &'a str,
    /// `month` or `year`.
    pub per: &'a str,
}

impl<'a> PriceShape<'a> {
    fn of(price: &'a Price) -> Self {
        let cents = price.amount_cents;
        let whole = cents % 100 == 0;
        let amount = if whole { None } else { serde_json::Number::from_f64(cents as f64 / 100.0) };
        Self {
            amount: amount.unwrap_or_else(|| (cents / 100).into()),
            amount_cents: cents,
            currency: &price.currency,
            per: &price.per,
        }
    }
}

/// A limit of a plan.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PlanLimit)]
pub struct PlanLimitShape<'a> {
    /// Unique within the plan.
    pub name: &'a str,
    /// Which meter.
    pub meter: &'a str,
    /// In which window: `period`, `month`, `day`, `hour`, `minute`, or `none` for a gauge; `session` for the time of one
    /// session, `concurrent` for how many are open at once.
    pub window: &'static str,
    /// `tenant` or `user`.
    pub scope: &'static str,
    /// `hard`, `soft` or `shadow`.
    pub mode: &'static str,
    /// The largest use allowed; null is unlimited.
    pub max: Option<i64>,
    /// What `max` is counted in: the meter's smallest unit, or `sessions` for how many are open at once.
    #[schema(example = "ms")]
    pub unit: &'a str,
    /// `max` for people: `1h 0m`, `50`, `Unlimited`.
    #[schema(example = "1h 0m")]
    pub text: String,
}

impl<'a> PlanLimitShape<'a> {
    fn of(limit: &'a Limit, catalog: &'a Catalog) -> Self {
        let meter = catalog.meters.get(&limit.meter);
        let text = |max: i64| match meter {
            Some(meter) => limit_text(meter, limit.window, max),
            None => max.to_string(),
        };
        Self {
            name: &limit.name,
            meter: limit.meter.as_str(),
            window: limit.window.word(),
            scope: limit.scope.word(),
            mode: limit.mode.word(),
            max: limit.max,
            unit: meter.map_or("", |meter| limit_unit(meter, limit.window)),
            text: limit.max.map_or_else(|| "Unlimited".to_owned(), text),
        }
    }
}

/// A meter.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Meter)]
pub struct MeterShape<'a> {
    /// Its key.
    pub meter: &'a str,
    /// For people.
    pub label: &'a str,
    /// `counter`, `gauge` or `duration`.
    pub kind: &'static str,
    /// The smallest unit amounts are counted in.
    pub unit: &'a str,
    /// Decimals shown to people.
    pub decimals: u8,
}

impl<'a> MeterShape<'a> {
    fn of(meter: &'a Meter) -> Self {
        Self {
            meter: meter.key.as_str(),
            label: &meter.label,
            kind: meter.kind.word(),
            unit: &meter.unit,
            decimals: meter.decimals,
        }
    }
}

/// A feature.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Feature)]
pub struct FeatureShape<'a> {
    /// Its key.
    pub feature: &'a str,
    /// For people.
    pub title: &'a str,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
}

impl<'a> FeatureShape<'a> {
    fn of(feature: &'a Feature) -> Self {
        Self { feature: feature.key.as_str(), title: &feature.title, description: feature.description.as_deref() }
    }
}

/// The public plans, by rank.
pub fn public_plans(catalog: &Catalog) -> Vec<&Plan> {
    let mut plans: Vec<&Plan> = catalog.plans.values().filter(|plan| plan.public).map(AsRef::as_ref).collect();
    plans.sort_by(|one, other| (one.rank, &one.key).cmp(&(other.rank, &other.key)));
    plans
}

impl<'a> PlansAnswer<'a> {
    /// The public comparison of a catalog.
    pub fn of(catalog: &'a Catalog) -> Self {
        let shape = |plan: &'a Plan| PlanShape {
            plan: plan.key.as_str(),
            label: &plan.label,
            rank: plan.rank,
            price: plan.price.as_ref().map(PriceShape::of),
            features: plan.features.iter().map(FeatureKey::as_str).collect(),
            limits: plan.limits.iter().map(|limit| PlanLimitShape::of(limit, catalog)).collect(),
        };
        Self {
            plans: public_plans(catalog).into_iter().map(shape).collect(),
            meters: catalog.meters.values().map(|meter| MeterShape::of(meter)).collect(),
            features: catalog.features.values().map(|feature| FeatureShape::of(feature)).collect(),
        }
    }
}
