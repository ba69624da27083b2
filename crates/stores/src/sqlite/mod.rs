//! The embedded store.

pub mod ids;
