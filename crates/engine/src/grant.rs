//! Grants: amounts on top of what the plan allows. All of it is entries, so all of it is audited.

use crate::{
    engine::Engine,
    open::{Look, Open, Whom},
    repeat::Once,
    requests::{EngineError, OpId},
};
use domain::{
    grant::{Grant, GrantChange, GrantId},
    id::TenantId,
    op::{Op, OpError},
};
use std::sync::Arc;

impl Engine {
    /// Gives a tenant a grant, which is named by what it is bound to, or by `fresh` (a number that nobody has drawn before)
    /// where it has no id. Tells its name, and whether it was given before under the same id. Durable when it returns.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was granted.
    pub async fn put_grant(
        &self,
        tenant: &TenantId,
        mut grant: Grant,
        (id, fresh): (Option<OpId>, u128),
        actor: &str,
    ) -> Result<(GrantId, bool), EngineError> {
        let binding = id.map(|id| self.ids.of_grant(tenant, &id, &grant));
        grant.id = GrantId(binding.map_or(fresh, |binding| binding.id));
        let name = grant.id;
        let note: Arc<str> = format!("{actor}: {}", grant.reason).into();
        let op = Op::Grant(GrantChange::Put { grant, binding });
        let epoch = self.epoch();
        let work = |open: &mut Open<'_>| open.change_grants(&op, note.clone());
        match self.once(Whom::known(tenant, &[]), binding, work, |_| Ok(false)).await? {
            Once::Done((), commit) => {
                commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
                Ok((name, false))
            }
            Once::Repeat => Ok((name, true)),
        }
    }

    /// Takes back what is left of a grant. Durable when it returns.
    ///
    /// # Errors
    /// [`OpError::UnknownGrant`], and other [`EngineError`]s; then nothing has changed.
    pub async fn revoke_grant(&self, tenant: &TenantId, id: GrantId, actor: &str) -> Result<(), EngineError> {
        let (op, note) = (Op::Grant(GrantChange::Revoke(id)), Arc::<str>::from(actor));
        let epoch = self.epoch();
        let work = |open: &mut Open<'_>| open.change_grants(&op, note.clone());
        // That there is none is only said of what is known to be all there is.
        let ((), commit) = self.commit_with(Whom::known(tenant, &[]).look(Look::Now), work).await?;
        Ok(commit.wait().await.inspect_err(|error| self.fail(epoch, error))?)
    }

    /// The grants of a tenant, the oldest first; those that are over only until another is given.
    ///
    /// # Errors
    /// [`EngineError::UnknownTenant`], or a failing ledger.
    pub async fn grants(&self, tenant: &TenantId) -> Result<Vec<Grant>, EngineError> {
        let whom = Whom::known(tenant, &[]).look(Look::Now);
        self.look_at(whom, |open| Ok(open.book.tenant.grants.iter().cloned().collect())).await
    }
}

impl Open<'_> {
    fn change_grants(&mut self, op: &Op, note: Arc<str>) -> Result<((), crate::ports::Commit), EngineError> {
        self.engine.ledger.ready()?;
        let outcome = self.apply(None, op)?;
        let Some(mut entry) = outcome.entry else { return Err(OpError::Empty.into()) };
        entry.note = Some(note);
        Ok(((), self.append(vec![entry], false, true)?.commit))
    }
}
