//! Rules for the tests of this crate.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use wire::catalog::{Loaded, Route};

/// A catalog with these lines of TOML after the usual meters and plans.
pub(crate) fn loaded(gates: &str) -> Loaded {
    let text = format!("{USUAL}\n{gates}");
    match wire::catalog::load(&text, "sample.toml") {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// A route.
pub(crate) fn route(pattern: &str) -> Arc<Route> {
    loaded(&format!("[[routes]]\nmatch = \"{pattern}\"\ncharge = [{{ meter = \"messages\" }}]\n")).gateway.routes[0]
        .clone()
}

const USUAL: &str = r#"
[[identity]]
type = "header"
tenant = "x-org"
user = "x-member"
from = ["127.0.0.0/8"]
[upstreams.app]
url = "http://127.0.0.1:1"
[dimensions.route]
[dimensions.model]
values = ["small", "large"]
[meters.messages]
kind = "counter"
[meters.bytes]
kind = "counter"
[features.analytics]
title = "Unlock advanced analytics"
[plans.free]
rank = 0
limits = [{ meter = "messages", max = 50, per = "day" }]
[plans.professional]
rank = 2
features = ["analytics"]
"#;
