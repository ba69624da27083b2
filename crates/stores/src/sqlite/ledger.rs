//! The port, implemented.

use super::{
    buckets::{self, AddRows, DropRows},
    checkpoint::{Checkpoint, Ordered},
    closed, denials,
    errors::OrDamaged,
    files::{self, Lock},
    ids, reads,
    retain::Retain,
    running::Running,
    small::{self, PutCatalog, PutKey},
};
use crate::snapshots::Versions;
use domain::{
    entry::Entry,
    history::{KeptFrom, Place, Resolution, Rows},
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use engine::ports::{
    ApiKey, Append, Appended, BoxFuture, ClosedRow, Commit, DenialId, DenialQuery, Fold, Forecasts, HistoryLedger,
    HistoryPage, HistoryQuery, HistoryState, Ledger, LedgerError, LedgerStats, Lookup, Retention, Seq, Snapshots,
    Stored, StoredCatalog, StoredDenial, TailLines,
};
use parking_lot::RwLock;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// How many entries may wait for a commit before [`Ledger::ready`] says that it is too many.
    pub queue_entries_max: usize,
    /// How much memory the id index may take.
    pub ids: ids::Options,
    /// How many pages SQLite's log may have, about, before it is copied back into the file.
    pub log_pages: u64,
    /// The most pages the file may have, past which it is treated as if the disk were full. For tests.
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { queue_entries_max: 200_000, ids: ids::Options::default(), log_pages: 2_000, max_pages: None }
    }
}

/// The embedded ledger. Dropping it commits what is queued.
pub struct SqliteLedger {
    path: PathBuf,
    options: SqliteOptions,
    running: RwLock<Arc<Running>>,
    pub(super) snapshot_versions: Arc<Versions>,
    // Dropped last: another process may open the file only when this one has closed it.
    _lock: Lock,
}

impl SqliteLedger {
    /// Opens a ledger, or makes one where there is no file.
    ///
    /// # Errors
    /// [`LedgerError::Unopenable`] where the path is wrong, the file is another process's, another program's or of a
    /// newer release; [`LedgerError::Damaged`] where it is not what was written.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>, LedgerError> {
        let lock = files::lock(path)?;
        let running = RwLock::new(Arc::new(Running::open(path, &options, false)?));
        let snapshot_versions = Arc::default();
        Ok(Arc::new(Self { path: path.to_owned(), options, running, snapshot_versions, _lock: lock }))
    }

    pub(super) fn running(&self) -> Arc<Running> {
        self.running.read().clone()
    }

    /// A short read, done when the future is first polled.
    pub(super) fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&Running, &Connection) -> Result<T, LedgerError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        Box::pin(async move {
            let running = self.running();
            running.readers.with(|conn| read(&running, conn))
        })
    }
}

impl HistoryLedger for SqliteLedger {
    fn state<'a>(&'a self) -> BoxFuture<'a, Result<HistoryState, LedgerError>> {
        self.read(|_, conn| buckets::state(conn).or_damaged())
    }

    fn add<'a>(&'a self, from: Seq, through: Seq, at: Instant, rows: Rows) -> BoxFuture<'a, Result<bool, LedgerError>> {
        let is_added = Arc::new(AtomicBool::new(false));
        let work = Box::new(AddRows { from, through, at, rows, is_added: is_added.clone() });
        Box::pin(async move {
            let written = self.running.read().queue.push_task(work, false);
            written.wait().await?;
            Ok(is_added.load(Ordering::Acquire))
        })
    }

    fn page<'a>(&'a self, query: &'a HistoryQuery) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        self.read(move |_, conn| buckets::page(conn, query))
    }

    fn bucket<'a>(
        &'a self,
        resolution: Resolution,
        start: Instant,
        after: Option<&'a Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        self.read(move |_, conn| buckets::bucket(conn, resolution, start, after, limit))
    }

    fn drop_before<'a>(&'a self, kept: KeptFrom) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let dropped = self.running.read().queue.push_task(Box::new(DropRows(kept)), false);
            dropped.wait().await
        })
    }
}

impl Ledger for SqliteLedger {
    fn snapshots(&self) -> &dyn Snapshots {
        self
    }

