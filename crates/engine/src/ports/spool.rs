//! Where a node keeps what it let through while the ledger could not be written, until the ledger has it.

use super::{BoxFuture, Commit, LedgerError};
use domain::{id::TenantId, outage::Passed};
use std::sync::Arc;

/// One line of a spool.
#[derive(Debug, Clone, PartialEq)]
pub enum SpoolLine {
    /// A charge that passed.
    Passed(TenantId, Passed),
    /// The charge that passed under this id is given back.
    GivenBack(u128),
}

/// The spool of one node: what is in it survives the node, and no other node reads it. Lines are numbered in their order.
pub trait Spool: Send + Sync {
    /// Every line, in order, but those that were set aside.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where a line can't be read.
    fn lines(&self) -> Result<Vec<(u64, SpoolLine)>, LedgerError>;

    /// Takes a line. The commit resolves when it is durable.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] when the spool is full, or a line before could not be written.
    fn append(&self, line: SpoolLine) -> Result<(u64, Commit), LedgerError>;

    /// A commit that resolves when every line that was taken so far is durable.
    fn flushed(&self) -> Commit;

    /// The number of the last durable line; 0 before the first.
    fn durable(&self) -> u64;

    /// Whether a line that was taken could not be written, whatever came of later ones.
    fn is_lost(&self, number: u64) -> bool;

    /// Removes lines that are in the ledger, and sets aside what the ledger will never take, with the reason.
    fn settle(&self, recorded: Vec<u64>, set_aside: Vec<(u64, String)>) -> Commit;
}

/// How a node passes through outages.
#[derive(Clone)]
pub struct OutageOptions {
    /// How long an operation under open limits waits for the ledger before it is treated as an outage, milliseconds.
    pub patience_ms: u64,
    /// Gives ids that were never given: operations under open limits are bound to one if they have none.
    pub ids: Arc<dyn Fn() -> u128 + Send + Sync>,
    /// Waits so many milliseconds.
    pub timer: Arc<dyn Fn(u64) -> BoxFuture<'static, ()> + Send + Sync>,
}
