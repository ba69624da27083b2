//! From the ledger to memory: at start, and after a failed commit.

use crate::{
    engine::{Engine, EngineOptions, Rounds},
    ids::IdKeys,
    keys::KeyRing,
    live::{Book, Live, LiveUser, Place},
    ports::{Clock, Ledger, LedgerError, Seq},
    requests::EngineError,
};
use arc_swap::ArcSwap;
use domain::{
    catalog::Catalog,
    entry::Entry,
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// In order of tenant, which is the order of the rows they are folded into: neighbours share a page.
type Tail = BTreeMap<TenantId, Vec<(Seq, Entry)>>;

impl Engine {
    /// Opens the engine on a ledger with the default options. See [`Engine::open_with`].
    ///
    /// # Errors
    /// As [`Engine::open_with`].
    pub async fn open(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        catalog: Catalog,
        catalog_text: &str,
    ) -> Result<Arc<Engine>, EngineError> {
        Self::open_with(ledger, clock, catalog, catalog_text, EngineOptions::default()).await
    }

    /// Opens the engine: folds the tail of the journal, and puts the catalog in force if its text differs from the one
    /// in force.
    ///
    /// # Errors
    /// A failing ledger, or [`EngineError::PlansInUse`].
    pub async fn open_with(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        mut catalog: Catalog,
        catalog_text: &str,
        options: EngineOptions,
    ) -> Result<Arc<Engine>, EngineError> {
        let newest = ledger.newest_catalog().await?;
        let known = newest.as_ref().filter(|stored| &*stored.text == catalog_text);
        catalog.version = known.or(newest.as_ref()).map_or(0, |stored| stored.version);
        let is_new = known.is_none();
        let engine = Arc::new(Engine {
            ids: IdKeys::new(&ledger.secret()),
            keys: ArcSwap::from_pointee(KeyRing::new(ledger.keys().await?)),
            ledger,
            clock,
            catalog: ArcSwap::from_pointee(catalog.clone()),
            live: Live::new(),
            observer: OnceLock::new(),
            options,
            failure: RwLock::new(None),
            epoch: AtomicU64::new(0),
            unsaved: Mutex::new(BTreeSet::new()),
            plans: tokio::sync::RwLock::new(()),
            key_writes: tokio::sync::Mutex::new(()),
            rounds: Rounds::default(),
        });
        engine.fold_tail().await?;
        if is_new {
            engine.apply_catalog(catalog, catalog_text).await?;
        }
        Ok(engine)
    }

    /// Puts a catalog in force and gives it its version.
    ///
    /// # Errors
    /// [`EngineError::PlansInUse`] when tenants are on plans that it lacks: then the old one stays.
    pub async fn apply_catalog(&self, mut catalog: Catalog, text: &str) -> Result<u32, EngineError> {
        // Meanwhile no tenant is put on a plan, and none leaves memory.
        let _one_at_a_time = self.rounds.busy.lock().await;
        let _plans_stay = self.plans.write().await;
        let mut missing = self.plans_lacking(&catalog).await?;
        if !missing.is_empty() {
            // What is on disk may be older than the last change of plan.
            self.checkpoint().await?;
            missing = self.plans_lacking(&catalog).await?;
        }
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|plan| plan.as_str()).collect();
            return Err(EngineError::PlansInUse(names.join(", ").into()));
        }
        catalog.version = self.ledger.put_catalog(text, self.now()).await?;
        let version = catalog.version;
        self.catalog.store(Arc::new(catalog));
        Ok(version)
    }

    /// Plans that tenants are on, in memory or on disk, and that a catalog lacks.
    async fn plans_lacking(&self, catalog: &Catalog) -> Result<Vec<PlanKey>, EngineError> {
        let mut plans: BTreeSet<PlanKey> = self.ledger.plans_in_use().await?.into_iter().collect();
        for shard in 0..self.live.shard_count() {
            for cell in self.live.shard_cells(shard) {
                if let Place::Open(book) = &*cell.place.lock() {
                    plans.insert(book.tenant.profile.plan.clone());
                }
            }
        }
        plans.retain(|plan| !catalog.plans.contains_key(plan));
        Ok(plans.into_iter().collect())
    }

    /// Drops what is in memory, opens the ledger anew and folds its tail. Only then are decisions made again.
    pub(crate) async fn recover(&self) -> Result<(), EngineError> {
        // Nobody is inside a critical section once this lock was had, and nobody enters while the failure stands.
        let stands = self.failure.write().is_some();
        if !stands {
            return Ok(());
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.live.clear();
        self.unsaved.lock().clear();
        self.ledger.reopen()?;
        {
            let _no_writes = self.key_writes.lock().await;
            self.keys.store(Arc::new(KeyRing::new(self.ledger.keys().await?)));
        }
        self.fold_tail().await?;
        self.rounds.recoveries.fetch_add(1, Ordering::Relaxed);
        *self.failure.write() = None;
        Ok(())
    }

    async fn fold_tail(&self) -> Result<(), EngineError> {
        let mut tail = Tail::new();
        self.ledger.tail(&mut |seq, tenant, entry| tail.entry(tenant).or_default().push((seq, entry)))?;
        for (tenant, entries) in tail {
            self.fold_tenant(tenant, entries).await?;
        }
        Ok(())
    }

    async fn fold_tenant(&self, id: TenantId, entries: Vec<(Seq, Entry)>) -> Result<(), EngineError> {
        let stored = self.ledger.load_tenant(&id).await?;
        let (known, folded) = match stored {
            Some(stored) => (Some(stored.state), stored.seq),
            None => (None, 0),
        };
        let mut news = entries.into_iter().filter(|(seq, _)| *seq > folded).peekable();
        let Some((_, first)) = news.peek() else { return Ok(()) };
        let is_new = known.is_none();
        let Some(tenant) = known.or_else(|| Tenant::born(id.clone(), first)) else {
            return Err(
                LedgerError::Damaged(format!("the first entry of tenant {id} gives it no profile").into()).into()
            );
        };
        let mut book = Box::new(Book::new(tenant, folded));
        for (seq, entry) in news {
            if let Some(user) = &entry.user
                && !book.users.contains_key(user)
            {
                let live = self.load_user_for_fold(&id, user).await?;
                book.users.insert(user.clone(), live);
                self.live.users.fetch_add(1, Ordering::Relaxed);
            }
            let Book { tenant, users, .. } = book.as_mut();
            let mut live = entry.user.as_ref().and_then(|user| users.get_mut(user));
            tenant.fold(live.as_deref_mut().map(|live| &mut live.user), &entry);
            if let Some(live) = live {
                live.seq = seq;
            }
            book.seq = seq;
        }
        book.saved = folded;
        let cell = self.live.cell(&id);
        let mut place = cell.place.lock();
        self.live.list_dirty(&cell, &mut book);
        *place = Place::Open(book);
        self.live.tenants.fetch_add(1, Ordering::Relaxed);
        if is_new {
            self.unsaved.lock().insert(id);
        }
        Ok(())
    }

    async fn load_user_for_fold(&self, tenant: &TenantId, user: &UserId) -> Result<LiveUser, EngineError> {
        let stored = self.ledger.load_user(tenant, user).await?;
        let (user, seq) = stored.map_or_else(|| (User::new(user.clone()), 0), |stored| (stored.state, stored.seq));
        Ok(LiveUser { user, seq, saved: seq })
    }
}
