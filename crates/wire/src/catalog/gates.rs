//! `[[routes]]`: which requests cost what.

use super::{
    AmountSource, ChargeWhen, Reading, Reported, Route, RouteCharge, Segment, ValueSource, amount,
    dimensions::ROUTE_DIMENSION,
    keys,
    later::Later,
    pattern, plans, priced,
    problem::quoted,
    report::{Report, Span},
    sessions,
    settings::ENFORCE,
    table::{Declared, Node, Table, Text, resolve},
};
use crate::catalog::Upstream;
use domain::{
    catalog::{Dimension, Feature, Meter, MeterKind},
    cost::CostTable,
    id::{DimensionKey, FeatureKey},
};
use std::{collections::BTreeMap, sync::Arc};
use toml::de::DeValue;

/// How many routes a catalog may have, and how many charges one route.
const ROUTES_MAX: usize = 1000;
const CHARGES_MAX: usize = 20;

/// How much of a request body may be looked at before it goes on, in bytes: unless a route says otherwise, and at most.
const PEEK_BYTES: i64 = 1 << 20;
const PEEK_MAX_BYTES: i64 = 16 << 20;

/// What has no meaning without an identity.
const IDENTIFIED: [&str; 11] = [
    "charge",
    "feature",
    "features",
    "charge_when",
    "commit_first",
    "enforce",
    "dimensions",
    "include_usage",
    "identity_encoding",
    "body_peek_max_bytes",
    "session",
];

const CHARGE_WHEN: &[(&str, ChargeWhen)] = &[("reached", ChargeWhen::Reached), ("success", ChargeWhen::Success)];

/// What routes refer to.
pub(super) struct Known<'d> {
    /// Meters.
    pub(super) meters: &'d Declared<Meter>,
    /// Features.
    pub(super) features: &'d Declared<Feature>,
    /// Upstreams.
    pub(super) upstreams: &'d Declared<Upstream>,
    /// Dimensions.
    pub(super) dimensions: &'d Declared<Dimension>,
    /// Price lists.
    pub(super) costs: &'d Declared<CostTable>,
}

/// Reads every route, most specific first, so that the first that matches is the right one.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>, known: &Known<'_>) -> Vec<Arc<Route>> {
    let nodes = document.list(report, "routes");
    keys::at_most(report, document.key_span("routes"), "routes", nodes.len(), ROUTES_MAX);
    let mut routes: Vec<(Route, Span)> = Vec::new();
    let mut names: BTreeMap<Arc<str>, Span> = BTreeMap::new();
    for node in nodes.into_iter().take(ROUTES_MAX) {
        let Some((route, span)) = route(report, node, known) else { continue };
        let conflict = routes.iter().find(|(other, _)| route.conflicts_with(other));
        if let Some((other, first)) = conflict {
            tell_conflict(report, &route, span, other, *first);
        } else if let Some(first) = names.get(&route.name) {
            let message =
                format!("the route on line {} already has the name {}", report.line(*first), quoted(&route.name));
            report.error_help(span, message, "give each route its own `name`");
        }
        names.insert(route.name.clone(), span);
        routes.push((route, span));
    }
    routes.sort_by_cached_key(|(route, _)| std::cmp::Reverse(route.specificity()));
    routes.into_iter().map(|(route, _)| Arc::new(route)).collect()
}

fn tell_conflict(report: &mut Report<'_>, route: &Route, span: Span, other: &Route, first: Span) {
    let line = report.line(first);
    let both = quoted(&route.example_of_both(other));
    if route.is_within(other) {
        let message = format!("this route matches the same requests as the one on line {line}");
        report.error_help(span, message, format!("both match {both}: merge them, or make one more specific"));
    } else {
        let message = format!("this route overlaps the one on line {line}, and neither is more specific");
        let remedy = match route.method == other.method {
            true => "write out more of one path",
            false => "give both a method, or none",
        };
        let help = format!("both match {both}: {remedy}");
        report.error_help(span, message, help);
    }
}

