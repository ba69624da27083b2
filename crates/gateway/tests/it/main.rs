//! The gateway over real sockets: real clients, a real upstream, a ledger in memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod asking;
mod charging;
mod cors;
mod costs;
mod held;
mod hostile;
mod identity;
mod refusals;
mod reported;
mod running;
mod sessions;
mod streams;
mod tls;
mod upstream;
mod world;
