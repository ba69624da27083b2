//! While a shared ledger can't be written: what limits that say so let through on what is known, kept in the node's spool
//! until the ledger has it. The rule is [`domain::outage`]'s; here is what is known, and the order of things.
//!
//! An operation that may pass is bound to an id before it is sent to the ledger. If its commit has no answer in time, what
//! passes in its stead is bound to the same id; so however both end, the ledger takes one of them.

mod desk;
mod pass;
mod reconcile;

pub(crate) use desk::Desk;
pub(crate) use pass::{Bound, Sent};
pub use reconcile::Reconciled;

/// Figures of outages. All are since the node started unless they say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutageStats {
    /// Whether one is under way.
    pub under_way: bool,
    /// Operations that passed.
    pub passed: u64,
    /// Operations that what is known refused.
    pub refused: u64,
    /// Operations under which some limit was closed or had no allowance left, and that were told to come again.
    pub closed: u64,
    /// Lines in the spool, now.
    pub spool_lines: u64,
    /// Lines that were recorded in the ledger.
    pub reconciled: u64,
    /// Lines that the ledger had already.
    pub duplicates: u64,
    /// Lines that the ledger does not take.
    pub set_aside: u64,
}
