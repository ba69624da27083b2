//! Tests that try to break the promises of the design. One binary: they share what is slow to build.

#![allow(clippy::unwrap_used)]

mod cluster;
mod denials;
mod exact;
mod failure;
mod folding;
mod in_flight;
mod memory;
mod once;
mod plans;
mod renewal;
mod restart;
mod support;
mod tail;
mod warnings;
