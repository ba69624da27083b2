//! From a request to what is asked of the engine. Pure: head, identity and route in, a check out.

use crate::{
    identity::Identity,
    priced::{Asked, priced, rate},
    routes::Matched,
    session::{self, SessionDemand},
};
use domain::{
    catalog::Catalog,
    cost::Rate,
    entry::Cause,
    id::MeterKey,
    op::{Charge, Dimensions},
};
use engine::requests::Check;
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use wire::{
    catalog::{
        AmountSource, ChargeWhen, PropertySource, Reading, Reported, Route, RouteCharge, SessionKey, ValueSource,
        bounded,
    },
    problem::Problem,
    rescue,
};

/// How large a request body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySize {
    /// This many bytes.
    Known(u64),
    /// It will be seen when it ended.
    Unknown,
}

/// What a request costs.
#[derive(Debug)]
pub(crate) struct Demand {
    /// What is asked of the engine before the request goes on.
    pub(crate) check: Check,
    /// Meters charged with the size of the request body when it ended.
    pub(crate) request_meters: Vec<MeterKey>,
    /// What is known when the response ended.
    pub(crate) owed: Vec<Owed>,
    /// How the response is read.
    pub(crate) reading: Reading,
    /// When it is charged.
    pub(crate) charge_when: ChargeWhen,
    /// Whether the charge must be durable before the request goes on.
    pub(crate) commit_first: bool,
    /// The session that it runs in.
    pub(crate) session: Option<SessionDemand>,
}

/// What is charged when the response ended.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    pub(crate) meter: MeterKey,
    pub(crate) what: OwedFor,
    /// How much was charged, or held, before.
    pub(crate) taken: i64,
}

/// Where an amount comes from that is known when the response ended.
#[derive(Debug, Clone)]
pub(crate) enum OwedFor {
    /// The size of its body.
    Bytes,
    /// What it reports.
    Reported(Reported),
    /// What the tokens cost that it reports.
    Cost(Rate),
}

impl Demand {
    /// Whether there is nothing to decide but the session.
    pub(crate) fn asks_for_nothing(&self) -> bool {
        self.check.charges.is_empty() && self.check.features.is_empty() && !self.is_open_ended()
    }

    /// The check with one unit of everything whose amount is known afterwards: may the request go on at all?
    pub(crate) fn with_a_first_unit(&self) -> Check {
        let mut check = self.check.clone();
        for meter in self.request_meters.iter().chain(self.untaken().map(|owed| &owed.meter)) {
            check.charges.push(Charge { meter: meter.clone(), amount: 1 });
        }
        check
    }

    /// What is owed afterwards and of which nothing is taken before.
    fn untaken(&self) -> impl Iterator<Item = &Owed> {
        self.owed.iter().filter(|owed| owed.taken == 0)
    }

    /// One unit was charged of everything that is known only afterwards.
    pub(crate) fn first_unit_was_taken(&mut self) {
        for owed in self.owed.iter_mut().filter(|owed| owed.taken == 0) {
            owed.taken = 1;
        }
    }

    /// Whether something is known only afterwards, and nothing is taken for it before.
    pub(crate) fn is_open_ended(&self) -> bool {
        !self.request_meters.is_empty() || self.untaken().next().is_some()
    }

    /// Whether something is taken before of which the true amount is known only afterwards. (What gives something back
    /// can't be held.)
    pub(crate) fn expects(&self) -> bool {
        self.owed.iter().any(|owed| owed.taken > 0) && self.check.charges.iter().all(|charge| charge.amount >= 0)
    }

    /// The first charge that is asked for.
    pub(crate) fn asked(&self) -> Option<(&str, i64)> {
        self.check.charges.first().map(|charge| (charge.meter.as_str(), charge.amount))
    }
}

/// What amounts and dimensions are read by.
pub(crate) struct Known<'a> {
    /// The catalog in force.
    pub(crate) catalog: &'a Catalog,
    /// The one whose price lists hold for the tenant.
    pub(crate) prices: &'a Catalog,
}

/// Whether a price list has to be asked what a request costs on this route.
pub(crate) fn needs_prices(route: &Route) -> bool {
    route
        .charges
        .iter()
        .any(|charge| matches!(charge.amount, AmountSource::Cost { .. } | AmountSource::CostOfUsage { .. }))
}

/// Whether the body of a request has to be looked at to know what it costs, or what it runs in.
pub(crate) fn needs_body(route: &Route) -> bool {
    route.charges.iter().any(asks_body)
        || route.session.as_ref().is_some_and(|session| matches!(session.key, SessionKey::Body(_)))
}

