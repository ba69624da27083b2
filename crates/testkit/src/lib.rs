//! The world in which the engine's promises are tested: a clock that is told the time, a ledger that fails when asked
//! to, seeded workloads, and an auditor that keeps its own books.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a testing library: a panic is how it says no")]

pub mod auditor;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod faulty;
pub mod random;
pub mod simulation;
pub mod workload;
pub mod world;
