//! What a verification compares and finds, whichever store the ledger is in.

use engine::ports::Seq;

/// Idempotency keys looked up, at most: one in so many that this is enough.
pub(crate) const IDS_MAX: u64 = 1_000_000;

/// Differences that are named; further ones are counted.
const NAMED_MAX: usize = 100;

/// What was compared, and what did not fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries in the journal.
    pub entries: u64,
    /// The position behind which the journal was cut; 0 where each tenant's is cut at a position of its own.
    pub cut_through: Seq,
    /// Tenants compared.
    pub tenants: u64,
    /// Users compared.
    pub users: u64,
    /// Totals of closed windows compared.
    pub closed: u64,
    /// Runs of denials compared.
    pub denials: u64,
    /// Snapshots read.
    pub snapshots: u64,
    /// Rows of history read.
    pub history: u64,
    /// Idempotency keys looked up.
    pub ids: u64,
    /// What does not fit, in sentences; the first hundred.
    pub differences: Vec<String>,
    /// How much does not fit.
    pub differences_total: u64,
}

impl VerifyReport {
    /// Whether everything fits.
    pub fn is_clean(&self) -> bool {
        self.differences_total == 0
    }

    pub(crate) fn differs(&mut self, what: impl std::fmt::Display) {
        self.differences_total += 1;
        if self.differences.len() < NAMED_MAX {
            self.differences.push(what.to_string());
        }
    }
}

/// How far a long operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all, as far as is known.
    pub total: u64,
}