/// What can be refused by the head of a request alone, before its body is looked at.
///
/// # Errors
/// As [`demand`].
pub(crate) fn judge_head(
    matched: &Matched<'_>,
    headers: &HeaderMap,
    identity: &Identity,
    known: &Known<'_>,
) -> Result<(), Problem> {
    own_path(matched, identity)?;
    let asked = Asked { matched, headers, identity, body: None };
    for charge in matched.route.charges.iter().filter(|charge| !asks_body(charge)) {
        match &charge.amount {
            AmountSource::Header { name, default } => drop(header_amount(headers, name, *default)?),
            AmountSource::Cost { cost, properties } => drop(priced(known.prices, cost, properties, &asked)?),
            AmountSource::CostOfUsage { cost, properties, .. } => drop(rate(known.prices, cost, properties, &asked)?),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a property of what a charge is for stands in the body.
fn asks_body(charge: &RouteCharge) -> bool {
    charge.properties().iter().any(|(_, source)| matches!(source, PropertySource::Body(_)))
}

/// What a request costs on its route; `None` where it costs nothing and needs nothing.
///
/// # Errors
/// A problem where the path names somebody else, a header that says an amount can't be read, or what is asked for has
/// no price.
pub(crate) fn demand(
    matched: &Matched<'_>,
    headers: &HeaderMap,
    (body, json): (BodySize, Option<&Value>),
    identity: &Identity,
    known: &Known<'_>,
) -> Result<Option<Demand>, Problem> {
    own_path(matched, identity)?;
    let route = matched.route;
    if route.charges.is_empty() && route.features.is_empty() && route.session.is_none() {
        return Ok(None);
    }
    let dimensions = dimensions(matched, headers, known.catalog);
    let session = route.session.as_ref().map(|rules| SessionDemand {
        tenant: identity.tenant.clone(),
        user: identity.user.clone(),
        meter: rules.meter.clone(),
        key: session::key_of(rules, matched, headers, json),
        enforce: route.enforce,
        dimensions: dimensions.clone(),
    });
    let mut demand = Demand {
        check: Check {
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            charges: Vec::with_capacity(route.charges.len()),
            features: route.features.clone(),
            consume: true,
            enforce: route.enforce,
            dimensions,
            id: None,
            cause: Cause::Gateway,
            hold: None,
            sent: None,
        },
        request_meters: Vec::new(),
        owed: Vec::new(),
        reading: route.reading,
        charge_when: route.charge_when,
        commit_first: route.commit_first,
        session,
    };
    for charge in &route.charges {
        let meter = charge.meter.clone();
        let amount = match (&charge.amount, body) {
            (AmountSource::Constant(amount), _) => *amount,
            (AmountSource::Header { name, default }, _) => header_amount(headers, name, *default)?,
            (AmountSource::Cost { cost, properties }, _) => {
                let asked = Asked { matched, headers, identity, body: json };
                demand.check.charges.push(priced(known.prices, cost, properties, &asked)?);
                continue;
            }
            (AmountSource::CostOfUsage { cost, properties, expect }, _) => {
                let asked = Asked { matched, headers, identity, body: json };
                let rate = rate(known.prices, cost, properties, &asked)?;
                demand.check.charges.push(Charge { meter: rate.meter().clone(), amount: *expect });
                demand.owed.push(Owed { meter: rate.meter().clone(), what: OwedFor::Cost(rate), taken: *expect });
                continue;
            }
            (AmountSource::RequestBytes, BodySize::Known(bytes)) => i64::try_from(bytes).unwrap_or(i64::MAX),
            (AmountSource::RequestBytes, BodySize::Unknown) => {
                demand.request_meters.push(meter.clone());
                0
            }
            (AmountSource::ResponseBytes, _) => {
                demand.owed.push(Owed { meter: meter.clone(), what: OwedFor::Bytes, taken: 0 });
                0
            }
            (AmountSource::Reported { what, expect }, _) => {
                let what = OwedFor::Reported(what.clone());
                demand.owed.push(Owed { meter: meter.clone(), what, taken: *expect });
                *expect
            }
        };
        demand.check.charges.push(Charge { meter, amount });
    }
    Ok(Some(demand))
}

/// `{tenant}` and `{user}` in a path must be those of the identity.
fn own_path(matched: &Matched<'_>, identity: &Identity) -> Result<(), Problem> {
    if matched.tenant().is_some_and(|tenant| tenant != identity.tenant.as_str()) {
        return Err(rescue::TENANT_MISMATCH.problem("The path names another tenant than your credentials do."));
    }
    let own_user = identity.user.as_ref().map(|user| user.as_str());
    if matched.user().is_some_and(|user| own_user != Some(user)) {
        return Err(rescue::USER_MISMATCH.problem("The path names another user than your credentials do."));
    }
    Ok(())
}

fn header_amount(headers: &HeaderMap, name: &HeaderName, default: Option<i64>) -> Result<i64, Problem> {
    let mut values = headers.get_all(name).iter();
    let problem = |what: &str| rescue::INVALID_REQUEST.problem(format!("The header {name} {what}."));
    match (values.next(), values.next(), default) {
        (None, _, Some(default)) => Ok(default),
        (None, _, None) => Err(problem("is missing; it says how much this request uses")),
        (Some(_), Some(_), _) => Err(problem("must be sent once")),
        (Some(value), None, _) => value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| problem("must be an integer")),
    }
}

fn dimensions(matched: &Matched<'_>, headers: &HeaderMap, catalog: &Catalog) -> Dimensions {
    let route: &Route = matched.route;
    if route.dimensions.is_empty() {
        return Dimensions::new();
    }
    let pairs = route.dimensions.iter().filter_map(|(key, source)| {
        let value = match source {
            ValueSource::Header(name) => headers.get(name)?.to_str().ok()?,
            ValueSource::RouteName => &route.name,
            ValueSource::Capture(name) => matched.capture(name)?,
        };
        Some((key.as_str(), value))
    });
    bounded(catalog, pairs)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
