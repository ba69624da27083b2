//! Decisions: `check`, and the gateway's admission. Charges given back, and charges measured afterwards.

use crate::{
    engine::Engine,
    ids::denial_id,
    open::{Look, Open, Whom},
    outage::{Bound, Sent},
    ports::{Commit, Decided, LedgerError, Seq},
    repeat::Once,
    requests::{Ack, Admission, Charged, Check, EngineError, TakenHold},
};
use domain::{
    decision::{Decision, Denial},
    demand::PendingDenials,
    entry::{Binding, Cause},
    hold::{HoldId, HoldTerms},
    id::{TenantId, UserId},
    op::{Charge, Dimensions, Fact, Movement, Op, OpError, Outcome, Receipt, Spend},
};

/// What was decided, and where the charge stands.
struct Made {
    outcome: Outcome,
    /// A denial that is still to be counted: where a commit may be in vain, that is done once it is told.
    counted: Option<PendingDenials>,
    catalog_pin: Option<u32>,
    epoch: u64,
    seq: Seq,
    leased: bool,
}

impl Engine {
    /// Decides, and charges if the check says so. On an embedded ledger it returns before the commit: who promises
    /// durability waits for [`Admission::commit`]. Where other nodes write as well, it returns after it.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was charged.
    pub async fn admit(&self, check: &Check, ack: Ack) -> Result<Admission, EngineError> {
        match self.desk.get() {
            // What is held is held by the ledger alone; where others need not wait for that, this does no longer either.
            Some(desk) if check.hold.is_some() && self.has_open(desk) => {
                Box::pin(self.hold_in_time(desk, check, ack)).await
            }
            _ if check.hold.is_some() => self.ask_ledger(check, ack, None).await,
            Some(desk) if !desk.is_empty() || self.has_open(desk) => {
                Box::pin(self.admit_or_pass(desk, check, ack)).await
            }
            _ => self.ask_ledger(check, ack, None).await,
        }
    }

