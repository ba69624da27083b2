//! The jobs, on a ledger in memory and a clock that is told.
#![allow(clippy::unwrap_used)]

mod foresight;
