//! The control plane: router as table of contents, auth, one file per resource.
//!
//! Every endpoint and who may use it stands in one table, [`access::ENDPOINTS`]; what is not in it is refused.

pub mod access;
mod auth;
mod body;
mod cursor;
mod door;
mod foresight;
mod known;
mod openapi;
mod reply;
mod routes;
pub mod secrets;
mod state;

pub use door::Door;
pub use openapi::document;
pub use routes::router;
pub use state::{ApiObserver, ApiParts, ApiState, CatalogDesk, CatalogRefused, SnapshotDesk, TestClock};
