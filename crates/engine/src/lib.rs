//! The road: load, decide, commit. One file per verb. Owns the ports; spawns nothing; async without a runtime.

pub mod ports;
pub mod requests;
