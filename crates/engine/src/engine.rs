//! The engine itself: what it holds, and how a verb gets at a tenant.

use crate::{
    ids::IdKeys,
    keys::KeyRing,
    lapse::{Lapses, SetBack},
    live::Live,
    marks::Marks,
    outage::{Desk, OutageStats},
    pins::Pins,
    ports::{Clock, Follower, Ledger, LedgerError, LedgerStats, Observer, OutageOptions, Spool},
    tail::Tail,
};
use arc_swap::ArcSwap;
use domain::{catalog::Catalog, id::TenantId, lease::Terms, time::Instant};
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
    /// Where other nodes write as well: how old what is known of a tenant may be for a refusal or a reading,
    /// milliseconds. What is charged is always judged by the commit.
    pub recent_ms: i64,
    /// Where other nodes charge the same tenants: when leases are taken.
    pub leases: LeaseOptions,
}

/// When leases are taken, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOptions {
    /// A node takes one when another was quicker twice within this time, milliseconds.
    pub lost_within_ms: i64,
    /// How long a node decides under a lease before it looks at what others did, milliseconds.
    pub lasts_ms: i64,
    /// How much is set aside.
    pub terms: Terms,
}

impl LeaseOptions {
    /// What suits nearly everybody.
    pub const DEFAULT: Self = Self { lost_within_ms: 1_000, lasts_ms: 1_000, terms: Terms::DEFAULT };
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
            recent_ms: 200,
            leases: LeaseOptions::DEFAULT,
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
    /// Those of outages, where there is a spool.
    pub outage: Option<OutageStats>,
}

/// Load, decide, commit. Shared by all doors.
pub struct Engine {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: ArcSwap<Catalog>,
    /// What tenants are pinned to.
    pub(crate) pins: Pins,
    pub(crate) ids: IdKeys,
    pub(crate) live: Live,
    pub(crate) keys: ArcSwap<KeyRing>,
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
    /// Who brings this node to the catalog in force.
    pub(crate) follower: OnceLock<Arc<dyn Follower>>,
    /// The catalog that was in force when it was last asked which one is, and how often it was.
    pub(crate) looked: tokio::sync::Mutex<Option<u32>>,
    pub(crate) looks: AtomicU64,
    pub(crate) options: EngineOptions,
    /// What may pass while the ledger can't be written, if this node has a spool.
    pub(crate) desk: OnceLock<Desk>,
    /// Held for reading while a decision is made and queued. `Some` from a failure until the recovery from it: what is
    /// in memory may not be on disk, so nothing is decided on it.
    pub(crate) failure: RwLock<Option<LedgerError>>,
    /// Grows with every recovery: what was loaded before is not believed after.
    pub(crate) epoch: AtomicU64,
    /// The last durable position at the end of each epoch that is over: what was charged in it after that is gone.
    pub(crate) epoch_ends: RwLock<Vec<u64>>,
    /// Tenants created since the last checkpoint: not yet in the ledger's listing.
    pub(crate) unsaved: Mutex<BTreeSet<TenantId>>,
    /// What a start (or a recovery) found behind the last checkpoint, until it is folded.
    pub(crate) tail: Tail,
    /// Held for reading while a tenant is put on a plan, for writing while a catalog is put in force.
    pub(crate) plans: tokio::sync::RwLock<()>,
    /// Held while keys are written or read back.
    pub(crate) key_writes: tokio::sync::Mutex<()>,
    pub(crate) rounds: Rounds,
    /// When something of the tenants in memory lapses next.
    pub(crate) lapses: Lapses,
    /// When this node touched its sessions, by a clock that does not jump.
    pub(crate) marks: Marks,
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
    /// Whether the wall clock was set back.
    pub(crate) set_back: SetBack,
    /// One upkeep at a time.
    pub(crate) busy: tokio::sync::Mutex<()>,
}

impl Engine {
    /// The present instant, by the engine's clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Milliseconds by the engine's clock that does not jump.
    pub fn steady_ms(&self) -> i64 {
        self.clock.steady_ms()
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

    /// Who brings this node to the catalog in force, where other nodes put catalogs in force. Only the first call has an
    /// effect.
    pub fn set_follower(&self, follower: Arc<dyn Follower>) {
        let _ = self.follower.set(follower);
    }

    /// Where this node keeps what open limits let through while a shared ledger can't be written. What an earlier life
    /// of it left there is recorded by [`Engine::reconcile`]. Only the first call has an effect.
    ///
    /// # Errors
    /// A spool that can't be read.
    pub fn set_spool(&self, spool: Arc<dyn Spool>, options: OutageOptions) -> Result<(), LedgerError> {
        if self.ledger.shared().is_some() {
            let _ = self.desk.set(Desk::new(spool, options)?);
        }
        Ok(())
    }

    /// Whether open limits are closed here: other nodes write to the ledger as well, and this one has no spool.
    pub fn lacks_spool(&self) -> bool {
        self.ledger.shared().is_some() && self.desk.get().is_none()
    }

    /// Whether a limit may be open in an outage.
    pub(crate) fn has_open(&self, desk: &Desk) -> bool {
        desk.has_open(&self.catalog.load()) || self.pins.any_open()
    }

    /// Whether some requests are answered all the same while the ledger can't be written.
    pub fn passes_outages(&self) -> bool {
        self.desk.get().is_some_and(|desk| self.has_open(desk)) && self.check_failure().is_ok()
    }

    /// Whether the ledger is away, and what may pass is decided on what is known.
    pub fn is_in_outage(&self) -> bool {
        self.desk.get().is_some_and(Desk::is_under_way)
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
            outage: self.desk.get().map(Desk::stats),
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
        // A shared ledger says of each tenant what is no longer so, and heals by itself.
        if matches!(error, LedgerError::Overloaded { .. }) || self.ledger.shared().is_some() {
            return;
        }
        let mut failure = self.failure.write();
        if failure.is_none() && self.epoch() == epoch {
            *failure = Some(error.clone());
        }
    }

    pub(crate) fn check_failure(&self) -> Result<(), LedgerError> {
        self.failure.read().clone().map_or(Ok(()), Err)
    }
}
