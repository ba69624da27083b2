//! The thread that writes: one transaction for whatever waits.

use super::{Shared, lines};
use crate::sqlite::{errors::unwritable, files::Lock};
use engine::ports::{LedgerError, SpoolLine};
use rusqlite::{Connection, TransactionBehavior, params};
use std::sync::{Arc, atomic::Ordering, mpsc};
use tokio::sync::oneshot;

/// Lines in one transaction, at most.
const BATCH: usize = 1_000;

type Done = oneshot::Sender<Result<(), LedgerError>>;

/// What there is to do.
pub(super) enum Work {
    Line { number: u64, line: SpoolLine, done: Done },
    Settle { recorded: Vec<u64>, set_aside: Vec<(u64, String)>, done: Done },
    Nothing { done: Done },
}

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) waiting: mpsc::Receiver<Work>,
    pub(super) shared: Arc<Shared>,
    /// Held for as long as the file may be written.
    pub(super) _lock: Lock,
}

impl Writer {
    /// Writes until the spool is dropped and nothing is left.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.waiting.recv() {
            let mut batch = vec![first];
            batch.extend(self.waiting.try_iter().take(BATCH - 1));
            let written = self.write(&batch).map_err(|error| unwritable(&error));
            if let Err(error) = &written {
                tracing::error!(%error, lines = batch.len(), "the spool can't be written");
            }
            self.told(batch, written);
        }
    }

    /// Gives how many lines were removed.
    fn write(&mut self, batch: &[Work]) -> rusqlite::Result<u64> {
        let mut removed = 0;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for work in batch {
            match work {
                Work::Line { number, line, .. } => lines::insert(&transaction, *number, line)?,
                Work::Settle { recorded, set_aside, .. } => {
                    let mut remove = transaction.prepare_cached("DELETE FROM lines WHERE number = ?1")?;
                    for number in recorded {
                        removed += remove.execute([*number as i64])? as u64;
                    }
                    let mut put = transaction.prepare_cached("UPDATE lines SET set_aside = ?2 WHERE number = ?1")?;
                    for (number, why) in set_aside {
                        put.execute(params![*number as i64, why])?;
                    }
                }
                Work::Nothing { .. } => {}
            }
        }
        transaction.commit().map(|()| removed)
    }

    /// Tells those who wait. What could not be written does not count as a line.
    fn told(&self, batch: Vec<Work>, written: Result<u64, LedgerError>) {
        let mut gone = *written.as_ref().unwrap_or(&0);
        let mut woken = Vec::with_capacity(batch.len());
        for work in batch {
            woken.push(match work {
                Work::Line { number, done, .. } => {
                    match &written {
                        Ok(_) => _ = self.shared.durable.fetch_max(number, Ordering::AcqRel),
                        Err(_) => {
                            gone += 1;
                            self.shared.lose(number);
                        }
                    }
                    done
                }
                Work::Settle { done, .. } | Work::Nothing { done } => done,
            });
        }
        self.shared.lines.fetch_sub(gone, Ordering::AcqRel);
        for done in woken {
            let _ = done.send(written.clone().map(|_| ()));
        }
    }
}
