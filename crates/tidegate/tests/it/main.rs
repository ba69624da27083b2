//! The whole, from outside: the real binary on ports and files of its own, spoken to as a user would.
#![allow(clippy::unwrap_used)]

mod crash;
mod demo;
mod exact;
mod harness;
mod history;
mod hostile;
mod lifecycle;
mod many_nodes;
mod newcomer;
mod once;
mod openai;
mod pins;
mod plan_change;
mod sessions;
mod snapshots;
mod streams;
