//! The daily history: whatever closes a day, or tells of one, goes through here.

use crate::{
    engine::Engine,
    open::{Look, Open, Whom},
    ports::{Days, MeterSnapshots, Snapshot, SnapshotRun, TenantSnapshots},
    requests::EngineError,
};
use domain::{day::Day, history::KeptFrom, id::TenantId};

impl Engine {
    /// Writes rows of the daily history, over those that were observed before. Durable when the future ends.
    ///
    /// # Errors
    /// A failing ledger; the same call again is harmless.
    pub async fn put_snapshots(&self, rows: Vec<Snapshot>) -> Result<(), EngineError> {
        Ok(self.ledger.snapshots().put(rows).await?)
    }

    /// The daily history of a tenant, meters in order of their keys.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn snapshots(&self, tenant: &TenantId, days: Days) -> Result<Vec<MeterSnapshots>, EngineError> {
        Ok(self.ledger.snapshots().of_tenant(tenant, days).await?)
    }

    /// The daily history of the tenants after one through another, in order of their ids.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn snapshots_of_all(
        &self,
        after: Option<&TenantId>,
        through: &TenantId,
        days: Days,
    ) -> Result<Vec<TenantSnapshots>, EngineError> {
        Ok(self.ledger.snapshots().of_tenants(after, through, days).await?)
    }

    /// Ends when everything that is shown of a tenant by now is durable, and so in the journal.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn settled(&self, tenant: &TenantId) -> Result<(), EngineError> {
        let work = |open: &mut Open<'_>| {
            let commit = match open.engine.ledger.shared() {
                Some(_) => open.settled(),
                None => open.engine.ledger.committed(tenant, open.book.seq),
            };
            Ok(((), commit))
        };
        let ((), commit) = self.commit_with(Whom::known(tenant, &[]).look(Look::Now), work).await?;
        Ok(commit.wait().await?)
    }

    /// From when on history is kept.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn history_kept(&self) -> Result<KeptFrom, EngineError> {
        Ok(self.history_ledger()?.state().await?.kept)
    }

    /// Notes how the closing of a day went.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn put_snapshot_run(&self, run: SnapshotRun) -> Result<(), EngineError> {
        Ok(self.ledger.snapshots().put_run(run).await?)
    }

    /// The days that were closed, oldest first.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn snapshot_runs(&self, days: Days) -> Result<Vec<SnapshotRun>, EngineError> {
        Ok(self.ledger.snapshots().runs(days).await?)
    }

    /// Drops the daily history of days before this one.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn drop_snapshots(&self, before: Day) -> Result<(), EngineError> {
        Ok(self.ledger.snapshots().drop_before(before).await?)
    }
}
