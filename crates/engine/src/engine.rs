//! The engine itself: what it holds, and how a verb gets at a tenant.

use crate::{
    ids::IdKeys,
    keys::KeyRing,
    live::{Book, Cell, Live, LiveUser, Place},
    ports::{Append, Appended, Clock, Ledger, LedgerError, LedgerStats, Observer, Stored},
    requests::EngineError,
    tail::Tail,
};
use arc_swap::ArcSwap;
use domain::{
    catalog::Catalog,
    entry::{Effect, Entry},
    id::{TenantId, UserId},
    op::{Op, OpError, Outcome},
    tenant::{Tenant, User},
    time::Instant,
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// How much the engine keeps in memory, and how often it writes down what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tenants in memory, past which clean ones are dropped.
    pub tenants_max: u64,
    /// Users in memory, past which clean ones are dropped.
    pub users_max: u64,
    /// Folds are written at least this often while something is dirty, milliseconds.
    pub checkpoint_every_ms: i64,
    /// Folds are written as soon as the tail is this long, entries.
    pub tail_max: u64,
    /// Tenants of the tail that are folded in one upkeep after a start.
    pub fold_max: usize,
    /// Counted denials are written down this often, milliseconds.
    pub flush_denials_every_ms: i64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            tenants_max: 200_000,
            users_max: 500_000,
            checkpoint_every_ms: 5_000,
            tail_max: 100_000,
            fold_max: 20_000,
            flush_denials_every_ms: 10_000,
        }
    }
}

/// Figures for `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineStats {
    /// The ledger's.
    pub ledger: LedgerStats,
    /// Tenants in memory, now.
    pub tenants_in_memory: u64,
    /// Users in memory, now.
    pub users_in_memory: u64,
    /// Times the memory was dropped and the ledger opened anew.
    pub recoveries: u64,
    /// The version of the catalog in force.
    pub catalog_version: u32,
}

/// Load, decide, commit. Shared by all doors.
pub struct Engine {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) ids: IdKeys,
    pub(crate) live: Live,
    pub(crate) keys: ArcSwap<KeyRing>,
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
    pub(crate) options: EngineOptions,
    /// Held for reading while a decision is made and queued. `Some` from a failure until the recovery from it: what is
    /// in memory may not be on disk, so nothing is decided on it.
    pub(crate) failure: RwLock<Option<LedgerError>>,
    /// Grows with every recovery: what was loaded before is not believed after.
    pub(crate) epoch: AtomicU64,
    /// Tenants created since the last checkpoint: not yet in the ledger's listing.
    pub(crate) unsaved: Mutex<BTreeSet<TenantId>>,
    /// What a start (or a recovery) found behind the last checkpoint, until it is folded.
    pub(crate) tail: Tail,
    /// Held for reading while a tenant is put on a plan, for writing while a catalog is put in force.
    pub(crate) plans: tokio::sync::RwLock<()>,
    /// Held while keys are written or read back.
    pub(crate) key_writes: tokio::sync::Mutex<()>,
    pub(crate) rounds: Rounds,
}

/// Checkpoint rounds and other pacing.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) begun: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) last_checkpoint_ms: AtomicU64,
    pub(crate) last_flush_ms: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) sweep: AtomicU64,
    /// One upkeep at a time.
    pub(crate) busy: tokio::sync::Mutex<()>,
}

/// A tenant under its lock, with the users a verb asked for.
pub(crate) struct Open<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) cell: &'a Arc<Cell>,
    pub(crate) book: &'a mut Book,
    pub(crate) catalog: &'a Catalog,
    pub(crate) now: Instant,
}

/// What a verb may do to a tenant that is unknown to the ledger.
pub(crate) enum IfUnknown {
    /// Create it on the catalog's default plan, if there is one.
    UseDefaultPlan,
    /// Refuse.
    Refuse,
}

enum Attempt<T> {
    Done(T),
    LoadTenant,
    /// These users, as long as none was dropped since.
    LoadUsers(Vec<UserId>, u64),
    LookAgain,
}

impl Engine {
    /// The present instant, by the engine's clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The catalog in force.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The ledger's secret, to sign tenant tokens with.
    pub fn secret(&self) -> [u8; 32] {
        self.ledger.secret()
    }

