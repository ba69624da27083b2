//! What happens next.

use super::{
    Known, Simulation,
    verify::{FOREVER, limits_differ},
};
use crate::{
    auditor::Asked,
    workload,
    world::{charge, event, op_id, tenant},
};
use domain::{
    decision::Code,
    op::{Adjustment, Movement},
};
use engine::{
    ports::{Clock, Commit, LedgerError},
    requests::{Ack, Check, EngineError, Event, EventOutcome},
};

impl Simulation {
    pub(super) async fn step(&mut self) -> Result<(), String> {
        self.world.clock.advance_ms(workload::pause_ms(&mut self.random));
        let customer = self.random.below(self.accounts.len() as u64) as usize;
        match self.random.below(100) {
            0..13 => self.spend(customer).await,
            13..17 => self.open(customer).await,
            17..23 => self.touch(customer).await,
            23..28 => self.hold(customer).await,
            28..34 => self.settle(customer).await,
            34..37 => self.grant(customer).await,
            37..38 => self.revoke(customer).await,
            38..48 => self.record(customer).await,
            48..55 => self.repeat(customer).await,
            55..59 => self.configure(customer).await,
            59..62 => self.adjust(customer).await,
            62..66 => self.refund(customer).await,
            66..68 => self.measure(customer).await,
            68..78 => self.upkeep().await,
            78..85 => self.commit().await,
            85..88 => {
                self.world.ledger.seal_ids();
                Ok(())
            }
            88..91 => self.fail().await,
            91..94 => self.crash().await,
            94..96 => self.put_catalog().await,
            _ => self.verify().await,
        }
    }

    async fn spend(&mut self, customer: usize) -> Result<(), String> {
        let id = format!("c{}", self.operations);
        let name = self.accounts[customer].name.clone();
        let check = workload::check(&mut self.random, &name, &id, !self.one_by_one);
        if self.random.percent(2) {
            return self.overloaded(&check).await;
        }
        let mut book = self.accounts[customer].book().clone();
        let asked =
            Asked { who: &check.user, charges: &check.charges, features: &check.features, consume: check.consume };
        let (code, taken) = book.spend(&asked, self.now_ms(), &self.catalog, check.enforce);
        let answer = self.world.engine.admit(&check, Ack::Disk).await.map_err(|error| format!("{check:?}: {error}"))?;
        if answer.decision.code() != code || answer.repeated {
            return Err(format!("{check:?} was answered {:?}, not {code:?}", answer.decision));
        }
        if let Some(wrong) = limits_differ(&book, &check.user, &answer.decision.limits) {
            return Err(format!("{check:?} was told that {wrong}"));
        }
        // What charges nothing and binds nothing is not written, so its answer says nothing about what waits.
        let is_written = check.id.is_some() || check.charges.iter().any(|charge| charge.amount != 0);
        if code != Code::Allowed || !check.consume || !is_written {
            *self.accounts[customer].book_mut() = book;
            return Ok(());
        }
        let operation = self.push(customer, book);
        let account = &mut self.accounts[customer];
        if let (Some(receipt), Some(taken)) = (answer.charged, taken) {
            account.receipts.push((operation, check.user.clone(), receipt, taken));
        }
        if check.id.is_some() {
            account.known.push((operation, Known::Check(check)));
        }
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
    }

    async fn overloaded(&mut self, check: &Check) -> Result<(), String> {
        self.world.ledger.overload(true);
        let answer = self.world.engine.admit(&Check { consume: true, ..check.clone() }, Ack::Disk).await;
        self.world.ledger.overload(false);
        match answer {
            Err(EngineError::Ledger(LedgerError::Overloaded { .. })) => Ok(()),
            other => Err(format!("the queue is full, and the answer is {other:?}")),
        }
    }

