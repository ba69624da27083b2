//! The ports, implemented. Whatever waits for the network runs on the runtime the ledger was opened on: callers may be
//! on any other, and one that goes away leaves no transaction half done.

use super::{
    buckets,
    committer::{Committer, Nudge},
    denials,
    errors::Done,
    folds::{self, Checkpoint},
    holds, journal,
    pool::{Conn, Pool},
    queue::{Lane, Queue},
    reads, retain, schema, small, url,
};
use crate::codec;
use domain::{
    entry::Entry,
    history::{KeptFrom, Place, Resolution, Rows},
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
};
use engine::ports::{
    ApiKey, Append, Appended, BoxFuture, ClosedRow, Commit, DenialId, DenialQuery, Fold, Forecasts, HistoryLedger,
    HistoryPage, HistoryQuery, HistoryState, JobLease, Ledger, LedgerError, LedgerStats, Line, Loaded, Lookup,
    Published, Retention, Seq, SharedLedger, Signals, Snapshots, Stored, StoredCatalog, StoredDenial, TailLines,
};
use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
};

/// How a ledger is opened, besides what its URL says.
#[derive(Clone)]
pub struct PostgresOptions {
    /// How many entries may wait for a commit before [`Ledger::ready`] says that it is too many.
    pub queue_entries_max: usize,
    /// How long what waits for a commit is kept while there is no connection.
    pub give_up: Duration,
    /// How many ids are remembered that were bound lately, so that a repeat need not ask the database.
    pub remembered_ids_max: usize,
    /// Gives random numbers: tokens of batches, and how long a node waits before it tries again.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            queue_entries_max: 200_000,
            give_up: Duration::from_secs(5),
            remembered_ids_max: 65_536,
            random: Arc::new(|| getrandom::u64().unwrap_or(0)),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("queue_entries_max", &self.queue_entries_max)
            .field("give_up", &self.give_up)
            .finish_non_exhaustive()
    }
}

/// What the tasks share.
pub(super) struct Inner {
    pub(super) pool: Arc<Pool>,
    pub(super) queue: Arc<Queue>,
    pub(super) options: PostgresOptions,
    /// How many rows may be kept locked at a time: reads must still find a connection.
    pub(super) holds: Arc<Semaphore>,
    /// Before this instant it is no use looking for entries to cut.
    pub(super) cut_not_before_ms: AtomicI64,
    /// The place in the order of all up to which nothing can appear any more.
    settled: tokio::sync::Mutex<i64>,
    nudge: Arc<Nudge>,
}

