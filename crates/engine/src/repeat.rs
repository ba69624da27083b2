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
    /// The memory was dropped since: the position may be another entry's by now.
    LookAgain,
}

impl Engine {
    /// Compares a payload with the entry its id is bound to, once that entry is durable: a repeat of an operation that
    /// is not committed yet waits for it. `epoch` is from before the id was found.
    pub(crate) async fn bound(&self, binding: Binding, seq: Seq, epoch: u64) -> Result<Bound, EngineError> {
        self.ledger.committed(seq).wait().await.inspect_err(|error| self.fail(epoch, error))?;
        let entry = self.ledger.entry(seq).await?;
        if self.epoch() != epoch {
            return Ok(Bound::LookAgain);
        }
        let Some((_, entry)) = entry else {
            // Entries outlive their ids in the journal; one that was cut all the same can only be taken at its word.
            return Ok(Bound::Same);
        };
        let same = entry.binding.is_some_and(|known| known.fingerprint == binding.fingerprint);
        Ok(if same { Bound::Same } else { Bound::Conflict { at: entry.at } })
    }
}
