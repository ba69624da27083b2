//! A decision as it is answered: to a check, and inside every denial of the gateway.

use super::{
    in_flight_id::hold_text,
    json::Json,
    limit::{LimitShape, Time},
    text::{limit_text, window_text},
};
use domain::{
    catalog::Catalog,
    decision::{Code, Decision, Denial},
    id::{FeatureKey, TenantId},
};
use engine::requests::Admission;
use serde::Serialize;
use std::borrow::Cow;

/// A decision on the wire.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Decision)]
pub struct CheckAnswer<'a> {
    /// Whether the caller may go on.
    pub allowed: bool,
    /// `allowed`, or why not.
    #[schema(example = "allowed")]
    pub code: &'static str,
    /// The limit or the feature that refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<&'a str>,
    /// For people.
    pub message: Cow<'static, str>,
    /// Whose.
    pub tenant_id: &'a str,
    /// The plan decided on.
    pub plan: &'a str,
    /// The meter that refused; where none did, the first that was asked for. Null where only features were.
    pub meter: Option<&'a str>,
    /// The amount asked for of that meter.
    pub amount: i64,
    /// Every limit on every meter asked for.
    pub limits: Vec<LimitShape<'a>>,
    /// The hold, where one was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "hold_0123456789abcdef0123456789abcdef_61636d65")]
    pub hold_id: Option<String>,
    /// When it lapses; absent where it is settled already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Time>,
    /// Seconds until a repeat is worth it; absent where waiting does not help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Where the refusal can be read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
    /// What would have been refused, had the limit been hard or enforcement on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowShape<'a>>,
    /// The cheapest plan under which the same request would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeShape<'a>>,
    /// Whether it was decided on what the node knew while the ledger could not be written; absent where it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(value_type = Option<bool>)]
    pub outage: bool,
}

/// A refusal that was only recorded.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Shadow)]
pub struct ShadowShape<'a> {
    /// Why it would have been refused.
    pub code: &'static str,
    /// The limit or the feature that would have refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<&'a str>,
    /// For people.
    pub message: Cow<'static, str>,
}

/// A plan that would help.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Upgrade)]
pub struct UpgradeShape<'a> {
    /// The plan.
    pub plan: &'a str,
    /// Where it is bought; absent where the catalog has no `upgrade_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl<'a> CheckAnswer<'a> {
    /// The answer to an admission. `asked` is the first charge that was asked for.
    pub fn of(admission: &'a Admission, asked: Option<(&'a str, i64)>, catalog: &Catalog) -> Self {
        let decision = &admission.decision;
        let denial = decision.denial.as_deref();
        let refused_on = denial.and_then(|denial| Some((denial.meter.as_ref()?.as_str(), denial.amount)));
        let subject = refused_on.or(asked);
        Self {
            allowed: decision.allowed,
            code: decision.code().word(),
            denied_by: denial.and_then(|denial| denied_by(denial, decision)),
            message: denial.map_or(Cow::Borrowed("Allowed."), |denial| message(denial, decision, catalog)),
            tenant_id: admission.tenant.as_str(),
            plan: decision.plan.as_str(),
            meter: subject.map(|(meter, _)| meter),
            amount: subject.map_or(0, |(_, amount)| amount),
            limits: decision.limits.iter().map(LimitShape::of).collect(),
            hold_id: admission.hold.map(|hold| hold_text(&admission.tenant, hold.id)),
            expires_at: admission.hold.and_then(|hold| hold.expires_at).map(Time),
            retry_after_s: decision.retry_after_s(),
            denial_id: admission.denial_id.map(|id| id.to_string()),
            shadow: decision.shadow.as_ref().map(|shadow| ShadowShape {
                code: shadow.code.word(),
                denied_by: denied_by(shadow, decision),
                message: message(shadow, decision, catalog),
            }),
            upgrade: denial.and_then(|denial| upgrade(denial, &admission.tenant, decision, catalog)),
            outage: admission.outage,
        }
    }

    /// The JSON, byte for byte what serde would write, in half the time: it is most of what an answer costs here.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Json(Vec::with_capacity(320 + 300 * self.limits.len()));
        json.raw(if self.allowed { "{\"allowed\":true" } else { "{\"allowed\":false" });
        json.word(",\"code\":", self.code);
        if let Some(denied_by) = self.denied_by {
            json.text(",\"denied_by\":", denied_by);
        }
        json.text(",\"message\":", &self.message);
        json.text(",\"tenant_id\":", self.tenant_id);
        json.text(",\"plan\":", self.plan);
        match self.meter {
            Some(meter) => json.text(",\"meter\":", meter),
            None => json.raw(",\"meter\":null"),
        }
        json.number(",\"amount\":", Some(self.amount));
        json.raw(",\"limits\":[");
        for (index, limit) in self.limits.iter().enumerate() {
            json.raw(if index == 0 { "{" } else { ",{" });
            limit.write(&mut json);
        }
        json.raw("]");
        self.write_rest(&mut json);
        json.raw("}");
        json.0
    }

    /// What most answers lack.
    fn write_rest(&self, json: &mut Json) {
        if let Some(hold) = &self.hold_id {
            json.text(",\"hold_id\":", hold);
        }
        if let Some(at) = &self.expires_at {
            json.value(",\"expires_at\":", at);
        }
        if let Some(seconds) = self.retry_after_s {
            json.value(",\"retry_after_s\":", &seconds);
        }
        if let Some(denial) = &self.denial_id {
            json.text(",\"denial_id\":", denial);
        }
        if let Some(shadow) = &self.shadow {
            json.value(",\"shadow\":", shadow);
        }
        if let Some(upgrade) = &self.upgrade {
            json.value(",\"upgrade\":", upgrade);
        }
        if self.outage {
            json.raw(",\"outage\":true");
        }
    }
}

