//! Where the account book is kept: SQLite and memory. Stores load and append; they never decide. Both are
//! [`engine::ports::Ledger`]s, and one conformance suite runs on both.
//!
//! Format and recovery of the embedded store are explained in [`sqlite`].

mod codec;
mod denials;
pub mod memory;
pub mod sqlite;
