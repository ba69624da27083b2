//! The proof that the core is right: text tables, properties against an independent auditor, and windows of time.

#![allow(clippy::unwrap_used, missing_docs)]

mod coverage;
mod script;
mod table;
mod tables;

mod world;
