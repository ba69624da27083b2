//! The `limits` of a plan, and whether they agree with each other.

use super::{
    amount, keys,
    problem::quoted,
    report::{Report, Span},
    table::{Declared, Node, Table, resolve},
};
use domain::{
    catalog::{AMOUNT_MAX, Limit, LimitWindow, Meter, MeterKind, Mode, Outage, Quota, Scope},
    id::MeterKey,
    in_flight::IN_FLIGHT_MAX,
    time::WindowKind,
};
use std::sync::Arc;
use toml::de::DeValue;

/// How many limits one plan may have.
const LIMITS_MAX: usize = 200;

const SCOPES: &[(&str, Scope)] = &[("tenant", Scope::Tenant), ("user", Scope::User)];
const MODES: &[(&str, Mode)] = &[("hard", Mode::Hard), ("soft", Mode::Soft), ("shadow", Mode::Shadow)];
/// Whether it lets pass while the ledger can't be written.
const OUTAGES: &[(&str, bool)] = &[("closed", false), ("open", true)];

const WINDOWS: &[(&str, LimitWindow)] = &[
    ("period", LimitWindow::Of(WindowKind::Period)),
    ("month", LimitWindow::Of(WindowKind::Month)),
    ("day", LimitWindow::Of(WindowKind::Day)),
    ("hour", LimitWindow::Of(WindowKind::Hour)),
    ("minute", LimitWindow::Of(WindowKind::Minute)),
    ("session", LimitWindow::Session),
    ("concurrent", LimitWindow::Concurrent),
];

/// Reads the limits of a plan.
pub(super) fn read(report: &mut Report<'_>, plan: &mut Table<'_>, meters: &Declared<Meter>) -> Vec<Limit> {
    let nodes = plan.list(report, "limits");
    keys::at_most(report, plan.key_span("limits"), "limits in one plan", nodes.len(), LIMITS_MAX);
    let mut limits: Vec<(Limit, Span)> = Vec::new();
    for node in nodes.into_iter().take(LIMITS_MAX) {
        if let Some(limit) = limit(report, node, meters) {
            contradiction(report, &limit, node.span, &limits);
            limits.push((limit, node.span));
        }
    }
    excess(report, &limits);
    limits.into_iter().map(|(limit, _)| limit).collect()
}

fn limit(report: &mut Report<'_>, node: Node<'_>, meters: &Declared<Meter>) -> Option<Limit> {
    let mut table = node.table(report, "a limit")?;
    let help = "write { meter = \"messages\", max = 50, per = \"day\" }";
    let meter = table.required(report, "meter", help).and_then(|node| node.text(report, "`meter` of a limit"));
    let meter = meter.and_then(|name| resolve(report, name, "meter", meters));
    let max_node = table.required(report, "max", "write a number, or max = \"unlimited\"");
    let per = table.get("per");
    let window = meter.and_then(|meter| window(report, table.span, meter, per, max_node));
    let max = max_node.and_then(|node| match window {
        Some(LimitWindow::Concurrent) => count(report, node),
        _ => amount::max(report, node, meter.map(|meter| &**meter)),
    });
    let scope = scope(report, &mut table, window);
    let mode = table.get("mode").map_or(Some(Mode::Hard), |node| {
        let text = node.text(report, "`mode`")?;
        super::table::one_of(report, text, "`mode`", MODES)
    });
    let name = table.text(report, "name");
    let name = name.map(|text| keys::key(report, text, "limit", MeterKey::new));
    let answer_402 = answer_402(report, &mut table, meter, window);
    let outage = outage(report, &mut table, meter, max);
    let quota = quota(report, &mut table, meter, (window, scope));
    table.finish(report);
    let (meter, window, scope) = (meter?.key.clone(), window?, scope?);
    let name = match name {
        Some(name) => Arc::from(name?.as_str()),
        None => Limit::default_name(&meter, window, scope).into(),
    };
    Some(Limit {
        name,
        meter,
        max: max?,
        window,
        scope,
        mode: mode?,
        answer_402: answer_402?,
        outage: outage?,
        quota: quota?,
    })
}

