//! Holds: taken by [`Engine::admit`] with [`Check::hold`](crate::requests::Check), settled here.

use crate::{
    engine::Engine,
    open::{Look, Open, Whom},
    repeat::Once,
    requests::EngineError,
};
use domain::{
    decision::Decision,
    hold::{HoldId, Settle, Settlement},
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
        let binding = Some(self.ids.of_settlement(tenant, id, how));
        let op = Op::Settle(Settle { id, how: how.clone(), binding });
        let users = self.user_of_hold(tenant, id).await?;
        let epoch = self.epoch();
        let work = |open: &mut Open<'_>| {
            open.engine.ledger.ready()?;
            let outcome = open.apply(users.first(), &op)?;
            let Some(entry) = outcome.entry else { return Err(OpError::Empty.into()) };
            let pin = open.catalog_pin();
            Ok(((outcome.decision, pin), open.append(vec![entry], false, true)?.commit))
        };
        match self.once(Whom::known(tenant, &users), binding, work, |_| Ok(false)).await? {
            Once::Done((decision, catalog_pin), commit) => {
                commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
                Ok(Settled { decision, catalog_pin, repeated: false })
            }
            Once::Repeat => Ok(Settled { decision: None, catalog_pin: None, repeated: true }),
        }
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
