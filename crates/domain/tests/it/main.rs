//! The proof that the core is right: text tables, properties against an independent auditor, and windows of time.

#![allow(clippy::unwrap_used, missing_docs)]

mod auditor;
mod bounds;
mod costs;
mod coverage;
mod cron;
mod grants;
mod history;
mod in_flight;
mod leases;
mod outage;
mod properties;
mod script;
mod shares;
mod steps;
mod table;
mod tables;
mod tidy;
mod warnings;
mod windows;
mod world;

use proptest::test_runner::{Config, FileFailurePersistence};

/// So many cases; the seed of one that fails is kept beside the tests and tried first from then on.
pub fn config(cases: u32, name: &'static str) -> Config {
    let file = match name {
        "windows" => "tests/it/regressions/windows.txt",
        "shares" => "tests/it/regressions/shares.txt",
        "in_flight" => "tests/it/regressions/in_flight.txt",
        "history" => "tests/it/regressions/history.txt",
        "costs" => "tests/it/regressions/costs.txt",
        _ => "tests/it/regressions/auditor.txt",
    };
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(file)) as Box<_>);
    Config { cases, failure_persistence, ..Config::default() }
}
