//! An operation that the ledger does not take in time.

use super::desk::{Desk, State, count};
use crate::{
    admit::{dry, spend_of},
    engine::Engine,
    ids::denial_id,
    live::Place,
    ports::{Basis, Commit, LedgerError, Seq},
    requests::{Ack, Admission, Charged, Check, EngineError},
};
use domain::{
    decision::Decision,
    demand::PendingDenials,
    entry::{Binding, DenialKey},
    id::{TenantId, UserId},
    op::{Charge, Dimensions, Receipt, Spend},
    outage::{Outstanding, Passed, Passing, pass_decided},
    tenant::User,
};
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use std::sync::Arc;

/// An operation that may have been sent to the ledger, under the id that it is bound to.
pub(crate) struct Bound {
    /// The id, given or made.
    pub(crate) binding: Binding,
    pub(crate) sent: Mutex<Sent>,
}

/// What became of an operation until its commit.
#[derive(Default, Clone)]
pub(crate) struct Sent {
    /// On what it was decided, and where its entry is to be.
    pub(crate) queued: Option<(Arc<Basis>, Seq)>,
    /// What was decided, if it may pass on that.
    pub(crate) decision: Option<Decision>,
    /// What was charged.
    pub(crate) receipt: Option<Box<Receipt>>,
}

/// What became of an operation without the ledger.
enum Answered {
    /// It was decided.
    Here(Box<Admission>),
    /// It passed before, under its id.
    Before,
    /// Nothing can be said.
    Nowhere,
}

/// What the desk says.
enum Said {
    Passed(Admission, Commit),
    Refused(Admission, Option<PendingDenials>),
    /// Somebody else's under the same id passed meanwhile.
    Repeat,
    Closed,
}

fn no_answer() -> LedgerError {
    LedgerError::Unwritable("the ledger does not answer".into())
}

impl Engine {
    /// Asks the ledger, and what is known if the ledger does not answer in time.
    pub(crate) async fn admit_or_pass(&self, desk: &Desk, check: &Check, ack: Ack) -> Result<Admission, EngineError> {
        let id = check.id.as_ref().filter(|_| check.consume);
        let binding = match id {
            Some(id) => self.ids.of_check(check, id),
            None => self.ids.of_check_as(check, (desk.options.ids)()),
        };
        if id.is_some()
            && !desk.is_empty()
            && let Some(repeat) = self.repeat_of_passed(desk, check, binding).await?
        {
            return Ok(repeat);
        }
        if desk.is_under_way() {
            match self.pass(desk, check, binding, Sent::default()).await? {
                Answered::Here(admission) => return Ok(*admission),
                Answered::Before => return self.repeated(desk, check, binding).await,
                Answered::Nowhere => {}
            }
        }
        let bound = Bound { binding, sent: Mutex::default() };
        let asked = Box::pin(self.ask_ledger(check, ack, Some(&bound)));
        let (asked, error) = match select(asked, (desk.options.timer)(desk.options.patience_ms)).await {
            // One that is ready can't take this very entry, or does not know what became of it, which only it can tell.
            Either::Left((Err(EngineError::Ledger(error @ LedgerError::Unwritable(_))), _))
                if self.ledger.ready().is_err() =>
            {
                (None, Some(error))
            }
            Either::Left((done, _)) => return done,
            Either::Right((_, asked)) => (Some(asked), None),
        };
        let sent = bound.sent.lock().clone();
        let may_be_taken = sent.queued.is_some();
        let passed = match self.pass(desk, check, binding, sent).await {
            // It may rest on what is on its way, or on a catalog that is behind: the ledger says.
            Err(EngineError::Op(_)) => Answered::Nowhere,
            passed => passed?,
        };
        match (passed, asked) {
            (Answered::Here(admission), _) => Ok(*admission),
            (Answered::Before, asked) => {
                // It may stand in line for the tenant: whoever waits behind it must not wait for somebody who sleeps.
                drop(asked);
                match self.repeated(desk, check, binding).await {
                    // Something else passed under its id while this was on its way: the ledger may have taken this first.
                    Err(EngineError::IdempotencyConflict { .. }) if may_be_taken => Err(no_answer().into()),
                    repeated => repeated,
                }
            }
            (Answered::Nowhere, Some(asked)) => asked.await,
            (Answered::Nowhere, None) => {
                count(&desk.figures.closed);
                Err(error.unwrap_or_else(no_answer).into())
            }
        }
    }

    /// Asks the ledger for a hold. Where the charges could pass without it, for as long as it may take: past that nobody
    /// knows whether it was taken.
    pub(crate) async fn hold_in_time(&self, desk: &Desk, check: &Check, ack: Ack) -> Result<Admission, EngineError> {
        let asked = Box::pin(self.ask_ledger(check, ack, None));
        match select(asked, (desk.options.timer)(desk.options.patience_ms)).await {
            Either::Left((done, _)) => done,
            Either::Right((_, asked)) if !self.could_pass(desk, check)? => asked.await,
            Either::Right(_) => Err(no_answer().into()),
        }
    }