    /// Who is told of decisions. Only the first call has an effect.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Whether decisions can be made and kept.
    ///
    /// # Errors
    /// What is wrong with the ledger.
    pub fn healthy(&self) -> Result<(), LedgerError> {
        self.check_failure()?;
        self.ledger.ready()
    }

    /// Figures.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            ledger: self.ledger.stats(),
            tenants_in_memory: self.live.tenants.load(Ordering::Relaxed),
            users_in_memory: self.live.users.load(Ordering::Relaxed),
            recoveries: self.rounds.recoveries.load(Ordering::Relaxed),
            catalog_version: self.catalog.load().version,
        }
    }

    /// How often the memory was dropped. Failures and positions of one epoch mean nothing in the next.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Remembers that the ledger failed. Nothing is decided until [`Engine::upkeep`] has recovered. `epoch` is that of
    /// the operation that failed: news of a failure that was recovered from since must not cause another recovery, which
    /// would fail what waits now, and so on.
    pub(crate) fn fail(&self, epoch: u64, error: &LedgerError) {
        if matches!(error, LedgerError::Overloaded { .. }) {
            return;
        }
        let mut failure = self.failure.write();
        if failure.is_none() && self.epoch() == epoch {
            *failure = Some(error.clone());
        }
    }

    fn check_failure(&self) -> Result<(), LedgerError> {
        self.failure.read().clone().map_or(Ok(()), Err)
    }

    /// Runs `work` under the tenant's lock, with the tenant and the named users in memory. `work` runs at most once,
    /// and must not wait for anything.
    pub(crate) async fn with_tenant<T>(
        &self,
        tenant: &TenantId,
        users: &[UserId],
        if_unknown: IfUnknown,
        work: impl FnOnce(&mut Open<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut work = Some(work);
        loop {
            let epoch = self.epoch();
            let cell = match self.live.known(tenant) {
                Some(cell) => cell,
                None => {
                    // An outage must not fill the memory with cells of tenants that can't be loaded.
                    self.check_failure()?;
                    self.live.cell(tenant)
                }
            };
            match self.attempt(&cell, users, epoch, &mut work)? {
                Attempt::Done(value) => return Ok(value),
                Attempt::LookAgain => {}
                Attempt::LoadTenant => {
                    if self.fold_from_tail(&cell, epoch).await? {
                        continue;
                    }
                    let stored = self.ledger.load_tenant(tenant).await?;
                    // A tenant must not be put on a plan that a catalog is just about to drop.
                    let _plans_stay = match (&stored, &if_unknown) {
                        (None, IfUnknown::UseDefaultPlan) => Some(self.plans.read().await),
                        _ => None,
                    };
                    self.place_tenant(&cell, stored, epoch, &if_unknown)?;
                }
                Attempt::LoadUsers(missing, drops) => {
                    for user in missing {
                        let stored = self.ledger.load_user(tenant, &user).await?;
                        self.place_user(&cell, user, stored, epoch, drops);
                    }
                }
            }
        }
    }

    fn attempt<T>(
        &self,
        cell: &Arc<Cell>,
        users: &[UserId],
        epoch: u64,
        work: &mut Option<impl FnOnce(&mut Open<'_>) -> Result<T, EngineError>>,
    ) -> Result<Attempt<T>, EngineError> {
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        let book = match &mut *place {
            Place::Empty => return Ok(Attempt::LoadTenant),
            Place::Gone => return Ok(Attempt::LookAgain),
            Place::Open(book) => book.as_mut(),
        };
        let missing: Vec<UserId> = users.iter().filter(|user| !book.users.contains_key(*user)).cloned().collect();
        if !missing.is_empty() {
            return Ok(Attempt::LoadUsers(missing, book.user_drops));
        }
        let catalog = self.catalog.load();
        let Some(work) = work.take() else { return Ok(Attempt::LookAgain) };
        let now = self.clock.now();
        let done = work(&mut Open { engine: self, cell, book, catalog: &catalog, now });
        drop(place);
        drop(failure);
        if let Err(EngineError::Ledger(error)) = &done {
            self.fail(epoch, error);
        }
        done.map(Attempt::Done)
    }

    fn place_tenant(
        &self,
        cell: &Arc<Cell>,
        stored: Option<Stored<Tenant>>,
        epoch: u64,
        if_unknown: &IfUnknown,
    ) -> Result<(), EngineError> {
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        if !matches!(*place, Place::Empty) || self.epoch() != epoch {
            return Ok(());
        }
        if let Some(Stored { state, seq }) = stored {
            *place = Place::Open(Box::new(Book::new(state, seq)));
            self.live.tenants.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let created = match if_unknown {
            IfUnknown::Refuse => None,
            IfUnknown::UseDefaultPlan => {
                Tenant::create(cell.id.clone(), &Default::default(), self.clock.now(), &self.catalog.load())?
            }
        };
        let Some((tenant, entry)) = created else {
            *place = Place::Gone;
            drop(place);
            self.live.forget(cell);
            return Err(EngineError::UnknownTenant(cell.id.clone()));
        };
        self.ledger.ready()?;
        self.open_created(cell, &mut place, tenant, entry, false).map(|_| ())
    }

    /// Puts a tenant that was just created in its place, its first entry queued.
    pub(crate) fn open_created(
        &self,
        cell: &Arc<Cell>,
        place: &mut Place,
        tenant: Tenant,
        entry: Entry,
        wait: bool,
    ) -> Result<Appended, EngineError> {
        let mut book = Box::new(Book::new(tenant, 0));
        self.live.list_dirty(cell, &mut book);
        let append = Append { tenant: cell.id.clone(), entries: vec![entry], fold_after: None, wait };
        let appended = self.ledger.append(append)?;
        book.seq = appended.last;
        self.unsaved.lock().insert(cell.id.clone());
        *place = Place::Open(book);
        self.live.tenants.fetch_add(1, Ordering::Relaxed);
        Ok(appended)
    }

    fn place_user(&self, cell: &Arc<Cell>, id: UserId, stored: Option<Stored<User>>, epoch: u64, drops: u64) {
        let mut place = cell.place.lock();
        let Place::Open(book) = &mut *place else { return };
        let stale = self.epoch() != epoch || book.user_drops != drops;
        if stale || book.users.contains_key(&id) {
            return;
        }
        let Stored { state, seq } = stored.unwrap_or_else(|| Stored { state: User::new(id.clone()), seq: 0 });
        book.users.insert(id, LiveUser { user: state, seq, saved: seq });
        self.live.users.fetch_add(1, Ordering::Relaxed);
    }
}

impl Open<'_> {
    /// Applies an operation to the tenant. What must be appended is in the outcome; the caller queues it with
    /// [`Open::append`] before it lets go of the tenant.
    pub(crate) fn apply(&mut self, user: Option<&UserId>, op: &Op) -> Result<Outcome, OpError> {
        let Book { tenant, users, .. } = &mut *self.book;
        let user = user.and_then(|user| users.get_mut(user)).map(|live| &mut live.user);
        tenant.apply(user, op, self.now, self.catalog)
    }

    /// Queues entries that were just decided.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, fold: bool, wait: bool) -> Result<Appended, EngineError> {
        self.engine.live.list_dirty(self.cell, self.book);
        let users = last_entries(&entries);
        let count = entries.len();
        let foldable = fold && entries.iter().all(is_foldable);
        let fold_after = foldable.then_some(self.book.saved);
        let append = Append { tenant: self.cell.id.clone(), entries, fold_after, wait };
        let appended = self.engine.ledger.append(append)?;
        self.book.seq = self.book.seq.max(appended.last);
        for (user, index) in users {
            if let Some(live) = self.book.users.get_mut(&user) {
                // A user's place is that of its own last entry, not of the batch's. (What is folded comes alone.)
                live.seq = live.seq.max(appended.last - (count - 1 - index) as u64);
            }
        }
        Ok(appended)
    }
}

/// The users of these entries, and which entry is the last of each.
fn last_entries(entries: &[Entry]) -> Vec<(UserId, usize)> {
    let with_user = entries.iter().enumerate().filter_map(|(index, entry)| Some((entry.user.clone()?, index)));
    let mut users: Vec<(UserId, usize)> = with_user.collect();
    if users.len() > 1 {
        users.sort_by(|(a, at), (b, bt)| a.cmp(b).then(bt.cmp(at)));
        users.dedup_by(|(later, _), (first, _)| later == first);
    }
    users
}

/// Only charges that add up may be folded with others: nothing that opens a window or moves a level.
fn is_foldable(entry: &Entry) -> bool {
    entry.binding.is_none()
        && !entry.effects.is_empty()
        && entry
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Use { amount, closed, .. } if *amount > 0 && closed.is_empty()))
}
