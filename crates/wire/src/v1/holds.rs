//! Holds: how one is asked for in a check, and how it is settled.

use super::{
    amount::Amount,
    check::{CHARGES_MAX, ChargeRequest, bad_name, clipped},
    cost::CostRequest,
    duration::parse_duration_ms,
    in_flight_id::hold_text,
    limit::LimitShape,
};
use crate::{problem::Problem, rescue};
use domain::{
    catalog::Catalog,
    decision::LimitState,
    hold::{Excess, Hold, HoldId, Settlement},
    id::{MeterKey, TenantId},
    op::Charge,
};
use engine::requests::{EngineError, HoldAsk};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, sync::Arc};

/// How a charge is to be held instead of made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HoldRequest)]
pub struct HoldRequest<'a> {
    /// For how long, at most a day: `60s`, `15m`. What is not settled by then lapses.
    #[serde(borrow)]
    #[schema(example = "60s")]
    pub ttl: Cow<'a, str>,
    /// What happens when more is committed than was held: `overage` (it is recorded, past the limit if need be), `room`
    /// (recorded if there is room, else refused) or `refuse`. `overage` where it is not given.
    #[serde(borrow, default)]
    #[schema(example = "overage")]
    pub excess: Option<Cow<'a, str>>,
}

impl HoldRequest<'_> {
    /// The hold that is asked for; its number is still to be drawn.
    ///
    /// # Errors
    /// A problem that names what can't be used.
    pub fn to_ask(&self) -> Result<HoldAsk, Problem> {
        let ttl_ms = parse_duration_ms(&self.ttl).ok_or_else(|| {
            let given = clipped(&self.ttl);
            rescue::INVALID_BODY.problem(format!("\"ttl\" must be a duration such as 60s or 15m, not {given:?}."))
        })?;
        let excess = match &self.excess {
            None => Excess::default(),
            Some(word) => Excess::from_word(word).ok_or_else(|| {
                let given = clipped(word);
                rescue::INVALID_BODY
                    .problem(format!("\"excess\" must be \"overage\", \"room\" or \"refuse\", not {given:?}."))
            })?,
        };
        Ok(HoldAsk { ttl_ms, excess, fresh: 0 })
    }
}

/// What the work took. What is not named took what was held.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CommitRequest)]
pub struct CommitRequest<'a> {
    /// How much, of a hold on one meter.
    #[serde(default)]
    #[schema(value_type = Option<i64>, example = 3)]
    pub amount: Option<Amount>,
    /// How much of each meter.
    #[serde(borrow, default)]
    pub charges: Vec<ChargeRequest<'a>>,
    /// How much by a price list of the catalog, as in a check.
    #[serde(borrow, default)]
    pub cost: Option<CostRequest<'a>>,
}

impl CommitRequest<'_> {
    /// Whether the hold must be known to tell which meter `amount` is of.
    pub fn needs_hold(&self) -> bool {
        self.amount.is_some()
    }

    /// Whether price lists must be known.
    pub fn needs_prices(&self) -> bool {
        self.cost.is_some()
    }

    /// What was sent in the place of the first charge, where a price list makes it.
    pub fn sent(&self) -> Option<Arc<str>> {
        self.cost.as_ref().map(CostRequest::sent)
    }

    /// How the hold ends, where no price list says (any more) what was sent: only good to find out whether it was settled so
    /// before. `None` where no price list is asked.
    pub fn as_sent(&self) -> Option<Settlement> {
        self.cost.as_ref()?;
        let others = self.charges.iter().map(|asked| charge(asked).ok());
        Some(Settlement::Commit([Some(CostRequest::stand_in())].into_iter().chain(others).collect::<Option<_>>()?))
    }

    /// How the hold ends.
    ///
    /// # Errors
    /// A problem that names what can't be used.
    pub fn settlement(&self, hold: Option<&Hold>, catalog: &Catalog) -> Result<Settlement, Problem> {
        if self.charges.len() > CHARGES_MAX {
            return Err(rescue::INVALID_BODY.problem(format!("A hold has at most {CHARGES_MAX} charges.")));
        }
        let Some(amount) = self.amount else {
            let cost = self.cost.iter().map(|cost| cost.charge(catalog));
            let charges: Result<Vec<Charge>, Problem> = cost.chain(self.charges.iter().map(charge)).collect();
            return Ok(Settlement::Commit(charges?));
        };
        if !self.charges.is_empty() || self.cost.is_some() {
            return Err(rescue::INVALID_BODY.problem("Send \"amount\" alone, or \"charges\" and \"cost\" without it."));
        }
        match hold.map(|hold| &hold.charges[..]) {
            Some([only]) => Ok(Settlement::Commit(vec![Charge { meter: only.meter.clone(), amount: amount.0 }])),
            Some(_) => Err(rescue::INVALID_BODY
                .problem("The hold is on several meters: say how much of each, as \"charges\" with meter and amount.")),
            None => Err(unknown_hold()),
        }
    }
}

/// What is told of one meter: it need not be in the catalog, only in the hold.
fn charge(asked: &ChargeRequest<'_>) -> Result<Charge, Problem> {
    let meter = MeterKey::new(&asked.meter).map_err(|error| bad_name("meter", &error))?;
    let Some(amount) = asked.amount else {
        return Err(rescue::INVALID_BODY.problem(format!("Say how much of \"{meter}\" the work took, as \"amount\".")));
    };
    Ok(Charge { meter, amount: amount.0 })
}

/// The answer where there is no such hold.
pub fn unknown_hold() -> Problem {
    rescue::UNKNOWN_HOLD.problem(
        "There is no such hold to settle: the id is not one that was given out, or the hold lapsed more than a day ago.",
    )
}

/// What a settlement that failed is answered with.
pub fn settle_problem(error: &EngineError) -> Option<Problem> {
    match error {
        EngineError::IdempotencyConflict { at, .. } => Some(
            rescue::HOLD_SETTLED
                .problem(format!("The hold was settled otherwise at {}; a hold is settled once.", at.rfc3339())),
        ),
        EngineError::UnknownTenant(_) | EngineError::Op(domain::op::OpError::UnknownHold) => Some(unknown_hold()),
        _ => None,
    }
}

/// A hold that was settled.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SettledHold)]
pub struct SettleAnswer<'a> {
    /// Which.
    #[schema(value_type = String, example = "hold_0123456789abcdef0123456789abcdef_61636d65")]
    pub hold_id: String,
    /// `committed` or `released`.
    #[schema(example = "committed")]
    pub status: &'static str,
    /// Whose.
    pub tenant_id: &'a str,
    /// The limits on what was held, as they stand now.
    pub limits: Vec<LimitShape<'a>>,
    /// Whether the same was done before; absent where it was done now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(value_type = Option<bool>)]
    pub repeated: bool,
}

impl<'a> SettleAnswer<'a> {
    /// The answer to a settlement.
    pub fn of(tenant: &'a TenantId, id: HoldId, how: &Settlement, limits: &'a [LimitState], repeated: bool) -> Self {
        Self {
            hold_id: hold_text(tenant, id),
            status: match how {
                Settlement::Commit(_) => "committed",
                Settlement::Release => "released",
            },
            tenant_id: tenant.as_str(),
            limits: limits.iter().map(LimitShape::of).collect(),
            repeated,
        }
    }
}