/// How a quota ends: how much may be used past it, and what stays of it for the next period.
fn quota(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    meter: Option<&Arc<Meter>>,
    (window, scope): (Option<LimitWindow>, Option<Scope>),
) -> Option<Quota> {
    let (overdraft, rollover) = (table.get("overdraft"), table.get("rollover"));
    let positive = |report: &mut Report<'_>, node: Node<'_>, key: &'static str| {
        let amount = amount::amount(report, node, meter?, key)?;
        if amount >= 0 {
            return Some(amount);
        }
        report.error_help(node.span, format!("`{key}` must not be negative"), "write 0 for none, or leave it out");
        None
    };
    let mut quota = Quota::default();
    if let Some(node) = overdraft {
        quota.overdraft = positive(report, node, "overdraft")?;
        if matches!(window, Some(window) if window.kind().is_none()) {
            let help = "only what adds up in a window may be overdrawn";
            report.error_help(node.span, "this limit can't be overdrawn", help);
            return None;
        }
    }
    if let Some(node) = rollover {
        let of_period = matches!(window, Some(LimitWindow::Of(WindowKind::Period)) | None);
        if !of_period || scope.is_some_and(|scope| scope != Scope::Tenant) {
            let help = "only what is left of the tenant's billing period stays: write per = \"period\"";
            report.error_help(node.span, "what is left of this limit can't be rolled over", help);
            return None;
        }
        let all = matches!(node.value, DeValue::String(text) if text == "all");
        quota.rollover_max = Some(if all { AMOUNT_MAX } else { positive(report, node, "rollover")? });
    }
    Some(quota)
}

/// How many sessions may be open.
fn count(report: &mut Report<'_>, node: Node<'_>) -> Option<Option<i64>> {
    if matches!(node.value, DeValue::String(text) if text == amount::UNLIMITED) {
        return Some(None);
    }
    let max = node.integer(report, "`max` of sessions that are open at once")?;
    if (0..=IN_FLIGHT_MAX as i64).contains(&max) {
        return Some(Some(max));
    }
    let message = format!("`max` of sessions that are open at once must be from 0 to {IN_FLIGHT_MAX}");
    report.error_help(node.span, message, "a tenant has no more than that; write \"unlimited\" to leave it so");
    None
}

fn window(
    report: &mut Report<'_>,
    limit: Span,
    meter: &Meter,
    per: Option<Node<'_>>,
    max: Option<Node<'_>>,
) -> Option<LimitWindow> {
    let Some(per) = per else {
        let unlimited = matches!(max.map(|max| max.value), Some(DeValue::String(text)) if text == amount::UNLIMITED);
        if meter.kind == MeterKind::Gauge {
            return Some(LimitWindow::Level);
        }
        // What is unlimited is shown beside the period's use, the one people ask about.
        if unlimited {
            return Some(LimitWindow::Of(WindowKind::Period));
        }
        let message = format!("a limit on the {} {} needs a window", meter.kind.word(), quoted(meter.key.as_str()));
        report.error_help(
            limit,
            message,
            "add per = \"period\" (the billing period), \"month\", \"day\", \"hour\" or \"minute\"",
        );
        return None;
    };
    let text = per.text(report, "`per`")?;
    let window = super::table::one_of(report, text, "`per`", WINDOWS)?;
    if meter.kind == MeterKind::Gauge {
        let message = format!("{} is a gauge: its level has no window", quoted(meter.key.as_str()));
        let help = "leave `per` out; use a counter for what starts anew in each window";
        report.error_help(per.span, message, help);
        return None;
    }
    if !window.fits(meter.kind) {
        let message = format!("{} has no sessions: it is no duration", quoted(meter.key.as_str()));
        let help = "only meters of kind = \"duration\" are fed by sessions; limit this one per day or per period";
        report.error_help(per.span, message, help);
        return None;
    }
    Some(window)
}

/// A limit on each session has no other scope: it may be written all the same.
fn scope(report: &mut Report<'_>, table: &mut Table<'_>, window: Option<LimitWindow>) -> Option<Scope> {
    let Some(node) = table.get("scope") else { return Some(Scope::Tenant) };
    let text = node.text(report, "`scope`")?;
    match (text.text, window) {
        ("session", Some(LimitWindow::Session) | None) => Some(Scope::Tenant),
        ("session", Some(_)) => {
            let help = "write per = \"session\" to limit each session, or scope = \"tenant\" or \"user\"";
            report.error_help(text.span, "a session is bounded as a whole", help);
            None
        }
        (_, Some(LimitWindow::Session)) => {
            let help = "leave `scope` out: the limit is on each session, whoever opened it";
            report.error_help(text.span, "a limit per session has no other scope", help);
            None
        }
        _ => super::table::one_of(report, text, "`scope`", SCOPES),
    }
}

