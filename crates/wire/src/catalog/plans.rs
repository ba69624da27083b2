//! `[plans.X]`: what a tenant can buy.

use super::{
    keys, limits,
    problem::quoted,
    report::{Report, Span},
    table::{Declared, Node, Table, Text, resolve},
    units::{self, QuantityError},
};
use domain::{
    catalog::{Feature, Meter, OnLimit, Plan, Price, SessionPolicy},
    id::{FeatureKey, PlanKey},
};
use std::{collections::BTreeMap, sync::Arc};
use toml::de::DeValue;

/// How many plans a catalog may have.
const PLANS_MAX: usize = 256;

/// How long an answer may go on past its limit where a plan lets it finish and does not say how long.
const FINISH_MAX_MS: i64 = 30_000;

/// What plans refer to.
pub(super) struct Known<'d> {
    /// Meters.
    pub(super) meters: &'d Declared<Meter>,
    /// Features.
    pub(super) features: &'d Declared<Feature>,
}

/// Reads every plan.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>, known: &Known<'_>) -> Declared<Plan> {
    let entries = document.named(report, "plans", "plan");
    keys::at_most(report, document.key_span("plans"), "plans", entries.len(), PLANS_MAX);
    if entries.is_empty() {
        let span = document.key_span("plans").unwrap_or_default();
        report.error_help(span, "the catalog has no plans", "write at least one: [plans.free] with rank = 0");
    }
    let mut ranks: BTreeMap<i64, (&str, Span)> = BTreeMap::new();
    let mut plans = Declared::new();
    let mut entries: Vec<_> = entries.into_iter().take(PLANS_MAX).collect();
    entries.sort_by_key(|(name, _)| name.span.start);
    for (name, node) in entries {
        let rank = &mut |report: &mut Report<'_>, rank: i64, span: Span| match ranks.get(&rank) {
            None => drop(ranks.insert(rank, (name.text, span))),
            Some((other, first)) => {
                let line = report.line(*first);
                let message = format!("plan {} already has the rank {rank}, on line {line}", quoted(other));
                report.error_help(span, message, "ranks order the plans: give each plan its own");
            }
        };
        plans.insert(name.text.to_owned(), plan(report, name, node, known, rank).map(Arc::new));
    }
    plans
}

