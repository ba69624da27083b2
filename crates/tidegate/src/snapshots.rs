//! Closing days, as the API asks for it.

use crate::observe::figures::Figures;
use api::SnapshotDesk;
use engine::{Engine, ports::BoxFuture, requests::EngineError};
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;
use wire::v1::snapshots::{SnapshotAsked, SnapshotLine};
use workers::{collect::Allowed, snapshot::Keeper};

/// The one who closes days on this node.
pub struct Desk(pub Arc<Keeper>);

impl Desk {
    /// For a node that is called so among others.
    pub fn new(engine: &Arc<Engine>, figures: &Arc<Figures>, node: &str, allowed: Allowed) -> Self {
        let figures = figures.clone();
        let ended = Arc::new(move |summary: &_| figures.day_closed(summary));
        Self(Keeper::new(engine.clone(), node.to_owned(), allowed, ended))
    }
}

impl SnapshotDesk for Desk {
    fn begin(&self, asked: SnapshotAsked) -> Option<Receiver<SnapshotLine>> {
        self.0.begin(asked)
    }
    fn keep_days(&self) -> BoxFuture<'_, Result<i32, EngineError>> {
        Box::pin(self.0.keep_days())
    }
}
