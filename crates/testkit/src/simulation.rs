//! A seeded world in which one customer after the other asks for one thing after the other, while commits are held back,
//! lost and repeated, and an [auditor](crate::auditor) judges every answer.

mod grants;
mod holds;
mod sessions;
mod steps;
pub mod verify;

use crate::{
    auditor::{Book, Taken},
    clock::SimClock,
    faulty::Loss,
    random::Random,
    workload,
    world::{World, tenant, to_plan},
};
use domain::{
    catalog::Catalog,
    grant::GrantId,
    hold::{HoldId, Settlement},
    id::UserId,
    op::Charge,
    session::SessionId,
};
use engine::{
    ports::{Clock, Commit, Ledger, LedgerError},
    requests::{Charged, Check, EngineError, Event},
    session::SessionAsk,
};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
};
use stores::memory::MemoryLedger;

/// Runs one world.
///
/// # Errors
/// What was wrong, and at which step.
pub async fn audit(seed: u64, steps: usize) -> Result<(), String> {
    audit_on(seed, steps, MemoryLedger::new([9; 32])).await
}

/// Runs one world on a ledger.
///
/// # Errors
/// What was wrong, and at which step.
pub async fn audit_on(seed: u64, steps: usize, disk: Arc<dyn Ledger>) -> Result<(), String> {
    let mut simulation = Simulation::new(seed, disk).await;
    for step in 0..steps {
        simulation.step().await.map_err(|wrong| format!("seed {seed}, step {step}: {wrong}"))?;
    }
    simulation.end().await.map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))
}

struct Simulation {
    random: Random,
    world: World,
    catalog: Catalog,
    accounts: Vec<Customer>,
    /// Every catalog that was ever put in force, by its text.
    catalogs: BTreeMap<String, Catalog>,
    waiting: Vec<(usize, u64, Commit)>,
    operations: u64,
    made: u64,
    held: bool,
    /// Entries are committed one by one, so that a commit may end anywhere; else gateway traffic is folded.
    one_by_one: bool,
}

/// A tenant with its books.
struct Customer {
    name: String,
    /// What is durable for sure; then what follows from each operation that may be.
    books: VecDeque<(u64, Book)>,
    known: Vec<(u64, Known)>,
    receipts: Vec<(u64, Option<UserId>, Charged, Taken)>,
    /// Every hold that was ever taken, and what of.
    holds: Vec<(u64, HoldId, Vec<Charge>)>,
    /// Every session that was ever opened.
    sessions: Vec<SessionId>,
    /// Every grant that was ever given.
    grants: Vec<GrantId>,
}

/// An operation under an id that was accepted.
#[derive(Clone)]
enum Known {
    Check(Check),
    Event(Event),
    Settlement(HoldId, Settlement),
    Open(SessionAsk),
}

impl Customer {
    fn book(&self) -> &Book {
        &self.books.back().expect("there is always one").1
    }

    fn book_mut(&mut self) -> &mut Book {
        &mut self.books.back_mut().expect("there is always one").1
    }

    /// Everything through this operation is durable.
    fn acknowledge(&mut self, operation: u64) {
        while self.books.get(1).is_some_and(|(number, _)| *number <= operation) {
            self.books.pop_front();
        }
    }

    /// Forgets what may have been lost. One that was taken and released leaves no trace to see which it was.
    fn keep(&mut self, certain: u64) {
        let lost = |known: &(u64, Known)| match known {
            (number, Known::Settlement(id, _)) if *number > certain => Some(*id),
            _ => None,
        };
        let unsure: Vec<HoldId> = self.known.iter().filter_map(lost).collect();
        self.holds.retain(|(number, id, _)| *number <= certain && !unsure.contains(id));
        self.known.retain(|(number, _)| *number <= certain);
        self.receipts.retain(|(number, ..)| *number <= certain);
    }

    fn is_acknowledged(&self, operation: u64) -> bool {
        self.books.front().is_some_and(|(number, _)| operation <= *number)
    }
}