    /// Whether something would be said, on what is known, to charges that are not held.
    fn could_pass(&self, desk: &Desk, check: &Check) -> Result<bool, EngineError> {
        if !desk.knows(&check.tenant, check.user.as_ref()) {
            self.learn(desk, &check.tenant, check.user.as_ref());
        }
        let asked = spend_of(check, None);
        let judged = self.judge(&mut desk.state.lock(), check, &asked, &Sent::default());
        desk.unlearn(&check.tenant);
        Ok(!matches!(judged?.0, Passing::Closed(_)))
    }

    async fn repeated(&self, desk: &Desk, check: &Check, binding: Binding) -> Result<Admission, EngineError> {
        let repeated = self.repeat_of_passed(desk, check, binding).await?;
        repeated.ok_or_else(|| no_answer().into())
    }

    /// An operation that passed before and is not in the ledger yet.
    async fn repeat_of_passed(
        &self,
        desk: &Desk,
        check: &Check,
        binding: Binding,
    ) -> Result<Option<Admission>, EngineError> {
        let Some(passed) = desk.kept(binding.id).await? else { return Ok(None) };
        if passed.binding.fingerprint != binding.fingerprint {
            return Err(EngineError::IdempotencyConflict { at: passed.at, seq: 0 });
        }
        let Some(mut decision) = self.known_decision(desk, check)? else {
            return match self.repeat_check(check).await {
                Ok(repeat) => Ok(Some(Admission { outage: true, ..repeat })),
                // It was made in the outage, or so shortly before that nobody else heard of it.
                Err(EngineError::UnknownTenant(_)) => Err(no_answer().into()),
                Err(error) => Err(error),
            };
        };
        decision.allowed = true;
        decision.denial = None;
        decision.charged = true;
        self.observe(check, &decision);
        Ok(Some(Admission { repeated: true, ..self.passed(check, decision) }))
    }

    /// What would be decided on what is known, in an outage.
    fn known_decision(&self, desk: &Desk, check: &Check) -> Result<Option<Decision>, EngineError> {
        let mut state = desk.state.lock();
        let Some(known) = state.known.get_mut(&check.tenant).filter(|_| desk.is_under_way()) else { return Ok(None) };
        let mut stranger = check.user.clone().map(User::new);
        let user = match &check.user {
            Some(id) => known.users.get_mut(id).or(stranger.as_mut()),
            None => None,
        };
        let Some(catalog) = self.catalog_at_hand(&known.tenant.profile) else { return Ok(None) };
        Ok(known.tenant.apply(user, &dry(check), self.now(), &catalog)?.decision)
    }

    /// Lets an operation pass, or refuses it, on what is known. It waits for nothing but the spool.
    async fn pass(&self, desk: &Desk, check: &Check, binding: Binding, sent: Sent) -> Result<Answered, EngineError> {
        self.check_failure()?;
        if !desk.knows(&check.tenant, check.user.as_ref()) {
            self.learn(desk, &check.tenant, check.user.as_ref());
        }
        let said = self.ask_desk(desk, check, binding, &sent);
        desk.unlearn(&check.tenant);
        match said? {
            Said::Closed => Ok(Answered::Nowhere),
            Said::Repeat => Ok(Answered::Before),
            Said::Refused(admission, counted) => {
                count(&desk.figures.refused);
                if let Some(counted) = counted {
                    self.count(&check.tenant, counted);
                }
                self.observe(check, &admission.decision);
                Ok(Answered::Here(Box::new(admission)))
            }
            Said::Passed(admission, commit) => {
                if commit.wait().await.is_err() {
                    desk.failed(binding.id);
                    return Ok(Answered::Nowhere);
                }
                if check.consume {
                    count(&desk.figures.passed);
                }
                self.observe(check, &admission.decision);
                Ok(Answered::Here(Box::new(admission)))
            }
        }
    }

