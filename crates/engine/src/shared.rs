//! Where other nodes write as well: what is in memory is a guess, which is judged by the commit and loaded anew when it
//! was wrong; catalogs and keys are followed.

use crate::{
    engine::Engine,
    keys::KeyRing,
    live::{Book, Cell, Place, Reload},
    open::{IfUnknown, Look, Whom},
    ports::{JobLease, LedgerError, Loaded, SharedLedger, Signals, StoredCatalog},
    requests::EngineError,
    upkeep::snapshot,
};
use domain::{catalog::Catalog, demand::PendingDenials, id::TenantId, op::OpError, time::Instant};
use std::sync::{Arc, atomic::Ordering};

/// How far a node's clock may be off the ledger's.
const CLOCK_OFF_MAX_MS: i64 = 1000;
/// How many entries may be read after a tenant's fold before another is written.
const FOLD_LOADED: usize = 512;

impl Engine {
    /// Whether what is in a place is too old for this look at it. All by the clock that does not jump: one that is set
    /// back would make what is old look new.
    pub(crate) fn is_outdated(&self, place: &Place, look: Look, now_ms: i64, asked_ms: i64) -> bool {
        let Place::Open(book) = place else { return false };
        if book.lease.is_some() {
            // How old it may be, the way to it says.
            return book.is_stale();
        }
        let too_old = match look {
            Look::Memory | Look::Held => false,
            Look::Recent => !self.is_recent(book, now_ms, asked_ms),
            Look::Now => book.confirmed_ms <= asked_ms,
            Look::Loaded => book.confirmed_ms < asked_ms,
        };
        self.ledger.shared().is_some() && (book.basis.is_stale() || too_old)
    }

    /// Whether a book may be believed without a commit by who asked at `asked_ms`. Always, where no other node writes.
    pub(crate) fn is_recent(&self, book: &Book, now_ms: i64, asked_ms: i64) -> bool {
        let age_ms = now_ms.saturating_sub(book.confirmed_ms);
        self.ledger.shared().is_none()
            || (0..=self.options.recent_ms).contains(&age_ms)
            // However long it took to load it.
            || book.confirmed_ms >= asked_ms
    }

    /// Takes a book out of its place. Denials that wait in it to be written down are kept for the next.
    pub(crate) fn drop_book(&self, cell: &Cell, place: &mut Place) {
        let Place::Open(book) = std::mem::replace(place, Place::Empty) else { return };
        self.live.tenants.fetch_sub(1, Ordering::Relaxed);
        self.live.users.fetch_sub(book.users.len() as u64, Ordering::Relaxed);
        if let Some(reload) = &cell.reload {
            let mut book = book;
            let mut pending = std::mem::take(&mut book.tenant.pending);
            if !book.basis.is_durable(book.seq) {
                // The first of a run may not be written down: the next one is the first then.
                pending.runs.retain(|pending| pending.run.count > 0);
            }
            reload.left.lock().merge(pending);
            if self.desk.get().is_some() {
                *reload.known.lock() = Some(book);
            }
        }
    }

    /// Counts denials that were told of.
    pub(crate) fn count(&self, tenant: &TenantId, denials: PendingDenials) {
        loop {
            let cell = self.live.cell(tenant);
            let mut place = cell.place.lock();
            match (&mut *place, &cell.reload) {
                (Place::Gone, _) => continue,
                (Place::Open(book), _) => {
                    book.tenant.pending.merge(denials);
                    self.live.list_demanding(&cell, book);
                }
                (Place::Empty, reload) => {
                    if let Some(reload) = reload {
                        reload.left.lock().merge(denials);
                    }
                    drop(place);
                    self.live.list_demanding_again(&cell);
                }
            }
            return;
        }
    }

    /// Loads a tenant with what was committed since its fold. All who need it at once wait for the same load.
    pub(crate) async fn reload_tenant(
        &self,
        cell: &Arc<Cell>,
        shared: &dyn SharedLedger,
        reload: &Reload,
        whom: Whom<'_>,
    ) -> Result<(), EngineError> {
        let _one_at_a_time = reload.loading.lock().await;
        if !matches!(*cell.place.lock(), Place::Empty) {
            return Ok(());
        }
        let began_ms = self.steady_ms();
        // What was known stays known if this fails.
        let hold = reload.contention.take_hold() || whom.look == Look::Held;
        let Loaded { fold, after } = shared.load(&cell.id, hold).await?;
        let mut book = self.book_of(&cell.id, fold, &after).await?;
        reload.known.lock().take();
        if let Some(book) = &mut book {
            book.confirmed_ms = began_ms;
            book.tenant.pending.merge(std::mem::take(&mut *reload.left.lock()));
            if !book.tenant.pending.is_empty() {
                self.live.list_demanding(cell, book);
            }
        }
        // Another node, or a newer catalog, may be in the way of a tenant that was just made here. Who comes before that is
        // known builds on the guess, and learns from its own commit.
        self.place_tenant(cell, book, self.epoch(), whom.if_unknown)?.wait().await?;
        // Not all nodes at once: one that is held comes alone.
        if hold && after.len() >= FOLD_LOADED {
            self.fold_loaded(cell);
        }
        Ok(())
    }

    /// The next to load this tenant need not read all of that again. (A tenant that is charged under leases is only seen
    /// whole when it was just loaded.)
    fn fold_loaded(&self, cell: &Arc<Cell>) {
        let round = self.rounds.begun.load(Ordering::Acquire);
        if let Some(fold) = snapshot(cell, round) {
            // Nobody waits for it: it is a shortcut.
            drop(self.ledger.checkpoint(vec![fold], None));
        }
    }

