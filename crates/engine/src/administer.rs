//! Administration: tenants created and changed, corrections. All of it is entries, so all of it is audited.

use crate::{
    engine::{Engine, IfUnknown, Open},
    live::Place,
    ports::{Commit, Lookup, Seq},
    repeat::Bound,
    requests::{EngineError, OpId, TenantCard},
};
use domain::{
    entry::Binding,
    id::{TenantId, UserId},
    op::{Adjustment, Op, OpError, ProfileChange},
    tenant::Tenant,
};
use std::sync::Arc;

enum Step {
    Done(Commit),
    Repeat(Seq),
    AskDisk(u64),
}

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
        let configured = self
            .with_tenant(id, &[], IfUnknown::Refuse, |open| {
                open.engine.ledger.ready()?;
                let outcome = open.apply(None, &Op::Configure(change.clone()))?;
                let Some(mut entry) = outcome.entry else { return Err(OpError::Empty.into()) };
                entry.note = Some(actor.into());
                let commit = open.append(vec![entry], false, true)?.commit;
                Ok((card(&open.book.tenant), commit))
            })
            .await;
        let (card, commit, created) = match configured {
            Ok((card, commit)) => (card, commit, false),
            Err(EngineError::UnknownTenant(_)) => match self.create_tenant(id, change, actor)? {
                Some((card, commit)) => (card, commit, true),
                // Somebody else created it in between.
                None => return Box::pin(self.put_tenant(id, change, actor)).await,
            },
            Err(error) => return Err(error),
        };
        commit.wait().await.inspect_err(|error| self.fail(error))?;
        Ok((card, created))
    }

    fn create_tenant(
        &self,
        id: &TenantId,
        change: &ProfileChange,
        actor: &str,
    ) -> Result<Option<(TenantCard, Commit)>, EngineError> {
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let cell = self.live.cell(id);
        let mut place = cell.place.lock();
        if !matches!(*place, Place::Empty) {
            return Ok(None);
        }
        self.ledger.ready()?;
        let created = Tenant::create(id.clone(), change, self.clock.now(), &self.catalog.load());
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
        let mut fresh = None;
        loop {
            let work = |open: &mut Open<'_>| adjust_step(open, user, &op, binding, fresh, &note);
            let seq = match self.with_tenant(tenant, &users, IfUnknown::Refuse, work).await? {
                Step::Done(commit) => {
                    commit.wait().await.inspect_err(|error| self.fail(error))?;
                    return Ok(false);
                }
                Step::Repeat(seq) => seq,
                Step::AskDisk(generation) => {
                    let Some(binding) = binding else { continue };
                    match self.ledger.find_on_disk(binding.id).await? {
                        Some(seq) => seq,
                        None => {
                            fresh = Some(generation);
                            continue;
                        }
                    }
                }
            };
            let Some(binding) = binding else { continue };
            return match self.bound(binding, seq).await? {
                Bound::Same => Ok(true),
                Bound::Conflict { at } => Err(EngineError::IdempotencyConflict { at, seq }),
            };
        }
    }
}

fn adjust_step(
    open: &mut Open<'_>,
    user: Option<&UserId>,
    op: &Op,
    binding: Option<Binding>,
    fresh: Option<u64>,
    note: &Arc<str>,
) -> Result<Step, EngineError> {
    if let Some(binding) = binding {
        match open.engine.ledger.find(binding.id) {
            Lookup::Bound(seq) => return Ok(Step::Repeat(seq)),
            Lookup::Unsure { generation } if fresh != Some(generation) => return Ok(Step::AskDisk(generation)),
            Lookup::Fresh | Lookup::Unsure { .. } => {}
        }
    }
    open.engine.ledger.ready()?;
    let outcome = open.apply(user, op)?;
    let Some(mut entry) = outcome.entry else { return Err(OpError::Empty.into()) };
    entry.note = Some(note.clone());
    Ok(Step::Done(open.append(vec![entry], false, true)?.commit))
}

pub(crate) fn card(tenant: &Tenant) -> TenantCard {
    TenantCard { id: tenant.id.clone(), profile: tenant.profile.clone() }
}
