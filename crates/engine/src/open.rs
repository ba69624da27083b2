//! How a verb gets at a tenant: under its lock, with the tenant and the users it names in memory. And how its commit is
//! seen through where other nodes write as well: what was decided on something that has changed is decided again.

use crate::{
    engine::Engine,
    lease::{Reader, Way},
    live::{Book, Cell, Place},
    ports::{Basis, Commit, LedgerError},
    requests::EngineError,
};
use domain::{
    catalog::Catalog,
    id::{TenantId, UserId},
    op::{Op, OpError, Outcome},
    time::Instant,
};
use std::sync::Arc;

/// How often a decision is made anew before the caller is told to come again. From the second time on no other node can
/// get in between, unless this one is too slow to use its turn.
pub(crate) const TRIES_MAX: u32 = 32;

/// A tenant under its lock, with the users a verb asked for.
pub(crate) struct Open<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) cell: &'a Arc<Cell>,
    pub(crate) book: &'a mut Book,
    /// The one that decides.
    pub(crate) catalog: &'a Catalog,
    /// The one in force, which decides unless the tenant is pinned.
    pub(crate) in_force: &'a Catalog,
    pub(crate) now: Instant,
    /// Whether what is in memory is as new as an answer has to be that no commit judges.
    pub(crate) is_recent: bool,
    /// Whether something was appended.
    pub(crate) wrote: Wrote,
}

/// Where a verb appended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    Nothing,
    /// After the tenant's last entry, which it was decided on.
    AfterLast,
    UnderLease,
}

/// What a verb may do to a tenant that is unknown to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfUnknown {
    /// Create it on the catalog's default plan, if there is one.
    UseDefaultPlan,
    /// Refuse.
    Refuse,
}

/// How new what is in memory has to be, where other nodes write as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Not known to have changed: the commit will tell.
    Memory,
    /// No older than [`EngineOptions::recent_ms`](crate::EngineOptions): there may be no commit that could tell.
    Recent,
    /// As of the call, or later: for those who read what they, or others, have just written on another node.
    Now,
    /// As [`Look::Now`], once it was loaded for that: by this call, or by another that came after it.
    Loaded,
    /// As [`Look::Memory`]; and if it must be loaded, no other node writes before this one has.
    Held,
}

/// Whom a verb is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) users: &'a [UserId],
    pub(crate) if_unknown: IfUnknown,
    pub(crate) look: Look,
    /// Whether it can be done under a lease of this node. If not, the lease is left first.
    pub(crate) under_lease: bool,
}

impl<'a> Whom<'a> {
    /// A tenant that must be known.
    pub(crate) fn known(tenant: &'a TenantId, users: &'a [UserId]) -> Self {
        Self { tenant, users, if_unknown: IfUnknown::Refuse, look: Look::Memory, under_lease: false }
    }

    /// A tenant that may be met for the first time.
    pub(crate) fn new(tenant: &'a TenantId, users: &'a [UserId]) -> Self {
        Self { if_unknown: IfUnknown::UseDefaultPlan, ..Self::known(tenant, users) }
    }

    pub(crate) fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }

    pub(crate) fn under_lease(self) -> Self {
        Self { under_lease: true, ..self }
    }
}

enum Attempt<T> {
    Done(T),
    LoadTenant,
    /// These users, as long as none was dropped since.
    LoadUsers(Vec<UserId>, u64, Arc<Basis>),
    /// Something has to be committed first.
    Wait(Commit),
    /// The tenant is pinned to a catalog that is not at hand.
    LoadCatalog(u32),
    LookAgain,
}

