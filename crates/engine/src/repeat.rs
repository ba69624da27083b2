//! An id that was used before: the same payload is a repeat, another is a conflict.

use crate::{
    engine::Engine,
    open::{Open, Whom},
    ports::{Commit, LedgerError, Lookup, Seq},
    requests::EngineError,
};
use domain::{
    entry::{Binding, Entry},
    id::TenantId,
    time::Instant,
};

/// What an id is bound to.
pub(crate) enum Bound {
    /// The same payload.
    Same,
    /// Another payload.
    Conflict {
        /// When that was accepted.
        at: Instant,
    },
    /// The memory was dropped since: the position may be another entry's by now.
    LookAgain,
}

/// What is known of an id, under the lock of its tenant.
pub(crate) enum Seen {
    /// Never accepted. Nobody else can bind it before the lock is given up.
    Fresh,
    /// Accepted before, by the entry at this position.
    Before(Seq),
    /// Memory can't tell; what the disk says holds for this generation.
    AskDisk(u64),
}

/// What became of an operation that is done once.
pub(crate) enum Once<T> {
    /// It was done now.
    Done(T, Commit),
    /// The same was done before.
    Repeat,
}

enum Step<T> {
    Done(T),
    Seen(Seq),
    AskDisk(u64),
}

/// Whether what was decided here was not committed, since another node, or another catalog, came before it.
pub(crate) fn is_in_vain(error: &EngineError) -> bool {
    matches!(error, EngineError::Ledger(LedgerError::Stale | LedgerError::CatalogBehind { .. }))
}

impl Open<'_> {
    /// What is known of an id of this tenant. `fresh` is the generation for which the disk does not know it.
    pub(crate) fn seen(&self, binding: Binding, fresh: Option<u64>) -> Seen {
        match self.engine.ledger.find(&self.cell.id, binding.id) {
            Lookup::Bound(seq) => Seen::Before(seq),
            Lookup::Unsure { generation } if fresh != Some(generation) => Seen::AskDisk(generation),
            Lookup::Fresh | Lookup::Unsure { .. } => Seen::Fresh,
        }
    }
}

impl Engine {
    /// Does something once under its id, if it has one. `refuses` tells whether `work` would refuse, without a trace.
    ///
    /// # Errors
    /// [`EngineError::IdempotencyConflict`] when the id was used for something else.
    pub(crate) async fn once<T>(
        &self,
        whom: Whom<'_>,
        binding: Option<Binding>,
        mut work: impl FnMut(&mut Open<'_>) -> Result<(T, Commit), EngineError>,
        mut refuses: impl FnMut(&mut Open<'_>) -> Result<bool, EngineError>,
    ) -> Result<Once<T>, EngineError> {
        let Some(binding) = binding else {
            let (value, commit) = self.commit_with(whom, work).await?;
            return Ok(Once::Done(value, commit));
        };
        let mut fresh = None;
        loop {
            let epoch = self.epoch();
            // Memory does not know what other nodes bound. A commit does; a refusal has none that looks at ids.
            let must_ask = self.ledger.shared().is_some() && fresh.is_none();
            let look = |open: &mut Open<'_>| match open.seen(binding, fresh) {
                Seen::Fresh if must_ask && refuses(open)? => Ok((Step::AskDisk(0), Commit::Done)),
                Seen::Fresh => match work(open) {
                    Err(EngineError::Op(_)) if must_ask => Ok((Step::AskDisk(0), Commit::Done)),
                    done => done.map(|(value, commit)| (Step::Done(value), commit)),
                },
                Seen::Before(seq) => Ok((Step::Seen(seq), Commit::Done)),
                Seen::AskDisk(generation) => Ok((Step::AskDisk(generation), Commit::Done)),
            };
            let looked = match self.commit_with(whom, look).await {
                // Another node may have done the same since the disk was asked.
                Err(error @ EngineError::Op(_)) if self.ledger.shared().is_some() => {
                    match self.ledger.find_on_disk(whom.tenant, binding.id).await? {
                        Some(seq) => (Step::Seen(seq), Commit::Done),
                        None => return Err(error),
                    }
                }
                looked => looked?,
            };
            let seq = match looked {
                (Step::Done(value), commit) => return Ok(Once::Done(value, commit)),
                (Step::Seen(seq), _) => seq,
                (Step::AskDisk(generation), _) => match self.ledger.find_on_disk(whom.tenant, binding.id).await? {
                    Some(seq) => seq,
                    None => {
                        fresh = Some(generation);
                        continue;
                    }
                },
            };
            match self.bound(whom.tenant, binding, seq, epoch).await? {
                Bound::Same => return Ok(Once::Repeat),
                Bound::Conflict { at } => return Err(EngineError::IdempotencyConflict { at, seq }),
                Bound::LookAgain => {}
            }
        }
    }

    /// Compares a payload with the entry its id is bound to, once that entry is durable: a repeat of an operation that
    /// is not committed yet waits for it. `epoch` is from before the id was found.
    pub(crate) async fn bound(
        &self,
        tenant: &TenantId,
        binding: Binding,
        seq: Seq,
        epoch: u64,
    ) -> Result<Bound, EngineError> {
        match self.ledger.committed(tenant, seq).wait().await {
            Ok(()) => {}
            Err(LedgerError::Stale | LedgerError::CatalogBehind { .. }) => return Ok(Bound::LookAgain),
            Err(error) => {
                self.fail(epoch, &error);
                return Err(error.into());
            }
        }
        let entry = self.ledger.entry(tenant, seq).await?;
        if self.epoch() != epoch {
            return Ok(Bound::LookAgain);
        }
        let is_its = |entry: &Entry| entry.binding.is_some_and(|known| known.id == binding.id);
        if self.ledger.shared().is_some() && !entry.as_ref().is_some_and(is_its) {
            // What bound the id was not committed after all, or was cut.
            let on_disk = self.ledger.find_on_disk(tenant, binding.id).await?;
            let is_known = on_disk == Some(seq) || self.is_bound(tenant, binding, seq);
            return Ok(if entry.is_none() && is_known { Bound::Same } else { Bound::LookAgain });
        }
        let Some(entry) = entry else {
            // Entries outlive their ids in the journal; one that was cut all the same can only be taken at its word.
            return Ok(Bound::Same);
        };
        let same = entry.binding.is_some_and(|known| known.fingerprint == binding.fingerprint);
        Ok(if same { Bound::Same } else { Bound::Conflict { at: entry.at } })
    }

    /// Whether memory knows an id from the entry at this position, and that one is committed.
    fn is_bound(&self, tenant: &TenantId, binding: Binding, seq: Seq) -> bool {
        self.ledger.find(tenant, binding.id) == Lookup::Bound(seq)
            && matches!(self.ledger.committed(tenant, seq), Commit::Done)
    }
}
