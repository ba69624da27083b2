#![allow(clippy::unwrap_used)]

use super::*;
use crate::{path, routes::RouteTable, sample};
use domain::id::{TenantId, UserId};
use http::Method;
use wire::catalog::Loaded;

fn identity(tenant: &str, user: Option<&str>) -> Identity {
    Identity {
        tenant: TenantId::trusted(tenant),
        user: user.map(UserId::trusted),
        own_credential: None,
        claims: Default::default(),
    }
}

fn asked(
    loaded: &Loaded,
    path: &str,
    headers: &[(&str, &str)],
    body: BodySize,
    identity: &Identity,
) -> Result<Option<Demand>, Problem> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let table = RouteTable::new(&loaded.gateway.routes);
    let segments = path::segments(path).unwrap();
    let matched = table.find(&Method::POST, &segments).unwrap();
    demand(&matched, &map, (body, None), identity, &Known { catalog: &loaded.catalog, prices: &loaded.catalog })
}

fn charges(check: &Check) -> Vec<(&str, i64)> {
    check.charges.iter().map(|charge| (charge.meter.as_str(), charge.amount)).collect()
}

const MIXED: &str = r#"
[[routes]]
match = "POST /t/{tenant}/{model}"
feature = "analytics"
charge = [
  { meter = "messages", amount = 3 },
  { meter = "messages", header = "x-more", default = 2 },
  { meter = "bytes", from = "request_bytes" },
  { meter = "bytes", from = "response_bytes" },
]
charge_when = "success"
commit_first = true
dimensions = { route = "name", model = { capture = "model" } }
[[routes]]
match = "POST /free"
"#;

#[test]
fn a_request_becomes_a_check() {
    let loaded = sample::loaded(MIXED);
    let acme = identity("acme", Some("ada"));
    let demand = asked(&loaded, "/t/acme/small", &[("x-more", "7")], BodySize::Known(9), &acme).unwrap().unwrap();
    assert_eq!(charges(&demand.check), [("messages", 3), ("messages", 7), ("bytes", 9), ("bytes", 0)]);
    assert_eq!(demand.check.features.len(), 1);
    assert_eq!((demand.check.tenant.as_str(), demand.check.consume, demand.check.id.is_none()), ("acme", true, true));
    let dimensions: Vec<_> = demand.check.dimensions.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
    assert_eq!(dimensions, [("model", "small"), ("route", "POST /t/{tenant}/{model}")]);
    assert_eq!((demand.request_meters.len(), demand.owed.len()), (0, 1));
    assert_eq!((demand.charge_when, demand.commit_first), (ChargeWhen::Success, true));
}

#[test]
fn what_is_not_known_yet_is_measured_afterwards_and_asked_for_with_one_unit() {
    let loaded = sample::loaded(MIXED);
    let demand = asked(&loaded, "/t/acme/x", &[], BodySize::Unknown, &identity("acme", None)).unwrap().unwrap();
    assert_eq!(charges(&demand.check), [("messages", 3), ("messages", 2), ("bytes", 0), ("bytes", 0)]);
    assert_eq!((demand.request_meters.len(), demand.owed.len()), (1, 1));
    let first_unit = demand.with_a_first_unit();
    assert_eq!(charges(&first_unit)[4..], [("bytes", 1), ("bytes", 1)]);
    // A value that the catalog does not list is told apart from none, and from no other.
    assert_eq!(&*demand.check.dimensions[0].1, "other");
}

#[test]
fn nothing_asked_costs_nothing_but_another_tenants_path_is_refused() {
    let loaded = sample::loaded(MIXED);
    assert!(asked(&loaded, "/free", &[], BodySize::Known(0), &identity("acme", None)).unwrap().is_none());
    let refused = asked(&loaded, "/t/globex/x", &[], BodySize::Known(0), &identity("acme", None)).unwrap_err();
    assert_eq!((refused.status, refused.code.as_ref()), (403, "tenant_mismatch"));
}
