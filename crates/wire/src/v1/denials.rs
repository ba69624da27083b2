//! `GET /api/v1/denials`: unmet demand, and one refusal explained.

use super::{
    limit::Time,
    text::{amount_text, decimal_text},
};
use domain::{
    catalog::Catalog,
    decision::Code,
    id::{FeatureKey, MeterKey, UserId},
};
use engine::ports::StoredDenial;
use serde::Serialize;

/// A run of identical denials within a minute.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Denial)]
pub struct DenialAnswer<'a> {
    /// Its id.
    #[schema(value_type = String, example = "den_0123456789abcdef0123456789abcdef")]
    pub denial_id: String,
    /// Whose.
    pub tenant_id: &'a str,
    /// The user, if the requests named one.
    pub user_id: Option<&'a str>,
    /// Why.
    #[schema(example = "period_limit_reached")]
    pub code: &'static str,
    /// Whether it was only recorded, and nothing was refused.
    pub shadow: bool,
    /// The limit or the feature that refused; null for a suspended tenant.
    pub denied_by: Option<&'a str>,
    /// The meter asked for.
    pub meter: Option<&'a str>,
    /// The feature asked for.
    pub feature: Option<&'a str>,
    /// The plan at that time.
    pub plan: &'a str,
    /// How many requests were refused.
    pub count: i64,
    /// The amounts they asked for, together.
    pub amount: i64,
    /// What was used when the first was refused.
    pub used: i64,
    /// What was allowed; null where the refusal is not about a limit.
    pub max: Option<i64>,
    /// When the window of the limit ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Time>,
    /// When the first happened.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Time,
    /// When the last happened.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Time,
    /// The refusal as a sentence with its numbers.
    pub message: String,
}

impl<'a> DenialAnswer<'a> {
    /// The shape of a stored denial. The catalog of today gives labels; the numbers are those of then.
    pub fn of(denial: &'a StoredDenial, catalog: &Catalog) -> Self {
        let run = &denial.run;
        Self {
            denial_id: denial.id.to_string(),
            tenant_id: denial.tenant.as_str(),
            user_id: run.key.user.as_ref().map(UserId::as_str),
            code: run.key.code.word(),
            shadow: run.key.shadow,
            denied_by: (!run.key.subject.is_empty()).then_some(&run.key.subject),
            meter: run.meter.as_ref().map(MeterKey::as_str),
            feature: run.feature.as_ref().map(FeatureKey::as_str),
            plan: run.plan.as_str(),
            count: run.count,
            amount: run.amount,
            used: run.used,
            max: run.max,
            resets_at: run.resets_at.map(Time),
            first_at: Time(run.first_at),
            last_at: Time(run.last_at),
            message: explanation(denial, catalog),
        }
    }
}

fn explanation(denial: &StoredDenial, catalog: &Catalog) -> String {
    let run = &denial.run;
    let verb = if run.key.shadow { "would have been refused" } else { "refused" };
    let times = if run.count == 1 { "once".to_owned() } else { format!("{} times", run.count) };
    let why = match (run.key.code, &run.feature, &run.meter) {
        (Code::TenantSuspended, ..) => "the tenant was suspended".to_owned(),
        (Code::FeatureNotInPlan, Some(feature), _) => {
            format!("the plan \"{}\" does not have the feature \"{feature}\"", run.plan)
        }
        (_, _, Some(meter)) => {
            let text = |amount: i64| match catalog.meters.get(meter) {
                // Sessions, whatever the meter counts.
                Some(_) if run.key.code == Code::ConcurrencyLimitReached => decimal_text(amount, 0),
                Some(meter) => amount_text(meter, amount),
                None => decimal_text(amount, 0),
            };
            let max = run.max.map_or_else(|| "unlimited".to_owned(), text);
            let (used, amount, subject) = (text(run.used), text(run.amount), &run.key.subject);
            format!(
                "the limit \"{subject}\" of the plan \"{}\" allows {max} of \"{meter}\", {used} were used at the \
                 first, {amount} were asked for in all",
                run.plan
            )
        }
        (code, ..) => code.word().to_owned(),
    };
    let ends = match run.resets_at {
        Some(at) => format!("; its window ends at {}", at.rfc3339()),
        None => String::new(),
    };
    format!("{} {times} within the minute: {why}{ends}.", capital(verb))
}

fn capital(words: &str) -> String {
    crate::rescue::sentence(words).trim_end_matches('.').to_owned()
}