impl Simulation {
    async fn new(seed: u64, disk: Arc<dyn Ledger>) -> Self {
        let mut random = Random::new(seed);
        let catalog = workload::catalog(&mut random);
        let options = workload::options(&mut random);
        let clock = Arc::new(SimClock::at("2027-01-30T22:00:00Z"));
        let world = World::at(clock, disk, catalog.clone(), options).await;
        world.ledger.unsure(2);
        let one_by_one = random.percent(50);
        let mut simulation = Self {
            random,
            world,
            catalogs: [("first".to_owned(), catalog.clone())].into(),
            catalog,
            accounts: Vec::new(),
            waiting: Vec::new(),
            operations: 0,
            made: 0,
            held: false,
            one_by_one,
        };
        for _ in 0..3 {
            let customer = simulation.new_customer().await;
            simulation.accounts.push(customer);
        }
        simulation
    }

    fn now_ms(&self) -> i64 {
        self.world.clock.now().ms()
    }

    async fn new_customer(&mut self) -> Customer {
        self.world.ledger.let_go().await;
        self.held = false;
        self.made += 1;
        let name = format!("t{}", self.made);
        self.world.engine.put_tenant(&tenant(&name), &to_plan("free"), "test").await.expect("a tenant is made");
        let book = Book::new(crate::catalog::plan("free"), self.now_ms());
        let books = VecDeque::from([(self.operations, book)]);
        let (known, receipts, holds, sessions, grants) = Default::default();
        Customer { name, books, known, receipts, holds, sessions, grants }
    }

    fn next_operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    /// The next state of a tenant's books; gives the number of the operation that led to it.
    fn push(&mut self, customer: usize, book: Book) -> u64 {
        let operation = self.next_operation();
        self.accounts[customer].books.push_back((operation, book));
        operation
    }

    /// Looks which commits have ended.
    fn poll_commits(&mut self) -> Result<(), String> {
        let mut still = Vec::new();
        for (customer, operation, commit) in std::mem::take(&mut self.waiting) {
            match commit {
                Commit::Done => self.accounts[customer].acknowledge(operation),
                Commit::Waiting(mut receiver) => match receiver.try_recv() {
                    Ok(Ok(())) => self.accounts[customer].acknowledge(operation),
                    Ok(Err(error)) => return Err(format!("a commit failed that was not made to fail: {error}")),
                    Err(_) => still.push((customer, operation, Commit::Waiting(receiver))),
                },
            }
        }
        self.waiting = still;
        Ok(())
    }

    /// Waits for an operation that may wait for a commit, which is then made, or fails.
    async fn drive<T>(&mut self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        let ledger = self.world.ledger.clone();
        let fails = self.held && self.random.percent(12);
        let loss = self.loss();
        let mut work = pin!(work);
        for patience in 0.. {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::task::yield_now() => {}
            }
            assert!(patience < 10_000, "nothing happens any more");
            if patience > 100 {
                // A ledger with a writer of its own needs its time.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            if patience % 8 == 7 {
                if fails && patience == 7 && ledger.ready().is_ok() {
                    ledger.fail(loss).await;
                } else {
                    ledger.release().await;
                }
            }
        }
        unreachable!("the loop has no end")
    }

    fn loss(&mut self) -> Loss {
        match self.random.below(3) {
            0 => Loss::Everything,
            1 => Loss::OnlyTheAnswer,
            _ if self.one_by_one => Loss::AllButFirst(self.random.below(5) as usize),
            _ => Loss::Everything,
        }
    }

    /// What an operation that waited for its commit came to: `None` when the commit was made to fail.
    async fn settled<T>(&mut self, result: Result<T, EngineError>) -> Result<Option<T>, String> {
        match result {
            // It may have waited for something that was on its way to the disk already when the commit was made to fail.
            Ok(value) if self.world.ledger.ready().is_err() => {
                self.poll_after_failure();
                self.recover().await?;
                Ok(Some(value))
            }
            Ok(value) => {
                self.poll_commits()?;
                Ok(Some(value))
            }
            Err(EngineError::Ledger(LedgerError::Unwritable(_))) => {
                self.recover().await?;
                Ok(None)
            }
            Err(error) => Err(format!("unexpected error: {error}")),
        }
    }
}
