//! An id that was used before: the same payload is a repeat, another is a conflict.

use crate::{engine::Engine, ports::Seq, requests::EngineError};
use domain::{entry::Binding, time::Instant};

/// What an id is bound to.
pub(crate) enum Bound {
    /// The same payload.
    Same,
    /// Another payload.
    Conflict {
        /// When that was accepted.
        at: Instant,
    },
}

impl Engine {
    /// Compares a payload with the entry its id is bound to, once that entry is durable: a repeat of an operation that
    /// is not committed yet waits for it.
    pub(crate) async fn bound(&self, binding: Binding, seq: Seq) -> Result<Bound, EngineError> {
        self.ledger.committed(seq).wait().await.inspect_err(|error| self.fail(error))?;
        let Some((_, entry)) = self.ledger.entry(seq).await? else {
            // Entries outlive their ids in the journal; one that was cut all the same can only be taken at its word.
            return Ok(Bound::Same);
        };
        let same = entry.binding.is_some_and(|known| known.fingerprint == binding.fingerprint);
        Ok(if same { Bound::Same } else { Bound::Conflict { at: entry.at } })
    }
}
