//! What the gateway answers to a refusal: problem details around the decision. A missing feature takes the shape of
//! the first seed, a used-up limit that of the second; both are extension members, and `decision` is to the letter
//! what `/api/v1/check` would have answered. Every text and URL comes from the catalog.

use crate::{
    headers::SHOULD_RETRY,
    problem::{MEDIA_TYPE, TYPE_PREFIX},
    rescue,
    v1::{
        check::{self, CheckAnswer},
        limit::Time,
        text::{limit_text, limit_unit},
    },
};
use domain::{
    catalog::{Benefit, Catalog, Feature, LimitWindow, MeterKind, Plan, RoiValue},
    decision::{Code, Denial, LimitState},
};
use engine::requests::Admission;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// A wait longer than this is not one a client should sit out by itself.
const PATIENT_WAIT_MAX_S: u64 = 60;

/// The whole answer to a refusal: status, body, `Retry-After`, `x-should-retry`, never cached. `None` if the admission
/// was no refusal. `asked` is the first charge that was asked for.
pub fn response(admission: &Admission, asked: Option<(&str, i64)>, catalog: &Catalog) -> Option<Response<Vec<u8>>> {
    session_response(admission, asked, None, catalog)
}

/// The same for a refusal within a session, which its caller calls `conversation`.
pub fn session_response(
    admission: &Admission,
    asked: Option<(&str, i64)>,
    conversation: Option<&str>,
    catalog: &Catalog,
) -> Option<Response<Vec<u8>>> {
    let decision = &admission.decision;
    let denial = decision.denial.as_ref()?;
    let limit = denial.limit.and_then(|index| decision.limits.get(index));
    let status = rescue::denial_status(denial, limit);
    let mut body = body(admission, denial, limit, status, asked, catalog)?;
    if let Some(Details::Limit(details)) = &mut body.details {
        details.conversation_id = conversation;
    }
    let mut response = Response::new(serde_json::to_vec(&body).unwrap_or_default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = decision.retry_after_s() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    let hopeless = decision.retry_after_s().is_none_or(|seconds| seconds > PATIENT_WAIT_MAX_S);
    if status == 429 && hopeless {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    Some(response)
}

/// The body: the problem's own members first, then those of the seeds, then the decision.
#[derive(Debug, Serialize)]
struct DenialBody<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    /// The stable word; for a missing feature the one that the first seed's clients switch on.
    code: &'static str,
    detail: Cow<'static, str>,
    /// The seeds' short error.
    error: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    /// The seeds' text for people.
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<Actions<'a>>,
    decision: CheckAnswer<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Feature(Box<FeatureDetails<'a>>),
    Limit(Box<LimitDetails<'a>>),
}

/// The first seed's `details`.
#[derive(Debug, Serialize)]
struct FeatureDetails<'a> {
    required_feature: &'a str,
    /// The public plan of the lowest rank that has the feature.
    minimum_tier: Option<&'a str>,
    allowed_tiers: Vec<&'a str>,
    current_tier: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    benefits: Vec<BenefitShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roi_estimate: Option<BTreeMap<&'a str, RoiShape<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pricing: Option<Pricing<'a>>,
    upgrade_url: Option<String>,
    preview_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    social_proof: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct BenefitShape<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum RoiShape<'a> {
    Integer(i64),
    Text(&'a str),
}

/// What the lowest plan that would help costs, as the catalog says.
#[derive(Debug, Serialize)]
struct Pricing<'a> {
    plan: &'a str,
    label: &'a str,
    amount_cents: i64,
    currency: &'a str,
    per: &'a str,
}

/// The second seed's `details`, with the raw numbers beside the texts.
#[derive(Debug, Serialize)]
struct LimitDetails<'a> {
    tier: &'a str,
    meter: &'a str,
    label: &'a str,
    unit: &'a str,
    limit_name: &'a str,
    window: &'static str,
    scope: &'static str,
    used: String,
    limit: Option<String>,
    remaining: Option<String>,
    percentage_used: Option<i64>,
    used_amount: i64,
    limit_amount: Option<i64>,
    remaining_amount: Option<i64>,
    requested_amount: i64,
    /// Time in whole seconds; absent where what is limited is no time.
    #[serde(flatten)]
    seconds: Option<Seconds>,
    /// What the session took, where the limit is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    /// What the caller calls the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<&'a str>,
    /// When the window ends; null for a gauge and for sessions.
    period_end: Option<Time>,
}

/// Time, rounded down.
#[derive(Debug, Serialize)]
struct Seconds {
    used_seconds: i64,
    limit_seconds: Option<i64>,
    remaining_seconds: Option<i64>,
}

impl Seconds {
    fn of(limit: &LimitState) -> Self {
        Self {
            used_seconds: limit.used / 1_000,
            limit_seconds: limit.max.map(|max| max / 1_000),
            remaining_seconds: limit.remaining().map(|left| left / 1_000),
        }
    }
}

/// The second seed's `actions`.
#[derive(Debug, Serialize)]
struct Actions<'a> {
    upgrade: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_plan: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_new_conversation: Option<bool>,
    message: String,
}

