//! `[dimensions.X]`: by what use can be told apart. Their values are closed sets, so that history stays bounded.

use super::{
    Route, keys,
    report::Report,
    table::{Declared, Node, Table, Text},
};
use domain::{
    catalog::{Catalog, Dimension},
    id::DimensionKey,
    op::Dimensions,
};
use std::sync::Arc;

/// The dimension whose values are the names of the routes.
pub(super) const ROUTE_DIMENSION: &str = "route";

/// What values outside a dimension's set become.
const OTHER: &str = "other";

/// How many dimensions a catalog may declare, and how many values one may have: history is kept for each combination.
const DIMENSIONS_MAX: usize = 8;
const VALUES_MAX: usize = 100;

/// Reads every dimension.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>) -> Declared<Dimension> {
    let entries = document.named(report, "dimensions", "dimension");
    keys::at_most(report, document.key_span("dimensions"), "dimensions", entries.len(), DIMENSIONS_MAX);
    let read = |(name, node): (Text<'_>, Node<'_>)| (name.text.to_owned(), dimension(report, name, node).map(Arc::new));
    entries.into_iter().take(DIMENSIONS_MAX).map(read).collect()
}

fn dimension(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>) -> Option<Dimension> {
    let key = keys::key(report, name, "dimension", DimensionKey::new);
    let mut table = node.table(report, keys::about("dimension", name))?.at(name.span);
    if name.text == ROUTE_DIMENSION {
        table.refuse(
            report,
            "values",
            "the values of the dimension `route` are the names of the routes",
            "leave `values` out",
        );
        table.finish(report);
        return Some(Dimension { key: key?, values: Vec::new(), value_max_bytes: OTHER.len() });
    }
    let help = "list the values that matter: values = [\"small\", \"large\"]; any other becomes \"other\"";
    let mut values: Vec<Arc<str>> = Vec::new();
    if table.required(report, "values", help).is_some() {
        let nodes = table.list(report, "values");
        keys::at_most(report, table.key_span("values"), "values of one dimension", nodes.len(), VALUES_MAX);
        for node in nodes.into_iter().take(VALUES_MAX) {
            let Some(text) = node.text(report, "a value of a dimension") else { continue };
            let Some(value) = super::table::prose(report, text, "a value of a dimension", 100) else { continue };
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    table.finish(report);
    Some(closed(key?, values))
}

fn closed(key: DimensionKey, values: Vec<Arc<str>>) -> Dimension {
    let longest = values.iter().map(|value| value.len()).max().unwrap_or(0);
    Dimension { key, values, value_max_bytes: longest.max(OTHER.len()) }
}

/// The dimensions as the core keeps them, with the routes' names as the values of `route`.
pub(super) fn finished(declared: Declared<Dimension>, routes: &[Arc<Route>]) -> Vec<Dimension> {
    let names = || routes.iter().filter(|route| !route.public).map(|route| route.name.clone()).collect();
    let finish = |dimension: Arc<Dimension>| match dimension.key.as_str() {
        ROUTE_DIMENSION => closed(dimension.key.clone(), names()),
        _ => Arc::unwrap_or_clone(dimension),
    };
    declared.into_values().flatten().map(finish).collect()
}

/// The declared dimensions among `pairs`, sorted by key. A value outside its dimension's set becomes `other`, so what
/// a client sends can't make history grow; what is not declared is left out. The first value of a key counts.
pub fn bounded<'a>(catalog: &Catalog, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Dimensions {
    let mut found: Dimensions = Vec::new();
    for (key, value) in pairs {
        let Some(dimension) = catalog.dimensions.iter().find(|dimension| dimension.key.as_str() == key) else {
            continue;
        };
        if found.iter().any(|(known, _)| *known == dimension.key) {
            continue;
        }
        let known = dimension.values.iter().find(|known| ***known == *value);
        found.push((dimension.key.clone(), known.cloned().unwrap_or_else(|| OTHER.into())));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}
