//! Decisions: `check`, and the gateway's admission. Charges given back, and charges measured afterwards.

use crate::{
    engine::{Engine, IfUnknown, Open},
    ids::denial_id,
    ports::{Commit, Decided, Lookup, Seq},
    repeat::Bound,
    requests::{Ack, Admission, Check, EngineError},
};
use domain::{
    decision::{Decision, Denial},
    entry::{Binding, Cause},
    id::{TenantId, UserId},
    op::{Charge, Dimensions, Fact, Movement, Op, OpError, Outcome, Receipt, Spend},
};

/// What came of a look at the tenant.
#[expect(clippy::large_enum_variant, reason = "made once and matched at once; a box would be the only allocation")]
enum Step {
    Decided(Outcome, Commit),
    /// The id was accepted before, by this entry.
    Repeat(Seq),
    /// Memory can't tell about the id.
    AskDisk(u64),
}

impl Engine {
    /// Decides, and charges if the check says so. Returns before the commit: who promises durability waits for
    /// [`Admission::commit`].
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was charged.
    pub async fn admit(&self, check: &Check, ack: Ack) -> Result<Admission, EngineError> {
        let binding = match &check.id {
            Some(id) if check.consume => Some(self.ids.of_check(check, id)),
            _ => None,
        };
        let op = Op::Spend(spend_of(check, binding), check.cause);
        let users: &[UserId] = check.user.as_slice();
        let mut fresh = None;
        loop {
            let epoch = self.epoch();
            let look = |open: &mut Open<'_>| decide(open, check, &op, binding, fresh, ack);
            let step = self.with_tenant(&check.tenant, users, IfUnknown::UseDefaultPlan, look).await?;
            let (seq, binding) = match (step, binding) {
                (Step::Decided(outcome, commit), _) => return self.admission(check, outcome, commit),
                (Step::Repeat(seq), Some(binding)) => (seq, binding),
                (Step::AskDisk(generation), Some(binding)) => match self.ledger.find_on_disk(binding.id).await? {
                    Some(seq) => (seq, binding),
                    None => {
                        fresh = Some(generation);
                        continue;
                    }
                },
                (Step::Repeat(_) | Step::AskDisk(_), None) => continue,
            };
            match self.bound(binding, seq, epoch).await? {
                Bound::Same => return self.repeat_check(check).await,
                Bound::Conflict { at } => return Err(EngineError::IdempotencyConflict { at, seq }),
                Bound::LookAgain => {}
            }
        }
    }

