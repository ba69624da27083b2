//! `tidegate.toml`: read, checked whole, and turned into the catalog the core decides on and the rules the gateway
//! follows. Every problem is told at once, each with its place and what would help; what loads has been validated
//! whole. `docs/catalog.md` describes every key.

mod amount;
mod costs;
mod dimensions;
mod features;
mod gates;
mod gateway;
mod identity;
mod keys;
mod later;
mod limits;
mod meters;
mod pattern;
mod plans;
mod priced;
mod problem;
mod query;
mod report;
mod routes;
mod sessions;
mod settings;
mod snapshots;
mod starter;
mod table;
mod units;
mod upstreams;

pub use costs::COST_VALUE_MAX_CHARS;
pub use dimensions::bounded;
pub use gateway::*;
pub use problem::{Excerpt, Problem};
pub use query::{DAY_END, Query};
pub use routes::Specificity;
pub use settings::LATE_MAX_MS;
pub use snapshots::{Collector, How, KeyPattern, Setting, SnapshotRules, Source, SourceKind};
pub use starter::starter;

use domain::{
    catalog::{Catalog, Feature, Meter, MeterKind, Plan},
    id::MeterKey,
};
use report::{Report, Span};
use std::sync::Arc;
use table::{Declared, Table};
use toml::de::DeTable;

/// The largest catalog file accepted, in bytes.
pub const CATALOG_MAX_BYTES: usize = 1 << 20;

/// A catalog file that was read and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the core decides on.
    pub catalog: Catalog,
    /// What the gateway follows.
    pub gateway: GatewayRules,
    /// What the daily history is made of.
    pub snapshots: SnapshotRules,
    /// Things that are allowed but probably not meant, for people.
    pub warnings: Vec<String>,
}

/// Reads a catalog. `file_name` is only named in problems.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn load(text: &str, file_name: &str) -> Result<Loaded, Vec<Problem>> {
    if text.len() > CATALOG_MAX_BYTES {
        let mut report = Report::new(file_name, "");
        let message = format!("the catalog is larger than {} KiB", CATALOG_MAX_BYTES / 1024);
        report.error(Span::default(), message);
        return Err(report.finish().0);
    }
    let mut report = Report::new(file_name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().map_or(Span { start: text.len(), end: text.len() }, Span::from);
        report.error(span, error.message().to_owned());
    }
    if report.has_errors() {
        return Err(report.finish().0);
    }
    let (catalog, gateway, snapshots) = read(&mut report, Table::document(document.get_ref()));
    if report.has_errors() {
        return Err(report.finish().0);
    }
    let warnings = report.finish().1.iter().map(Problem::to_string).collect();
    Ok(Loaded { catalog, gateway, snapshots, warnings })
}

/// Reads the sections in the order in which they refer to each other. What comes back is only meant to be used when
/// nothing was found wrong.
fn read(report: &mut Report<'_>, mut document: Table<'_>) -> (Catalog, GatewayRules, SnapshotRules) {
    let document = &mut document;
    let (mut meters, decided) = meters::read(report, document);
    let costs = costs::read(report, document, &meters);
    let features = features::read(report, document);
    let plans = plans::read(report, document, &plans::Known { meters: &meters, features: &features });
    let settings = settings::read(report, document, &plans);
    let snapshots = snapshots::read(report, document, &meters);
    let upstreams = upstreams::read(report, document);
    let default_upstream = upstreams::default(report, document, &upstreams);
    let dimensions = dimensions::read(report, document);
    let identity = identity::read(report, document);
    let known = gates::Known {
        meters: &meters,
        features: &features,
        upstreams: &upstreams,
        dimensions: &dimensions,
        costs: &costs,
    };
    let routes = gates::read(report, document, &known);
    warn_unsold(report, document, &features, &plans);
    if identity.is_empty() && routes.iter().any(|route| !route.public) && document.key_span("identity").is_none() {
        let span = document.key_span("routes").unwrap_or_default();
        let message = "there is no [[identity]]: the gateway refuses every request for these routes";
        report.warn(span, message, "write [[identity]] with type = \"api_key\", or mark routes as public");
    }
    document.finish(report);
    mark_request_meters(&mut meters, &routes, &decided);
    let catalog = Catalog {
        version: 0,
        meters: by_key(meters, |meter| meter.key.clone()),
        features: by_key(features, |feature| feature.key.clone()),
        plans: by_key(plans, |plan| plan.key.clone()),
        default_plan: settings.default_plan,
        dimensions: dimensions::finished(dimensions, &routes),
        enforce: settings.enforce,
        event_bounds: settings.event_bounds,
        upgrade_url: settings.upgrade_url,
        warn_percent: settings.warn_percent,
        forecast: settings.forecast,
        warnings: settings.warnings,
        costs: by_key(costs, |cost| cost.key.clone()),
    };
    let upstreams = upstreams.into_values().flatten();
    let upstreams = upstreams.map(|upstream| (upstream.name.clone(), Arc::unwrap_or_clone(upstream))).collect();
    let gateway = GatewayRules { upstreams, default_upstream, routes, identity, unmatched: settings.unmatched };
    let (span, claims) = (document.key_span("routes"), gateway.claims().len());
    keys::at_most(report, span, "claims that routes look at", claims, priced::CLAIMS_MAX);
    (catalog, gateway, snapshots)
}

fn by_key<K: Ord, T>(declared: Declared<T>, key: impl Fn(&T) -> K) -> std::collections::BTreeMap<K, Arc<T>> {
    declared.into_values().flatten().map(|thing| (key(&thing), thing)).collect()
}

/// Nobody can pass where a feature is required that no plan has.
fn warn_unsold(report: &mut Report<'_>, document: &Table<'_>, features: &Declared<Feature>, plans: &Declared<Plan>) {
    let sold = |feature: &Feature| plans.values().flatten().any(|plan| plan.has(&feature.key));
    let any_unread = plans.values().any(Option::is_none);
    for feature in features.values().flatten().filter(|feature| !any_unread && !sold(feature)) {
        let span = document.name_span("features", feature.key.as_str()).unwrap_or_default();
        let message = format!("no plan has the feature `{}`", feature.key);
        report.warn(span, message, "name it in the `features` of a plan");
    }
}

/// A meter counts requests if every route that charges it charges exactly 1, and at least one does; unless the catalog
/// says so itself.
fn mark_request_meters(meters: &mut Declared<Meter>, routes: &[Arc<Route>], decided: &[MeterKey]) {
    for meter in meters.values_mut().flatten() {
        if decided.contains(&meter.key) || meter.kind != MeterKind::Counter {
            continue;
        }
        let charges = || routes.iter().flat_map(|route| &route.charges).filter(|charge| charge.meter == meter.key);
        let all_one = charges().all(|charge| charge.amount == AmountSource::Constant(1));
        if all_one && charges().next().is_some() {
            Arc::make_mut(meter).counts_requests = true;
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "problem_tests.rs"]
mod problem_tests;

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
