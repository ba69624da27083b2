//! Jobs that take no input: idempotent and periodic; and what they ask of the customer's own databases and services.

pub mod collect;
pub mod foresight;
pub mod snapshot;
