//! The data plane: a reverse proxy that identifies, decides, charges and forwards, and never buffers a body.
//!
//! A request's way: [`path`] reads it strictly, `routes` finds its route, `identity` says who it is from, `rules`
//! (pure) turn it into a check, `admit` asks the engine and makes the proof that `forward` demands, `settle` gives
//! back or measures afterwards, whoever ended it.

mod admit;
mod afterwards;
mod ahead;
mod answer;
mod body;
mod client_io;
mod dial;
mod forward;
mod frames;
mod gateway;
mod hold;
mod identity;
mod names;
mod observe;
pub mod path;
mod priced;
mod reserve;
mod routes;
mod rules;
mod scrub;
mod server;
mod session;
mod settle;
pub mod tap;
mod tunnel;
mod upstream;

pub use gateway::{Gateway, GatewayOptions, PreparedRules};
pub use observe::{Finished, GatewayObserver, Unobserved};
pub use scrub::{PLAN, REQUEST_ID, TENANT, USER};

use std::sync::Arc;

/// Why the gateway can't follow its rules.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A source of identity is not ready: a secret is missing, a key can't be read.
    #[error("identity from {issuer}: {what}")]
    Identity {
        /// The issuer of the tokens.
        issuer: Arc<str>,
        /// What is wrong.
        what: Arc<str>,
    },
    /// An upstream can't be used.
    #[error("upstream {name}: {what}")]
    Upstream {
        /// Its name.
        name: Arc<str>,
        /// What is wrong.
        what: Arc<str>,
    },
    /// There are no root certificates to trust upstreams or issuers by.
    #[error("no root certificates: {0}")]
    Roots(#[source] std::io::Error),
    /// The gateway was made outside a runtime.
    #[error("the gateway must be made on the runtime that it shall run on")]
    NoRuntime,
}

#[cfg(test)]
mod sample;
