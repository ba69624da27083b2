//! What a request costs by a price list: its properties, from where the route says they are. Pure.

use crate::{ahead, identity::Identity, routes::Matched};
use domain::{
    catalog::Catalog,
    cost::{CostError, CostTable, Rate},
    id::CostKey,
    op::Charge,
};
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};
use wire::{catalog::PropertySource, problem::Problem, rescue};

/// What properties are read from.
pub(crate) struct Asked<'a> {
    pub(crate) matched: &'a Matched<'a>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) identity: &'a Identity,
    /// The body of the request, where the route looks at it and it can be read.
    pub(crate) body: Option<&'a Value>,
}

/// What a price list of the tenant's catalog asks for this request.
///
/// # Errors
/// A problem where a header is sent twice, and where something has no price.
pub(crate) fn priced(
    prices: &Catalog,
    cost: &CostKey,
    sources: &[(Arc<str>, PropertySource)],
    asked: &Asked<'_>,
) -> Result<Charge, Problem> {
    with_table(prices, cost, sources, asked, |table, properties| table.amount(properties, &[]))
}

/// The prices that a list of the tenant's catalog has for what this request's response will report.
///
/// # Errors
/// As [`priced`].
pub(crate) fn rate(
    prices: &Catalog,
    cost: &CostKey,
    sources: &[(Arc<str>, PropertySource)],
    asked: &Asked<'_>,
) -> Result<Rate, Problem> {
    with_table(prices, cost, sources, asked, |table, properties| table.rate(properties))?.ok_or_else(unfit)
}

fn with_table<T>(
    prices: &Catalog,
    cost: &CostKey,
    sources: &[(Arc<str>, PropertySource)],
    asked: &Asked<'_>,
    look: impl FnOnce(&CostTable, &[(&str, &str)]) -> Result<T, CostError>,
) -> Result<T, Problem> {
    let table = prices.cost(cost.as_str()).map_err(|error| problem(&error))?;
    let properties = properties(table, sources, asked)?;
    let pairs: Vec<(&str, &str)> = properties.iter().map(|(name, value)| (*name, &**value)).collect();
    look(table, &pairs).map_err(|error| problem(&error))
}

/// The properties that the table looks at: another version of it may look at fewer than the route tells.
fn properties<'a>(
    table: &CostTable,
    sources: &'a [(Arc<str>, PropertySource)],
    asked: &'a Asked<'_>,
) -> Result<Vec<(&'a str, Cow<'a, str>)>, Problem> {
    let mut properties = Vec::with_capacity(sources.len());
    for (name, source) in sources.iter().filter(|(name, _)| table.properties().any(|known| *known == **name)) {
        let value = match source {
            PropertySource::Constant(value) => Some(Cow::Borrowed(&**value)),
            PropertySource::Header(header) => header_value(asked.headers, header)?,
            PropertySource::Claim(pointer) => asked.identity.claims.get(pointer).map(Cow::Borrowed),
            PropertySource::Capture(capture) => asked.matched.capture(capture).map(Cow::Borrowed),
            PropertySource::Body(pointer) => asked.body.and_then(|body| ahead::field(body, pointer)),
        };
        properties.extend(value.map(|value| (&**name, value)));
    }
    Ok(properties)
}

/// A header that was sent twice would be one price here and perhaps another at the upstream.
fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, str>>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| String::from_utf8_lossy(value.as_bytes()))),
        _ => Err(rescue::INVALID_REQUEST.problem(format!("The header {name} must be sent once."))),
    }
}

/// What the client asks for may have no price; that the table itself is not there, or of another kind, is not its fault.
fn problem(error: &CostError) -> Problem {
    match error {
        CostError::UnknownValue { .. } | CostError::MissingProperty { .. } | CostError::AmountTooLarge(_) => {
            rescue::problem_of_cost(error)
        }
        _ => {
            tracing::error!(%error, "the route asks for what the catalog does not have that decides for the tenant");
            unfit()
        }
    }
}

fn unfit() -> Problem {
    rescue::INTERNAL.problem("The gateway's rules and the catalog in force do not fit together.")
}