fn plan(
    report: &mut Report<'_>,
    name: Text<'_>,
    node: Node<'_>,
    known: &Known<'_>,
    note_rank: &mut dyn FnMut(&mut Report<'_>, i64, Span),
) -> Option<Plan> {
    let key = keys::key(report, name, "plan", PlanKey::new);
    let mut table = node.table(report, keys::about("plan", name))?.at(name.span);
    let label = table.prose(report, "label", 100).unwrap_or_else(|| keys::humanized(name.text).into());
    let help = "write rank = 0 for the smallest plan and higher ranks for better ones";
    let rank = table.required(report, "rank", help);
    let rank = rank.and_then(|node| node.integer(report, "`rank`").map(|rank| (rank, node.span)));
    if let Some((rank, span)) = rank {
        note_rank(report, rank, span);
    }
    let price = table.get("price").map(|node| price(report, node));
    let public = table.boolean(report, "public", true);
    let features = feature_list(report, &mut table, known.features);
    let limits = limits::read(report, &mut table, known.meters).into_iter().collect();
    let sessions = table.get("sessions").map(|node| sessions(report, node));
    table.finish(report);
    let price = match price {
        Some(price) => Some(price?),
        None => None,
    };
    let sessions = match sessions {
        Some(sessions) => sessions?,
        None => SessionPolicy::default(),
    };
    Some(Plan { key: key?, label, rank: rank?.0, price, public, features, limits, sessions })
}

/// What happens to sessions whose time is used up.
fn sessions(report: &mut Report<'_>, node: Node<'_>) -> Option<SessionPolicy> {
    let mut table = node.table(report, "`sessions`")?;
    let finishes = table.word(report, "on_limit", &[("cut", false), ("finish", true)]);
    let max_span = table.key_span("finish_max");
    let max_ms = keys::duration_ms(report, &mut table, "finish_max", 1..=3_600_000);
    let warn_before_ms = keys::duration_ms(report, &mut table, "warn_before", 1..=3_600_000);
    table.finish(report);
    let on_limit = match (finishes, max_span) {
        (Some(true), _) => OnLimit::Finish { max_ms: max_ms.unwrap_or(FINISH_MAX_MS) },
        (_, None) => OnLimit::Cut,
        (_, Some(span)) => {
            let help = "add on_limit = \"finish\", or leave `finish_max` out";
            report.error_help(span, "nothing may finish past its limit, so there is no longest time for it", help);
            return None;
        }
    };
    Some(SessionPolicy { on_limit, warn_before_ms })
}

/// The `features` of a plan or route: references, each at most once.
pub(super) fn feature_list(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    known: &Declared<Feature>,
) -> Vec<FeatureKey> {
    let mut features: Vec<FeatureKey> = Vec::new();
    for node in table.list(report, "features") {
        let Some(text) = node.text(report, "a feature") else { continue };
        let Some(feature) = resolve(report, text, "feature", known) else { continue };
        if features.contains(&feature.key) {
            report.error_help(text.span, format!("feature {} is named twice", quoted(text.text)), "name it once");
            continue;
        }
        features.push(feature.key.clone());
    }
    features
}

fn price(report: &mut Report<'_>, node: Node<'_>) -> Option<Price> {
    let help = "write price = { amount = 99, currency = \"USD\", per = \"month\" }; leave it out if it is negotiated";
    if !matches!(node.value, DeValue::Table(_)) {
        node.expected(report, "`price`", "a table", Some(help));
        return None;
    }
    let mut table = node.table(report, "`price`")?;
    let amount = table.required(report, "amount", help).and_then(|node| amount_cents(report, node));
    let currency = table.required(report, "currency", help).and_then(|node| currency(report, node));
    let per = table.required(report, "per", help).and_then(|node| node.text(report, "`per` of `price`"));
    let per = per.and_then(|text| {
        super::table::one_of(report, text, "`per` of `price`", &[("month", "month"), ("year", "year")])
    });
    table.finish(report);
    Some(Price { amount_cents: amount?, currency: currency?, per: per?.into() })
}

fn amount_cents(report: &mut Report<'_>, node: Node<'_>) -> Option<i64> {
    let what = "`amount` of `price`";
    let cents = match node.value {
        DeValue::Integer(_) => node.integer(report, what)?.checked_mul(100).ok_or(QuantityError::TooLarge),
        DeValue::String(text) => units::decimal(text, 2),
        DeValue::Float(float) => {
            let help = format!("write it in quotes: amount = \"{}\"", float.as_str());
            node.expected(report, what, "an integer or a text", Some(&help));
            return None;
        }
        _ => {
            node.expected(report, what, "an integer or a text", Some("write 99 or \"9.90\""));
            return None;
        }
    };
    match cents {
        Ok(cents) if (0..=domain::catalog::AMOUNT_MAX).contains(&cents) => Some(cents),
        Ok(cents) if cents < 0 => {
            report.error_help(node.span, format!("{what} is negative"), "a free plan costs 0");
            None
        }
        Ok(_) | Err(QuantityError::TooLarge) => {
            report.error(node.span, format!("{what} is too large"));
            None
        }
        Err(_) => {
            let help = "write 99 or \"9.90\": digits, and at most two decimals";
            report.error_help(node.span, format!("{what} is not an amount of money"), help);
            None
        }
    }
}

fn currency(report: &mut Report<'_>, node: Node<'_>) -> Option<Arc<str>> {
    let text = node.text(report, "`currency`")?;
    if text.text.len() == 3 && text.text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some(text.text.into());
    }
    let upper = text.text.to_ascii_uppercase();
    let help = match text.text.trim() {
        "€" => "write \"EUR\"".to_owned(),
        "$" => "write \"USD\"".to_owned(),
        "£" => "write \"GBP\"".to_owned(),
        _ if upper.len() == 3 && upper.bytes().all(|byte| byte.is_ascii_uppercase()) => format!("write \"{upper}\""),
        _ => "write the three letters of ISO 4217, such as \"EUR\"".to_owned(),
    };
    report.error_help(text.span, format!("{} is not a currency code", quoted(text.text)), help);
    None
}
