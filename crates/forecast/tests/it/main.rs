//! The forecaster: cases that people meet, as a table, and what holds for every history.

#![allow(clippy::unwrap_used)]

mod outlooks;
mod properties;
mod tables;
