//! Tenants and users in memory. One lock per tenant; a tenant is loaded when first asked for and dropped when it is
//! clean, idle and in the way.

use crate::lease::Contention;
use crate::ports::{Basis, Seq, leased_seq};
use domain::{
    demand::PendingDenials,
    id::{TenantId, UserId},
    tenant::{Tenant, User},
};
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const SHARDS: usize = 64;

/// A user in memory.
#[derive(Debug)]
pub(crate) struct LiveUser {
    pub(crate) user: User,
    /// Its last entry.
    pub(crate) seq: Seq,
    /// The entry through which it was handed to a checkpoint.
    pub(crate) saved: Seq,
}

/// A tenant in memory with those of its users that were asked for.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) tenant: Tenant,
    /// Its last entry.
    pub(crate) seq: Seq,
    /// The entry through which it was handed to a checkpoint.
    pub(crate) saved: Seq,
    /// The checkpoint round it was handed to last.
    pub(crate) saved_round: u64,
    /// Whether it stands in the list of dirty books.
    pub(crate) listed: bool,
    /// Whether it stands in the list of books with denials to write down.
    pub(crate) demanding: bool,
    /// Apart, since a map keeps room for about as many more as there are.
    pub(crate) users: FxHashMap<UserId, Box<LiveUser>>,
    /// Grows when users are dropped, so that a load that began before is not believed.
    pub(crate) user_drops: u64,
    /// Said to be stale when another node has changed the tenant.
    pub(crate) basis: Arc<Basis>,
    /// When this was known to be all that is committed, by the clock that does not jump. Means something only where
    /// other nodes write as well.
    pub(crate) confirmed_ms: i64,
    /// What is set aside for this node: it charges under it, while it lasts.
    pub(crate) lease: Option<Box<LiveLease>>,
}

/// A lease of this node.
#[derive(Debug)]
pub(crate) struct LiveLease {
    pub(crate) epoch: u64,
    /// What is charged under it is decided on.
    pub(crate) basis: Arc<Basis>,
    /// What stands for the last entry that was made under it.
    pub(crate) last: Seq,
    /// When it was taken, by the clock that does not jump.
    pub(crate) since_ms: i64,
    /// When it is known to have been there last, by the same clock.
    pub(crate) lasted_ms: i64,
    /// Nothing more is made under it: the tenant is loaded anew when what was is committed.
    pub(crate) closing: bool,
}

impl LiveLease {
    pub(crate) fn new(epoch: u64, since_ms: i64) -> Self {
        let last = leased_seq(epoch, 0);
        Self { epoch, basis: Arc::new(Basis::at(last)), last, since_ms, lasted_ms: since_ms, closing: false }
    }
}

impl Book {
    pub(crate) fn new(tenant: Tenant, seq: Seq) -> Self {
        Self {
            basis: Arc::new(Basis::at(seq)),
            confirmed_ms: i64::MIN,
            lease: None,
            tenant,
            seq,
            saved: seq,
            saved_round: 0,
            listed: false,
            demanding: false,
            users: FxHashMap::default(),
            user_drops: 0,
        }
    }

    /// On what the last was decided, and where that is: under the lease, if there is one.
    pub(crate) fn decided(&self) -> (Arc<Basis>, Seq) {
        match &self.lease {
            Some(lease) => (lease.basis.clone(), lease.last),
            None => (self.basis.clone(), self.seq),
        }
    }

    /// Whether something that was decided here is known not to be so.
    pub(crate) fn is_stale(&self) -> bool {
        self.basis.is_stale() || self.lease.as_ref().is_some_and(|lease| lease.basis.is_stale())
    }
}

/// A place for a book.
#[derive(Debug)]
pub(crate) enum Place {
    /// Not loaded yet.
    Empty,
    /// In memory.
    Open(Box<Book>),
    /// Dropped: whoever holds this must look the tenant up again.
    Gone,
}

impl Place {
    fn is_empty(&self) -> bool {
        matches!(self, Place::Empty)
    }
}

/// The lock of one tenant.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) id: TenantId,
    pub(crate) place: Mutex<Place>,
    /// Only where other nodes write as well.
    pub(crate) reload: Option<Box<Reload>>,
}

impl Cell {
    fn is_left(&mut self, keep_known: bool) -> bool {
        let knows = self.reload.as_mut().is_some_and(|reload| reload.known.get_mut().is_some());
        self.place.get_mut().is_empty() && !(keep_known && knows)
    }
}

/// What a tenant needs that is loaded again and again.
#[derive(Debug, Default)]
pub(crate) struct Reload {
    /// Held while it is loaded: all others who need it wait for the same.
    pub(crate) loading: tokio::sync::Mutex<()>,
    /// Denials that were counted in memory and not yet written down when it was dropped.
    pub(crate) left: Mutex<PendingDenials>,
    /// The book that was dropped last, until another is loaded: all that is known if none can be.
    pub(crate) known: Mutex<Option<Box<Book>>>,
    pub(crate) contention: Contention,
}

/// All tenants in memory.
pub(crate) struct Live {
    /// Whether other nodes write as well.
    shared: bool,
    shards: Vec<Mutex<FxHashMap<TenantId, Arc<Cell>>>>,
    dirty: Mutex<Vec<Arc<Cell>>>,
    demanding: Mutex<Vec<Arc<Cell>>>,
    /// Tenants that this node has, or had, a lease of.
    leased: Mutex<Vec<Arc<Cell>>>,
    pub(crate) tenants: AtomicU64,
    pub(crate) users: AtomicU64,
}

