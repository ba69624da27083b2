//! Administration: tenants created and changed, corrections. All of it is entries, so all of it is audited.

use crate::{
    engine::Engine,
    live::Place,
    open::{IfUnknown, Open, TRIES_MAX, Whom},
    ports::{Commit, LedgerError},
    repeat::Once,
    requests::{EngineError, OpId, TenantCard},
};
use domain::{
    catalog::Catalog,
    id::{TenantId, UserId},
    op::{Adjustment, Op, OpError, ProfileChange},
    tenant::Tenant,
};
use std::sync::Arc;

impl Engine {
    /// Creates or changes a tenant; what is `None` stays. Tells whether it was created. Durable when it returns.
    ///
    /// # Errors
    /// [`OpError::UnknownPlan`] and other [`EngineError`]s; [`EngineError::UnknownTenant`] for a new tenant where neither
    /// the change nor the catalog names a plan.
    pub async fn put_tenant(
        &self,
        id: &TenantId,
        change: &ProfileChange,
        actor: &str,
    ) -> Result<(TenantCard, bool), EngineError> {
        for _ in 0..TRIES_MAX {
            let (epoch, judged_by) = (self.epoch(), self.catalog.load().version);
            let (card, commit, created) = match self.put_once(id, change, actor).await {
                Ok(put) => put,
                Err(error) => {
                    match self.newer_catalog(&error, IfUnknown::UseDefaultPlan, judged_by).await? {
                        Some(in_force) => self.follow(in_force).await?,
                        None => return Err(error),
                    }
                    continue;
                }
            };
            match commit.wait().await {
                Ok(()) => return Ok((card, created)),
                // Created on another node meanwhile, or by another catalog.
                Err(LedgerError::Stale) => {}
                Err(LedgerError::CatalogBehind { in_force }) => self.follow(in_force).await?,
                Err(error) => {
                    self.fail(epoch, &error);
                    return Err(error.into());
                }
            }
        }
        Err(LedgerError::Overloaded { waiting: 0 }.into())
    }

    async fn put_once(
        &self,
        id: &TenantId,
        change: &ProfileChange,
        actor: &str,
    ) -> Result<(TenantCard, Commit, bool), EngineError> {
        loop {
            // No catalog is put in force between the look at this one's plans and the change.
            let _plans_stay = self.plans.read().await;
            match self.configure_tenant(id, change, actor).await {
                Ok((card, commit)) => return Ok((card, commit, false)),
                Err(EngineError::UnknownTenant(_)) => {}
                Err(error) => return Err(error),
            }
            // `None` when somebody else is creating it.
            if let Some((card, commit)) = self.create_tenant(id, change, actor).await? {
                return Ok((card, commit, true));
            }
        }
    }

    async fn configure_tenant(
        &self,
        id: &TenantId,
        change: &ProfileChange,
        actor: &str,
    ) -> Result<(TenantCard, Commit), EngineError> {
        let op = Op::Configure(change.clone());
        let pin_to = self.pin_to(change).await?;
        self.commit_with(Whom::known(id, &[]), |open| {
            open.engine.ledger.ready()?;
            // A change is judged by the catalog that decides afterwards.
            let outcome = match (change.catalog_pin, &pin_to) {
                (None, _) => open.apply(None, &op),
                (Some(_), Some(catalog)) => open.apply_by(None, &op, catalog),
                (Some(_), None) => open.apply_by(None, &op, open.in_force),
            }?;
            let Some(mut entry) = outcome.entry else { return Err(OpError::Empty.into()) };
            entry.note = Some(actor.into());
            let commit = open.append(vec![entry], false, true)?.commit;
            Ok((card(&open.book.tenant), commit))
        })
        .await
    }

    async fn create_tenant(
        &self,
        id: &TenantId,
        change: &ProfileChange,
        actor: &str,
    ) -> Result<Option<(TenantCard, Commit)>, EngineError> {
        let epoch = self.epoch();
        let pin_to = self.pin_to(change).await?;
        let cell = self.live.cell(id);
        // Since the tenant was found to be unknown, somebody may have created it, and it may have left memory again:
        // an empty cell says nothing, unless the ledger is asked while it stays the tenant's cell.
        if self.tail.holds(id) || self.ledger.load_tenant(id).await?.is_some() {
            return Ok(None);
        }
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        if !matches!(*place, Place::Empty) || self.epoch() != epoch {
            return Ok(None);
        }
        self.ledger.ready()?;
        let in_force = self.catalog.load();
        let created = Tenant::create(id.clone(), change, self.clock.now(), pin_to.as_deref().unwrap_or(&in_force));
        let (tenant, mut entry) = match created {
            Ok(Some(created)) => created,
            refused => {
                *place = Place::Gone;
                drop(place);
                self.live.forget(&cell);
                return match refused {
                    Err(error) => Err(error.into()),
                    Ok(_) => Err(EngineError::UnknownTenant(id.clone())),
                };
            }
        };
        entry.note = Some(actor.into());
        let card = card(&tenant);
        let appended = self.open_created(&cell, &mut place, tenant, entry, true)?;
        Ok(Some((card, appended.commit)))
    }

    /// The catalog that a change pins its tenant to.
    async fn pin_to(&self, change: &ProfileChange) -> Result<Option<Arc<Catalog>>, EngineError> {
        match change.catalog_pin.flatten() {
            Some(version) => self.catalog_at(version).await.map(Some),
            None => Ok(None),
        }
    }

    /// Corrects an account, with a reason. Tells whether this repeats a correction made before under the same id.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was changed.
    pub async fn adjust(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        mut adjustment: Adjustment,
        id: Option<OpId>,
        actor: &str,
        reason: &str,
    ) -> Result<bool, EngineError> {
        adjustment.binding = id.map(|id| self.ids.of_adjustment(tenant, user, &id, &adjustment));
        let note: Arc<str> = format!("{actor}: {reason}").into();
        let binding = adjustment.binding;
        let op = Op::Adjust(adjustment);
        let users: Vec<UserId> = user.cloned().into_iter().collect();
        let epoch = self.epoch();
        let work = |open: &mut Open<'_>| {
            open.engine.ledger.ready()?;
            let outcome = open.apply(user, &op)?;
            let Some(mut entry) = outcome.entry else { return Err(OpError::Empty.into()) };
            entry.note = Some(note.clone());
            Ok(((), open.append(vec![entry], false, true)?.commit))
        };
        match self.once(Whom::known(tenant, &users), binding, work, |_| Ok(false)).await? {
            Once::Done((), commit) => {
                commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
                Ok(false)
            }
            Once::Repeat => Ok(true),
        }
    }
}

pub(crate) fn card(tenant: &Tenant) -> TenantCard {
    TenantCard { id: tenant.id.clone(), profile: tenant.profile.clone() }
}
