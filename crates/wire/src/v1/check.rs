//! `POST /api/v1/check`: what is asked. What is answered stands in [`super::decision`].

pub use super::decision::{CheckAnswer, ShadowShape, UpgradeShape, message};
pub(super) use super::decision::{denied_by, upgrade};

use super::{amount::Amount, cost::CostRequest, holds::HoldRequest};
use crate::{problem::Problem, rescue};
use domain::{
    catalog::Catalog,
    entry::Cause,
    id::{FeatureKey, MeterKey, TenantId, UserId},
    op::{Charge, OpError},
};
use engine::requests::{Ack, Check, OpId};
use serde::Deserialize;
use std::borrow::Cow;

/// How many meters one check may charge.
pub const CHARGES_MAX: usize = 32;
/// How many features one check may ask for.
pub const FEATURES_MAX: usize = 32;
/// Longest id and event source, in bytes.
pub const ID_MAX_BYTES: usize = 512;

/// What is asked: a meter, a feature, charges or a cost; one suffices.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckRequest)]
pub struct CheckRequest<'a> {
    /// Whose use is asked about.
    #[serde(borrow)]
    #[schema(example = "acme")]
    pub tenant_id: Cow<'a, str>,
    /// The meter to charge.
    #[serde(borrow, default)]
    #[schema(example = "messages")]
    pub meter: Option<Cow<'a, str>>,
    /// How much of `meter`; 1 where it is not given.
    #[serde(default)]
    #[schema(value_type = Option<i64>, example = 1)]
    pub amount: Option<Amount>,
    /// The feature the plan must have.
    #[serde(borrow, default)]
    pub feature: Option<Cow<'a, str>>,
    /// The features the plan must have, several at once.
    #[serde(borrow, default)]
    pub features: Vec<Cow<'a, str>>,
    /// Several charges, all or none.
    #[serde(borrow, default)]
    pub charges: Vec<ChargeRequest<'a>>,
    /// A charge by a price list of the catalog.
    #[serde(borrow, default)]
    pub cost: Option<CostRequest<'a>>,
    /// The user, for limits that are the user's own.
    #[serde(borrow, default)]
    pub user_id: Option<Cow<'a, str>>,
    /// Whether an allowed check is charged, in the same step.
    #[serde(default)]
    pub consume: bool,
    /// Hold the amounts for work in flight instead of charging them. It implies `consume`.
    #[serde(borrow, default)]
    pub hold: Option<HoldRequest<'a>>,
    /// The idempotency key; the same thing as the header `Idempotency-Key`.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    /// `disk` (the answer waits until the charge is durable) or `memory` (it does not).
    #[serde(default)]
    pub ack: AckRequest,
}

/// One of several charges.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Charge)]
pub struct ChargeRequest<'a> {
    /// Which meter.
    #[serde(borrow)]
    #[schema(example = "messages")]
    pub meter: Cow<'a, str>,
    /// How much; 1 where it is not given.
    #[serde(default)]
    #[schema(value_type = Option<i64>, example = 1)]
    pub amount: Option<Amount>,
}

/// When the answer may go out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Ack)]
pub enum AckRequest {
    /// When the charge is durable.
    #[default]
    Disk,
    /// At once.
    Memory,
}