impl Live {
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            shared,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dirty: Mutex::default(),
            demanding: Mutex::default(),
            leased: Mutex::default(),
            tenants: AtomicU64::new(0),
            users: AtomicU64::new(0),
        }
    }

    fn shard(&self, id: &TenantId) -> &Mutex<FxHashMap<TenantId, Arc<Cell>>> {
        let hash = FxBuildHasher.hash_one(id.as_str());
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// The cell of a tenant, if there is one.
    pub(crate) fn known(&self, id: &TenantId) -> Option<Arc<Cell>> {
        self.shard(id).lock().get(id).cloned()
    }

    /// The cell of a tenant, made empty where there is none.
    pub(crate) fn cell(&self, id: &TenantId) -> Arc<Cell> {
        let mut shard = self.shard(id).lock();
        if let Some(cell) = shard.get(id) {
            return cell.clone();
        }
        let cell =
            Arc::new(Cell { id: id.clone(), place: Mutex::new(Place::Empty), reload: self.shared.then(Box::default) });
        shard.insert(id.clone(), cell.clone());
        cell
    }

    /// Removes the empty cells of a shard that nobody is about to fill: what a load that failed, or was given up, left.
    /// With `keep_known`, not those of which something is known.
    pub(crate) fn forget_empty(&self, shard: usize, keep_known: bool) {
        let is_left = |cell: &mut Arc<Cell>| Arc::get_mut(cell).is_some_and(|cell| cell.is_left(keep_known));
        self.shards[shard % SHARDS].lock().retain(|_, cell| !is_left(cell));
    }

    /// Removes a cell that was marked gone.
    pub(crate) fn forget(&self, cell: &Arc<Cell>) {
        let mut shard = self.shard(&cell.id).lock();
        if shard.get(&cell.id).is_some_and(|known| Arc::ptr_eq(known, cell)) {
            shard.remove(&cell.id);
        }
    }

    /// Drops everything. Nothing may be inside a critical section.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let cells: Vec<_> = shard.lock().drain().collect();
            for (_, cell) in cells {
                *cell.place.lock() = Place::Gone;
            }
        }
        self.dirty.lock().clear();
        self.demanding.lock().clear();
        self.tenants.store(0, Ordering::Relaxed);
        self.users.store(0, Ordering::Relaxed);
    }

    /// Puts a book on the list of dirty ones, before its entry is queued.
    pub(crate) fn list_dirty(&self, cell: &Arc<Cell>, book: &mut Book) {
        if !book.listed {
            book.listed = true;
            self.dirty.lock().push(cell.clone());
        }
    }

    /// Puts a book on the list of those with denials to write down.
    pub(crate) fn list_demanding(&self, cell: &Arc<Cell>, book: &mut Book) {
        if !book.demanding {
            book.demanding = true;
            self.demanding.lock().push(cell.clone());
        }
    }

    /// Puts a tenant on the list of those with denials to write down, whether or not it is in memory.
    pub(crate) fn list_demanding_again(&self, cell: &Arc<Cell>) {
        match &mut *cell.place.lock() {
            Place::Open(book) => self.list_demanding(cell, book),
            Place::Empty | Place::Gone => self.demanding.lock().push(cell.clone()),
        }
    }

    /// Takes the list of dirty books.
    pub(crate) fn take_dirty(&self) -> Taken<'_> {
        Taken::from(&self.dirty)
    }

    /// None of the dirty books yet: what is put here goes on the list.
    pub(crate) fn none_dirty(&self) -> Taken<'_> {
        Taken { list: &self.dirty, cells: Vec::new() }
    }

    /// Takes the list of books with denials to write down.
    pub(crate) fn take_demanding(&self) -> Taken<'_> {
        Taken::from(&self.demanding)
    }

    /// Puts a tenant on the list of those that this node has a lease of.
    pub(crate) fn list_leased(&self, cell: &Arc<Cell>) {
        self.leased.lock().push(cell.clone());
    }

    /// Takes the list of tenants that this node has, or had, a lease of.
    pub(crate) fn take_leased(&self) -> Taken<'_> {
        Taken::from(&self.leased)
    }

    /// None of the leased tenants yet: what is put here goes on the list.
    pub(crate) fn none_leased(&self) -> Taken<'_> {
        Taken { list: &self.leased, cells: Vec::new() }
    }

    /// The cells of one shard, for sweeps.
    pub(crate) fn shard_cells(&self, shard: usize) -> Vec<Arc<Cell>> {
        self.shards[shard % SHARDS].lock().values().cloned().collect()
    }

    pub(crate) const fn shard_count(&self) -> usize {
        SHARDS
    }
}

/// A list that was taken, to be worked off from its end. What is left when it is dropped goes back: a caller that is
/// cancelled half-way must not make the engine forget a book that stands on no list but believes that it does.
pub(crate) struct Taken<'a> {
    list: &'a Mutex<Vec<Arc<Cell>>>,
    pub(crate) cells: Vec<Arc<Cell>>,
}

impl<'a> Taken<'a> {
    fn from(list: &'a Mutex<Vec<Arc<Cell>>>) -> Self {
        Self { list, cells: std::mem::take(&mut *list.lock()) }
    }

    /// Leaves each cell once: one whose book was loaded again stands on the list for each of its books.
    pub(crate) fn sort_out_repeated(&mut self) {
        self.cells.sort_unstable_by_key(Arc::as_ptr);
        self.cells.dedup_by(|a, b| Arc::ptr_eq(a, b));
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.list.lock().append(&mut self.cells);
    }
}
