//! The second seed's shapes, for apps that were written against it: `GET /api/organizations/{id}/usage` and
//! `GET /api/subscription-tiers`.
//!
//! What the seed calls *conversation time* is the meter `conversation_time`, or else the first `duration` meter of the
//! catalog; its limit is the tenant's longest hard one on it, and the longest conversation the hard limit on one session.
//! `users` is the limit on the meter `users` or `seats`, `conversations_count` the use of the meter that the time's
//! `counted_by` names, or else of `conversations`. As there, unlimited is -1 in seconds and `Unlimited` in text. Unlike
//! there, the period is the real one, and a percentage past 100 is shown.

use super::{limit::Time, plans::public_plans, text::duration_text};
use domain::{
    catalog::{Catalog, Limit, LimitWindow, Meter, MeterKind, Mode, Plan, Price, Scope},
    decision::LimitState,
    id::TenantId,
    view::{MeterUsage, Usage},
};
use serde::Serialize;
use std::collections::BTreeMap;

const UNLIMITED: &str = "Unlimited";

/// A number, or the word `Unlimited`.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = CountOrUnlimited)]
pub enum Count {
    /// A number.
    Number(i64),
    /// `Unlimited`.
    Word(&'static str),
}

impl Count {
    fn of(max: Option<i64>) -> Self {
        max.map_or(Count::Word(UNLIMITED), Count::Number)
    }
}

/// A plan, as the second seed shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SubscriptionTier)]
pub struct TierShape<'a> {
    /// For people.
    pub name: &'a str,
    /// The plan's key.
    pub tier_id: &'a str,
    /// `$29/month`, `Free` or `Custom`.
    #[schema(example = "$29/month")]
    pub price: String,
    /// `5h 0m` or `Unlimited`.
    #[schema(example = "5h 0m")]
    pub conversation_time: String,
    /// The longest session, as `30m`; `Unlimited` where the plan has no such limit.
    #[schema(example = "30m")]
    pub max_session: String,
    /// How many users.
    pub users: Count,
    /// Features of the catalog, and whether the plan has them.
    pub features: BTreeMap<&'a str, bool>,
}

/// Every public plan.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SubscriptionTiers)]
pub struct TiersAnswer<'a> {
    /// By rank.
    pub tiers: Vec<TierShape<'a>>,
}

impl<'a> TiersAnswer<'a> {
    /// The public plans of a catalog.
    pub fn of(catalog: &'a Catalog) -> Self {
        Self { tiers: public_plans(catalog).into_iter().map(|plan| TierShape::of(plan, catalog)).collect() }
    }
}

impl<'a> TierShape<'a> {
    fn of(plan: &'a Plan, catalog: &'a Catalog) -> Self {
        let limit_on = |key: &str| plan.limits.iter().find(|limit| limit.meter.as_str() == key && binds(limit));
        let meter = conversation_time(catalog);
        let on_time =
            || plan.limits.iter().filter(|limit| meter.is_some_and(|meter| limit.meter == meter.key) && binds(limit));
        let time = on_time().filter(|limit| limit.window.kind().is_some()).min_by_key(|limit| limit.window);
        let session =
            on_time().filter(|limit| limit.window == LimitWindow::Session).filter_map(|limit| limit.max).min();
        let users = limit_on("users").or_else(|| limit_on("seats"));
        Self {
            name: &plan.label,
            tier_id: plan.key.as_str(),
            price: price_text(plan.price.as_ref()),
            conversation_time: time.and_then(|limit| limit.max).map_or_else(|| UNLIMITED.to_owned(), duration_text),
            max_session: session.map_or_else(|| UNLIMITED.to_owned(), duration_text),
            users: Count::of(users.and_then(|limit| limit.max)),
            features: catalog.features.keys().map(|feature| (feature.as_str(), plan.has(feature))).collect(),
        }
    }
}

fn binds(limit: &Limit) -> bool {
    limit.scope == Scope::Tenant && limit.mode == Mode::Hard
}

/// `$29/month`, `9.90 CHF/year`, `Free` or `Custom`.
fn price_text(price: Option<&Price>) -> String {
    let Some(price) = price else { return "Custom".to_owned() };
    if price.amount_cents == 0 {
        return "Free".to_owned();
    }
    let (units, cents) = (price.amount_cents / 100, price.amount_cents % 100);
    let amount = if cents == 0 { units.to_string() } else { format!("{units}.{cents:02}") };
    match &*price.currency {
        "USD" => format!("${amount}/{}", price.per),
        "EUR" => format!("€{amount}/{}", price.per),
        "GBP" => format!("£{amount}/{}", price.per),
        currency => format!("{amount} {currency}/{}", price.per),
    }
}

fn conversation_time(catalog: &Catalog) -> Option<&Meter> {
    let named = catalog.meter("conversation_time").filter(|meter| meter.kind == MeterKind::Duration);
    named.or_else(|| catalog.meters.values().find(|meter| meter.kind == MeterKind::Duration)).map(AsRef::as_ref)
}