fn route(report: &mut Report<'_>, node: Node<'_>, known: &Known<'_>) -> Option<(Route, Span)> {
    let mut table = node.table(report, "a route")?;
    let help = "write match = \"POST /v1/chat/completions\"";
    let written = table.required(report, "match", help).and_then(|node| node.text(report, "`match`"));
    if let Some(text) = written {
        table.about = keys::about("route", text);
    }
    let span = written.map_or(node.span, |text| text.span);
    let pattern = written.and_then(|text| pattern::read(report, text));
    let name = table.prose(report, "name", 100);
    let upstream = table.text(report, "upstream");
    let upstream =
        upstream.and_then(|text| resolve(report, text, "upstream", known.upstreams)).map(|found| found.name.clone());
    let public = table.boolean(report, "public", false);
    let features = features(report, &mut table, known.features);
    let segments = pattern.as_ref().map_or(&[][..], |pattern| &pattern.segments);
    let charges = charges(report, &mut table, known, segments);
    let charge_when = table.word(report, "charge_when", CHARGE_WHEN).unwrap_or_default();
    let commit_first = table.boolean(report, "commit_first", false);
    let enforce = table.word(report, "enforce", ENFORCE);
    let has_session = table.get("session").is_some();
    let reading = reading(report, &mut table, &charges, has_session);
    let dimensions = dimensions(report, &mut table, known.dimensions, segments, public);
    let session = table.get("session").map(|node| sessions::read(report, node, known.meters, segments));
    if public {
        refuse_in_public(report, &table, segments, span);
    }
    table.finish(report);
    let pattern = pattern?;
    let session = match session {
        Some(session) => Some(session?),
        None => None,
    };
    let route = Route {
        name: name.unwrap_or_else(|| pattern.text.as_str().into()),
        method: pattern.method,
        pattern: pattern.segments,
        upstream,
        public,
        features,
        charges,
        charge_when,
        commit_first,
        enforce,
        dimensions,
        reading,
        session,
    };
    Some((route, span))
}

/// How the route's responses are read.
///
/// A stream in a session may have to be ended between two events, which can be found only where it is not packed.
fn reading(report: &mut Report<'_>, table: &mut Table<'_>, charges: &[RouteCharge], has_session: bool) -> Reading {
    let is_usage = |amount: &AmountSource| match amount {
        AmountSource::Reported { what, .. } => matches!(what, Reported::Usage(_)),
        other => matches!(other, AmountSource::CostOfUsage { .. }),
    };
    let reads_usage = charges.iter().any(|charge| is_usage(&charge.amount));
    let include_usage = table.boolean(report, "include_usage", false);
    if let Some(span) = table.key_span("include_usage").filter(|_| include_usage && !reads_usage) {
        let message = "`include_usage` asks the model for usage, and no charge of this route is from it";
        let help = "add charge = [{ meter = \"tokens\", from = \"usage\", expect = 1000 }], or remove it";
        report.error_help(span, message, help);
    }
    let identity_encoding = table.boolean(report, "identity_encoding", reads_usage || has_session);
    let peek = table.integer(report, "body_peek_max_bytes", 1, PEEK_MAX_BYTES).unwrap_or(PEEK_BYTES);
    Reading { include_usage, identity_encoding, body_peek_max_bytes: usize::try_from(peek).unwrap_or(usize::MAX) }
}

/// A public route has no identity, so there is nobody to charge.
fn refuse_in_public(report: &mut Report<'_>, table: &Table<'_>, segments: &[Segment], span: Span) {
    for key in IDENTIFIED {
        if let Some(span) = table.key_span(key) {
            let message = format!("a public route is forwarded without identity: `{key}` has no meaning on it");
            report.error_help(span, message, "remove it, or remove `public`");
        }
    }
    if segments.iter().any(|segment| matches!(segment, Segment::Tenant | Segment::User)) {
        let message = "a public route is forwarded without identity: it can't check {tenant} or {user}";
        report.error_help(span, message, "name the capture otherwise: {id}");
    }
}

fn features(report: &mut Report<'_>, table: &mut Table<'_>, known: &Declared<Feature>) -> Vec<FeatureKey> {
    let mut features = plans::feature_list(report, table, known);
    if let Some(name) = table.text(report, "feature") {
        if table.key_span("features").is_some() {
            report.error_help(name.span, "`feature` and `features` are both given", "write all of them in `features`");
        }
        features.extend(resolve(report, name, "feature", known).map(|feature| feature.key.clone()));
    }
    features
}

fn charges(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    known: &Known<'_>,
    segments: &[Segment],
) -> Vec<RouteCharge> {
    let nodes = table.list(report, "charge");
    keys::at_most(report, table.key_span("charge"), "charges of one route", nodes.len(), CHARGES_MAX);
    nodes.into_iter().take(CHARGES_MAX).filter_map(|node| charge(report, node, known, segments)).collect()
}