    /// Asks the ledger alone. What may pass in an outage is `bound` to an id even if it was given none.
    pub(crate) async fn ask_ledger(
        &self,
        check: &Check,
        ack: Ack,
        bound: Option<&Bound>,
    ) -> Result<Admission, EngineError> {
        let binding = match (&check.id, &check.hold) {
            (Some(id), _) if check.consume => Some(self.ids.of_check(check, id)),
            (None, Some(hold)) if check.consume => Some(self.ids.of_check_as(check, hold.fresh)),
            _ => None,
        };
        let op = Op::Spend(spend_of(check, binding), check.cause);
        let users: &[UserId] = check.user.as_slice();
        // What is only asked has no commit that could show that memory is behind.
        let look = if check.consume { Look::Memory } else { Look::Recent };
        let whom = Whom::new(&check.tenant, users).look(look);
        let whom = if check.hold.is_some() { whom } else { whom.under_lease() };
        let refuses = |open: &mut Open<'_>| {
            let decision = open.apply(check.user.as_ref(), &dry(check)).map(|outcome| outcome.decision);
            // What has no meaning, or none any more, may have had one when it was accepted.
            Ok(decision.map_or(true, |decision| decision.is_some_and(|decision| !decision.allowed)))
        };
        match self.once(whom, binding, |open| decide(open, check, &op, ack, bound), refuses).await? {
            Once::Done(mut made, commit) => {
                if let Some(counted) = made.counted.take() {
                    self.count(&check.tenant, counted);
                }
                let admission = self.admission(check, made, commit)?;
                let expires_at = check.hold.map(|hold| admission.decision.at.plus_ms(hold.ttl_ms));
                let taken = hold_of(check, binding).filter(|_| admission.decision.allowed);
                Ok(Admission { hold: taken.map(|id| TakenHold { id, expires_at }), ..admission })
            }
            Once::Repeat => {
                let admission = self.repeat_check(check).await?;
                self.with_hold(check, binding, admission).await
            }
        }
    }

    /// A repeat names the hold that was taken the first time.
    pub(crate) async fn with_hold(
        &self,
        check: &Check,
        binding: Option<Binding>,
        admission: Admission,
    ) -> Result<Admission, EngineError> {
        let Some(id) = hold_of(check, binding) else { return Ok(admission) };
        let expires_at = self.hold_in_flight(&check.tenant, id, Look::Now).await?.map(|hold| hold.expires_at);
        Ok(Admission { hold: Some(TakenHold { id, expires_at }), ..admission })
    }

    /// A check whose id was accepted before: the same decision with current numbers.
    pub(crate) async fn repeat_check(&self, check: &Check) -> Result<Admission, EngineError> {
        self.repeat_with(check, |open| open.apply(check.user.as_ref(), &dry(check))).await
    }

    /// As [`Engine::repeat_check`], by what is looked at.
    pub(crate) async fn repeat_with(
        &self,
        check: &Check,
        ask: impl Fn(&mut Open<'_>) -> Result<Outcome, OpError>,
    ) -> Result<Admission, EngineError> {
        let look = |open: &mut Open<'_>| {
            let mut outcome = ask(open)?;
            if let Some(decision) = &mut outcome.decision {
                decision.allowed = true;
                decision.denial = None;
                decision.charged = true;
            }
            let (seq, leased, catalog_pin) = (open.book.seq, open.is_leased(), open.catalog_pin());
            Ok(Made { outcome, counted: None, epoch: self.epoch(), seq, leased, catalog_pin })
        };
        let whom = Whom::known(&check.tenant, check.user.as_slice()).look(Look::Recent).under_lease();
        let made = self.look_at(whom, look).await?;
        let admission = self.admission(check, made, Commit::Done)?;
        Ok(Admission { repeated: true, ..admission })
    }

    fn admission(&self, check: &Check, made: Made, commit: Commit) -> Result<Admission, EngineError> {
        let Made { outcome, epoch, seq, leased, catalog_pin, .. } = made;
        let Some(decision) = outcome.decision else { return Err(OpError::Empty.into()) };
        self.observe(check, &decision);
        Ok(Admission {
            tenant: check.tenant.clone(),
            user: check.user.clone(),
            decision,
            denial_id: outcome.denial.map(|key| denial_id(&check.tenant, &key)),
            repeated: false,
            outage: false,
            hold: None,
            charged: outcome.receipt.map(|receipt| Charged { receipt, epoch, seq, passed: None }),
            dimensions: check.dimensions.clone(),
            leased,
            catalog_pin,
            commit,
        })
    }

    pub(crate) fn observe(&self, check: &Check, decision: &Decision) {
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
        told(decision.denial.as_deref(), false);
        if let Some(shadow) = &decision.shadow {
            told(Some(shadow), true);
        }
    }

    /// Gives a charge back to the accounts it was taken from, even where their window has closed since. A charge that
    /// was lost with its commit is not given back: there is nothing to give.
    ///
    /// # Errors
    /// [`EngineError`]; then nothing was given back.
    pub async fn refund(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        charged: &Charged,
    ) -> Result<Commit, EngineError> {
        if charged.is_nothing() {
            return Ok(Commit::Done);
        }
        if let (Some(id), Some(desk)) = (charged.passed, self.desk.get())
            && let Some(given_back) = desk.give_back(id)
        {
            return Ok(given_back?);
        }
        self.apply_and_append(tenant, user, &Op::Refund(Receipt::clone(&charged.receipt)), Some(charged)).await
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
        let charges: Vec<Charge> = charges.into_iter().filter(|charge| charge.amount != 0).collect();
        if charges.is_empty() {
            return Ok(Commit::Done);
        }
        if let Some(kept) = self.keep_measured(tenant, user, &charges, &dimensions) {
            kept.durable().await?;
            return Ok(Commit::Done);
        }
        let movements = charges.into_iter().map(|charge| (charge.meter, Movement::Add(charge.amount))).collect();
        let fact = Fact { movements, time: None, dimensions, binding: None };
        self.apply_and_append(tenant, user, &Op::Record(fact), None).await
    }

    async fn apply_and_append(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        op: &Op,
        settles: Option<&Charged>,
    ) -> Result<Commit, EngineError> {
        let work = |open: &mut Open<'_>| {
            if settles.is_some_and(|charged| self.was_lost(charged)) {
                return Ok(((), Commit::Done));
            }
            open.engine.ledger.ready()?;
            let outcome = if open.is_leased() {
                open.apply_under(user, op)?
            } else {
                open.apply_by(user, op, open.catalog_of_fact(op))?
            };
            let entries: Vec<_> = outcome.entry.into_iter().collect();
            let commit = match (entries.is_empty(), open.is_leased()) {
                (true, _) => Commit::Done,
                (false, true) => open.append_under(entries)?.commit,
                (false, false) => open.append(entries, false, true)?.commit,
            };
            Ok(((), commit))
        };
        let users: Vec<UserId> = user.cloned().into_iter().collect();
        Ok(self.commit_with(Whom::known(tenant, &users).under_lease(), work).await?.1)
    }

    /// Whether a charge was not on disk when the memory it was made in was dropped.
    fn was_lost(&self, charged: &Charged) -> bool {
        let ends = self.epoch_ends.read();
        ends.get(charged.epoch as usize).is_some_and(|durable| charged.seq > *durable)
    }
}

/// The same question, asked without charging.
pub(crate) fn dry(check: &Check) -> Op {
    Op::Spend(Spend { consume: false, ..spend_of(check, None) }, check.cause)
}