/// The ledger of many nodes. Dropping it commits what is queued, as long as its runtime lives.
pub struct PostgresLedger {
    inner: Arc<Inner>,
    checkpoints: mpsc::UnboundedSender<Checkpoint>,
    runtime: Handle,
    secret: [u8; 32],
    closed: tokio::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl PostgresLedger {
    /// Opens a ledger, or makes one where the database has none. Its tasks run on the present runtime.
    ///
    /// The URL is PostgreSQL's (`postgres://user:password@host:5432/database`; several hosts are separated by commas, and
    /// the first that takes writes is used) with these parameters, all optional:
    /// `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert` (a file of authorities, or `system`),
    /// `schema` (`tidegate`), `pool_max` (8 connections), `statement_timeout` (10,000 ms), `pgbouncer` (`true` behind a
    /// pooler in transaction mode), `application_name`, `connect_timeout` (seconds) and others of the driver.
    ///
    /// # Errors
    /// [`LedgerError::Unopenable`] where the URL is wrong, the server can't be reached or is too old, or the tables are
    /// those of a newer release. No error shows the password.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Arc<Self>, LedgerError> {
        let settings = url::parse(url)?;
        let pool = Arc::new(Pool::new(&settings)?);
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| super::errors::unopenable(format_args!("the system gives no random numbers: {error}")))?;
        let secret = schema::prepare(&pool, &settings.schema, &random).await?;
        let queue = Arc::new(Queue::new(options.queue_entries_max, options.remembered_ids_max));
        let nudge = Arc::new(Nudge::default());
        // Two connections are the committers', and one is left for reads.
        let holds = Arc::new(Semaphore::new(pool.connections_max().saturating_sub(3).max(1)));
        let committer = |lane| Committer {
            lane,
            queue: queue.clone(),
            pool: pool.clone(),
            options: options.clone(),
            // The main one is asked to look again.
            nudge: if lane == Lane::Main { nudge.clone() } else { Arc::default() },
            conn: None,
            wait: Duration::ZERO,
            last: (0, Duration::ZERO),
        };
        let runtime = Handle::current();
        let committers = [Lane::Main, Lane::Leased].map(|lane| runtime.spawn(committer(lane).run()));
        let inner = Arc::new(Inner {
            pool,
            queue,
            options,
            holds,
            cut_not_before_ms: AtomicI64::new(i64::MIN),
            settled: tokio::sync::Mutex::new(0),
            nudge,
        });
        let (checkpoints, waiting) = mpsc::unbounded_channel();
        runtime.spawn(folds::run(Arc::downgrade(&inner), waiting));
        let closed = tokio::sync::Mutex::new(committers.into_iter().collect());
        Ok(Arc::new(Self { inner, checkpoints, runtime, secret, closed }))
    }

    /// Commits what is queued and closes the connections.
    pub async fn close(&self) {
        self.stop();
        for committer in self.closed.lock().await.drain(..) {
            // It has told everybody who waited, even if it panicked.
            let _ = committer.await;
        }
        self.inner.pool.close();
    }

    fn stop(&self) {
        self.inner.queue.state.lock().stopping = true;
        self.inner.queue.work.notify_one();
        self.inner.queue.leased_work.notify_one();
    }

    /// Does something on the ledger's runtime, whether or not the caller waits to the end.
    fn spawn<'a, T: Send + 'static>(
        &self,
        work: impl Future<Output = Done<T>> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        let task = self.runtime.spawn(work);
        Box::pin(async move {
            match task.await {
                Ok(done) => Ok(done?),
                Err(_) => Err(LedgerError::Unwritable("the ledger was closed".into())),
            }
        })
    }

    /// Does something on a connection of the pool.
    pub(super) fn with<'a, T: Send + 'static>(
        &self,
        work: impl AsyncFnOnceSend<T>,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        let pool = self.inner.pool.clone();
        self.spawn(async move { work.call(pool.get().await?).await })
    }
}

/// What is done on a connection.
pub(super) trait AsyncFnOnceSend<T>: Send + 'static {
    fn call(self, conn: Conn) -> impl Future<Output = Done<T>> + Send;
}

impl<T, F, Fut> AsyncFnOnceSend<T> for F
where
    F: FnOnce(Conn) -> Fut + Send + 'static,
    Fut: Future<Output = Done<T>> + Send,
{
    fn call(self, conn: Conn) -> impl Future<Output = Done<T>> + Send {
        self(conn)
    }
}

impl Drop for PostgresLedger {
    fn drop(&mut self) {
        self.stop();
    }
}

impl HistoryLedger for PostgresLedger {
    fn state<'a>(&'a self) -> BoxFuture<'a, Result<HistoryState, LedgerError>> {
        self.with(|mut conn: Conn| async move { buckets::state(&mut conn).await })
    }

    fn add<'a>(&'a self, from: Seq, through: Seq, at: Instant, rows: Rows) -> BoxFuture<'a, Result<bool, LedgerError>> {
        self.with(move |mut conn: Conn| async move { buckets::add(&mut conn, from, through, at, &rows).await })
    }

    fn page<'a>(&'a self, query: &'a HistoryQuery) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        let query = query.clone();
        self.with(move |mut conn: Conn| async move { buckets::page(&mut conn, &query).await })
    }

    fn bucket<'a>(
        &'a self,
        resolution: Resolution,
        start: Instant,
        after: Option<&'a Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<HistoryPage, LedgerError>> {
        let after = after.cloned();
        self.with(move |mut conn: Conn| async move {
            buckets::bucket(&mut conn, resolution, start, after.as_ref(), limit).await
        })
    }

    fn drop_before<'a>(&'a self, kept: KeptFrom) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |mut conn: Conn| async move { buckets::drop_before(&mut conn, kept).await })
    }
}

