//! Our own JSON, version 1.

pub mod amount;
pub mod catalogs;
pub mod check;
pub mod cost;
pub mod counted;
pub mod daily;
pub mod decision;
pub mod denials;
pub mod duration;
pub mod events;
pub mod forecasts;
pub mod grants;
pub mod history;
pub mod holds;
pub mod in_flight_id;
pub mod journal;
mod json;
pub mod keys;
pub mod limit;
pub mod organizations;
pub mod plans;
pub mod sessions;
pub mod shares;
pub mod snapshots;
pub mod tenants;
pub mod text;
pub mod usage;
pub mod warnings;

#[cfg(test)]
pub(crate) mod sample;
