//! The ledger as one node sees it: a queue, and a database that is far away.

use super::{
    bugs::Bug,
    chance::{Chance, give_way},
    database::{Database, State, Verdict},
    queue::{Checkpoint, Flight, Queue, Stage},
};
use domain::{entry::Effect, id::TenantId, lease::Lease};
use engine::ports::{Clock, LedgerError, Loaded};
use parking_lot::Mutex;
use std::sync::Arc;

/// After how long a node does without a row that it wanted to keep.
const PATIENCE_MS: i64 = 2_000;
/// How long a lease lasts for a node that goes by its own clock.
const EXPIRED_MS: i64 = 300;

/// One node's. A node that is started again has another.
pub struct NodeLedger {
    pub(super) database: Arc<Database>,
    pub(super) queue: Mutex<Queue>,
    pub(super) chance: Arc<Chance>,
    pub(super) clock: Arc<dyn Clock>,
    /// Names it to the database.
    pub(super) sender: u64,
    tokens: Mutex<u64>,
}

impl NodeLedger {
    pub(super) fn new(database: Arc<Database>, chance: Arc<Chance>, clock: Arc<dyn Clock>, sender: u64) -> Arc<Self> {
        let outdates = !database.state().has(Bug::BasisNotOutdated);
        let queue = Mutex::new(Queue::new(outdates));
        Arc::new(Self { database, queue, chance, clock, sender, tokens: Mutex::new(0) })
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.is_empty() && queue.flights.is_empty() && queue.checkpoints.is_empty()
    }

    /// Reads something of the database, while others get in between.
    pub(super) async fn read<T>(&self, read: impl FnOnce(&mut State) -> T) -> Result<T, LedgerError> {
        // Nobody reads in no time: who reads again and again must let others run.
        give_way().await;
        self.chance.dawdle().await;
        let read = {
            let mut state = self.database.state();
            state.check().map(|()| read(&mut state))
        };
        self.chance.dawdle().await;
        read
    }

    /// Waits until no other node keeps the row, or for as long as a node may wait.
    pub(super) async fn wait_for_row(&self, tenant: &TenantId) -> bool {
        let until_ms = self.database.now_ms() + PATIENCE_MS;
        while self.database.state().is_kept_from(tenant, self.sender) {
            if self.database.now_ms() > until_ms {
                return false;
            }
            give_way().await;
        }
        true
    }

    /// Does one of the things there are to do.
    pub(super) fn step(&self) {
        let mut queue = self.queue.lock();
        let sendable = queue.sendable();
        let (flights, folds) = (queue.flights.len(), usize::from(!queue.checkpoints.is_empty()));
        let chosen = self.chance.below(sendable.len() + flights + folds);
        if let Some(line) = sendable.get(chosen) {
            let most = if self.chance.percent(70) { usize::MAX } else { 1 };
            queue.take(line, most, self.next_token(), self.sender);
        } else if chosen - sendable.len() < flights {
            let flight = queue.flights.swap_remove(chosen - sendable.len());
            self.fly(&mut queue, flight);
        } else if let Some(checkpoint) = queue.checkpoints.pop_front() {
            self.checkpoint_step(&mut queue, checkpoint);
        }
    }

    /// What the node makes of what it has loaded.
    pub(super) fn seen(&self, mut loaded: Loaded) -> Loaded {
        if self.database.state().has(Bug::LeaseByNodeClock) {
            let now = self.clock.now();
            let lasts = |lease: &Lease| now.ms() - lease.granted_at.ms() < EXPIRED_MS;
            if let Some(fold) = &mut loaded.fold {
                fold.state.leases.retain(lasts);
            }
            for effect in loaded.after.iter_mut().flat_map(|(_, entry)| &mut entry.effects) {
                if let Effect::Leases(leases) = effect {
                    leases.retain(lasts);
                }
            }
        }
        loaded
    }

    fn next_token(&self) -> u64 {
        let mut tokens = self.tokens.lock();
        *tokens += 1;
        self.sender << 32 | *tokens
    }

    fn fly(&self, queue: &mut Queue, mut flight: Flight) {
        let weather = self.chance.weather();
        match &flight.stage {
            Stage::Sent if self.chance.percent(weather.sent_again) => {
                let mut state = self.database.state();
                state.astray.push(flight.message.clone());
                flight.message.again = true;
            }
            Stage::Sent => self.arrive(&mut flight),
            Stage::Answered(_) if self.chance.percent(weather.lost_replies) => flight.stage = Stage::Lost,
            Stage::Answered(verdict) => {
                let verdict = verdict.clone();
                return self.told(queue, flight, verdict);
            }
            Stage::Lost if self.chance.percent(weather.given_up) => {
                return queue.fail(flight, &LedgerError::Unwritable("nobody knows what became of it".into()));
            }
            Stage::Lost => {
                flight.message.again = true;
                flight.stage = Stage::Sent;
            }
        }
        queue.flights.push(flight);
    }

    /// A message reaches the database, or does not.
    fn arrive(&self, flight: &mut Flight) {
        let weather = self.chance.weather();
        let mut state = self.database.state();
        if state.check().is_err() || self.chance.percent(weather.lost_requests) {
            flight.stage = Stage::Lost;
            return;
        }
        if state.is_kept_from(flight.tenant(), self.sender) {
            // One that may have been written before has to wait until that is known.
            let may_be_refused = !flight.message.again && flight.message.under.is_none();
            if may_be_refused && self.chance.percent(weather.refused_at_rows) {
                flight.stage = Stage::Answered(Verdict::Stale);
            }
            return;
        }
        flight.stage = Stage::Answered(state.write(&flight.message));
    }

    fn told(&self, queue: &mut Queue, flight: Flight, verdict: Verdict) {
        match verdict {
            Verdict::Written(before) => queue.succeed(flight, before),
            Verdict::Stale => queue.fail(flight, &LedgerError::Stale),
            Verdict::Behind { in_force } => queue.fail(flight, &LedgerError::CatalogBehind { in_force }),
            Verdict::Bound(bound) => {
                queue.remember(flight.tenant(), bound);
                queue.fail(flight, &LedgerError::Stale);
            }
        }
    }

    /// Writes folds whose entries are durable, one transaction each.
    fn checkpoint_step(&self, queue: &mut Queue, mut checkpoint: Checkpoint) {
        let weather = self.chance.weather();
        let waits = |queue: &Queue, checkpoint: &Checkpoint| {
            checkpoint.folds.iter().any(|fold| queue.has_pending(&fold.tenant.state.id))
        };
        if waits(queue, &checkpoint) {
            queue.checkpoints.push_front(checkpoint);
            return;
        }
        let lost = LedgerError::Unwritable("nobody knows what became of the folds".into());
        let Some(fold) = checkpoint.folds.pop() else {
            queue.tail = 0;
            let _ = checkpoint.waiter.send(Ok(()));
            return;
        };
        let mut state = self.database.state();
        let is_lost = state.check().is_err() || self.chance.percent(weather.lost_requests);
        if !is_lost && !fold.basis.is_stale() && !state.write_fold(&fold) {
            fold.basis.outdate();
        }
        if is_lost || self.chance.percent(weather.lost_replies) {
            let _ = checkpoint.waiter.send(Err(lost));
        } else {
            queue.checkpoints.push_front(checkpoint);
        }
    }

    /// The node is gone. What it sent may still arrive.
    pub(super) fn crash(&self) {
        let flights = std::mem::take(&mut self.queue.lock().flights);
        for flight in flights {
            if matches!(flight.stage, Stage::Sent) && self.chance.percent(50) {
                self.database.state().astray.push(flight.message);
            }
        }
    }
}
