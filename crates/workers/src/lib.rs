//! Jobs that take no input: idempotent and periodic.

pub mod foresight;