impl Ledger for PostgresLedger {
    fn snapshots(&self) -> &dyn Snapshots {
        self
    }

    fn forecasts(&self) -> Option<&dyn Forecasts> {
        Some(self)
    }

    fn history(&self) -> Option<&dyn HistoryLedger> {
        Some(self)
    }

    fn shared(&self) -> Option<&dyn SharedLedger> {
        Some(self)
    }

    fn load_tenant<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Option<Stored<Tenant>>, LedgerError>> {
        let tenant = tenant.clone();
        self.with(move |mut conn: Conn| async move { reads::load_tenant(&mut conn, &tenant).await })
    }

    fn load_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Stored<User>>, LedgerError>> {
        let (tenant, user) = (tenant.clone(), user.clone());
        self.with(move |mut conn: Conn| async move { reads::load_user(&mut conn, &tenant, &user).await })
    }

    fn tail(&self) -> Result<TailLines, LedgerError> {
        // Tenants are loaded one by one, each with its own tail.
        Ok(TailLines::new(0, codec::read_entry))
    }

    fn ready(&self) -> Result<(), LedgerError> {
        self.inner.queue.ready()
    }

    fn append(&self, append: Append) -> Result<Appended, LedgerError> {
        self.inner.queue.append(append)
    }

    fn committed(&self, tenant: &TenantId, seq: Seq) -> Commit {
        self.inner.queue.committed(tenant, seq)
    }

    fn find(&self, tenant: &TenantId, id: u128) -> Lookup {
        self.inner.queue.find(tenant, id)
    }

    fn find_on_disk<'a>(&'a self, tenant: &'a TenantId, id: u128) -> BoxFuture<'a, Result<Option<Seq>, LedgerError>> {
        self.inner.queue.state.lock().stats.id_disk_reads += 1;
        let tenant = tenant.clone();
        self.with(move |mut conn: Conn| async move { reads::find(&mut conn, &tenant, id).await })
    }

    fn entry<'a>(&'a self, tenant: &'a TenantId, seq: Seq) -> BoxFuture<'a, Result<Option<Entry>, LedgerError>> {
        let tenant = tenant.clone();
        self.with(move |mut conn: Conn| async move { reads::entry(&mut conn, &tenant, seq).await })
    }

