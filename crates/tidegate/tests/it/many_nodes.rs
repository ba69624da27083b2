//! Several nodes on one PostgreSQL: real processes on a real server, and what can happen to both.
//!
//! Goal: find an order of events in which more passes than the limit, an answer is believed and nobody recorded it, or
//! something is recorded twice. Clients send each request under an id and repeat what was not answered, on any node;
//! afterwards their books, the nodes' and the tables must agree.

mod cluster;
mod copying;
mod disasters;
mod exact;
mod following;
mod guide;
mod kills;
mod open_limits;
mod outages;
mod pooled;
mod proxy;
mod starts;
mod traffic;