impl Engine {
    /// Runs `work` and, where other nodes write as well, waits for its commit and runs it again when that was in vain.
    /// The commit that is given is done then.
    pub(crate) async fn commit_with<T>(
        &self,
        whom: Whom<'_>,
        work: impl FnMut(&mut Open<'_>) -> Result<(T, Commit), EngineError>,
    ) -> Result<(T, Commit), EngineError> {
        match self.ledger.shared() {
            None => self.with_tenant(whom, work).await,
            // Boxed: a request on an embedded ledger need not carry the room for it.
            Some(_) => Box::pin(self.commit_shared(whom, work)).await,
        }
    }

    async fn commit_shared<T>(
        &self,
        mut whom: Whom<'_>,
        mut work: impl FnMut(&mut Open<'_>) -> Result<(T, Commit), EngineError>,
    ) -> Result<(T, Commit), EngineError> {
        for _ in 0..TRIES_MAX {
            let (began_ms, judged_by) = (self.steady_ms(), self.catalog.load().version);
            let (mut wrote, mut seen) = (Wrote::Nothing, None);
            let once = |open: &mut Open<'_>| {
                let done = work(open);
                wrote = open.wrote;
                if let Err(EngineError::Op(_)) = &done {
                    seen = Some(open.settled());
                }
                done
            };
            let error = match self.with_tenant(whom, once).await {
                Ok((value, commit)) => {
                    let says_something = wrote == Wrote::AfterLast && matches!(commit, Commit::Waiting(_));
                    match commit.wait().await {
                        Ok(()) => {
                            if says_something {
                                self.confirm(whom.tenant, began_ms);
                            }
                            if wrote == Wrote::UnderLease {
                                self.note_lasted(whom.tenant, began_ms);
                            }
                            return Ok((value, Commit::Done));
                        }
                        Err(error) => error,
                    }
                }
                Err(EngineError::Ledger(error)) => error,
                Err(error) => match self.newer_catalog(&error, whom.if_unknown, judged_by).await? {
                    Some(in_force) => LedgerError::CatalogBehind { in_force },
                    // The tenant may have left the plan since it was loaded, before the catalog dropped it.
                    None if matches!(error, EngineError::Op(OpError::UnknownPlan(_))) && whom.look != Look::Now => {
                        whom = whom.look(Look::Now);
                        continue;
                    }
                    // Nor is it told of what is not committed that something has no meaning.
                    None => match seen {
                        None => return Err(error),
                        Some(seen) => match seen.wait().await {
                            Ok(()) => return Err(error),
                            Err(in_vain) => in_vain,
                        },
                    },
                },
            };
            match error {
                // Another node was quicker: not again.
                LedgerError::Stale if wrote == Wrote::AfterLast => {
                    self.note_lost(whom.tenant);
                    whom = whom.look(Look::Held);
                }
                LedgerError::Stale => {}
                LedgerError::CatalogBehind { in_force } => self.follow(in_force).await?,
                error => return Err(error.into()),
            }
        }
        Err(LedgerError::Overloaded { waiting: 0 }.into())
    }

    /// Looks at a tenant. What is seen is committed, and was so no longer ago than it may be.
    pub(crate) async fn look_at<T>(
        &self,
        whom: Whom<'_>,
        mut look: impl FnMut(&mut Open<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let look = |open: &mut Open<'_>| Ok((look(open)?, open.settled()));
        Ok(self.commit_with(whom, look).await?.0)
    }

    /// Runs `work` under the tenant's lock, with the tenant and the named users in memory. `work` runs at most once,
    /// and must not wait for anything.
    pub(crate) async fn with_tenant<T>(
        &self,
        whom: Whom<'_>,
        work: impl FnOnce(&mut Open<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Whom { tenant, .. } = whom;
        let (mut whom, asked_ms) = (whom, self.steady_ms());
        let mut _reader = None;
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
            match self.attempt(&cell, whom, asked_ms, epoch, &mut work)? {
                Attempt::Done(value) => return Ok(value),
                Attempt::LookAgain => {}
                // If it is in vain, the next look finds out.
                Attempt::Wait(commit) => drop(commit.wait().await),
                Attempt::LoadCatalog(version) => drop(Box::pin(self.catalog_at(version)).await?),
                Attempt::LoadTenant => {
                    if whom.look == Look::Now {
                        _reader = Some(Reader::of(&cell));
                    }
                    Box::pin(self.load_tenant(&cell, whom, epoch)).await?;
                    if whom.look == Look::Now {
                        whom = whom.look(Look::Loaded);
                    }
                }
                Attempt::LoadUsers(missing, drops, basis) => {
                    for user in missing {
                        let stored = self.ledger.load_user(tenant, &user).await?;
                        self.place_user(&cell, user, stored, epoch, (drops, &basis));
                    }
                }
            }
        }
    }

    fn attempt<T>(
        &self,
        cell: &Arc<Cell>,
        whom: Whom<'_>,
        asked_ms: i64,
        epoch: u64,
        work: &mut Option<impl FnOnce(&mut Open<'_>) -> Result<T, EngineError>>,
    ) -> Result<Attempt<T>, EngineError> {
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        let (now, steady_ms) = (self.clock.now(), self.steady_ms());
        if self.is_outdated(&place, whom.look, steady_ms, asked_ms) {
            self.drop_book(cell, &mut place);
        }
        let way = match &mut *place {
            Place::Empty => return Ok(Attempt::LoadTenant),
            Place::Gone => return Ok(Attempt::LookAgain),
            Place::Open(book) => self.way(cell, book, whom, asked_ms, steady_ms),
        };
        match way {
            Way::Free => {}
            Way::Wait(commit) => return Ok(Attempt::Wait(commit)),
            Way::Reload => self.drop_book(cell, &mut place),
        }
        let Place::Open(book) = &mut *place else { return Ok(Attempt::LoadTenant) };
        let missing: Vec<UserId> = whom.users.iter().filter(|user| !book.users.contains_key(*user)).cloned().collect();
        if !missing.is_empty() {
            return Ok(Attempt::LoadUsers(missing, book.user_drops, book.basis.clone()));
        }
        let in_force = self.catalog.load();
        let pinned = match book.tenant.profile.catalog_pin {
            None => None,
            Some(version) => match self.pins.ready(version) {
                None => return Ok(Attempt::LoadCatalog(version)),
                ready => ready,
            },
        };
        let (in_force, catalog) = (&**in_force, pinned.as_deref().unwrap_or(&in_force));
        let Some(work) = work.take() else { return Ok(Attempt::LookAgain) };
        let is_recent = self.is_recent(book, steady_ms, asked_ms);
        let done =
            work(&mut Open { engine: self, cell, book, catalog, in_force, now, is_recent, wrote: Wrote::Nothing });
        drop(place);
        drop(failure);
        if let Err(EngineError::Ledger(error)) = &done {
            self.fail(epoch, error);
        }
        done.map(Attempt::Done)
    }
}

impl Open<'_> {
    /// Applies an operation to the tenant. What must be appended is in the outcome; the caller queues it with
    /// [`Open::append`] before it lets go of the tenant.
    pub(crate) fn apply(&mut self, user: Option<&UserId>, op: &Op) -> Result<Outcome, OpError> {
        self.apply_by(user, op, self.catalog)
    }

    /// As [`Open::apply`], by another catalog.
    pub(crate) fn apply_by(&mut self, user: Option<&UserId>, op: &Op, catalog: &Catalog) -> Result<Outcome, OpError> {
        let Book { tenant, users, .. } = &mut *self.book;
        let user = user.and_then(|user| users.get_mut(user)).map(|live| &mut live.user);
        tenant.apply(user, op, self.now, catalog)
    }

    /// A commit that is done when all that can be seen here is. Without other nodes, what is in memory is final.
    pub(crate) fn settled(&self) -> Commit {
        match (self.engine.ledger.shared(), &self.book.lease) {
            // A lease is not used before all else is committed.
            (Some(_), Some(lease)) => lease.basis.settled(lease.last),
            (Some(_), None) => self.book.basis.settled(self.book.seq),
            (None, _) => Commit::Done,
        }
    }
}
