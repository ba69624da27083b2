//! From the ledger to memory: at start, and after a failed commit.

use crate::{
    engine::{Engine, EngineOptions, Rounds},
    ids::IdKeys,
    keys::KeyRing,
    live::{Live, Place},
    pins::Pins,
    ports::{Clock, Ledger, Published, SharedLedger},
    requests::EngineError,
    tail::Tail,
};
use arc_swap::ArcSwap;
use domain::{catalog::Catalog, id::PlanKey};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

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

    /// Opens the engine: reads the tail of the journal (tenants of it are folded when they are asked for), and puts the catalog in force if its text differs from the one
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
            live: Live::new(ledger.shared().is_some()),
            ledger,
            clock,
            catalog: ArcSwap::from_pointee(catalog.clone()),
            pins: Pins::default(),
            observer: OnceLock::new(),
            follower: OnceLock::new(),
            looked: tokio::sync::Mutex::new(None),
            looks: AtomicU64::new(0),
            desk: OnceLock::new(),
            epoch_ends: RwLock::default(),
            options,
            failure: RwLock::new(None),
            epoch: AtomicU64::new(0),
            unsaved: Mutex::new(BTreeSet::new()),
            tail: Tail::default(),
            plans: tokio::sync::RwLock::new(()),
            key_writes: tokio::sync::Mutex::new(()),
            rounds: Rounds::default(),
            lapses: Default::default(),
            marks: Default::default(),
        });
        engine.tail.read(&*engine.ledger)?;
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
        if let Some(shared) = self.ledger.shared() {
            return self.publish(shared, catalog, text).await;
        }
        // Meanwhile no tenant is put on a plan, and none leaves memory.
        let _one_at_a_time = self.rounds.busy.lock().await;
        let _plans_stay = self.plans.write().await;
        let mut missing = self.plans_lacking(&catalog).await?;
        if !missing.is_empty() {
            // What is on disk and in the tail may be older than the last change of plan.
            self.fold_some(usize::MAX).await?;
            self.checkpoint().await?;
            missing = self.plans_lacking(&catalog).await?;
        }
        if !missing.is_empty() {
            return Err(plans_in_use(&missing));
        }
        catalog.version = self.ledger.put_catalog(text, self.now()).await?;
        let version = catalog.version;
        self.catalog.store(Arc::new(catalog));
        Ok(version)
    }

    async fn publish(&self, shared: &dyn SharedLedger, mut catalog: Catalog, text: &str) -> Result<u32, EngineError> {
        let plans: Vec<PlanKey> = catalog.plans.keys().cloned().collect();
        match shared.publish(text, self.now(), &plans).await? {
            Published::PlansInUse(missing) => Err(plans_in_use(&missing)),
            Published::Version(version) => {
                catalog.version = version;
                self.adopt_catalog(catalog);
                Ok(version)
            }
        }
    }

    /// Plans that tenants are on, in the tail, in memory or on disk, and that a catalog lacks.
    async fn plans_lacking(&self, catalog: &Catalog) -> Result<Vec<PlanKey>, EngineError> {
        // First the tail: what leaves it meanwhile is in memory by then.
        let mut plans = self.tail.plans()?;
        plans.extend(self.ledger.plans_in_use().await?);
        for shard in 0..self.live.shard_count() {
            for cell in self.live.shard_cells(shard) {
                if let Place::Open(book) = &*cell.place.lock() {
                    let profile = &book.tenant.profile;
                    plans.extend(profile.catalog_pin.is_none().then(|| profile.plan.clone()));
                }
            }
        }
        plans.retain(|plan| !catalog.plans.contains_key(plan));
        Ok(plans.into_iter().collect())
    }

    /// Drops what is in memory, opens the ledger anew and reads its tail. Only then are decisions made again.
    pub(crate) async fn recover(&self) -> Result<(), EngineError> {
        // Nobody is inside a critical section once this lock was had, and nobody enters while the failure stands.
        let stands = self.failure.write().is_some();
        if !stands {
            return Ok(());
        }
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel);
        self.live.clear();
        self.unsaved.lock().clear();
        self.tail.clear();
        self.ledger.reopen()?;
        // An attempt that failed half-way had an epoch too, in which nothing was decided.
        self.epoch_ends.write().resize(epoch as usize + 1, self.ledger.stats().committed_seq);
        {
            let _no_writes = self.key_writes.lock().await;
            self.keys.store(Arc::new(KeyRing::new(self.ledger.keys().await?)));
        }
        self.tail.read(&*self.ledger)?;
        self.rounds.recoveries.fetch_add(1, Ordering::Relaxed);
        *self.failure.write() = None;
        Ok(())
    }
}

fn plans_in_use(missing: &[PlanKey]) -> EngineError {
    let names: Vec<&str> = missing.iter().map(|plan| plan.as_str()).collect();
    EngineError::PlansInUse(names.join(", ").into())
}