    fn journal<'a>(&'a self, after: Seq, limit: usize) -> BoxFuture<'a, Result<Vec<Line>, LedgerError>> {
        let inner = self.inner.clone();
        self.spawn(async move {
            // In this order: whoever waits for a turn must not keep a connection from others.
            let mut settled = inner.settled.lock().await;
            let mut conn = inner.pool.get().await?;
            journal::after(&mut conn, after, limit, &mut settled).await
        })
    }

    fn checkpoint(&self, folds: Vec<Fold>, complete_through: Option<Seq>) -> Commit {
        let queue = &self.inner.queue;
        let with_commit = |fold: Fold| {
            // Not when the position is durable: another basis may have come first to it.
            let commit = fold.basis.settled(fold.tenant.seq);
            (fold, commit)
        };
        let folds = folds.into_iter().map(with_commit).collect();
        let covers = complete_through.map(|_| {
            let state = queue.state.lock();
            state.stats.entries + state.entries as u64
        });
        let (done, waiting) = oneshot::channel();
        // If nobody takes it the ledger is closed, and the commit says so.
        let _ = self.checkpoints.send(Checkpoint { folds, covers, done });
        Commit::Waiting(waiting)
    }

    fn reopen(&self) -> Result<(), LedgerError> {
        self.inner.nudge.0.notify_one();
        self.inner.queue.state.lock().down.clone().map_or(Ok(()), Err)
    }

    fn tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TenantId>, LedgerError>> {
        let after = after.cloned();
        self.with(move |mut conn: Conn| async move { reads::tenants(&mut conn, after, limit).await })
    }

    fn plans_in_use<'a>(&'a self) -> BoxFuture<'a, Result<Vec<PlanKey>, LedgerError>> {
        self.with(|mut conn: Conn| async move { reads::plans(&mut conn).await })
    }

    fn denials<'a>(&'a self, query: &'a DenialQuery) -> BoxFuture<'a, Result<Vec<StoredDenial>, LedgerError>> {
        let query = query.clone();
        self.with(move |mut conn: Conn| async move { denials::list(&mut conn, &query).await })
    }

    fn denial<'a>(&'a self, id: DenialId) -> BoxFuture<'a, Result<Option<StoredDenial>, LedgerError>> {
        self.with(move |mut conn: Conn| async move { denials::one(&mut conn, id).await })
    }

    fn closed<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<ClosedRow>, LedgerError>> {
        let (tenant, user) = (tenant.clone(), user.cloned());
        self.with(move |mut conn: Conn| async move { reads::closed(&mut conn, &tenant, user).await })
    }

    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ApiKey>, LedgerError>> {
        self.with(|mut conn: Conn| async move { small::keys(&mut conn).await })
    }

    fn put_key<'a>(&'a self, key: &'a ApiKey) -> BoxFuture<'a, Result<(), LedgerError>> {
        let key = key.clone();
        self.with(move |mut conn: Conn| async move { small::put_key(&mut conn, &key).await })
    }

    fn newest_catalog<'a>(&'a self) -> BoxFuture<'a, Result<Option<StoredCatalog>, LedgerError>> {
        self.with(|mut conn: Conn| async move { Ok(small::catalogs(&mut conn, true).await?.pop()) })
    }

    fn catalogs<'a>(&'a self) -> BoxFuture<'a, Result<Vec<StoredCatalog>, LedgerError>> {
        self.with(|mut conn: Conn| async move { small::catalogs(&mut conn, false).await })
    }

    fn put_catalog<'a>(&'a self, text: &'a str, at: Instant) -> BoxFuture<'a, Result<u32, LedgerError>> {
        let text = text.to_owned();
        self.with(move |mut conn: Conn| async move {
            match small::publish(&mut conn, &text, at, None).await? {
                Published::Version(version) => Ok(version),
                Published::PlansInUse(_) => Ok(0),
            }
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn retain<'a>(&'a self, retention: Retention, now: Instant) -> BoxFuture<'a, Result<(), LedgerError>> {
        let inner = self.inner.clone();
        self.spawn(async move { retain::retain(&inner, retention, now).await })
    }

    fn stats(&self) -> LedgerStats {
        let state = self.inner.queue.state.lock();
        LedgerStats {
            queue_entries: state.entries as u64,
            tail_entries: state.stats.entries.saturating_sub(state.covered),
            recent_ids: state.ids_in_memory(),
            ..state.stats
        }
    }
}

impl SharedLedger for PostgresLedger {
    fn load<'a>(&'a self, tenant: &'a TenantId, hold: bool) -> BoxFuture<'a, Result<Loaded, LedgerError>> {
        let (tenant, inner) = (tenant.clone(), self.inner.clone());
        self.spawn(async move {
            match hold {
                true => holds::load(&inner, &tenant).await,
                false => reads::load(&mut inner.pool.get().await?, &tenant).await,
            }
        })
    }

    fn signals<'a>(&'a self) -> BoxFuture<'a, Result<Signals, LedgerError>> {
        self.with(|mut conn: Conn| async move { small::signals(&mut conn).await })
    }

    fn publish<'a>(
        &'a self,
        text: &'a str,
        at: Instant,
        plans: &'a [PlanKey],
    ) -> BoxFuture<'a, Result<Published, LedgerError>> {
        let (text, plans) = (text.to_owned(), plans.to_vec());
        self.with(move |mut conn: Conn| async move { small::publish(&mut conn, &text, at, Some(&plans)).await })
    }

    fn claim<'a>(
        &'a self,
        job: &'a str,
        node: &'a str,
        ttl_ms: i64,
    ) -> BoxFuture<'a, Result<Option<JobLease>, LedgerError>> {
        let (job, node) = (job.to_owned(), node.to_owned());
        self.with(move |mut conn: Conn| async move { small::claim(&mut conn, &job, &node, ttl_ms).await })
    }

    fn release<'a>(&'a self, lease: &'a JobLease) -> BoxFuture<'a, Result<(), LedgerError>> {
        let lease = lease.clone();
        self.with(move |mut conn: Conn| async move { small::release(&mut conn, &lease).await })
    }
}
