//! Mistakes that can be planted into the simulated ledger, to see that they are found.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A part that is sent again after a lost reply is written again.
    RetryCommitsTwice,
    /// A part is written whatever the version of the tenant.
    NotFenced,
    /// Ids are looked up in the memory of the node alone.
    OwnIdsOnly,
    /// A fold is written whatever fold it goes on from.
    FoldFromAnywhere,
    /// A row that is kept for a node is kept until that node writes.
    EndlessHold,
    /// A part is written whatever the catalog it was decided on.
    NoCatalogFence,
    /// What was decided on the same as something that failed is not failed, and more may be.
    BasisNotOutdated,
    /// A lease is over for a node when its own clock says so.
    LeaseByNodeClock,
    /// What was charged under a lease is written whether or not the lease lasts.
    LeaseNotFenced,
}

impl Bug {
    /// Every one.
    pub const ALL: [Bug; 9] = [
        Bug::RetryCommitsTwice,
        Bug::NotFenced,
        Bug::OwnIdsOnly,
        Bug::FoldFromAnywhere,
        Bug::EndlessHold,
        Bug::NoCatalogFence,
        Bug::BasisNotOutdated,
        Bug::LeaseByNodeClock,
        Bug::LeaseNotFenced,
    ];
}
