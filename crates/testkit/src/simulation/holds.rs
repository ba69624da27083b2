//! Holds: taken, settled, told twice, forgotten.

use super::{Known, Simulation, verify::limits_differ};
use crate::{
    auditor::{Asked, holds::Settles},
    workload,
    world::tenant,
};
use domain::{
    decision::Code,
    hold::{HoldId, Settlement},
    op::{Charge, OpError},
};
use engine::{
    Settled,
    requests::{Ack, EngineError},
};

impl Simulation {
    pub(super) async fn hold(&mut self, customer: usize) -> Result<(), String> {
        let name = self.accounts[customer].name.clone();
        let check = workload::hold(&mut self.random, &name, self.operations);
        let terms = check.hold.ok_or("there is something to hold")?;
        let mut book = self.accounts[customer].book().clone();
        let asked = Asked { who: &check.user, charges: &check.charges, features: &[], consume: true };
        book.turn(self.now_ms());
        let code = book.hold(&asked, self.now_ms(), &self.catalog);
        let answer = self.world.engine.admit(&check, Ack::Disk).await.map_err(|error| format!("{check:?}: {error}"))?;
        if answer.decision.code() != code || answer.repeated || answer.hold.is_some() != (code == Code::Allowed) {
            return Err(format!("{check:?} was answered {answer:?}, not {code:?}"));
        }
        if let Some(id) = answer.hold.map(|taken| taken.id) {
            book.held_as(id, &asked, (terms.ttl_ms, terms.excess), &self.catalog);
        }
        if let Some(wrong) = limits_differ(&book, &check.user, &answer.decision.limits) {
            return Err(format!("{check:?} was told that {wrong}"));
        }
        let Some(id) = answer.hold.map(|taken| taken.id) else {
            *self.accounts[customer].book_mut() = book;
            return Ok(());
        };
        let operation = self.push(customer, book);
        let account = &mut self.accounts[customer];
        account.holds.push((operation, id, check.charges.clone()));
        if check.id.is_some() {
            account.known.push((operation, Known::Check(check)));
        }
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
    }

    /// Settles a hold that was taken, whatever became of it.
    pub(super) async fn settle(&mut self, customer: usize) -> Result<(), String> {
        if self.accounts[customer].holds.is_empty() {
            return Ok(());
        }
        let (_, id, charges) = self.random.pick(&self.accounts[customer].holds).clone();
        let took = self.random.percent(70).then(|| self.random.between(0, charges[0].amount + 2));
        let how = match took {
            Some(amount) => Settlement::Commit(vec![Charge { amount, ..charges[0].clone() }]),
            None => Settlement::Release,
        };
        let before = self.settlement_of(customer, id);
        let mut book = self.accounts[customer].book().clone();
        let expected = book.settle(id, &how, self.now_ms(), &self.catalog);
        let operation = (expected == Settles::Yes).then(|| self.push(customer, book));
        if operation.is_some() {
            let settled = Known::Settlement(id, how.clone());
            self.accounts[customer].known.push((self.operations, settled));
        }
        let Some(answer) = self.told(customer, id, &how).await? else { return Ok(()) };
        let fits = match (&answer, expected, before) {
            (Ok(settled), Settles::Yes, _) => !settled.repeated,
            (Ok(settled), Settles::Unknown, Some(before)) => settled.repeated && before == how,
            (Err(EngineError::IdempotencyConflict { .. }), Settles::Unknown, Some(before)) => before != how,
            (Err(EngineError::Op(OpError::UnknownHold)), Settles::Unknown, None) => true,
            (Err(EngineError::Op(OpError::HoldExceeded { .. })), Settles::Exceeded, _) => true,
            _ => false,
        };
        if !fits {
            return Err(format!("{how:?} of {id:?} ({expected:?}) was answered {answer:?}"));
        }
        if let Some(operation) = operation {
            self.accounts[customer].acknowledge(operation);
        }
        self.poll_commits()
    }

    /// How a hold was settled before, as far as anybody knows.
    fn settlement_of(&self, customer: usize, id: HoldId) -> Option<Settlement> {
        self.accounts[customer].known.iter().find_map(|(_, known)| match known {
            Known::Settlement(known, how) if *known == id => Some(how.clone()),
            _ => None,
        })
    }

    /// What the engine says to a settlement; `None` when its commit was made to fail.
    pub(super) async fn told(
        &mut self,
        customer: usize,
        id: HoldId,
        how: &Settlement,
    ) -> Result<Option<Result<Settled, EngineError>>, String> {
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        let answer = self.drive(async { Ok(engine.settle(&name, id, how).await) }).await;
        match answer.map_err(|error| error.to_string())? {
            Err(EngineError::Ledger(error)) => self.settled::<()>(Err(error.into())).await.map(|_| None),
            answer => {
                self.settled(Ok(())).await?;
                Ok(Some(answer))
            }
        }
    }
}
