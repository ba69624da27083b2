//! The road: load, decide, commit. One file per verb. Owns the ports; spawns nothing; async without a runtime.

mod administer;
mod admit;
mod append;
mod engine;
mod fold;
mod grant;
mod history;
mod hold;
mod ids;
mod keys;
mod lapse;
mod lease;
mod lines;
mod live;
mod marks;
mod open;
mod outage;
mod pins;
mod place;
pub mod ports;
mod read;
mod record;
mod recover;
mod repeat;
pub mod requests;
pub mod session;
mod shared;
mod snapshot;
mod tail;
mod upkeep;

pub use engine::{Engine, EngineOptions, EngineStats, LeaseOptions};
pub use history::{HistoryAsked, HistoryFolded, HistoryKept, HistoryPoint, HistoryPoints, HistoryReader, HistoryRows};
pub use hold::Settled;
pub use ids::denial_id;
pub use outage::{OutageStats, Reconciled};
