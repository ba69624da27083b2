//! Reading: the same numbers that are checked. Nothing here changes anything, and nothing here is refused for lack of
//! quota.

use crate::{
    administer::card,
    engine::Engine,
    open::{Look, Open, Whom},
    ports::{ClosedRow, Days, DenialId, DenialQuery, Forecasts, Line, Seq, Snapshots, StoredDenial, TenantSnapshots},
    requests::{EngineError, TenantCard},
};
use domain::{
    catalog::Catalog,
    id::{TenantId, UserId},
    op::OpError,
    view::Usage,
    warning::Warning,
};
use std::sync::Arc;

impl Engine {
    /// A tenant.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn tenant(&self, id: &TenantId) -> Result<TenantCard, EngineError> {
        self.card_of(id, Look::Now).await
    }

    /// The catalog whose price lists hold for a tenant: the one that decides for it. Where that can't be said (the tenant
    /// is unknown, or the ledger away) it is the one in force, and what is asked next is judged as it would be anyway.
    ///
    /// # Errors
    /// A catalog, which the tenant is pinned to, that can't be read.
    pub async fn prices_for(&self, tenant: &TenantId) -> Result<Arc<Catalog>, EngineError> {
        let pinned = self.look_at(Whom::known(tenant, &[]).under_lease(), |open| Ok(open.catalog_pin())).await;
        match pinned {
            Ok(Some(version)) => self.catalog_at(version).await,
            Ok(None) | Err(EngineError::UnknownTenant(_) | EngineError::Ledger(_)) => Ok(self.catalog()),
            Err(error) => Err(error),
        }
    }

    async fn card_of(&self, id: &TenantId, look: Look) -> Result<TenantCard, EngineError> {
        self.look_at(Whom::known(id, &[]).look(look), |open| Ok(card(&open.book.tenant))).await
    }

    /// Tenants in order of id, after `after`.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantCard>, EngineError> {
        // In this order: what leaves one of the lists is on the next by then.
        let mut ids = self.tail.tenants(after, limit);
        {
            let unsaved = self.unsaved.lock();
            let later = unsaved.iter().filter(|id| after.is_none_or(|after| *id > after));
            ids.extend(later.take(limit).cloned());
        }
        ids.extend(self.ledger.tenants(after, limit).await?);
        ids.sort();
        ids.dedup();
        ids.truncate(limit);
        let mut cards = Vec::with_capacity(ids.len());
        for id in &ids {
            // A page must not load all of its tenants anew where other nodes write as well.
            match self.card_of(id, Look::Recent).await {
                Ok(card) => cards.push(card),
                // Its creation was not durable, and a recovery has undone it in between.
                Err(EngineError::UnknownTenant(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(cards)
    }

    /// What a tenant (or one of its users) used, now.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn usage(&self, tenant: &TenantId, user: Option<&UserId>) -> Result<(TenantCard, Usage), EngineError> {
        let users: Vec<UserId> = user.cloned().into_iter().collect();
        let whom = Whom::known(tenant, &users).look(Look::Now);
        let seen = |open: &mut Open<'_>| {
            let user = user.and_then(|user| open.book.users.get(user)).map(|live| &live.user);
            (card(&open.book.tenant), open.book.tenant.usage(user, open.now, open.catalog))
        };
        let with_plan = |open: &mut Open<'_>| {
            let plan = &open.book.tenant.profile.plan;
            match open.catalog.plans.contains_key(plan) {
                true => Ok(seen(open)),
                // Where other nodes put catalogs in force it may be one of a newer one, which is followed then.
                false => Err(EngineError::Op(OpError::UnknownPlan(plan.clone()))),
            }
        };
        match self.look_at(whom, with_plan).await {
            // Reading is never refused.
            Err(EngineError::Op(OpError::UnknownPlan(_))) => self.look_at(whom, |open| Ok(seen(open))).await,
            looked => looked,
        }
    }

    /// The daily history.
    pub fn snapshot_book(&self) -> &dyn Snapshots {
        self.ledger.snapshots()
    }

    /// The forecasts that are kept, where the ledger keeps any.
    pub fn forecast_book(&self) -> Option<&dyn Forecasts> {
        self.ledger.forecasts()
    }

    /// What a tenant (or one of its users) was warned of in the windows that are open, the oldest first.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn warnings(&self, tenant: &TenantId, user: Option<&UserId>) -> Result<Vec<Warning>, EngineError> {
        let users: Vec<UserId> = user.cloned().into_iter().collect();
        let given = |open: &mut Open<'_>| {
            let user = user.and_then(|user| open.book.users.get(user)).map(|live| &live.user);
            Ok(open.book.tenant.warnings_at(user, open.now))
        };
        self.look_at(Whom::known(tenant, &users).look(Look::Now), given).await
    }

    /// Denials, newest first. What was counted in the last seconds is in [`Engine::usage`] before it is here.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn denials(&self, query: &DenialQuery) -> Result<Vec<StoredDenial>, EngineError> {
        Ok(self.ledger.denials(query).await?)
    }

    /// One denial.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn denial(&self, id: DenialId) -> Result<Option<StoredDenial>, EngineError> {
        Ok(self.ledger.denial(id).await?)
    }

    /// Durable entries after `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn journal(&self, after: Seq, limit: usize) -> Result<Vec<Line>, EngineError> {
        Ok(self.ledger.journal(after, limit).await?)
    }

    /// Totals of closed windows that were checkpointed, oldest first.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn closed(&self, tenant: &TenantId, user: Option<&UserId>) -> Result<Vec<ClosedRow>, EngineError> {
        Ok(self.ledger.closed(tenant, user).await?)
    }

    /// The daily history of the tenants after one, in order of id, and the id after which more may follow. At most `limit` tenants, of
    /// which those without history are left out.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn daily_histories(
        &self,
        after: Option<&TenantId>,
        limit: usize,
        days: Days,
    ) -> Result<(Vec<TenantSnapshots>, Option<TenantId>), EngineError> {
        let cards = self.tenants(after, limit).await?;
        let Some(last) = cards.last() else { return Ok((Vec::new(), None)) };
        let found = self.ledger.snapshots().of_tenants(after, &last.id, days).await?;
        Ok((found, (cards.len() == limit).then(|| last.id.clone())))
    }
}
