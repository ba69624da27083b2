//! The keys at the top of the file.

use super::{
    Unmatched, keys,
    report::Report,
    table::{Declared, Table, resolve},
};
use domain::{
    catalog::{Enforce, EventBounds, ForecastTerms, Plan},
    id::PlanKey,
    time::DAY_MS,
    warning::{WARN_PERCENT_MAX, WARN_PERCENTS_MAX},
};
use std::sync::Arc;

/// The words of `enforce`, of the catalog and of routes.
pub(super) const ENFORCE: &[(&str, Enforce)] = &[("on", Enforce::On), ("observe", Enforce::Observe)];

const UNMATCHED: &[(&str, Unmatched)] = &[("forward", Unmatched::Forward), ("refuse", Unmatched::Refuse)];

/// Use from which warnings are given, when the catalog does not say.
const WARN_PERCENT: i64 = 80;

/// How late an event may be at most, milliseconds: ids are remembered for as long, an older one could be counted twice.
pub const LATE_MAX_MS: i64 = 35 * DAY_MS;

/// As far ahead as a level is looked at.
const FORECAST_DAYS_MAX: i64 = 90;

/// As many days of history as are looked at.
const FORECAST_HISTORY_MAX: i64 = 60;

/// What stands at the top of the file.
pub(super) struct Settings {
    pub(super) enforce: Enforce,
    pub(super) default_plan: Option<PlanKey>,
    pub(super) unmatched: Unmatched,
    pub(super) upgrade_url: Option<Arc<str>>,
    pub(super) warn_percent: u8,
    pub(super) warnings: Vec<u16>,
    pub(super) event_bounds: EventBounds,
    pub(super) forecast: ForecastTerms,
}

/// Reads them.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>, plans: &Declared<Plan>) -> Settings {
    let enforce = document.word(report, "enforce", ENFORCE).unwrap_or_default();
    let default_plan = document.text(report, "default_plan");
    let default_plan = default_plan.and_then(|name| resolve(report, name, "plan", plans)).map(|plan| plan.key.clone());
    let unmatched = document.word(report, "unmatched", UNMATCHED).unwrap_or_default();
    let upgrade_url = document.text(report, "upgrade_url");
    let upgrade_url = upgrade_url.and_then(|text| keys::link(report, text, "`upgrade_url`"));
    let warn_percent = document.integer(report, "warn_percent", 1, 100).unwrap_or(WARN_PERCENT) as u8;
    let warnings = warnings(report, document, warn_percent);
    let event_bounds = events(report, document);
    let forecast = forecast(report, document);
    refuse_elsewhere(report, document);
    Settings { enforce, default_plan, unmatched, upgrade_url, warn_percent, warnings, event_bounds, forecast }
}

/// `[forecast]`: from which dates on a forecast is a warning, and how much history it takes.
fn forecast(report: &mut Report<'_>, document: &mut Table<'_>) -> ForecastTerms {
    let mut terms = ForecastTerms::DEFAULT;
    let Some(mut table) = document.get("forecast").and_then(|node| node.table(report, "`forecast`")) else {
        return terms;
    };
    let days = |given: Option<i64>, default: u32| given.and_then(|days| u32::try_from(days).ok()).unwrap_or(default);
    terms.critical_days = days(table.integer(report, "critical_days", 0, FORECAST_DAYS_MAX), terms.critical_days);
    let default = terms.warning_days.max(terms.critical_days);
    terms.warning_days = days(table.integer(report, "warning_days", 0, FORECAST_DAYS_MAX), default);
    terms.days_min = days(table.integer(report, "days_min", 2, FORECAST_HISTORY_MAX), terms.days_min);
    if terms.warning_days < terms.critical_days {
        let span = table.key_span("warning_days").unwrap_or_default();
        let message = "what is critical would not be a warning: `warning_days` is less than `critical_days`";
        report.error_help(span, message, "write as many days, or more, for `warning_days`");
    }
    table.finish(report);
    terms
}

/// The parts of a limit that are told of once; where it does not say, what answers warn from, and the whole.
fn warnings(report: &mut Report<'_>, document: &mut Table<'_>, warn_percent: u8) -> Vec<u16> {
    let Some(node) = document.get("warnings") else {
        let mut default = vec![u16::from(warn_percent), 100];
        default.dedup();
        return default;
    };
    let list = node.list(report, "`warnings`").unwrap_or_default();
    keys::at_most(report, Some(node.span), "parts of a limit to warn of", list.len(), WARN_PERCENTS_MAX);
    let mut percents: Vec<u16> = Vec::new();
    for part in list {
        let Some(percent) = part.integer(report, "a part of `warnings`") else { continue };
        match u16::try_from(percent).ok().filter(|percent| (1..=WARN_PERCENT_MAX).contains(percent)) {
            Some(percent) if percents.last().is_none_or(|last| *last < percent) => percents.push(percent),
            Some(_) => report.error(part.span, "`warnings` must be in ascending order, each part once"),
            None => report.error(part.span, format!("a part of `warnings` must be between 1 and {WARN_PERCENT_MAX}")),
        }
    }
    percents
}

fn events(report: &mut Report<'_>, document: &mut Table<'_>) -> EventBounds {
    let mut bounds = EventBounds { late_ms: 7 * DAY_MS, future_ms: 300_000 };
    let Some(mut table) = document.get("events").and_then(|node| node.table(report, "`events`")) else { return bounds };
    if let Some(late_ms) = keys::duration_ms(report, &mut table, "late", 0..=LATE_MAX_MS) {
        bounds.late_ms = late_ms;
    }
    if let Some(future_ms) = keys::duration_ms(report, &mut table, "future", 0..=DAY_MS) {
        bounds.future_ms = future_ms;
    }
    table.finish(report);
    bounds
}

/// Settings of the process are not part of what is sold, and so not of the catalog.
fn refuse_elsewhere(report: &mut Report<'_>, document: &mut Table<'_>) {
    let message = "settings of the process are no part of the catalog";
    for (key, help) in [
        ("gateway", "set TIDEGATE_GATEWAY_LISTEN and TIDEGATE_GATEWAY_UPSTREAM in the environment"),
        ("api", "set TIDEGATE_API_LISTEN in the environment"),
        ("ledger", "set TIDEGATE_LEDGER_URL in the environment"),
        (
            "retention",
            "set TIDEGATE_LEDGER_JOURNAL, TIDEGATE_LEDGER_DEDUPE and TIDEGATE_LEDGER_DENIALS in the environment",
        ),
        ("log", "set TIDEGATE_LOG_FORMAT and TIDEGATE_LOG_LEVEL in the environment"),
    ] {
        document.refuse(report, key, message, help);
    }
}
