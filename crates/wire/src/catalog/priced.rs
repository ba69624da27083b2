//! A route's charge by a cost table: where each property of a request comes from.

use super::{
    AmountSource, COST_VALUE_MAX_CHARS, PropertySource, RouteCharge, Segment, UsageField,
    gates::{self, Known},
    keys,
    problem::quoted,
    report::Report,
    table::{Node, Table, Text, prose, resolve},
};
use domain::{
    catalog::Meter,
    cost::{CostRule, CostTable, Rates},
};
use std::sync::Arc;
use toml::de::DeValue;

/// How many claims all routes together may look at: each verified token is remembered with what it says of them.
pub(super) const CLAIMS_MAX: usize = 32;

const HELP: &str = "write \"chat\" (always this), { header = \"x-mode\" }, { claim = \"/tool\" } (of a verified token), \
                    { capture = \"model\" } or { body = \"/model\" } (of a JSON request)";

/// Reads a charge that names a cost table.
pub(super) fn charge(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    node: Node<'_>,
    known: &Known<'_>,
    segments: &[Segment],
) -> Option<RouteCharge> {
    let name = node.text(report, "`cost` of a charge");
    for key in ["meter", "amount", "header", "default", "response_header", "field"] {
        let message = format!("a charge by a cost table takes no `{key}`");
        table.refuse(report, key, &message, "the cost table says which meter is charged, and how much");
    }
    let (given, from, expect) = (table.get("properties"), table.get("from"), table.get("expect"));
    let cost = resolve(report, name?, "cost table", known.costs)?;
    let properties = properties(report, given, cost, segments)?;
    tell_missing(report, node, cost, &properties)?;
    let (meter, key) = (cost.meter.clone(), cost.key.clone());
    let amount = match &cost.rule {
        CostRule::Parts(_) => {
            for stray in [from, expect].iter().flatten() {
                let message = format!("what {} comes to is known before the request goes on", quoted(key.as_str()));
                report.error_help(stray.span, message, "`from` and `expect` are for tables with `quantities`");
            }
            AmountSource::Cost { cost: key, properties }
        }
        CostRule::Rates(rates) => {
            reported(report, node, from, rates)?;
            let expect = expected(report, node, expect, known.meters.get(meter.as_str())?.as_deref()?)?;
            AmountSource::CostOfUsage { cost: key, properties, expect }
        }
    };
    Some(RouteCharge { meter, amount })
}

/// The quantities of a table must be told: a response tells some in its `usage`.
fn reported(report: &mut Report<'_>, cost: Node<'_>, from: Option<Node<'_>>, rates: &Rates) -> Option<()> {
    let help = "write from = \"usage\": the response reports prompt_tokens, completion_tokens and total_tokens";
    let Some(from) = from else {
        report.error_help(cost.span, "the table has prices for quantities: where are they from?", help);
        return None;
    };
    let text = from.text(report, "`from`")?;
    if text.text != "usage" {
        report.error_help(text.span, format!("quantities can't be from {}", quoted(text.text)), help);
        return None;
    }
    let unreported = rates.quantities.iter().find(|name| UsageField::from_word(name).is_none());
    let Some(name) = unreported else { return Some(()) };
    report.error_help(cost.span, format!("no response reports the quantity {}", quoted(name)), help);
    None
}

fn expected(report: &mut Report<'_>, cost: Node<'_>, expect: Option<Node<'_>>, meter: &Meter) -> Option<i64> {
    let Some(expect) = expect else {
        let message = "`expect` is missing: how much is taken until the response reports its usage";
        let help = format!("write expect = 100, in {}; it stays charged where nothing is reported", meter.key);
        report.error_help(cost.span, message, help);
        return None;
    };
    gates::constant_amount(report, expect, meter, "expect")
}

fn properties(
    report: &mut Report<'_>,
    given: Option<Node<'_>>,
    cost: &CostTable,
    segments: &[Segment],
) -> Option<Vec<(Arc<str>, PropertySource)>> {
    let Some(given) = given else { return Some(Vec::new()) };
    let mut properties = Vec::new();
    let mut all_read = true;
    for (name, node) in given.table(report, "`properties` of a charge")?.all() {
        if !cost.properties().any(|known| known == name.text) {
            let message = format!("cost table {} has no property {}", quoted(cost.key.as_str()), quoted(name.text));
            report.unknown(
                name.span,
                message,
                "properties",
                name.text,
                cost.properties().collect::<Vec<_>>().into_iter(),
            );
            all_read = false;
            continue;
        }
        match source(report, name, node, segments) {
            Some(source) => {
                all_read &= has_price(report, node, cost, name.text, &source);
                properties.push((name.text.into(), source));
            }
            None => all_read = false,
        }
    }
    all_read.then_some(properties)
}

fn source(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>, segments: &[Segment]) -> Option<PropertySource> {
    let what = keys::about("property", name);
    if let DeValue::String(text) = node.value {
        let text = Text { text, span: node.span };
        return prose(report, text, &what, COST_VALUE_MAX_CHARS).map(PropertySource::Constant);
    }
    let mut table = node.table(report, what)?;
    let (header, claim) = (table.get("header"), table.text(report, "claim"));
    let (capture, body) = (table.text(report, "capture"), table.text(report, "body"));
    let about = table.about.clone();
    table.finish(report);
    match (header, claim, capture, body) {
        (Some(node), None, None, None) => {
            keys::header(report, node, "`header` of a property").map(PropertySource::Header)
        }
        (None, Some(text), None, None) => {
            keys::pointer(report, text, "`claim`, a JSON pointer into the token's claims,").map(PropertySource::Claim)
        }
        (None, None, Some(name), None) => keys::capture(report, name, segments).map(PropertySource::Capture),
        (None, None, None, Some(text)) => {
            keys::pointer(report, text, "`body`, a JSON pointer into the request,").map(PropertySource::Body)
        }
        _ => {
            report.error_help(node.span, format!("{about} takes its value from one place"), HELP);
            None
        }
    }
}

/// A value that is always the same must have a price.
fn has_price(report: &mut Report<'_>, node: Node<'_>, cost: &CostTable, name: &str, source: &PropertySource) -> bool {
    let PropertySource::Constant(value) = source else { return true };
    let has = cost.has_price(name, Some(value));
    if !has {
        let key = quoted(cost.key.as_str());
        let message = format!("cost table {key} has no price where {} is {}", quoted(name), quoted(value));
        report.error_help(node.span, message, "add it to the table's `prices`, or write a value that has a price");
    }
    has
}

/// A property that comes from nowhere, and may not be missing, would refuse every request.
fn tell_missing(
    report: &mut Report<'_>,
    node: Node<'_>,
    cost: &CostTable,
    properties: &[(Arc<str>, PropertySource)],
) -> Option<()> {
    let given = |name: &str| properties.iter().any(|(known, _)| **known == *name);
    let needed: Vec<&str> = cost.properties().filter(|name| !given(name) && !cost.has_price(name, None)).collect();
    if needed.is_empty() {
        return Some(());
    }
    let message = format!("cost table {} needs {}", quoted(cost.key.as_str()), super::problem::listed(needed));
    report.error_help(node.span, message, format!("say where it comes from in `properties`: {HELP}"));
    None
}
