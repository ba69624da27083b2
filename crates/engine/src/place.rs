//! How a tenant and its users come into memory: loaded, or made where there is none.

use crate::{
    engine::Engine,
    live::{Book, Cell, LiveUser, Place},
    open::{IfUnknown, Whom},
    ports::{Append, Appended, Basis, Commit, Stored},
    requests::EngineError,
};
use domain::{
    entry::Entry,
    id::UserId,
    tenant::{Tenant, User},
};
use std::sync::{Arc, atomic::Ordering};

impl Engine {
    pub(crate) async fn load_tenant(&self, cell: &Arc<Cell>, whom: Whom<'_>, epoch: u64) -> Result<(), EngineError> {
        if let (Some(shared), Some(reload)) = (self.ledger.shared(), &cell.reload) {
            return self.reload_tenant(cell, shared, reload, whom).await;
        }
        if self.fold_from_tail(cell, epoch).await? {
            return Ok(());
        }
        let stored = self.ledger.load_tenant(whom.tenant).await?;
        // A tenant must not be put on a plan that a catalog is just about to drop.
        let _plans_stay = match (&stored, whom.if_unknown) {
            (None, IfUnknown::UseDefaultPlan) => Some(self.plans.read().await),
            _ => None,
        };
        let book = stored.map(|Stored { state, seq }| Box::new(Book::new(state, seq)));
        self.place_tenant(cell, book, epoch, whom.if_unknown).map(|_| ())
    }

    /// Puts a book in its place if it is free; creates the tenant where there is none and that may be done.
    /// Gives the commit to wait for, where other nodes may do the same.
    pub(crate) fn place_tenant(
        &self,
        cell: &Arc<Cell>,
        book: Option<Box<Book>>,
        epoch: u64,
        if_unknown: IfUnknown,
    ) -> Result<Commit, EngineError> {
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        if !matches!(*place, Place::Empty) || self.epoch() != epoch {
            return Ok(Commit::Done);
        }
        if let Some(book) = book {
            self.live.tenants.fetch_add(1, Ordering::Relaxed);
            self.live.users.fetch_add(book.users.len() as u64, Ordering::Relaxed);
            self.lapses.note(&cell.id, &book);
            *place = Place::Open(book);
            return Ok(Commit::Done);
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
        let wait = self.ledger.shared().is_some();
        Ok(self.open_created(cell, &mut place, tenant, entry, wait)?.commit)
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
        book.confirmed_ms = self.steady_ms();
        self.live.list_dirty(cell, &mut book);
        let basis = book.basis.clone();
        let in_force = book.tenant.profile.catalog_pin.map(|_| self.catalog.load().version);
        let append = Append { basis, in_force, wait, ..Append::new(cell.id.clone(), vec![entry]) };
        let appended = self.ledger.append(append)?;
        book.seq = appended.last;
        if self.ledger.shared().is_none() {
            self.unsaved.lock().insert(cell.id.clone());
        }
        *place = Place::Open(book);
        self.live.tenants.fetch_add(1, Ordering::Relaxed);
        Ok(appended)
    }

    /// Puts a user beside the tenant that it was read for: another reading of the tenant may be newer than the user is.
    pub(crate) fn place_user(
        &self,
        cell: &Arc<Cell>,
        id: UserId,
        stored: Option<Stored<User>>,
        epoch: u64,
        (drops, basis): (u64, &Arc<Basis>),
    ) {
        let mut place = cell.place.lock();
        let Place::Open(book) = &mut *place else { return };
        let stale = self.epoch() != epoch || book.user_drops != drops || !Arc::ptr_eq(&book.basis, basis);
        if stale || book.users.contains_key(&id) {
            return;
        }
        let Stored { state, seq } = stored.unwrap_or_else(|| Stored { state: User::new(id.clone()), seq: 0 });
        // Under a lease what others charge meanwhile is not seen, and need not be.
        if seq > book.seq && book.lease.is_none() {
            // Another node has written since the tenant was loaded.
            book.basis.outdate();
            return;
        }
        book.users.insert(id, Box::new(LiveUser { user: state, seq, saved: seq }));
        self.live.users.fetch_add(1, Ordering::Relaxed);
    }
}
