//! Copying SQLite's log back into the file, on a thread of its own.
//!
//! SQLite would do it inside the commit that makes the log too long, and whoever waits for that commit would wait for
//! thousands of pages and two syncs more. Here a second connection copies while commits go on; since commits go on, it
//! never reaches the end of the log, so the writer copies what little is left when it is told, and the next commit
//! begins the log anew.

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The log is short.
    Short,
    /// The copier is at work, or about to be.
    Copying,
    /// The writer is to copy the rest.
    Finish,
    Stopped,
}

/// What writer and copier tell each other.
pub(super) struct Log {
    stage: Mutex<Stage>,
    changed: Condvar,
    pages_max: u64,
}

impl Log {
    /// With more than `pages_max` pages in the log, it is copied back.
    pub(super) fn new(pages_max: u64) -> Arc<Self> {
        Arc::new(Self { stage: Mutex::new(Stage::Short), changed: Condvar::new(), pages_max })
    }

    /// Called by the writer between commits, with the pages it wrote since the log was short, about; true when the log
    /// is short again.
    pub(super) fn keep_short(&self, conn: &Connection, pages: u64) -> bool {
        if pages <= self.pages_max {
            return false;
        }
        let mut stage = self.stage.lock();
        match *stage {
            Stage::Short => {
                *stage = Stage::Copying;
                self.changed.notify_one();
                false
            }
            Stage::Finish => {
                *stage = Stage::Short;
                drop(stage);
                copy_back(conn);
                true
            }
            Stage::Copying | Stage::Stopped => false,
        }
    }

    /// The copier: until it is stopped.
    pub(super) fn run(&self, conn: &Connection) {
        loop {
            {
                let mut stage = self.stage.lock();
                while !matches!(*stage, Stage::Copying | Stage::Stopped) {
                    self.changed.wait(&mut stage);
                }
                if *stage == Stage::Stopped {
                    return;
                }
            }
            copy_back(conn);
            let mut stage = self.stage.lock();
            if *stage == Stage::Copying {
                *stage = Stage::Finish;
            }
        }
    }

    pub(super) fn stop(&self) {
        *self.stage.lock() = Stage::Stopped;
        self.changed.notify_one();
    }
}

/// A copy that fails loses nothing: the log stays as it is, and grows until a commit says why.
fn copy_back(conn: &Connection) {
    if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the log could not be copied back into the file");
    }
}