fn body<'a>(
    admission: &'a Admission,
    denial: &'a Denial,
    limit: Option<&'a LimitState>,
    status: u16,
    asked: Option<(&'a str, i64)>,
    catalog: &'a Catalog,
) -> Option<DenialBody<'a>> {
    let kind = rescue::kind_of_code(denial.code)?;
    let detail = check::message(denial, &admission.decision, catalog);
    let mut body = DenialBody {
        r#type: format!("{TYPE_PREFIX}{}", kind.code),
        title: kind.title,
        status,
        code: kind.code,
        error: Cow::Borrowed(kind.title),
        error_type: None,
        status_code: None,
        message: detail.clone(),
        detail,
        reset_at: denial.retry_at.or(limit.and_then(|limit| limit.resets_at)).map(Time),
        details: None,
        actions: None,
        decision: CheckAnswer::of(admission, asked, catalog),
    };
    match (denial.code, &denial.feature) {
        (Code::Allowed | Code::TenantSuspended, _) => {}
        (Code::FeatureNotInPlan, feature) => {
            let feature = catalog.features.get(feature.as_ref()?)?;
            body.code = "SUBSCRIPTION_UPGRADE_REQUIRED";
            body.error = Cow::Borrowed("subscription_tier_insufficient");
            body.status_code = Some(status);
            body.message = Cow::Borrowed(&feature.title);
            body.details = Some(Details::Feature(Box::new(feature_details(admission, feature, catalog))));
        }
        (code, _) => {
            body.error_type = Some(error_type(code));
            if let Some(limit) = limit {
                let label = catalog.meters.get(&limit.meter).map_or(limit.meter.as_str(), |meter| &meter.label);
                body.error = match code {
                    Code::SessionLimitReached => Cow::Borrowed("Session time limit exceeded"),
                    Code::ConcurrencyLimitReached => Cow::Borrowed("Concurrent session limit exceeded"),
                    _ => Cow::Owned(format!("{label} limit exceeded")),
                };
                body.details = limit_details(admission, denial, limit, catalog).map(Box::new).map(Details::Limit);
            }
            body.actions = Some(actions(admission, denial, catalog));
        }
    }
    Some(body)
}

/// The word the second seed's clients switch on.
fn error_type(code: Code) -> &'static str {
    match code {
        Code::SessionLimitReached => "session_limit_exceeded",
        Code::ConcurrencyLimitReached => "concurrency_limit_exceeded",
        Code::RateLimitReached => "rate_limit_exceeded",
        _ => "limit_exceeded",
    }
}

fn feature_details<'a>(admission: &'a Admission, feature: &'a Feature, catalog: &'a Catalog) -> FeatureDetails<'a> {
    let mut plans: Vec<&Arc<Plan>> =
        catalog.plans.values().filter(|plan| plan.public && plan.has(&feature.key)).collect();
    plans.sort_by_key(|plan| plan.rank);
    let current = admission.decision.plan.as_str();
    let minimum = plans.first();
    let fill = |template: &Option<Arc<str>>| {
        let plan = minimum.map_or("", |plan| plan.key.as_str());
        let tenant = admission.tenant.as_str();
        template.as_deref().map(|text| Catalog::fill_template(text, tenant, plan, current, feature.key.as_str()))
    };
    let benefit = |benefit: &'a Benefit| BenefitShape { text: &benefit.text, icon: benefit.icon.as_deref() };
    FeatureDetails {
        required_feature: feature.key.as_str(),
        minimum_tier: minimum.map(|plan| plan.key.as_str()),
        allowed_tiers: plans.iter().map(|plan| plan.key.as_str()).collect(),
        current_tier: current,
        title: &feature.title,
        description: feature.description.as_deref(),
        benefits: feature.benefits.iter().map(benefit).collect(),
        roi_estimate: Some(roi(feature)).filter(|estimate| !estimate.is_empty()),
        pricing: minimum.and_then(|plan| pricing(plan)),
        upgrade_url: fill(&catalog.upgrade_url).filter(|_| minimum.is_some()),
        preview_url: fill(&feature.preview_url),
        social_proof: feature.social_proof.as_deref(),
    }
}

