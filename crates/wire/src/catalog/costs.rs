//! `[costs.X]`: price lists, from properties and quantities to an amount of one meter.

use super::{
    amount, keys,
    problem::{listed, quoted},
    report::Report,
    table::{Declared, Node, Table, Text, prose, resolve},
};
use domain::{
    catalog::{Meter, MeterKind},
    cost::{CostRule, CostTable, Otherwise, Parts, Prices, Rates},
    id::CostKey,
};
use std::{collections::BTreeMap, sync::Arc};
use toml::de::DeValue;

/// How many price lists a catalog may have, how many parts or quantities one, and how many prices one part.
const COSTS_MAX: usize = 64;
const PARTS_MAX: usize = 16;
const PRICES_MAX: usize = 1000;
/// How long a value with a price (or the name of a property or a quantity) may be, in characters.
pub const COST_VALUE_MAX_CHARS: usize = 100;
const PER_DEFAULT: i64 = 1000;
const PER_MAX: i64 = 1_000_000_000;
const REFUSE: &str = "refuse";

/// Reads every price list.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>, meters: &Declared<Meter>) -> Declared<CostTable> {
    let entries = document.named(report, "costs", "cost table");
    keys::at_most(report, document.key_span("costs"), "cost tables", entries.len(), COSTS_MAX);
    let read =
        |(name, node): (Text<'_>, Node<'_>)| (name.text.to_owned(), cost(report, name, node, meters).map(Arc::new));
    entries.into_iter().take(COSTS_MAX).map(read).collect()
}

fn cost(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>, meters: &Declared<Meter>) -> Option<CostTable> {
    let key = keys::key(report, name, "cost table", CostKey::new);
    let mut table = node.table(report, keys::about("cost table", name))?.at(name.span);
    let meter = meter(report, &mut table, meters);
    let rule = match (table.key_span("parts"), table.key_span("prices")) {
        (Some(_), None) => parts(report, &mut table, meter).map(CostRule::Parts),
        (None, Some(_)) => rates(report, &mut table, meter).map(CostRule::Rates),
        (parts, _) => {
            // Either kind of key is known; what is missing, or too much, is said once.
            for key in ["parts", "prices", "base", "unknown", "missing", "per", "property", "quantities"] {
                let _ = table.get(key);
            }
            let message = match parts {
                Some(_) => format!("{} has both `parts` and `prices`", table.about),
                None => format!("{} has no prices", table.about),
            };
            let help = "write [[costs.NAME.parts]] for prices that add up, or `prices` with `quantities` for prices \
                        per thousand";
            report.error_help(name.span, message, help);
            None
        }
    };
    table.finish(report);
    Some(CostTable { key: key?, meter: meter?.key.clone(), rule: rule? })
}

fn meter<'d>(report: &mut Report<'_>, table: &mut Table<'_>, meters: &'d Declared<Meter>) -> Option<&'d Meter> {
    let node = table.required(report, "meter", "write meter = \"credits\"")?;
    let text = node.text(report, &table.what("meter"))?;
    let meter = resolve(report, text, "meter", meters)?;
    if meter.kind == MeterKind::Gauge {
        let message = format!("{} is a gauge: a cost table charges what adds up", quoted(meter.key.as_str()));
        report.error_help(text.span, message, "charge a counter, such as credits");
        return None;
    }
    Some(meter)
}

fn parts(report: &mut Report<'_>, table: &mut Table<'_>, meter: Option<&Meter>) -> Option<Parts> {
    let one = |report: &mut Report<'_>, node: Node<'_>| price(report, node, meter, "unknown");
    let base = table.get("base").map_or(Some(0), |node| price(report, node, meter, "base"));
    let unknown = table.get("unknown").map(|node| otherwise(report, node, one));
    let nodes = table.list(report, "parts");
    if nodes.is_empty() {
        report.error_help(table.span, format!("{} has no parts", table.about), "write [[costs.NAME.parts]]");
    }
    keys::at_most(report, table.key_span("parts"), "parts of one cost table", nodes.len(), PARTS_MAX);
    let mut parts: Vec<Prices<i64>> = Vec::new();
    let mut all_read = !nodes.is_empty();
    for node in nodes.into_iter().take(PARTS_MAX) {
        let Some(mut table) = node.table(report, "a part of a cost table") else {
            all_read = false;
            continue;
        };
        let price = |report: &mut Report<'_>, node: Node<'_>, key: &str| price(report, node, meter, key);
        let part = prices(report, &mut table, unknown.as_ref(), &price);
        table.finish(report);
        match part {
            Some(part) if parts.iter().any(|known| known.property == part.property) => {
                let message = format!("two parts are about the property {}", quoted(&part.property));
                report.error_help(node.span, message, "write all of its prices into one part");
            }
            Some(part) => parts.push(part),
            None => all_read = false,
        }
    }
    all_read.then_some(Parts { base: base?, parts })
}

fn rates(report: &mut Report<'_>, table: &mut Table<'_>, meter: Option<&Meter>) -> Option<Rates> {
    let per = match table.get("per") {
        None => Some(PER_DEFAULT),
        Some(_) => table.integer(report, "per", 1, PER_MAX),
    };
    let quantities = quantities(report, table);
    let names = quantities.as_deref().unwrap_or_default();
    let row = |report: &mut Report<'_>, node: Node<'_>, key: &str| row(report, node, meter, names, key);
    let prices = prices(report, table, None, &row);
    Some(Rates { per: per?, quantities: quantities?, prices: prices? })
}

