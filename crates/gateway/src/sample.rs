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

/// A free route.
pub(crate) fn route(pattern: &str) -> Arc<Route> {
    loaded(&format!("[[routes]]\nmatch = \"{pattern}\"\npublic = true\n")).gateway.routes[0].clone()
}

const USUAL: &str = r#"
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