fn roi(feature: &Feature) -> BTreeMap<&str, RoiShape<'_>> {
    let values = feature.roi_estimate.iter().map(|(name, value)| match value {
        RoiValue::Integer(number) => (&**name, RoiShape::Integer(*number)),
        RoiValue::Text(text) => (&**name, RoiShape::Text(text)),
    });
    values.collect()
}

fn pricing(plan: &Plan) -> Option<Pricing<'_>> {
    let price = plan.price.as_ref()?;
    Some(Pricing {
        plan: plan.key.as_str(),
        label: &plan.label,
        amount_cents: price.amount_cents,
        currency: &price.currency,
        per: &price.per,
    })
}

fn limit_details<'a>(
    admission: &'a Admission,
    denial: &Denial,
    limit: &'a LimitState,
    catalog: &'a Catalog,
) -> Option<LimitDetails<'a>> {
    let meter = catalog.meters.get(&limit.meter)?;
    let text = |amount: i64| limit_text(meter, limit.window, amount);
    let is_time = meter.kind == MeterKind::Duration && limit.window != LimitWindow::Concurrent;
    Some(LimitDetails {
        tier: admission.decision.plan.as_str(),
        meter: limit.meter.as_str(),
        label: &meter.label,
        unit: limit_unit(meter, limit.window),
        limit_name: &limit.name,
        window: limit.window.word(),
        scope: limit.scope.word(),
        used: text(limit.used),
        limit: limit.max.map(text),
        remaining: limit.remaining().map(text),
        percentage_used: limit.percent(),
        used_amount: limit.used,
        limit_amount: limit.max,
        remaining_amount: limit.remaining(),
        requested_amount: denial.amount,
        seconds: is_time.then(|| Seconds::of(limit)),
        duration: (limit.window == LimitWindow::Session).then(|| text(limit.used)),
        conversation_id: None,
        period_end: limit.resets_at.map(Time),
    })
}

fn actions<'a>(admission: &'a Admission, denial: &'a Denial, catalog: &Catalog) -> Actions<'a> {
    let plan = denial.upgrade.as_ref();
    let label = plan.and_then(|plan| catalog.plans.get(plan)).map(|plan| &plan.label);
    let url = plan.zip(catalog.upgrade_url.as_deref()).map(|(plan, template)| {
        let from = admission.decision.plan.as_str();
        Catalog::fill_template(template, admission.tenant.as_str(), plan.as_str(), from, "")
    });
    let new_session = denial.code == Code::SessionLimitReached;
    let full = denial.code == Code::ConcurrencyLimitReached;
    let message = match (label, denial.retry_at, new_session) {
        (Some(label), _, true) => format!("Start a new conversation, or upgrade to {label}."),
        (None, _, true) => "Start a new conversation.".to_owned(),
        (Some(label), _, _) if full => format!("Upgrade to {label}, or end another conversation first."),
        (None, _, _) if full => "End another conversation first.".to_owned(),
        (Some(label), Some(at), _) => format!("Upgrade to {label}, or try again from {}.", at.rfc3339()),
        (Some(label), None, _) => format!("Upgrade to {label}."),
        (None, Some(at), _) => format!("Try again from {}.", at.rfc3339()),
        (None, None, _) => "Ask for less, or make room first.".to_owned(),
    };
    Actions {
        upgrade: plan.is_some(),
        upgrade_plan: plan.map(|plan| plan.as_str()),
        upgrade_url: url,
        create_new_conversation: new_session.then_some(true),
        message,
    }
}

#[cfg(test)]
#[path = "denial_tests.rs"]
mod tests;