pub(crate) fn spend_of(check: &Check, binding: Option<Binding>) -> Spend {
    Spend {
        charges: check.charges.clone(),
        features: check.features.clone(),
        consume: check.consume,
        // Only the gateway stands between a charge and the work it is for.
        refundable: check.cause == Cause::Gateway,
        enforce: check.enforce,
        dimensions: check.dimensions.clone(),
        hold: match (check.hold, binding) {
            (Some(ask), Some(binding)) => {
                Some(HoldTerms { id: HoldId(binding.id), ttl_ms: ask.ttl_ms, excess: ask.excess })
            }
            _ => None,
        },
        binding,
    }
}

/// The hold that a check takes is named by what it is bound to.
fn hold_of(check: &Check, binding: Option<Binding>) -> Option<HoldId> {
    check.hold.and(binding).map(|binding| HoldId(binding.id))
}

fn decide(
    open: &mut Open<'_>,
    check: &Check,
    op: &Op,
    ack: Ack,
    bound: Option<&Bound>,
) -> Result<(Made, Commit), EngineError> {
    if check.consume {
        open.engine.ledger.ready()?;
    }
    // What passes in its stead, should nobody know what became of it, is bound to the same id.
    let may_pass = check.consume && bound.is_some() && open.book.tenant.may_pass(&check.charges, open.catalog);
    let as_bound = bound.filter(|_| may_pass).map(|bound| Op::Spend(spend_of(check, Some(bound.binding)), check.cause));
    let op = as_bound.as_ref().unwrap_or(op);
    let note_sent = |open: &Open<'_>, outcome: &Outcome| {
        let charged = outcome.decision.as_ref().filter(|made| made.charged);
        if let (Some(bound), Some(decision)) = (bound, charged) {
            let decision = may_pass.then(|| decision.clone());
            *bound.sent.lock() = Sent { queued: Some(open.book.decided()), decision, receipt: outcome.receipt.clone() };
        }
    };
    if check.consume && open.is_leased() {
        return decide_under(open, check, op, note_sent);
    }
    let mut outcome = open.apply(check.user.as_ref(), op)?;
    let counted = match (open.engine.ledger.shared(), &outcome.decision, &outcome.denial) {
        (Some(_), Some(decision), Some(key)) => open.book.tenant.take_out_denial(decision, key, &check.charges),
        _ => None,
    };
    let is_written = outcome.entry.as_ref().is_some_and(|entry| entry.binding.is_some() || !entry.effects.is_empty());
    let is_allowed = outcome.decision.as_ref().is_some_and(|decision| decision.allowed);
    let by_limit = outcome.decision.as_ref().and_then(|decision| decision.denial.as_ref()?.limit).is_some();
    // Under a lease not all use is seen: enough to allow something, never to refuse it.
    let is_known = match open.is_leased() {
        true if is_allowed => open.is_covered(check.user.as_ref(), op),
        true => open.is_recent && !by_limit,
        false => open.is_recent,
    };
    if !is_written && !is_known {
        // No commit judges it: it is only told of what is known to be so.
        open.distrust();
        return Err(LedgerError::Stale.into());
    }
    let leased = open.is_leased();
    if let Some(entry) = outcome.entry.as_mut().filter(|_| is_written && is_allowed && check.hold.is_none()) {
        open.take_lease(op, entry, open.book.seq + 1);
    }
    if outcome.denial.is_some() && counted.is_none() {
        open.engine.live.list_demanding(open.cell, open.book);
    }
    let (seq, commit) = match outcome.entry.take() {
        Some(entry) if is_written => {
            let fold = check.cause == Cause::Gateway;
            // Where a commit may be in vain, nobody is told before it.
            let wait = ack == Ack::Disk || open.engine.ledger.shared().is_some();
            let appended = open.append(vec![entry], fold, wait)?;
            note_sent(open, &outcome);
            (appended.last, appended.commit)
        }
        _ => (open.book.seq, open.settled()),
    };
    let (epoch, catalog_pin) = (open.engine.epoch(), open.catalog_pin());
    Ok((Made { outcome, counted, epoch, seq, leased, catalog_pin }, commit))
}

fn decide_under(
    open: &mut Open<'_>,
    check: &Check,
    op: &Op,
    note_sent: impl Fn(&Open<'_>, &Outcome),
) -> Result<(Made, Commit), EngineError> {
    let mut outcome = open.apply_under(check.user.as_ref(), op)?;
    let epoch = open.engine.epoch();
    let (seq, commit) = match outcome.entry.take() {
        Some(entry) => {
            let appended = open.append_under(vec![entry])?;
            note_sent(open, &outcome);
            (appended.last, appended.commit)
        }
        None if !open.is_covered(check.user.as_ref(), op) => {
            // No commit judges it.
            open.distrust();
            return Err(LedgerError::Stale.into());
        }
        None => (open.book.seq, open.settled()),
    };
    let catalog_pin = open.catalog_pin();
    Ok((Made { outcome, counted: None, epoch, seq, leased: true, catalog_pin }, commit))
}
