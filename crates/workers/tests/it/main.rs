//! The jobs: on a ledger in memory and a clock that is told, and with real databases of somebody else.
#![allow(clippy::unwrap_used, missing_docs)]

mod bakery;
mod days;
mod foresight;
mod servers;
mod sources;
mod world;
