//! A route's charge by a cost table: where each property of a request comes from.

use super::{
    AmountSource, COST_VALUE_MAX_CHARS, PropertySource, RouteCharge, Segment, keys,
    problem::quoted,
    report::Report,
    table::{Declared, Node, Table, Text, prose, resolve},
};
use domain::cost::{CostRule, CostTable};
use std::sync::Arc;
use toml::de::DeValue;

/// How many claims all routes together may look at: each verified token is remembered with what it says of them.
pub(super) const CLAIMS_MAX: usize = 32;

const HELP: &str = "write \"chat\" (always this), { header = \"x-mode\" }, { claim = \"/tool\" } (of a verified token) or \
                    { capture = \"model\" }";

/// Reads a charge that names a cost table.
pub(super) fn charge(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    node: Node<'_>,
    costs: &Declared<CostTable>,
    segments: &[Segment],
) -> Option<RouteCharge> {
    let name = node.text(report, "`cost` of a charge");
    for key in ["meter", "amount", "header", "default", "from"] {
        let message = format!("a charge by a cost table takes no `{key}`");
        table.refuse(report, key, &message, "the cost table says which meter is charged, and how much");
    }
    let given = table.get("properties");
    let cost = resolve(report, name?, "cost table", costs)?;
    let properties = properties(report, given, cost, segments)?;
    tell_missing(report, node, cost, &properties)?;
    if let CostRule::Rates(_) = cost.rule {
        let message =
            format!("cost table {} has prices for quantities, which no route can tell", quoted(cost.key.as_str()));
        report.error_help(node.span, message, "charge by a table with `parts`; quantities are for POST /api/v1/check");
        return None;
    }
    Some(RouteCharge { meter: cost.meter.clone(), amount: AmountSource::Cost { cost: cost.key.clone(), properties } })
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
    let (header, claim, capture) = (table.get("header"), table.text(report, "claim"), table.text(report, "capture"));
    let about = table.about.clone();
    table.finish(report);
    match (header, claim, capture) {
        (Some(node), None, None) => keys::header(report, node, "`header` of a property").map(PropertySource::Header),
        (None, Some(text), None) => {
            keys::pointer(report, text, "`claim`, a JSON pointer into the token's claims,").map(PropertySource::Claim)
        }
        (None, None, Some(name)) => keys::capture(report, name, segments).map(PropertySource::Capture),
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