    fn ask_desk(&self, desk: &Desk, check: &Check, binding: Binding, sent: &Sent) -> Result<Said, EngineError> {
        let spend = Spend { refundable: true, ..spend_of(check, check.consume.then_some(binding)) };
        let mut state = desk.state.lock();
        if check.consume && state.kept.contains_key(&binding.id) {
            return Ok(Said::Repeat);
        }
        let (passing, holds) = self.judge(&mut state, check, &spend, sent)?;
        match passing {
            Passing::Closed(_) => Ok(Said::Closed),
            // It was sent when it could not pass, and bears no id that would make both one.
            Passing::Through(..) if check.consume && sent.queued.is_some() && sent.decision.is_none() => {
                Ok(Said::Closed)
            }
            // It may have been accepted, now or before, here or on another node: only the ledger could tell.
            Passing::Refused(..) if check.consume && (check.id.is_some() || sent.queued.is_some()) => Ok(Said::Closed),
            Passing::Refused(decision, counted) => {
                let (key, counted): (Option<DenialKey>, _) = counted.unzip();
                let denial_id = key.map(|key| denial_id(&check.tenant, &key));
                let catalog_pin = state.known.get(&check.tenant).and_then(|known| known.tenant.profile.catalog_pin);
                Ok(Said::Refused(Admission { denial_id, catalog_pin, ..self.passed(check, *decision) }, counted))
            }
            Passing::Through(decision, passed) => {
                let receipt = match (holds, &passed, state.known.get(&check.tenant)) {
                    (true, ..) => sent.receipt.clone(),
                    (false, Some(passed), Some(known)) => {
                        let catalog = self.catalog_at_hand(&known.tenant.profile);
                        catalog.map(|catalog| Box::new(known.tenant.receipt_of(passed, decision.at, &catalog)))
                    }
                    _ => None,
                };
                let mut admission = self.passed(check, *decision);
                admission.catalog_pin =
                    state.known.get(&check.tenant).and_then(|known| known.tenant.profile.catalog_pin);
                let Some(passed) = passed else { return Ok(Said::Passed(admission, Commit::Done)) };
                let Ok(commit) = desk.keep(&mut state, &check.tenant, passed) else { return Ok(Said::Closed) };
                if let Some(known) = state.known.get_mut(&check.tenant) {
                    known.is_charged = true;
                }
                desk.begin();
                admission.charged = receipt.map(|receipt| self.charged(receipt, binding.id));
                Ok(Said::Passed(admission, commit))
            }
        }
    }

    /// The rule, on what is known. Also whether what is known held the charge already.
    fn judge(
        &self,
        state: &mut State,
        check: &Check,
        spend: &Spend,
        sent: &Sent,
    ) -> Result<(Passing, bool), EngineError> {
        let unknown = Passing::Closed(domain::outage::Closed::NothingOpen);
        let none = Outstanding::default();
        let outstanding = state.outstanding.get(&check.tenant).unwrap_or(&none);
        let Some(known) = state.known.get_mut(&check.tenant) else { return Ok((unknown, false)) };
        if let Some(decision) = sent.decision.as_ref().filter(|_| known.holds(sent)) {
            let passing = match pass_decided(decision, spend, check.user.clone(), outstanding) {
                Ok(passed) => Passing::Through(Box::new(decision.clone()), passed),
                Err(closed) => Passing::Closed(closed),
            };
            return Ok((passing, true));
        }
        let user_known = check.user.as_ref().is_none_or(|user| known.users.contains_key(user));
        let mut stranger = check.user.clone().map(User::new);
        let user = match &check.user {
            Some(id) => known.users.get_mut(id).or(stranger.as_mut()),
            None => None,
        };
        let now = self.now();
        let Some(catalog) = self.catalog_at_hand(&known.tenant.profile) else { return Ok((unknown, false)) };
        let passing = known.tenant.pass(user, user_known, (spend, check.cause), outstanding, now, &catalog)?;
        Ok((passing, false))
    }

    /// Takes over what memory knows of a tenant.
    fn learn(&self, desk: &Desk, tenant: &TenantId, user: Option<&UserId>) {
        let Some(cell) = self.live.known(tenant) else { return };
        let place = cell.place.lock();
        if let Place::Open(book) = &*place {
            desk.learn(tenant, user, book);
        } else if let Some(reload) = &cell.reload
            && let Some(book) = &*reload.known.lock()
        {
            desk.learn(tenant, user, book);
        }
    }

    fn passed(&self, check: &Check, decision: Decision) -> Admission {
        Admission {
            hold: None,
            tenant: check.tenant.clone(),
            user: check.user.clone(),
            decision,
            denial_id: None,
            repeated: false,
            outage: true,
            leased: false,
            charged: None,
            dimensions: check.dimensions.clone(),
            catalog_pin: None,
            commit: Commit::Done,
        }
    }

    fn charged(&self, receipt: Box<Receipt>, id: u128) -> Charged {
        Charged { receipt, epoch: self.epoch(), seq: 0, passed: Some(id) }
    }

    /// Keeps what was measured afterwards, in an outage; `None` where the ledger has to take it.
    pub(crate) fn keep_measured(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        charges: &[Charge],
        dimensions: &Dimensions,
    ) -> Option<KeptFact<'_>> {
        let desk = self.desk.get().filter(|desk| desk.is_under_way())?;
        let binding = Binding { id: (desk.options.ids)(), fingerprint: 0 };
        let (user, charges, dimensions) = (user.cloned(), charges.to_vec(), dimensions.clone());
        let passed = Passed { user, charges, at: self.now(), dimensions, binding };
        let mut state = desk.state.lock();
        // Of a tenant that nothing is known of nothing passed.
        state.known.get(tenant)?;
        let commit = desk.keep(&mut state, tenant, passed).ok()?;
        Some(KeptFact { desk, id: binding.id, commit })
    }
}

/// A fact on its way into the spool.
pub(crate) struct KeptFact<'a> {
    desk: &'a Desk,
    id: u128,
    commit: Commit,
}

impl KeptFact<'_> {
    /// Waits until it is durable.
    pub(crate) async fn durable(self) -> Result<(), LedgerError> {
        self.commit.wait().await.inspect_err(|_| self.desk.failed(self.id))
    }
}