impl CheckRequest<'_> {
    /// The check that is asked for. `header_id` is the `Idempotency-Key` header. The number of a hold is still to be drawn.
    ///
    /// # Errors
    /// A problem that names what is wrong: an unknown meter or feature, something without a price, a name that can't be one, two different ids.
    pub fn into_check(self, header_id: Option<&str>, catalog: &Catalog) -> Result<(Check, Ack), Problem> {
        let tenant = TenantId::new(&self.tenant_id).map_err(|error| bad_name("tenant_id", &error))?;
        let user = self.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?;
        let check = Check {
            id: op_id(self.id.as_deref(), header_id)?,
            charges: self.charges(catalog)?,
            features: self.features(catalog)?,
            tenant,
            user,
            consume: self.consume || self.hold.is_some(),
            enforce: None,
            dimensions: Vec::new(),
            cause: Cause::Check,
            hold: self.hold.as_ref().map(HoldRequest::to_ask).transpose()?,
            sent: self.cost.as_ref().map(CostRequest::sent),
        };
        let ack = match self.ack {
            AckRequest::Disk => Ack::Disk,
            AckRequest::Memory => Ack::Memory,
        };
        Ok((check, ack))
    }

    /// The check as it was sent, whatever the catalog has of that: only good to find out whether it was accepted before.
    /// `None` where it has no id, would charge nothing, or names what can't be.
    pub fn as_sent(&self, header_id: Option<&str>) -> Option<Check> {
        let of_meter = |meter: &str, amount: &Option<Amount>| {
            let amount = amount.as_ref().map_or(1, |amount| amount.0);
            Some(Charge { meter: MeterKey::new(meter).ok()?, amount })
        };
        let cost = self.cost.iter().map(|_| Some(CostRequest::stand_in()));
        let single = self.meter.iter().map(|meter| of_meter(meter, &self.amount));
        let several = self.charges.iter().map(|asked| of_meter(&asked.meter, &asked.amount));
        let features = self.feature.iter().chain(&self.features);
        let check = Check {
            id: Some(op_id(self.id.as_deref(), header_id).ok()??),
            charges: cost.chain(single).chain(several).collect::<Option<_>>()?,
            features: features.map(|feature| FeatureKey::new(feature).ok()).collect::<Option<_>>()?,
            tenant: TenantId::new(&self.tenant_id).ok()?,
            user: self.user_id.as_deref().map(UserId::new).transpose().ok()?,
            consume: self.consume || self.hold.is_some(),
            enforce: None,
            dimensions: Vec::new(),
            cause: Cause::Check,
            hold: self.hold.as_ref().map(HoldRequest::to_ask).transpose().ok()?,
            sent: self.cost.as_ref().map(CostRequest::sent),
        };
        Some(check).filter(|check| check.consume)
    }

    fn charges(&self, catalog: &Catalog) -> Result<Vec<Charge>, Problem> {
        if self.charges.len() > CHARGES_MAX {
            return Err(rescue::INVALID_BODY.problem(format!("A check may hold at most {CHARGES_MAX} charges.")));
        }
        if self.amount.is_some() && self.meter.is_none() {
            return Err(rescue::INVALID_BODY.problem("\"amount\" belongs to \"meter\", which is missing."));
        }
        let mut charges = Vec::with_capacity(self.charges.len() + 1);
        if let Some(cost) = &self.cost {
            charges.push(cost.charge(catalog)?);
        }
        if let Some(meter) = &self.meter {
            charges.push(charge(catalog, meter, self.amount)?);
        }
        for asked in &self.charges {
            charges.push(charge(catalog, &asked.meter, asked.amount)?);
        }
        Ok(charges)
    }

    fn features(&self, catalog: &Catalog) -> Result<Vec<FeatureKey>, Problem> {
        if self.features.len() > FEATURES_MAX {
            return Err(rescue::INVALID_BODY.problem(format!("A check may ask for at most {FEATURES_MAX} features.")));
        }
        self.feature.iter().chain(&self.features).map(|feature| known_feature(catalog, feature)).collect()
    }
}

fn charge(catalog: &Catalog, meter: &str, amount: Option<Amount>) -> Result<Charge, Problem> {
    Ok(Charge { meter: known_meter(catalog, meter)?, amount: amount.map_or(1, |amount| amount.0) })
}

/// The catalog's own key for a meter that a request names.
///
/// # Errors
/// A problem where the catalog has no such meter.
pub fn known_meter(catalog: &Catalog, meter: &str) -> Result<MeterKey, Problem> {
    match catalog.meters.get_key_value(meter) {
        Some((key, _)) => Ok(key.clone()),
        None => Err(rescue::problem_of_op(&OpError::UnknownMeter(MeterKey::trusted(clipped(meter))))),
    }
}

/// The catalog's own key for a feature that a request names.
///
/// # Errors
/// A problem where the catalog has no such feature.
pub fn known_feature(catalog: &Catalog, feature: &str) -> Result<FeatureKey, Problem> {
    match catalog.features.get_key_value(feature) {
        Some((key, _)) => Ok(key.clone()),
        None => Err(rescue::problem_of_op(&OpError::UnknownFeature(FeatureKey::trusted(clipped(feature))))),
    }
}

/// As much of a word from outside as an error message repeats.
pub fn clipped(word: &str) -> &str {
    word.char_indices().nth(64).map_or(word, |(end, _)| &word[..end])
}

/// A problem for a name from outside that can't be one.
pub fn bad_name(field: &str, error: &dyn std::fmt::Display) -> Problem {
    rescue::INVALID_BODY.problem(format!("\"{field}\" can't be used: {error}."))
}

/// The idempotency key of a call: the body's `id` or the header, which are the same thing.
///
/// # Errors
/// A problem where both are given and differ, or where the id is empty, too long or holds control characters.
pub fn op_id(body: Option<&str>, header: Option<&str>) -> Result<Option<OpId>, Problem> {
    if let (Some(body), Some(header)) = (body, header)
        && body != header
    {
        return Err(rescue::TWO_IDS.problem("Send the id once, in the body or as Idempotency-Key, or the same twice."));
    }
    let Some(id) = body.or(header) else { return Ok(None) };
    if id.is_empty() || id.len() > ID_MAX_BYTES || id.chars().any(char::is_control) {
        return Err(rescue::INVALID_BODY
            .problem(format!("An id must have 1 to {ID_MAX_BYTES} bytes and no control characters.")));
    }
    Ok(Some(OpId { source: "".into(), id: id.into() }))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
