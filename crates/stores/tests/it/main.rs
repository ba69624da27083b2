//! The ledgers against their contract, against crashes and against trouble.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;
mod forecasts;
mod granted;
mod in_flight;
#[cfg(feature = "postgres")]
mod postgres;
mod snapshots;
mod spool;
mod sqlite_copy;
mod sqlite_crash;
mod sqlite_trouble;
mod world;
