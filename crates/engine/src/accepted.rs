//! What was accepted under an id, as the entry says that it is bound to. By today's catalog it may cost something else, or
//! have no price at all: a repeat is a repeat all the same.

use crate::{
    admit::dry,
    engine::Engine,
    hold::Settled,
    open::{Open, Whom},
    ports::Commit,
    repeat::Once,
    requests::{Admission, Check, EngineError},
};
use domain::{
    decision::Decision,
    entry::{Binding, Effect},
    hold::{HoldId, Settlement},
    id::{MeterKey, TenantId},
    op::{Charge, OpError, Outcome},
};

impl Engine {
    /// The first charge of a check as it was accepted before under the same id, where a price list made it: it may cost
    /// something else by now. `None` where no price list made it, or its entry is not at hand any more.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn accepted_charge(&self, check: &Check) -> Result<Option<Charge>, EngineError> {
        let (Some(first), Some(_), Some(id)) = (check.charges.first(), &check.sent, &check.id) else { return Ok(None) };
        let binding = self.ids.of_check(check, id);
        let Some(accepted) = self.accepted(&check.tenant, binding).await? else { return Ok(None) };
        let amount = of_meter(&accepted, &first.meter).saturating_sub(of_meter(&check.charges[1..], &first.meter));
        Ok((amount >= 0).then(|| Charge { amount, ..first.clone() }))
    }

    /// A check that can't be read by the catalog (any more): where it was accepted before under its id, the same decision
    /// with current numbers, and what a price list charged then. `None` where it was not. Where a price list made the first
    /// charge, anything may stand for that.
    ///
    /// # Errors
    /// [`EngineError::IdempotencyConflict`] where the id was used for something else; a failing ledger.
    pub async fn accepted_check(&self, check: &Check) -> Result<Option<(Admission, Option<Charge>)>, EngineError> {
        let Some(id) = check.id.as_ref().filter(|_| check.consume) else { return Ok(None) };
        let binding = self.ids.of_check(check, id);
        if !self.is_accepted(&check.tenant, binding).await? {
            return Ok(None);
        }
        let others = &check.charges[check.charges.len().min(usize::from(check.sent.is_some()))..];
        let priced = match check.sent.is_some() {
            true => self.accepted(&check.tenant, binding).await?.and_then(|accepted| beyond(&accepted, others)),
            false => None,
        };
        let was = Check { charges: priced.iter().chain(others).cloned().collect(), ..check.clone() };
        let admission = self.repeat_with(&was, |open| as_known(open, &was)).await?;
        Ok(Some((self.with_hold(&was, Some(binding), admission).await?, priced)))
    }

    /// A settlement that can't be read by the catalog (any more): whether the hold was settled so before. `None` where it
    /// was not settled. Where a price list made the first charge, anything may stand for that.
    ///
    /// # Errors
    /// [`EngineError::IdempotencyConflict`] where it was settled otherwise; a failing ledger.
    pub async fn accepted_settlement(
        &self,
        tenant: &TenantId,
        id: HoldId,
        how: &Settlement,
        sent: Option<&str>,
    ) -> Result<Option<Settled>, EngineError> {
        let is_accepted = self.is_accepted(tenant, self.ids.of_settlement(tenant, id, how, sent)).await?;
        Ok(is_accepted.then_some(Settled { decision: None, catalog_pin: None, repeated: true }))
    }

    /// Whether the same was accepted before, and is durable. Nothing is bound by asking.
    async fn is_accepted(&self, tenant: &TenantId, binding: Binding) -> Result<bool, EngineError> {
        let nothing = |_: &mut Open<'_>| Ok(((), Commit::Done));
        // As what would be refused: other nodes are asked as well.
        match self.once(Whom::known(tenant, &[]).under_lease(), Some(binding), nothing, |_| Ok(true)).await {
            Ok(Once::Repeat) => Ok(true),
            Ok(Once::Done(..)) | Err(EngineError::UnknownTenant(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was charged or held of counters by the entry that an id is bound to, once that is durable. `None` where there is
    /// no such entry.
    async fn accepted(&self, tenant: &TenantId, binding: Binding) -> Result<Option<Vec<Charge>>, EngineError> {
        let Some(effects) = self.effects_bound_to(tenant, binding.id).await? else { return Ok(None) };
        let mut accepted = Vec::new();
        for effect in effects {
            match effect {
                Effect::Use { meter, amount, .. } => accepted.push(Charge { meter, amount }),
                Effect::Hold(hold) => {
                    let parts = hold.charges.into_iter().filter(|part| !part.is_level);
                    accepted.extend(parts.map(|part| Charge { meter: part.meter, amount: part.amount }));
                }
                _ => {}
            }
        }
        Ok(Some(accepted))
    }
}

fn of_meter(charges: &[Charge], meter: &MeterKey) -> i64 {
    let of_meter = charges.iter().filter(|charge| charge.meter == *meter);
    of_meter.fold(0, |sum, charge| sum.saturating_add(charge.amount))
}

/// What was accepted of a meter beyond these: price lists charge one counter, and give nothing back.
fn beyond(accepted: &[Charge], others: &[Charge]) -> Option<Charge> {
    let more = |charge: &Charge| of_meter(accepted, &charge.meter).saturating_sub(of_meter(others, &charge.meter));
    let charge = accepted.iter().find(|charge| more(charge) > 0)?;
    Some(Charge { meter: charge.meter.clone(), amount: more(charge) })
}

/// How those limits stand that the catalog still has.
fn as_known(open: &mut Open<'_>, check: &Check) -> Result<Outcome, OpError> {
    let mut known = check.clone();
    known.charges.retain(|charge| open.catalog.meters.contains_key(&charge.meter));
    known.features.retain(|feature| open.catalog.features.contains_key(feature));
    if !known.charges.is_empty() || !known.features.is_empty() {
        return open.apply(check.user.as_ref(), &dry(&known));
    }
    let decision = Decision {
        allowed: true,
        plan: open.book.tenant.profile.plan.clone(),
        denial: None,
        shadow: None,
        limits: Vec::new(),
        charged: true,
        at: open.book.tenant.instant(open.now),
    };
    Ok(Outcome { decision: Some(decision), ..Outcome::default() })
}