    async fn record(&mut self, customer: usize) -> Result<(), String> {
        let now = self.world.clock.now();
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        let mut last = 0;
        for i in 0..1 + self.random.below(4) {
            let name = self.accounts[customer].name.clone();
            let event = workload::event(&mut self.random, &name, &format!("e{}-{i}", self.operations), now);
            let mut book = self.accounts[customer].book().clone();
            let at_ms = event.fact.time.map_or(now.ms(), |time| time.ms().min(now.ms()));
            for (meter, movement) in &event.fact.movements {
                book.record(&event.user, meter, *movement, (at_ms, now.ms()), &self.catalog);
            }
            last = self.push(customer, book);
            self.accounts[customer].known.push((last, Known::Event(event.clone())));
            expected.push(EventOutcome::Accepted);
            batch.push(event.clone());
            if self.random.percent(20) {
                expected.push(EventOutcome::Duplicate);
                batch.push(event);
            }
        }
        let engine = self.world.engine.clone();
        let recorded = self.drive(engine.record(batch)).await;
        if let Some(outcomes) = self.settled(recorded).await? {
            self.accounts[customer].acknowledge(last);
            if outcomes != expected {
                return Err(format!("a batch was answered {outcomes:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Something that was accepted comes again; or something else under its id.
    async fn repeat(&mut self, customer: usize) -> Result<(), String> {
        if self.accounts[customer].known.is_empty() {
            return Ok(());
        }
        let (_, known) = self.random.pick(&self.accounts[customer].known).clone();
        let differs = self.random.percent(30);
        let engine = self.world.engine.clone();
        match known {
            Known::Check(mut check) => {
                check.charges[0].amount += i64::from(differs);
                let answer = self.drive(crate::world::admit(&engine, &check)).await;
                if let (true, Err(EngineError::IdempotencyConflict { .. })) = (differs, &answer) {
                    return self.poll_commits();
                }
                let Some(answer) = self.settled(answer).await? else { return Ok(()) };
                if differs || !answer.repeated || !answer.decision.allowed || answer.charged.is_some() {
                    return Err(format!("a repeat of {check:?} was answered {answer:?}"));
                }
                Ok(())
            }
            Known::Open(ask) => self.open_again(customer, ask, differs).await,
            Known::Settlement(id, how) => {
                let Some(answer) = self.told(customer, id, &how).await? else { return Ok(()) };
                match answer {
                    Ok(settled) if settled.repeated => self.poll_commits(),
                    other => Err(format!("{how:?} of {id:?}, told again, was answered {other:?}")),
                }
            }
            Known::Event(mut event) => {
                event.fact.time = self.random.percent(50).then(|| self.world.clock.now().plus_ms(-1_000));
                if differs {
                    change_amount(&mut event);
                }
                let outcomes = self.drive(engine.record(vec![event])).await;
                let Some(outcomes) = self.settled(outcomes).await? else { return Ok(()) };
                match (&outcomes[0], differs) {
                    (EventOutcome::Duplicate, false) => Ok(()),
                    (EventOutcome::Rejected(EngineError::IdempotencyConflict { .. }), true) => Ok(()),
                    (other, _) => Err(format!("a repeated event was answered {other:?}; other amount: {differs}")),
                }
            }
        }
    }

    async fn configure(&mut self, customer: usize) -> Result<(), String> {
        let now = self.world.clock.now();
        let (change, offset_ms) = workload::change(&mut self.random, now);
        let mut book = self.accounts[customer].book().clone();
        book.configure(&change, offset_ms, now.ms());
        let operation = self.push(customer, book);
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        let changed = self.drive(engine.put_tenant(&name, &change, "test")).await;
        if self.settled(changed).await?.is_some() {
            self.accounts[customer].acknowledge(operation);
        }
        Ok(())
    }

    async fn adjust(&mut self, customer: usize) -> Result<(), String> {
        let adjustment: Adjustment = workload::adjustment(&mut self.random);
        let who = workload::who(&mut self.random);
        let mut book = self.accounts[customer].book().clone();
        let kind = self.catalog.meters[&adjustment.meter].kind;
        book.adjust(&who, &adjustment.meter, adjustment.movement, self.now_ms(), kind);
        let operation = self.push(customer, book);
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        let id = self.random.percent(50).then(|| op_id("", &format!("a{operation}")));
        let adjusted = self.drive(engine.adjust(&name, who.as_ref(), adjustment, id, "test", "because")).await;
        if let Some(repeated) = self.settled(adjusted).await? {
            self.accounts[customer].acknowledge(operation);
            if repeated {
                return Err("a fresh adjustment was taken for a repeat".to_owned());
            }
        }
        Ok(())
    }

    /// Gives back a charge that is durable.
    async fn refund(&mut self, customer: usize) -> Result<(), String> {
        let account = &mut self.accounts[customer];
        let durable = account.receipts.iter().position(|(operation, ..)| account.is_acknowledged(*operation));
        let Some(place) = durable else { return Ok(()) };
        let (_, who, receipt, taken) = account.receipts.remove(place);
        if receipt.is_nothing() {
            return Ok(());
        }
        let mut book = account.book().clone();
        book.give_back(&taken, self.world.clock.now().ms());
        let name = tenant(&account.name);
        let operation = self.push(customer, book);
        let commit = self.world.engine.refund(&name, who.as_ref(), &receipt).await;
        self.queued(customer, operation, commit)
    }

    async fn measure(&mut self, customer: usize) -> Result<(), String> {
        let now = self.now_ms();
        let who = workload::who(&mut self.random);
        let charge = charge("tokens", self.random.between(1, 300));
        let mut book = self.accounts[customer].book().clone();
        book.record(&who, &charge.meter, Movement::Add(charge.amount), (now, now), &self.catalog);
        let name = tenant(&self.accounts[customer].name);
        let operation = self.push(customer, book);
        let commit = self.world.engine.measured(&name, who.as_ref(), vec![charge], Vec::new()).await;
        self.queued(customer, operation, commit)
    }

    fn queued(&mut self, customer: usize, operation: u64, commit: Result<Commit, EngineError>) -> Result<(), String> {
        let commit = commit.map_err(|error| format!("unexpected error: {error}"))?;
        self.waiting.push((customer, operation, commit));
        self.poll_commits()
    }

    async fn upkeep(&mut self) -> Result<(), String> {
        let engine = self.world.engine.clone();
        for _ in 0..1 + self.random.below(8) {
            let kept = self.drive(engine.upkeep()).await;
            self.settled(kept).await?;
            // A ledger that fails says so to upkeep as well.
            drop(self.drive(engine.fold_history(FOREVER)).await);
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), String> {
        let ledger = self.world.ledger.clone();
        if self.one_by_one && self.random.percent(40) {
            ledger.release_first(self.random.below(5) as usize).await;
        } else if self.random.percent(50) {
            ledger.release().await;
        } else {
            self.held = !self.held;
            if self.held { ledger.hold() } else { ledger.let_go().await }
        }
        self.poll_commits()
    }

    async fn fail(&mut self) -> Result<(), String> {
        let loss = self.loss();
        self.world.ledger.fail(loss).await;
        self.poll_after_failure();
        self.recover().await
    }

    /// A commit that ended well before the failure was acknowledged.
    pub(super) fn poll_after_failure(&mut self) {
        for (customer, operation, commit) in std::mem::take(&mut self.waiting) {
            let is_durable = match commit {
                Commit::Done => true,
                Commit::Waiting(mut receiver) => matches!(receiver.try_recv(), Ok(Ok(()))),
            };
            if is_durable {
                self.accounts[customer].acknowledge(operation);
            }
        }
    }

    /// The process ends, drained or not, and another one begins.
    async fn crash(&mut self) -> Result<(), String> {
        if self.random.percent(40) {
            let engine = self.world.engine.clone();
            let drained = self.drive(engine.drain()).await;
            if self.settled(drained).await?.is_none() {
                return Ok(());
            }
        }
        self.restart().await?;
        self.reconcile().await
    }

    pub(super) async fn restart(&mut self) -> Result<(), String> {
        self.poll_after_failure();
        let world = self.world.reopened().await;
        self.world = world;
        self.world.ledger.unsure(2);
        self.held = false;
        Ok(())
    }

    async fn put_catalog(&mut self) -> Result<(), String> {
        let catalog = workload::catalog(&mut self.random);
        let (engine, text) = (self.world.engine.clone(), format!("catalog {}", self.operations));
        self.catalogs.insert(text.clone(), catalog.clone());
        let applied = self.drive(engine.apply_catalog(catalog.clone(), &text)).await;
        if self.settled(applied).await?.is_some() {
            self.world.set_catalog(catalog.clone(), &text);
            self.catalog = catalog;
        }
        Ok(())
    }

    /// One event on every account, so that windows that have ended are closed.
    pub(super) async fn touch_everything(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms();
        for index in 0..self.accounts.len() {
            let name = self.accounts[index].name.clone();
            let meters: Vec<_> = self.catalog.meters.values().cloned().collect();
            for meter in meters {
                for who in [None, Some("al"), Some("bo"), Some("cy")] {
                    let id = format!("touch-{}-{who:?}", meter.key);
                    let user = who.map(crate::world::user);
                    let touch = Event { user: user.clone(), ..event(&name, &id, meter.key.as_str(), 1) };
                    let book = &mut self.accounts[index].books.back_mut().expect("there is always one").1;
                    book.record(&user, &meter.key, Movement::Add(1), (now_ms, now_ms), &self.catalog);
                    self.world.engine.record(vec![touch]).await.map_err(|error| format!("touch: {error}"))?;
                }
            }
        }
        Ok(())
    }
}

fn change_amount(event: &mut Event) {
    for (_, movement) in &mut event.fact.movements {
        *movement = match movement {
            Movement::Add(amount) => Movement::Add(*amount + 1),
            Movement::Set(value) => Movement::Set(*value + 1),
        };
    }
}
