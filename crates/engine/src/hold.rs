//! Holds: taken by [`Engine::admit`] with [`Check::hold`](crate::requests::Check), settled here.

use crate::{
    engine::Engine,
    open::{Look, Open, Whom},
    ports::{Commit, Lookup},
    repeat::{Once, is_in_vain},
    requests::EngineError,
    tries::until_done,
};
use domain::{
    decision::{Decision, LimitState},
    entry::{Binding, Effect},
    hold::{Hold, HoldId, Settle, Settlement},
    id::{TenantId, UserId},
    op::{Op, OpError},
};

/// How a hold was settled.
#[derive(Debug)]
pub struct Settled {
    /// The limits with their numbers now; `None` for a repeat.
    pub decision: Option<Decision>,
    /// The version of the catalog that the tenant is pinned to.
    pub catalog_pin: Option<u32>,
    /// Whether the same was done before.
    pub repeated: bool,
}

impl Engine {
    /// Settles a hold, once: the same again is a repeat. Durable when it returns.
    ///
    /// # Errors
    /// [`EngineError::IdempotencyConflict`] where it was settled otherwise; [`OpError::UnknownHold`],
    /// [`OpError::HoldExceeded`] and others; then nothing has changed.
    pub async fn settle(&self, tenant: &TenantId, id: HoldId, how: &Settlement) -> Result<Settled, EngineError> {
        self.settle_as(tenant, id, how, None).await
    }

    /// As [`Engine::settle`], where a price list made the first charge of what was `sent`: the same again is a repeat
    /// whatever it costs by now.
    ///
    /// # Errors
    /// As [`Engine::settle`].
    pub async fn settle_as(
        &self,
        tenant: &TenantId,
        id: HoldId,
        how: &Settlement,
        sent: Option<&str>,
    ) -> Result<Settled, EngineError> {
        let binding = Some(self.ids.of_settlement(tenant, id, how, sent));
        let op = Op::Settle(Settle { id, how: how.clone(), binding });
        until_done(|| self.settle_once(tenant, id, &op, binding)).await
    }

    /// `None` where the hold is another user's than it seemed.
    async fn settle_once(
        &self,
        tenant: &TenantId,
        id: HoldId,
        op: &Op,
        binding: Option<Binding>,
    ) -> Result<Option<Settled>, EngineError> {
        let epoch = self.epoch();
        let users = self.user_of_hold(tenant, id).await?;
        let work = |open: &mut Open<'_>| {
            open.engine.ledger.ready()?;
            let hold = open.book.tenant.in_flight.hold(id);
            if hold.is_some_and(|hold| hold.user.as_ref() != users.first()) {
                return Ok((None, Commit::Done));
            }
            let outcome = open.apply(users.first(), op)?;
            let Some(entry) = outcome.entry else { return Err(OpError::Empty.into()) };
            let pin = open.catalog_pin();
            Ok((Some((outcome.decision, pin)), open.append(vec![entry], false, true)?.commit))
        };
        match self.once(Whom::known(tenant, &users), binding, work, |_| Ok(false)).await? {
            // It seemed to be settled, by what was decided here in vain: now it is seen whose it is.
            Once::Done(None, _) => Ok(None),
            Once::Done(Some((decision, catalog_pin)), commit) => {
                commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
                Ok(Some(Settled { decision, catalog_pin, repeated: false }))
            }
            Once::Repeat => Ok(Some(Settled { decision: None, catalog_pin: None, repeated: true })),
        }
    }

    /// A hold, as it stands; one that was settled as it was taken. `None` where there was none within the dedupe window.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn hold(&self, tenant: &TenantId, id: HoldId) -> Result<Option<Hold>, EngineError> {
        if let Some(hold) = self.hold_in_flight(tenant, id, Look::Memory).await? {
            return Ok(Some(hold));
        }
        // It is named by the id that its entry is bound to.
        let taken = |effect| match effect {
            Effect::Hold(hold) if hold.id == id => Some(*hold),
            _ => None,
        };
        Ok(self.effects_bound_to(tenant, id.0).await?.into_iter().flatten().find_map(taken))
    }

    /// The limits on what a hold is, or was, of, as they stand now.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn limits_of_hold(&self, tenant: &TenantId, id: HoldId) -> Result<Vec<LimitState>, EngineError> {
        let Some(hold) = self.hold(tenant, id).await? else { return Ok(Vec::new()) };
        let meters = self.usage(tenant, hold.user.as_ref()).await?.1.meters.into_iter();
        let held = meters.filter(|usage| hold.charges.iter().any(|part| part.meter == usage.meter.key));
        Ok(held.flat_map(|usage| usage.limits).filter(|state| !state.window.is_of_sessions()).collect())
    }

    pub(crate) async fn hold_in_flight(
        &self,
        tenant: &TenantId,
        id: HoldId,
        look: Look,
    ) -> Result<Option<Hold>, EngineError> {
        let of = |open: &mut Open<'_>| Ok(open.book.tenant.in_flight.hold(id).cloned());
        self.with_tenant(Whom::known(tenant, &[]).look(look).under_lease(), of).await
    }

    /// The effects of the entry that an id is bound to, once it is durable; `None` where there is no such entry.
    pub(crate) async fn effects_bound_to(
        &self,
        tenant: &TenantId,
        id: u128,
    ) -> Result<Option<Vec<Effect>>, EngineError> {
        match self.effects_known(tenant, id).await {
            // Another node may have done the same.
            Err(error) if is_in_vain(&error) => self.effects_on_disk(tenant, id).await,
            known => known,
        }
    }

    /// As [`Engine::effects_bound_to`]; in vain ([`is_in_vain`]) where an entry was decided on that was not committed.
    pub(crate) async fn effects_known(&self, tenant: &TenantId, id: u128) -> Result<Option<Vec<Effect>>, EngineError> {
        if let Lookup::Bound(seq) = self.ledger.find(tenant, id) {
            self.ledger.committed(tenant, seq).wait().await?;
            let entry = self.ledger.entry(tenant, seq).await?;
            // Where it was not committed after all, another's may have its place.
            if let Some(entry) = entry.filter(|entry| entry.binding.is_some_and(|known| known.id == id)) {
                return Ok(Some(entry.effects));
            }
        }
        self.effects_on_disk(tenant, id).await
    }

    async fn effects_on_disk(&self, tenant: &TenantId, id: u128) -> Result<Option<Vec<Effect>>, EngineError> {
        let Some(seq) = self.ledger.find_on_disk(tenant, id).await? else { return Ok(None) };
        Ok(self.ledger.entry(tenant, seq).await?.map(|entry| entry.effects))
    }

    /// The user that a hold names. What is not known here may have been settled, or taken on another node.
    async fn user_of_hold(&self, tenant: &TenantId, id: HoldId) -> Result<Vec<UserId>, EngineError> {
        for look in [Look::Memory, Look::Now] {
            let of = |open: &mut Open<'_>| {
                Ok(open.book.tenant.in_flight.hold(id).map(|hold| hold.user.clone().into_iter().collect::<Vec<_>>()))
            };
            let found = self.with_tenant(Whom::known(tenant, &[]).look(look).under_lease(), of).await?;
            if found.is_some() || self.ledger.shared().is_none() {
                return Ok(found.unwrap_or_default());
            }
        }
        Ok(Vec::new())
    }
}
