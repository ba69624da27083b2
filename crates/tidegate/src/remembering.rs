//! History: the journal is folded into what was used when, a little at a time, by whichever node has the job.

use engine::{Engine, HistoryKept, requests::EngineError};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How often a node looks whether there is something to fold.
const FOLD_EVERY: Duration = Duration::from_secs(1);
/// How long it keeps the job from others without renewing it.
const TURN: Duration = Duration::from_secs(30);

/// Folds the journal for as long as the node runs.
pub struct Remembering {
    /// Whose journal.
    pub engine: Arc<Engine>,
    /// How long history is kept.
    pub kept: HistoryKept,
    /// What this node is called among those that share jobs.
    pub node: String,
}

impl Remembering {
    /// Never ends.
    pub async fn run(self) {
        let mut well = true;
        loop {
            sleep(FOLD_EVERY).await;
            let outcome = self.turn().await;
            match (&outcome, well) {
                (Err(error), true) => tracing::warn!(%error, "history stands still; it goes on from where it stopped"),
                (Ok(()), false) => tracing::info!("history goes on"),
                _ => {}
            }
            well = outcome.is_ok();
        }
    }

    /// Folds all there is, if it is this node's turn.
    async fn turn(&self) -> Result<(), EngineError> {
        let mut claimed = Instant::now();
        if !self.claim().await? {
            return Ok(());
        }
        loop {
            let began = Instant::now();
            if !self.engine.fold_history(self.kept).await?.more {
                break;
            }
            // Commits come first: at least half of the time is theirs.
            sleep(began.elapsed()).await;
            if claimed.elapsed() >= TURN / 3 {
                claimed = Instant::now();
                if !self.claim().await? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn claim(&self) -> Result<bool, EngineError> {
        Ok(self.engine.claim("history", &self.node, TURN.as_millis() as i64).await?.is_some())
    }
}
