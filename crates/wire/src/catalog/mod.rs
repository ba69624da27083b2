//! `tidegate.toml`: read, checked whole, and turned into the catalog the core decides on and the rules the gateway
//! follows.

mod gateway;

pub use gateway::*;

use domain::catalog::Catalog;

/// A catalog file that was read and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the core decides on.
    pub catalog: Catalog,
    /// What the gateway follows.
    pub gateway: GatewayRules,
    /// Things that are allowed but probably not meant, for people.
    pub warnings: Vec<String>,
}
