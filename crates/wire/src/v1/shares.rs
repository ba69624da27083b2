//! How meters are shared among a tenant's users.

use super::{
    amount::Amount,
    check::{bad_name, clipped},
};
use crate::{problem::Problem, rescue};
use domain::{
    id::{MeterKey, UserId},
    op::OpError,
    share::{Share, ShareMode},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// How one meter is shared among the tenant's users.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShareRequest)]
pub struct ShareRequest {
    /// Which meter.
    #[schema(example = "credits")]
    pub meter: String,
    /// `pooled` (whoever comes first), `equal` (each user one part in `seats`) or `custom` (each user a number).
    #[schema(example = "equal")]
    pub mode: String,
    /// With `equal`: how many parts there are.
    #[schema(value_type = Option<i64>, example = 5)]
    pub seats: Option<Amount>,
    /// With `custom`: the number of each user.
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    pub users: Option<BTreeMap<String, Amount>>,
    /// With `custom`: the number of users who have none; left out or null, they are bounded by the tenant's limits alone.
    #[schema(value_type = Option<i64>)]
    pub default: Option<Amount>,
}

impl ShareRequest {
    /// The share that is asked for. Whether there is such a meter is judged by the catalog that decides for the tenant.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn into_share(self) -> Result<Share, Problem> {
        let meter = MeterKey::new(&self.meter)
            .map_err(|_| rescue::problem_of_op(&OpError::UnknownMeter(MeterKey::trusted(clipped(&self.meter)))))?;
        let stray = |is_given: bool, field: &str, mode: &str| match is_given {
            true => Err(wrong(&format!("\"{field}\" has no meaning with the mode {mode}: leave it out."))),
            false => Ok(()),
        };
        if self.mode != "equal" {
            stray(self.seats.is_some(), "seats", clipped(&self.mode))?;
        }
        if self.mode != "custom" {
            stray(self.users.is_some(), "users", clipped(&self.mode))?;
            stray(self.default.is_some(), "default", clipped(&self.mode))?;
        }
        let mode = match self.mode.as_str() {
            "pooled" => ShareMode::Pooled,
            "equal" => {
                let Amount(seats) =
                    self.seats.ok_or_else(|| wrong("\"seats\" is missing: how many users share it."))?;
                ShareMode::Equal { seats }
            }
            "custom" => {
                let user = |(name, Amount(amount)): (String, Amount)| match UserId::new(&name) {
                    Ok(user) => Ok((user, amount)),
                    Err(error) => Err(bad_name("users", &error)),
                };
                let users = self.users.unwrap_or_default().into_iter().map(user).collect::<Result<_, _>>()?;
                ShareMode::Custom { users: Arc::new(users), default: self.default.map(|Amount(amount)| amount) }
            }
            other => {
                return Err(wrong(&format!("\"mode\" must be pooled, equal or custom, not {:?}.", clipped(other))));
            }
        };
        Ok(Share { meter, mode })
    }
}

fn wrong(detail: &str) -> Problem {
    rescue::INVALID_BODY.problem(detail.to_owned())
}

/// How one meter is shared.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Share)]
pub struct ShareAnswer {
    /// Which meter.
    pub meter: String,
    /// `pooled`, `equal` or `custom`.
    pub mode: &'static str,
    /// With `equal`: how many parts there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seats: Option<i64>,
    /// With `custom`: the number of each user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<BTreeMap<String, i64>>,
    /// With `custom`: the number of users who have none; absent where they have no limit of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<i64>,
}

impl ShareAnswer {
    /// The shape of a share.
    pub fn of(share: &Share) -> Self {
        let (seats, users, default) = match &share.mode {
            ShareMode::Pooled => (None, None, None),
            ShareMode::Equal { seats } => (Some(*seats), None, None),
            ShareMode::Custom { users, default } => {
                let users = users.iter().map(|(user, amount)| (user.to_string(), *amount)).collect();
                (None, Some(users), *default)
            }
        };
        Self { meter: share.meter.to_string(), mode: share.mode.word(), seats, users, default }
    }
}

/// A share as the journal shows it: users are counted, not named.
pub(super) fn in_journal(share: &Share) -> Value {
    let shown = ShareAnswer::of(share);
    json!({
        "meter": shown.meter, "mode": shown.mode, "seats": shown.seats, "users": shown.users.map(|users| users.len()),
        "default": shown.default,
    })
}