pub(super) fn denied_by<'a>(denial: &'a Denial, decision: &'a Decision) -> Option<&'a str> {
    match denial.limit.and_then(|index| decision.limits.get(index)) {
        Some(limit) => Some(&limit.name),
        None => denial.feature.as_ref().map(FeatureKey::as_str),
    }
}

pub(super) fn upgrade<'a>(
    denial: &'a Denial,
    tenant: &TenantId,
    decision: &Decision,
    catalog: &Catalog,
) -> Option<UpgradeShape<'a>> {
    let plan = denial.upgrade.as_ref()?.as_str();
    let feature = denial.feature.as_ref().map_or("", FeatureKey::as_str);
    let url = catalog
        .upgrade_url
        .as_deref()
        .map(|template| Catalog::fill_template(template, tenant.as_str(), plan, decision.plan.as_str(), feature));
    Some(UpgradeShape { plan, url })
}

/// A refusal as a sentence with its numbers.
pub fn message(denial: &Denial, decision: &Decision, catalog: &Catalog) -> Cow<'static, str> {
    let limit = denial.limit.and_then(|index| decision.limits.get(index));
    let meter = limit.and_then(|limit| catalog.meters.get(&limit.meter));
    let (Some(limit), Some(meter)) = (limit, meter) else { return message_without_limit(denial, decision, catalog) };
    let max = limit.max.unwrap_or_default();
    let whose = match limit.scope {
        domain::catalog::Scope::Tenant => "",
        domain::catalog::Scope::User => " by this user",
    };
    let mut text = format!(
        "{}: {} of {} {}{whose}, {} more asked for",
        meter.label,
        limit_text(meter, limit.window, limit.used),
        limit_text(meter, limit.window, max),
        window_text(limit.window),
        limit_text(meter, limit.window, denial.amount),
    );
    match (denial.retry_at, limit.resets_at) {
        (Some(at), _) => text.push_str(&format!("; try again from {}.", at.rfc3339())),
        (None, Some(_)) => text.push_str("; this is more than the limit allows at any time."),
        (None, None) => text.push('.'),
    }
    Cow::Owned(text)
}

fn message_without_limit(denial: &Denial, decision: &Decision, catalog: &Catalog) -> Cow<'static, str> {
    match (denial.code, &denial.feature) {
        (Code::TenantSuspended, _) => Cow::Borrowed("The tenant is suspended; nothing may be used until it is active."),
        (_, Some(feature)) => {
            let title = catalog.features.get(feature).map_or(feature.as_str(), |feature| &feature.title);
            Cow::Owned(format!("The plan \"{}\" does not have the feature \"{feature}\": {title}.", decision.plan))
        }
        (code, None) => Cow::Owned(format!("Refused: {}.", code.word())),
    }
}