fn answer_402(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    meter: Option<&Arc<Meter>>,
    window: Option<LimitWindow>,
) -> Option<bool> {
    let Some(node) = table.get("status") else { return Some(false) };
    let status = node.integer(report, "`status`")?;
    let gauge = meter.is_some_and(|meter| meter.kind == MeterKind::Gauge);
    let short = matches!(window.map(LimitWindow::kind), Some(None | Some(WindowKind::Hour | WindowKind::Minute)));
    let short = short && !gauge;
    match status {
        402 if short => {
            let help = "leave `status` out: within the hour, waiting helps more than paying";
            report.error_help(node.span, "only limits per period, month or day can answer 402", help);
            None
        }
        429 if gauge => {
            let help = "leave `status` out: waiting does not empty a gauge";
            report.error_help(node.span, "a gauge at its limit always answers 402", help);
            None
        }
        402 | 429 => Some(status == 402),
        _ => {
            report.error_help(node.span, "`status` must be 402 or 429", "402 asks for an upgrade, 429 to wait");
            None
        }
    }
}

/// Whether the limit lets pass while the ledger can't be written, and how much. The allowance is a tenth of `max`, rounded
/// up, unless it is given.
fn outage(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    meter: Option<&Arc<Meter>>,
    max: Option<Option<i64>>,
) -> Option<Outage> {
    let (policy, given) = (table.get("outage"), table.get("outage_allowance"));
    let open = match policy {
        None => Some(false),
        Some(node) => {
            let text = node.text(report, "`outage`")?;
            super::table::one_of(report, text, "`outage`", OUTAGES)
        }
    };
    let allowance = match (given, meter) {
        (Some(node), Some(meter)) => Some(amount::amount(report, node, meter, "outage_allowance")?),
        _ => None,
    };
    match (open?, given) {
        (false, None) => Some(Outage::Closed),
        (false, Some(node)) => {
            let help = "add outage = \"open\", or leave `outage_allowance` out";
            report.error_help(node.span, "nothing passes during an outage, so there is no allowance", help);
            None
        }
        (true, Some(node)) if allowance? < 0 => {
            report.error_help(node.span, "`outage_allowance` must not be negative", "write 0 to let none pass");
            None
        }
        (true, Some(_)) => Some(Outage::Open { allowance: allowance? }),
        (true, None) => match max? {
            Some(max) => Some(Outage::Open { allowance: max.div_euclid(10) + i64::from(max % 10 != 0) }),
            None => {
                let message = "how much may pass during an outage can't be told from a limit that is unlimited";
                report.error_help(policy?.span, message, "add outage_allowance = a number");
                None
            }
        },
    }
}

/// Two limits on one account can't both be meant, and a name can't mean two limits.
fn contradiction(report: &mut Report<'_>, limit: &Limit, span: Span, others: &[(Limit, Span)]) {
    if let Some((other, first)) = others.iter().find(|(other, _)| other.same_account(limit)) {
        let line = report.line(*first);
        let window = match limit.window {
            LimitWindow::Level => String::new(),
            window => format!(" per {}", window.word()),
        };
        let message = format!(
            "a second limit on {} of a {}{window}; the first is on line {line}",
            quoted(other.meter.as_str()),
            limit.scope.word()
        );
        report.error_help(
            span,
            message,
            "keep one of them; warnings come from `warn_percent` and need no limit of their own",
        );
    } else if let Some((_, first)) = others.iter().find(|(other, _)| other.name == limit.name) {
        let line = report.line(*first);
        let message = format!("the name {} is already that of the limit on line {line}", quoted(&limit.name));
        report.error_help(span, message, "give each limit of a plan its own `name`");
    }
}

/// Warns of limits that can't be reached because another one always stops first.
fn excess(report: &mut Report<'_>, limits: &[(Limit, Span)]) {
    for (limit, span) in limits {
        let Some(max) = limit.max else { continue };
        for (outer, first) in limits {
            let lower = outer.max.is_some_and(|outer_max| outer_max < max);
            if !lower || outer.meter != limit.meter || outer.mode != Mode::Hard {
                continue;
            }
            let line = report.line(*first);
            let inside_tenant =
                outer.window == limit.window && outer.scope == Scope::Tenant && limit.scope == Scope::User;
            // A calendar month lies in two billing periods, so neither bounds the other.
            let month = limit.window == LimitWindow::Of(WindowKind::Month);
            if limit.window == LimitWindow::Concurrent || outer.window == LimitWindow::Concurrent {
                continue;
            }
            let inside_window = outer.scope == limit.scope && outer.window < limit.window && !month;
            if inside_tenant {
                let message = format!("no user can reach this limit: the tenant's, on line {line}, is lower");
                report.warn(*span, message, "lower this one or raise the tenant's");
            } else if inside_window {
                let (inner, longer) = (word(limit.window), word(outer.window));
                let message =
                    format!("this limit per {inner} can't be reached: the one per {longer}, on line {line}, is lower");
                report.warn(*span, message, format!("lower this one or raise the one per {longer}"));
            }
        }
    }
}

fn word(window: LimitWindow) -> &'static str {
    if window == LimitWindow::Level { "level" } else { window.word() }
}