    /// Another node was quicker.
    pub(crate) fn note_lost(&self, tenant: &TenantId) {
        if let Some(reload) = self.live.known(tenant).as_ref().and_then(|cell| cell.reload.as_ref()) {
            reload.contention.lost(self.steady_ms(), self.options.leases.lost_within_ms);
        }
    }

    /// What was committed on a book shows that it was all there was, at `at_ms` by the clock that does not jump.
    pub(crate) fn confirm(&self, tenant: &TenantId, at_ms: i64) {
        let Some(cell) = self.live.known(tenant) else { return };
        if let Place::Open(book) = &mut *cell.place.lock() {
            book.confirmed_ms = book.confirmed_ms.max(at_ms);
        }
    }

    /// Has this node brought to the catalog in force. Where that can't be, it is of no use to decide again.
    pub(crate) async fn follow(&self, in_force: u32) -> Result<(), LedgerError> {
        if let Some(follower) = self.follower.get() {
            follower.follow(in_force).await;
        }
        match self.catalog.load().version < in_force {
            true => Err(LedgerError::CatalogBehind { in_force }),
            false => Ok(()),
        }
    }

    /// The version of the catalog in force, if it is newer than the one that was judged by and might know what that one
    /// does not. However many ask at once, the ledger is asked once at a time.
    pub(crate) async fn newer_catalog(
        &self,
        error: &EngineError,
        if_unknown: IfUnknown,
        judged_by: u32,
    ) -> Result<Option<u32>, EngineError> {
        use OpError::{UnknownFeature, UnknownMeter, UnknownPlan};
        let might_know = match error {
            EngineError::Op(UnknownPlan(_) | UnknownMeter(_) | UnknownFeature(_)) => true,
            EngineError::UnknownTenant(_) => if_unknown == IfUnknown::UseDefaultPlan,
            _ => false,
        };
        match might_know {
            true => self.newer_than(judged_by).await,
            false => Ok(None),
        }
    }

    /// Follows the catalog in force, if it is a newer one than a door found something to be missing in. Tells whether it
    /// was.
    ///
    /// # Errors
    /// A failing ledger; [`LedgerError::CatalogBehind`] where there is a newer one that can't be followed.
    pub async fn catch_up(&self, version: u32) -> Result<bool, EngineError> {
        let newer = self.newer_than(version).await?;
        if let Some(in_force) = newer {
            self.follow(in_force).await?;
        }
        Ok(newer.is_some())
    }

    async fn newer_than(&self, version: u32) -> Result<Option<u32>, EngineError> {
        let Some(shared) = self.ledger.shared() else { return Ok(None) };
        // Not when the decision began: what it was made on may have been loaded later than that.
        let asked_before = self.looks.load(Ordering::Acquire);
        let mut looked = self.looked.lock().await;
        // Whoever waited here takes the answer to a question that was asked after it had decided.
        let in_force = match *looked {
            Some(in_force) if self.looks.load(Ordering::Acquire) > asked_before => in_force,
            _ => {
                *looked = None;
                self.looks.fetch_add(1, Ordering::AcqRel);
                *looked.insert(shared.signals().await?.catalog_version)
            }
        };
        Ok((in_force > version).then_some(in_force))
    }

    /// Decides by a catalog that another node put in force. An older one than the present one is not adopted.
    pub fn adopt_catalog(&self, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        self.catalog.rcu(|known| if known.version < catalog.version { catalog.clone() } else { known.clone() });
    }

    /// Reads the keys anew.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn follow_keys(&self) -> Result<(), EngineError> {
        let _no_writes = self.key_writes.lock().await;
        self.keys.store(Arc::new(KeyRing::new(self.ledger.keys().await?)));
        Ok(())
    }

    /// What all nodes must hear of soon; `None` where this is the only one.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn signals(&self) -> Result<Option<Signals>, EngineError> {
        match self.ledger.shared() {
            None => Ok(None),
            Some(shared) => {
                let before = self.now();
                let signals = shared.signals().await?;
                self.judge_clock(signals.now, before, self.now());
                Ok(Some(signals))
            }
        }
    }

    /// A node whose clock is wrong decides nothing: it would open windows before their time, or after it.
    fn judge_clock(&self, theirs: Instant, before: Instant, after: Instant) {
        let off_ms = (before.ms() - theirs.ms()).max(theirs.ms() - after.ms());
        let why = || format!("this node's clock is {off_ms} ms off the clock of the database; set it right").into();
        *self.failure.write() = (off_ms > CLOCK_OFF_MAX_MS).then(|| LedgerError::Unwritable(why()));
    }

    /// The catalog in force, as it was put there.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn catalog_in_force(&self) -> Result<Option<StoredCatalog>, EngineError> {
        Ok(self.ledger.newest_catalog().await?)
    }

    /// Every catalog that was in force, oldest first.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn catalogs(&self) -> Result<Vec<StoredCatalog>, EngineError> {
        Ok(self.ledger.catalogs().await?)
    }

    /// Takes or renews a job for a while; `None` while another node has it. Where this is the only node, it has them all.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn claim(&self, job: &str, node: &str, ttl_ms: i64) -> Result<Option<JobLease>, EngineError> {
        match self.ledger.shared() {
            None => Ok(Some(JobLease { job: job.into(), node: node.into(), epoch: 0 })),
            Some(shared) => Ok(shared.claim(job, node, ttl_ms).await?),
        }
    }

    /// Gives a job back.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn release(&self, lease: &JobLease) -> Result<(), EngineError> {
        match self.ledger.shared() {
            None => Ok(()),
            Some(shared) => Ok(shared.release(lease).await?),
        }
    }
}
