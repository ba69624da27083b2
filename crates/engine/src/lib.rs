//! The road: load, decide, commit. One file per verb. Owns the ports; spawns nothing; async without a runtime.

mod ids;
pub mod ports;
pub mod requests;

pub use ids::denial_id;
