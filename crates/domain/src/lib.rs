//! What a plan, a limit, a window, an account and a decision *are*, and the one rule that decides.
//!
//! Pure: no I/O, no clock, no async, no randomness. Time and ids are arguments. Types here are not serialisable; every
//! edge owns its own shapes.

pub mod account;
mod adjust;
mod ask;
pub mod catalog;
mod configure;
pub mod cost;
pub mod cron;
pub mod day;
pub mod decision;
pub mod demand;
pub mod entry;
pub mod grant;
pub mod history;
pub mod hold;
pub mod id;
pub mod in_flight;
pub mod lease;
mod limits;
pub mod op;
pub mod outage;
mod record;
pub mod session;
pub mod share;
mod spend;
pub mod tenant;
pub mod time;
pub mod view;
pub mod warning;