fn charge(report: &mut Report<'_>, node: Node<'_>, known: &Known<'_>, segments: &[Segment]) -> Option<RouteCharge> {
    let mut table = node.table(report, "a charge")?;
    if let Some(cost) = table.get("cost") {
        let charge = priced::charge(report, &mut table, cost, known, segments);
        table.finish(report);
        return charge;
    }
    table.refuse(report, "properties", "`properties` are what a cost table looks at", "name it: cost = \"request\"");
    let help = "write { meter = \"messages\" }, or { cost = \"request\" } for a cost table";
    let meter = table.required(report, "meter", help).and_then(|node| node.text(report, "`meter` of a charge"));
    let meter = meter.and_then(|name| resolve(report, name, "meter", known.meters));
    let amount = source(report, &mut table, meter.map(|meter| &**meter));
    table.finish(report);
    Some(RouteCharge { meter: meter?.key.clone(), amount: amount? })
}

fn source(report: &mut Report<'_>, table: &mut Table<'_>, meter: Option<&Meter>) -> Option<AmountSource> {
    let constant = table.get("amount");
    let header = table.get("header");
    let default = table.get("default");
    let later = Later::of(table);
    if [constant, header].iter().flatten().count() + later.places() > 1 {
        let help =
            "write one of amount = 1, header = \"x-tokens\", response_header = \"x-tokens\" and from = \"usage\"";
        report.error_help(table.span, "a charge takes its amount from one place", help);
        return None;
    }
    if later.places() == 0 {
        later.refuse_strays(report);
    }
    if let Some(default) = default.filter(|_| header.is_none()) {
        let help = "without a header, write amount = ...";
        report.error_help(
            default.span,
            "`default` is the amount where a header is missing, and no header is named",
            help,
        );
        return None;
    }
    if let Some(node) = header {
        let name = keys::header(report, node, "`header` of a charge");
        let default = default.map(|node| constant_amount(report, node, meter?, "default"));
        let default = match default {
            None => None,
            Some(amount) => Some(amount?),
        };
        return Some(AmountSource::Header { name: name?, default });
    }
    if later.places() > 0 {
        return later.source(report, meter);
    }
    match constant {
        None => Some(AmountSource::Constant(1)),
        Some(node) => constant_amount(report, node, meter?, "amount").map(AmountSource::Constant),
    }
}

/// An amount that only a gauge may have below zero.
pub(super) fn constant_amount(report: &mut Report<'_>, node: Node<'_>, meter: &Meter, key: &str) -> Option<i64> {
    let value = amount::amount(report, node, meter, key)?;
    if value < 0 && meter.kind != MeterKind::Gauge {
        let message = format!("{} only adds up: `{key}` must not be negative", quoted(meter.key.as_str()));
        report.error_help(node.span, message, "use a gauge for what can be given back");
        return None;
    }
    Some(value)
}

fn dimensions(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    declared: &Declared<Dimension>,
    segments: &[Segment],
    public: bool,
) -> Vec<(DimensionKey, ValueSource)> {
    let mut values: BTreeMap<DimensionKey, ValueSource> = BTreeMap::new();
    if let Some(Some(route)) = declared.get(ROUTE_DIMENSION).filter(|_| !public) {
        values.insert(route.key.clone(), ValueSource::RouteName);
    }
    let Some(mut given) = table.get("dimensions").and_then(|node| node.table(report, "`dimensions`")) else {
        return values.into_iter().collect();
    };
    for (name, node) in given.all() {
        let source = value_source(report, name, node, segments);
        if let Some((dimension, source)) = resolve(report, name, "dimension", declared).zip(source) {
            values.insert(dimension.key.clone(), source);
        }
    }
    values.into_iter().collect()
}

fn value_source(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>, segments: &[Segment]) -> Option<ValueSource> {
    let help = "write \"name\" (the route's name), { header = \"x-model\" } or { capture = \"model\" }";
    if name.text == ROUTE_DIMENSION && !matches!(node.value, DeValue::String(text) if text == "name") {
        let message = "the dimension `route` always holds the route's name";
        report.error_help(node.span, message, "write route = \"name\", or leave it out");
        return None;
    }
    if let DeValue::String(text) = node.value {
        return match &**text {
            "name" => Some(ValueSource::RouteName),
            other => {
                report.error_help(node.span, format!("a dimension can't take its value from {}", quoted(other)), help);
                None
            }
        };
    }
    let mut table = node.table(report, keys::about("dimension", name))?;
    let header = table.get("header");
    let capture = table.text(report, "capture");
    let about = table.about.clone();
    table.finish(report);
    match (header, capture) {
        (Some(node), None) => keys::header(report, node, "`header` of a dimension").map(ValueSource::Header),
        (None, Some(name)) => keys::capture(report, name, segments).map(ValueSource::Capture),
        _ => {
            report.error_help(node.span, format!("{about} takes its value from one place"), help);
            None
        }
    }
}