/// What an organization used, as the second seed shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OrganizationUsage)]
pub struct OrganizationUsageAnswer<'a> {
    /// The tenant.
    pub organization_id: &'a str,
    /// Its plan; null where the catalog no longer has it.
    pub tier: Option<TierShape<'a>>,
    /// The billing period.
    pub current_period: CurrentPeriod,
    /// Conversation time.
    pub usage: TimeUsage,
    /// What follows from it.
    pub status: TimeStatus,
    /// The limits that are enforced.
    pub limits: TimeLimits,
}

/// The billing period.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CurrentPeriod {
    /// The first instant inside.
    #[schema(value_type = String, format = DateTime)]
    pub start: Time,
    /// The first instant after.
    #[schema(value_type = String, format = DateTime)]
    pub end: Time,
    /// When the numbers were true.
    #[schema(value_type = String, format = DateTime)]
    pub last_updated: Time,
}

/// Conversation time in seconds and in text; -1 is unlimited.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TimeUsage {
    /// Used in the limit's window.
    pub used_seconds: i64,
    /// As text.
    pub used_formatted: String,
    /// Allowed.
    pub limit_seconds: i64,
    /// As text.
    pub limit_formatted: String,
    /// Still allowed.
    pub remaining_seconds: i64,
    /// As text.
    pub remaining_formatted: String,
    /// 0.0 where unlimited.
    pub percentage_used: f64,
    /// How many conversations were begun; 0 where the catalog counts none.
    pub conversations_count: i64,
}

/// What follows from the use.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TimeStatus {
    /// Whether more may be used.
    pub allowed: bool,
    /// Whether a warning is due.
    pub show_warning: bool,
    /// Whether there is no limit.
    pub unlimited: bool,
}

/// The limits that are enforced.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TimeLimits {
    /// -1 is unlimited.
    pub conversation_time_minutes_per_month: i64,
    /// -1 is unlimited.
    pub max_conversation_duration_minutes: i64,
    /// The window of the limit: `period`, `month` or `day`.
    pub reset_period: &'static str,
    /// When the window ends; null where nothing resets.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Time>,
}

impl<'a> OrganizationUsageAnswer<'a> {
    /// The shape of a tenant's usage. `None` where the catalog has no duration meter.
    pub fn of(tenant: &'a TenantId, usage: &'a Usage, catalog: &'a Catalog) -> Option<Self> {
        let meter = conversation_time(catalog)?;
        let time = usage.meters.iter().find(|usage| usage.meter.key == meter.key)?;
        let limit = longest_limit(time);
        let max = limit.and_then(|limit| limit.max);
        let used = limit.map_or(time.used, |limit| limit.used);
        let remaining = limit.and_then(LimitState::remaining);
        let seconds = |ms: Option<i64>| ms.map_or(-1, |ms| ms / 1000);
        let text = |ms: Option<i64>| ms.map_or_else(|| UNLIMITED.to_owned(), duration_text);
        let percentage = percentage(used, max);
        let counter = meter.session.counted_by.as_ref().map_or("conversations", |counter| counter.as_str());
        let conversations = usage.meters.iter().find(|usage| usage.meter.key.as_str() == counter);
        Some(Self {
            organization_id: tenant.as_str(),
            tier: catalog.plans.get(&usage.plan).map(|plan| TierShape::of(plan, catalog)),
            current_period: CurrentPeriod {
                start: Time(usage.period.start),
                end: Time(usage.period.end),
                last_updated: Time(usage.at),
            },
            usage: TimeUsage {
                used_seconds: used / 1000,
                used_formatted: duration_text(used),
                limit_seconds: seconds(max),
                limit_formatted: text(max),
                remaining_seconds: seconds(remaining),
                remaining_formatted: text(remaining),
                percentage_used: percentage,
                conversations_count: conversations.map_or(0, |usage| usage.used),
            },
            status: TimeStatus {
                allowed: max.is_none_or(|max| used < max),
                show_warning: max.is_some() && percentage >= f64::from(catalog.warn_percent),
                unlimited: max.is_none(),
            },
            limits: TimeLimits {
                conversation_time_minutes_per_month: max.map_or(-1, |max| max / 60_000),
                max_conversation_duration_minutes: longest_session(time).map_or(-1, |max| max / 60_000),
                reset_period: limit.and_then(|limit| limit.window.kind()).map_or("period", |kind| kind.word()),
                resets_at: limit.and_then(|limit| limit.resets_at).map(Time),
            },
        })
    }
}

/// Windows are ordered from the longest to the shortest.
fn longest_limit(usage: &MeterUsage) -> Option<&LimitState> {
    let in_windows = usage.limits.iter().filter(|limit| binds(limit) && limit.window.kind().is_some());
    in_windows.min_by_key(|limit| limit.window)
}

/// What one session may take, milliseconds.
fn longest_session(usage: &MeterUsage) -> Option<i64> {
    let of_sessions = usage.limits.iter().filter(|limit| binds(limit) && limit.window == LimitWindow::Session);
    of_sessions.filter_map(|limit| limit.max).min()
}

/// Two decimals; what is nothing of nothing is full.
fn percentage(used: i64, max: Option<i64>) -> f64 {
    match max {
        None => 0.0,
        Some(max) if max <= 0 => 100.0,
        Some(max) => (used as f64 / max as f64 * 10_000.0).round() / 100.0,
    }
}
