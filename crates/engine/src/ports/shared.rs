//! What a ledger is asked for when several nodes write to it.

use super::{BoxFuture, Commit, LedgerError, Seq, Stored};
use domain::{
    entry::Entry,
    id::{PlanKey, TenantId},
    tenant::Tenant,
    time::Instant,
};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::oneshot;

type Waiter = oneshot::Sender<Result<(), LedgerError>>;

/// What a decision was made on: a tenant as this node has it in memory. The engine and a [`SharedLedger`] hold it
/// together, so that either can say that it is no longer so, and the ledger how far what was decided on it is durable. An
/// embedded ledger has no use for it.
#[derive(Debug, Default)]
pub struct Basis {
    stale: AtomicBool,
    durable: AtomicU64,
    /// Where the last entry under the lease went, if this is the basis of one; 0 before the first.
    last_place: AtomicU64,
    others: AtomicBool,
    waiting: Mutex<Vec<(Seq, Waiter)>>,
}

impl Basis {
    /// Of a tenant as it was read, through this position.
    pub fn at(seq: Seq) -> Self {
        Self { durable: AtomicU64::new(seq), ..Self::default() }
    }

    /// From here on nothing that was decided on it is written.
    pub fn outdate(&self) {
        self.stale.store(true, Ordering::Release);
        for (_, waiter) in std::mem::take(&mut *self.waiting.lock()) {
            let _ = waiter.send(Err(LedgerError::Stale));
        }
    }

    /// Whether another node is known to have changed the tenant since.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Everything that was decided on it through this position is durable. The ledger says so when it is.
    pub fn made_durable(&self, seq: Seq) {
        self.durable.fetch_max(seq, Ordering::AcqRel);
        let mut waiting = self.waiting.lock();
        for (_, waiter) in waiting.extract_if(.., |(through, _)| *through <= seq) {
            let _ = waiter.send(Ok(()));
        }
    }

    /// Entries that were made under a lease went to these positions.
    pub fn placed(&self, first: Seq, last: Seq) {
        let before = self.last_place.swap(last, Ordering::AcqRel);
        if before != 0 && before + 1 != first {
            self.others.store(true, Ordering::Release);
        }
    }

    /// Whether others wrote in between what was made under the lease.
    pub fn has_others(&self) -> bool {
        self.others.load(Ordering::Acquire)
    }

    /// Whether everything that was decided on it through this position is known to be durable.
    pub fn is_durable(&self, seq: Seq) -> bool {
        self.durable.load(Ordering::Acquire) >= seq
    }

    /// A commit that is done when everything that was decided on it through this position is durable.
    pub fn settled(&self, seq: Seq) -> Commit {
        let mut waiting = self.waiting.lock();
        if self.is_durable(seq) {
            return Commit::Done;
        }
        let (sender, receiver) = oneshot::channel();
        match self.is_stale() {
            true => drop(sender.send(Err(LedgerError::Stale))),
            false => waiting.push((seq, sender)),
        }
        Commit::Waiting(receiver)
    }
}

/// A tenant in a ledger that other nodes write to as well: its fold, and what was committed since, in one reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The fold, if there is one.
    pub fold: Option<Stored<Tenant>>,
    /// The entries after it, in order, without a gap.
    pub after: Vec<(Seq, Entry)>,
}

/// What all nodes must hear of soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// The version of the catalog in force; 0 before the first.
    pub catalog_version: u32,
    /// Grows with every change of an API key.
    pub keys_version: u64,
    /// The ledger's own clock, for a node to compare with its own.
    pub now: Instant,
}

/// What became of a catalog that was to be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is in force, as this version.
    Version(u32),
    /// It is not: tenants are on these plans, which it lacks.
    PlansInUse(Vec<PlanKey>),
}

/// The right to do a job, until the ledger's clock says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLease {
    /// The job.
    pub job: Arc<str>,
    /// Who does it.
    pub node: Arc<str>,
    /// Grows whenever the job changes hands: what is written under an older one is refused.
    pub epoch: u64,
}

/// What a ledger offers that several nodes write to at once. Positions are the tenant's own there: 1 for its first
/// entry, without a gap. What is appended is written only if it follows the tenant's last entry
/// ([`LedgerError::Stale`] if not) and was decided on the catalog in force ([`LedgerError::CatalogBehind`] if not);
/// a decision is final when its commit is, not before. The ledger tells the [`Basis`] of what was appended: with
/// [`Basis::made_durable`] when it is written, with [`Basis::outdate`] when it is not, or nobody knows.
///
/// What is appended [under a lease](super::Append::under) is written if and only if the lease is among those of the tenant's
/// last [`Effect::Leases`](domain::entry::Effect::Leases), exactly as many entries were made under it as it
/// [follows](super::Append::follows), none of its ids is bound, and it was decided on the catalog in force. It is
/// [`LedgerError::Stale`] if not, and [`Basis::placed`] if so.
pub trait SharedLedger: Send + Sync {
    /// A tenant with all that is committed. With `hold`, no other node can write to the tenant until what is appended
    /// next for it is committed, or a short while has passed.
    fn load<'a>(&'a self, tenant: &'a TenantId, hold: bool) -> BoxFuture<'a, Result<Loaded, LedgerError>>;

    /// What all nodes must hear of soon.
    fn signals<'a>(&'a self) -> BoxFuture<'a, Result<Signals, LedgerError>>;

    /// Puts a catalog in force on every node, unless tenants are on plans that are not among `plans`. Durable when the
    /// future ends.
    fn publish<'a>(
        &'a self,
        text: &'a str,
        at: Instant,
        plans: &'a [PlanKey],
    ) -> BoxFuture<'a, Result<Published, LedgerError>>;

    /// Takes or renews a job for `ttl_ms` of the ledger's clock; `None` while another node has it.
    fn claim<'a>(
        &'a self,
        job: &'a str,
        node: &'a str,
        ttl_ms: i64,
    ) -> BoxFuture<'a, Result<Option<JobLease>, LedgerError>>;

    /// Gives a job back. Nothing happens if it has changed hands.
    fn release<'a>(&'a self, lease: &'a JobLease) -> BoxFuture<'a, Result<(), LedgerError>>;
}