    fn forecasts(&self) -> Option<&dyn Forecasts> {
        Some(self)
    }

    fn history(&self) -> Option<&dyn HistoryLedger> {
        Some(self)
    }

    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>> {
        self.read(move |_, conn| reads::tenant(conn, tenant))
    }

    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>> {
        self.read(move |_, conn| reads::user(conn, tenant, user))
    }

    fn tail(&self) -> Result<TailLines, LedgerError> {
        Ok(std::mem::take(&mut *self.running().tail.lock()))
    }

    fn ready(&self) -> Result<(), LedgerError> {
        self.running.read().queue.ready()
    }

    fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        let running = self.running.read();
        running.queue.append(append, |id, seq| running.ids.insert(id, seq))
    }

    fn committed(&self, _tenant: &TenantId, seq: Seq) -> Commit {
        self.running.read().queue.committed(seq)
    }

    fn find(&self, _tenant: &TenantId, id: u128) -> Lookup {
        self.running.read().ids.find(id)
    }

    fn find_on_disk<'a>(&'a self, _tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>> {
        self.read(move |running, conn| running.ids.find_on_disk(conn, id))
    }

    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>> {
        self.read(move |_, conn| reads::entry(conn, tenant, seq))
    }

    fn journal<'a>(
        &'a self,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Seq, TenantId, Entry)>, LedgerError>> {
        self.read(move |_, conn| reads::journal(conn, after, limit))
    }

    fn checkpoint(&self, folds: Vec<Fold>, complete_through: Option<Seq>) -> Commit {
        let folds = Ordered::new(folds);
        let running = self.running.read();
        let queue = &running.queue;
        queue.checkpoint(complete_through, |denials, complete_through| {
            Box::new(Checkpoint::new(folds, denials, complete_through, queue))
        })
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        let mut running = self.running.write();
        running.close();
        *running = Arc::new(Running::open(&self.path, &self.options, true)?);
        Ok(())
    }

    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>> {
        self.read(move |_, conn| reads::tenants(conn, after, limit))
    }

    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>> {
        self.read(|_, conn| reads::plans_in_use(conn))
    }

    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>> {
        self.read(move |running, conn| denials::list(conn, &running.queue.denials, query))
    }

    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>> {
        self.read(move |running, conn| denials::one(conn, &running.queue.denials, id))
    }

    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>> {
        let user = user.map_or("", UserId::as_str);
        self.read(move |_, conn| closed::of_account(conn, closed::Table::Live, tenant.as_str(), user))
    }

    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>> {
        self.read(|_, conn| small::keys(conn))
    }

    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>> {
        let work = Box::new(PutKey(key.clone()));
        Box::pin(async move {
            let written = self.running.read().queue.push_task(work, true);
            written.wait().await
        })
    }

    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>> {
        self.read(|_, conn| small::newest_catalog(conn))
    }

    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>> {
        self.read(|_, conn| small::catalogs(conn))
    }

    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>> {
        let version = Arc::new(AtomicU32::new(0));
        let work = Box::new(PutCatalog { text: text.into(), at, version: version.clone() });
        Box::pin(async move {
            let written = self.running.read().queue.push_task(work, true);
            written.wait().await?;
            Ok(version.load(Ordering::Acquire))
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.running.read().secret
    }

    fn retain<'a>(&'a self, retention: Retention, now: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let done = {
                let running = self.running.read();
                running.times.dedupe_ms.store(retention.dedupe_ms.max(0), Ordering::Relaxed);
                running.times.now_ms.fetch_max(now.ms(), Ordering::Relaxed);
                running.queue.push_task(Box::new(Retain::new(retention, now, running.times.clone())), false)
            };
            done.wait().await
        })
    }

    fn stats(&self) -> LedgerStats {
        let running = self.running();
        let ids = running.ids.stats();
        let state = running.queue.state.lock();
        LedgerStats {
            committed_seq: state.committed,
            queue_entries: state.waiting() as u64,
            tail_entries: state.tail(),
            recent_ids: ids.recent_ids,
            id_runs: ids.runs,
            filter_bytes: ids.filter_bytes,
            id_disk_reads: ids.disk_reads,
            file_bytes: files::size(&self.path),
            ..state.stats
        }
    }
}
