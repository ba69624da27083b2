//! The API from outside: the real router over a real engine on a ledger in memory. Folders mirror the URLs.

#![allow(clippy::unwrap_used)]

mod access;
mod cors;
mod doors;
mod errors;
mod openapi;
mod operation;
mod organizations;
mod v1;
mod world;