    /// A check whose id was accepted before: the same decision with current numbers.
    async fn repeat_check(&self, check: &Check) -> Result<Admission, EngineError> {
        let op = Op::Spend(Spend { consume: false, ..spend_of(check, None) }, check.cause);
        let look = |open: &mut Open<'_>| {
            let mut outcome = open.apply(check.user.as_ref(), &op)?;
            if let Some(decision) = &mut outcome.decision {
                decision.allowed = true;
                decision.denial = None;
                decision.charged = true;
            }
            Ok(outcome)
        };
        let outcome = self.with_tenant(&check.tenant, check.user.as_slice(), IfUnknown::Refuse, look).await?;
        let admission = self.admission(check, outcome, Commit::Done)?;
        Ok(Admission { repeated: true, ..admission })
    }

    fn admission(&self, check: &Check, outcome: Outcome, commit: Commit) -> Result<Admission, EngineError> {
        let Some(decision) = outcome.decision else { return Err(OpError::Empty.into()) };
        self.observe(check, &decision);
        Ok(Admission {
            tenant: check.tenant.clone(),
            user: check.user.clone(),
            decision,
            denial_id: outcome.denial.map(|key| denial_id(&check.tenant, &key)),
            repeated: false,
            receipt: outcome.receipt,
            dimensions: check.dimensions.clone(),
            commit,
        })
    }

    fn observe(&self, check: &Check, decision: &Decision) {
        let Some(observer) = self.observer.get() else { return };
        let told = |denial: Option<&Denial>, shadow: bool| {
            observer.decided(&Decided {
                cause: check.cause,
                plan: &decision.plan,
                code: denial.map_or(domain::decision::Code::Allowed, |denial| denial.code),
                meter: denial
                    .and_then(|denial| denial.meter.as_ref())
                    .or_else(|| check.charges.first().map(|charge| &charge.meter)),
                feature: denial.and_then(|denial| denial.feature.as_ref()).or_else(|| check.features.first()),
                shadow,
                dry: !check.consume,
            });
        };
        told(decision.denial.as_ref(), false);
        if let Some(shadow) = &decision.shadow {
            told(Some(shadow), true);
        }
    }

    /// Gives a charge back to the accounts it was taken from, even where their window has closed since.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was given back.
    pub async fn refund(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        receipt: &Receipt,
    ) -> Result<Commit, EngineError> {
        if receipt.uses.is_empty() && receipt.levels.is_empty() {
            return Ok(Commit::Done);
        }
        self.apply_and_append(tenant, user, Op::Refund(receipt.clone())).await
    }

    /// Records what was measured afterwards: a fact, which may exceed a limit.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was recorded.
    pub async fn measured(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        charges: Vec<Charge>,
        dimensions: Dimensions,
    ) -> Result<Commit, EngineError> {
        let movements: Vec<_> = charges
            .into_iter()
            .filter(|charge| charge.amount != 0)
            .map(|charge| (charge.meter, Movement::Add(charge.amount)))
            .collect();
        if movements.is_empty() {
            return Ok(Commit::Done);
        }
        let fact = Fact { movements, time: None, dimensions, binding: None };
        self.apply_and_append(tenant, user, Op::Record(fact)).await
    }

    async fn apply_and_append(&self, tenant: &TenantId, user: Option<&UserId>, op: Op) -> Result<Commit, EngineError> {
        let work = |open: &mut Open<'_>| {
            open.engine.ledger.ready()?;
            let outcome = open.apply(user, &op)?;
            let entries: Vec<_> = outcome.entry.into_iter().collect();
            Ok(if entries.is_empty() { Commit::Done } else { open.append(entries, false, true)?.commit })
        };
        let users: Vec<UserId> = user.cloned().into_iter().collect();
        self.with_tenant(tenant, &users, IfUnknown::Refuse, work).await
    }
}

fn spend_of(check: &Check, binding: Option<Binding>) -> Spend {
    Spend {
        charges: check.charges.clone(),
        features: check.features.clone(),
        consume: check.consume,
        enforce: check.enforce,
        dimensions: check.dimensions.clone(),
        binding,
    }
}

fn decide(
    open: &mut Open<'_>,
    check: &Check,
    op: &Op,
    binding: Option<Binding>,
    fresh: Option<u64>,
    ack: Ack,
) -> Result<Step, EngineError> {
    if let Some(binding) = binding {
        match open.engine.ledger.find(binding.id) {
            Lookup::Bound(seq) => return Ok(Step::Repeat(seq)),
            Lookup::Unsure { generation } if fresh != Some(generation) => return Ok(Step::AskDisk(generation)),
            Lookup::Fresh | Lookup::Unsure { .. } => {}
        }
    }
    if check.consume {
        open.engine.ledger.ready()?;
    }
    let outcome = open.apply(check.user.as_ref(), op)?;
    let mut outcome = outcome;
    if outcome.denial.is_some() {
        open.engine.live.list_demanding(open.cell, open.book);
    }
    let commit = match outcome.entry.take() {
        Some(entry) if entry.binding.is_some() || !entry.effects.is_empty() => {
            let fold = check.cause == Cause::Gateway;
            open.append(vec![entry], fold, ack == Ack::Disk)?.commit
        }
        _ => Commit::Done,
    };
    Ok(Step::Decided(outcome, commit))
}
