//! Where the account book is kept: SQLite, PostgreSQL and memory. Stores load and append; they never decide. All are
//! [`engine::ports::Ledger`]s, and one conformance suite runs on all of them.
//!
//! Format and recovery of the embedded store are explained in [`sqlite`], those of the store of many nodes in
//! `postgres`.

mod codec;
#[cfg(feature = "postgres")]
pub mod copy;
mod denials;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod rows;
mod snapshots;
pub mod spool;
pub mod sqlite;
mod verify;

pub use verify::{Progress, VerifyReport};