fn quantities(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<Arc<[Arc<str>]>> {
    let help = "name what is counted: quantities = [\"prompt_tokens\", \"completion_tokens\"]";
    table.required(report, "quantities", help)?;
    let nodes = table.list(report, "quantities");
    let span = table.key_span("quantities").unwrap_or(table.span);
    keys::at_most(report, Some(span), "quantities of one cost table", nodes.len(), PARTS_MAX);
    if nodes.is_empty() {
        report.error_help(span, format!("{} has no quantities", table.about), help);
        return None;
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    for node in nodes.into_iter().take(PARTS_MAX) {
        let text = node.text(report, "a quantity")?;
        let name = prose(report, text, "a quantity", COST_VALUE_MAX_CHARS)?;
        if names.contains(&name) {
            report.error(text.span, format!("the quantity {} is named twice", quoted(&name)));
            return None;
        }
        names.push(name);
    }
    Some(names.into())
}

/// The prices of one quantity each, in their order.
fn row(
    report: &mut Report<'_>,
    node: Node<'_>,
    meter: Option<&Meter>,
    names: &[Arc<str>],
    key: &str,
) -> Option<Arc<[i64]>> {
    let mut table = node.table(report, format!("the prices of {}", quoted(key)))?;
    let mut given: BTreeMap<&str, i64> = BTreeMap::new();
    let mut sound = true;
    for (name, node) in table.all() {
        if !names.iter().any(|known| **known == *name.text) && !names.is_empty() {
            let message = format!("{} is no quantity of this cost table", quoted(name.text));
            report.unknown(name.span, message, "quantities", name.text, names.iter().map(|name| &**name));
            sound = false;
        } else if let Some(price) = price(report, node, meter, name.text) {
            given.insert(name.text, price);
        } else {
            sound = false;
        }
    }
    let missing: Vec<&str> = names.iter().map(|name| &**name).filter(|name| !given.contains_key(name)).collect();
    if !missing.is_empty() && sound {
        let message = format!("{} has no price for {}", quoted(key), listed(missing.iter().copied()));
        report.error_help(node.span, message, "write 0 for what is free");
        sound = false;
    }
    sound.then(|| names.iter().filter_map(|name| given.get(&**name).copied()).collect())
}

/// `property`, `prices`, `unknown` and `missing`. `fallback` is the policy where this one has none of its own.
fn prices<T: Clone>(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    fallback: Option<&Option<Otherwise<T>>>,
    price: &dyn Fn(&mut Report<'_>, Node<'_>, &str) -> Option<T>,
) -> Option<Prices<T>> {
    let property = table.required(report, "property", "name it: property = \"mode\"");
    let property = property.and_then(|node| node.text(report, &table.what("property")));
    let property = property.and_then(|text| prose(report, text, &table.what("property"), COST_VALUE_MAX_CHARS));
    let known = known(report, table, price);
    let unknown = match table.get("unknown") {
        Some(node) => otherwise(report, node, |report, node| price(report, node, "unknown")),
        None => fallback.cloned().unwrap_or_else(|| {
            let help = "write unknown = \"refuse\", or an amount: nothing is free by accident";
            let message = format!("{} does not say what a value costs that has no price", table.about);
            report.error_help(table.span, message, help);
            None
        }),
    };
    let missing = match table.get("missing") {
        Some(node) => otherwise(report, node, |report, node| price(report, node, "missing")),
        None => unknown.clone(),
    };
    Some(Prices { property: property?, known: known?, unknown: unknown?, missing: missing? })
}

fn known<T>(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    price: &dyn Fn(&mut Report<'_>, Node<'_>, &str) -> Option<T>,
) -> Option<BTreeMap<Arc<str>, T>> {
    let node = table.required(report, "prices", "write prices = { analyst = 20, none = 0 }")?;
    let what = table.what("prices");
    let entries: Vec<_> = node.table(report, what.as_str())?.all().collect();
    if entries.is_empty() {
        report.error_help(node.span, format!("{what} is empty"), "write prices = { analyst = 20, none = 0 }");
        return None;
    }
    keys::at_most(report, Some(node.span), "prices of one property", entries.len(), PRICES_MAX);
    let mut known = BTreeMap::new();
    let mut all_read = true;
    for (name, node) in entries.into_iter().take(PRICES_MAX) {
        match prose(report, name, "a value with a price", COST_VALUE_MAX_CHARS).zip(price(report, node, name.text)) {
            Some((name, price)) => drop(known.insert(name, price)),
            None => all_read = false,
        }
    }
    all_read.then_some(known)
}

/// `"refuse"`, or a price.
fn otherwise<T>(
    report: &mut Report<'_>,
    node: Node<'_>,
    price: impl FnOnce(&mut Report<'_>, Node<'_>) -> Option<T>,
) -> Option<Otherwise<T>> {
    match node.value {
        DeValue::String(text) if text == REFUSE => Some(Otherwise::Refuse),
        DeValue::String(text) if !text.contains(|c: char| c.is_ascii_digit()) => {
            let help = "write \"refuse\", or an amount";
            report.error_help(node.span, format!("what has no price can't be {}", quoted(text)), help);
            None
        }
        _ => price(report, node).map(Otherwise::Price),
    }
}

fn price(report: &mut Report<'_>, node: Node<'_>, meter: Option<&Meter>, key: &str) -> Option<i64> {
    let price = amount::amount(report, node, meter?, key)?;
    if price < 0 {
        report.error_help(node.span, format!("the price of {} must not be negative", quoted(key)), "write 0 or more");
        return None;
    }
    Some(price)
}

#[cfg(test)]
#[path = "costs_tests.rs"]
mod tests;
