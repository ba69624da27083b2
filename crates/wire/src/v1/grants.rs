//! `/api/v1/tenants/{id}/grants`: amounts on top of what the plan allows.

use super::{
    amount::Amount,
    check::known_meter,
    limit::Time,
    tenants::{instant, reason},
};
use crate::{problem::Problem, rescue};
use domain::{
    catalog::Catalog,
    grant::{Grant, GrantId, GrantSource, PRIORITY_DEFAULT},
    time::Instant,
};
use serde::{Deserialize, Serialize};

/// The largest priority, either way.
const PRIORITY_MAX: i64 = 1_000_000;

/// A grant to give.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GrantRequest)]
pub struct GrantRequest {
    /// Of which meter: a counter or a duration.
    #[schema(example = "credits")]
    pub meter: String,
    /// How much, in the meter's smallest unit.
    #[schema(value_type = i64, example = 500)]
    pub amount: Amount,
    /// Lower is spent first; 0 where it is not given, which is the priority of the plan's own allowance. Of equal ones,
    /// what ends soonest is spent first.
    pub priority: Option<i64>,
    /// When it ends; never where it is not given.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<String>,
    /// Why; it is kept with the entry.
    #[schema(example = "bought 500 credits")]
    pub reason: String,
    /// The idempotency key; the same thing as the header `Idempotency-Key`.
    pub id: Option<String>,
}

impl GrantRequest {
    /// The grant that is asked for; it has no name yet.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn into_grant(self, catalog: &Catalog) -> Result<Grant, Problem> {
        let priority = self.priority.unwrap_or(PRIORITY_DEFAULT);
        if priority.abs() > PRIORITY_MAX {
            let text = format!("\"priority\" must be from -{PRIORITY_MAX} to {PRIORITY_MAX}.");
            return Err(rescue::INVALID_BODY.problem(text));
        }
        Ok(Grant {
            id: GrantId(0),
            meter: known_meter(catalog, &self.meter)?,
            amount: self.amount.0,
            left: 0,
            priority,
            granted_at: Instant::EPOCH,
            expires_at: self.expires_at.map(|text| instant("expires_at", &text)).transpose()?,
            source: GrantSource::Given,
            reason: reason(&self.reason)?.into(),
        })
    }
}

/// A grant as it stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Grant)]
pub struct GrantAnswer {
    /// Its name.
    #[schema(example = "grt_00000000000000000000000000000001")]
    pub id: String,
    /// Of which meter.
    pub meter: String,
    /// How much was granted.
    pub amount: i64,
    /// What is left of it.
    pub left: i64,
    /// Lower is spent first.
    pub priority: i64,
    /// When it was granted.
    #[schema(value_type = String, format = DateTime)]
    pub granted_at: Time,
    /// When it ends; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Time>,
    /// `given`, or `rollover` for what was left of the period before.
    pub source: &'static str,
    /// Why.
    pub reason: String,
}

impl GrantAnswer {
    /// The shape of a grant.
    pub fn of(grant: &Grant) -> Self {
        Self {
            id: grant_id(grant.id),
            meter: grant.meter.to_string(),
            amount: grant.amount,
            left: grant.left,
            priority: grant.priority,
            granted_at: Time(grant.granted_at),
            expires_at: grant.expires_at.map(Time),
            source: match grant.source {
                GrantSource::Given => "given",
                GrantSource::Rollover => "rollover",
            },
            reason: grant.reason.to_string(),
        }
    }
}

/// The grants of a tenant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Grants)]
pub struct GrantsAnswer {
    /// The oldest first.
    pub grants: Vec<GrantAnswer>,
}

/// What was granted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Granted)]
pub struct GrantedAnswer {
    /// The name of the grant.
    pub grant_id: String,
}

/// The name of a grant: `grt_` and 32 hexadecimal digits.
pub fn grant_id(id: GrantId) -> String {
    format!("grt_{:032x}", id.0)
}

/// Reads what [`grant_id`] writes.
///
/// # Errors
/// `unknown_grant` for anything else: no grant has such a name.
pub fn parse_grant_id(text: &str) -> Result<GrantId, Problem> {
    let digits = text.strip_prefix("grt_").filter(|digits| digits.len() == 32);
    let id = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let id = id.and_then(|digits| u128::from_str_radix(digits, 16).ok());
    id.map(GrantId).ok_or_else(|| {
        rescue::UNKNOWN_GRANT.problem("There is no such grant. GET /api/v1/tenants/{id}/grants lists those there are.")
    })
}
