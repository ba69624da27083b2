//! The forecaster: cases that people meet, as a table, and what holds for every history.

#![allow(clippy::unwrap_used)]

mod properties;
mod tables;
