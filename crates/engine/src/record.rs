//! Events: facts, recorded in batches, each once.

use crate::{
    engine::Engine,
    open::{Open, Whom},
    ports::{Commit, Seq},
    repeat::{Bound, Seen},
    requests::{EngineError, Event, EventOutcome},
};
use domain::{
    entry::{Binding, Entry},
    id::{TenantId, UserId},
    op::{Op, OpError},
    outage,
};
use rustc_hash::FxHashMap;

/// How many events of one tenant are recorded under one hold of its lock.
const CHUNK_EVENTS: usize = 512;

/// An event on its way, with its place in the batch.
struct Waiting {
    index: usize,
    user: Option<UserId>,
    op: Op,
    binding: Binding,
    /// The generation for which the disk said that the id is fresh.
    fresh: Option<u64>,
    /// The generation for which the disk has to be asked.
    ask: Option<u64>,
}

/// What one hold of the lock led to.
enum Pass {
    /// Memory can't tell about some of the ids. Nothing was applied, so that events keep their order.
    Ask,
    /// Each event's place in the chunk, with what became of it.
    Done(Vec<(usize, Passed)>),
}

enum Passed {
    Told(EventOutcome),
    /// The id was accepted before, by the entry at this position.
    Before(Seq),
}

impl Engine {
    /// Records events, each once. Outcomes are in the order of the input; they are given when all that was accepted is
    /// durable.
    ///
    /// # Errors
    /// [`EngineError::Ledger`] when the ledger failed on the way. Events of the batch may or may not be recorded then:
    /// repeat the whole batch, with the same ids.
    pub async fn record(&self, events: Vec<Event>) -> Result<Vec<EventOutcome>, EngineError> {
        let mut outcomes: Vec<Option<EventOutcome>> = events.iter().map(|_| None).collect();
        let mut commits = Vec::new();
        let epoch = self.epoch();
        let groups = self.by_tenant(events).into_iter();
        let recorded = groups.map(|(tenant, waiting)| self.record_of(tenant, waiting));
        let recorded = if self.ledger.shared().is_some() {
            // Each waits for its commit: together they make one.
            futures_util::future::join_all(recorded).await
        } else {
            let mut done = Vec::with_capacity(recorded.len());
            for one in recorded {
                done.push(one.await);
            }
            done
        };
        for one in recorded {
            let (done, commit) = one?;
            commits.extend(commit);
            done.into_iter().for_each(|(index, outcome)| outcomes[index] = Some(outcome));
        }
        for commit in commits {
            commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
        }
        let lost = EngineError::Op(OpError::Empty);
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(EventOutcome::Rejected(lost.clone()))).collect())
    }

    /// Records the events of one tenant, in their order.
    async fn record_of(
        &self,
        tenant: TenantId,
        waiting: Vec<Waiting>,
    ) -> Result<(Vec<(usize, EventOutcome)>, Vec<Commit>), EngineError> {
        let mut done = Vec::with_capacity(waiting.len());
        let mut commits = Vec::new();
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let chunk: Vec<Waiting> = waiting.by_ref().take(CHUNK_EVENTS).collect();
            let indexes: Vec<usize> = chunk.iter().map(|waiting| waiting.index).collect();
            match self.record_chunk(&tenant, chunk, &mut commits).await {
                Ok(outcomes) => done.extend(outcomes),
                Err(error @ EngineError::Ledger(_)) => return Err(error),
                Err(error) => {
                    done.extend(indexes.into_iter().map(|index| (index, EventOutcome::Rejected(error.clone()))))
                }
            }
        }
        Ok((done, commits))
    }

    /// Records what passed in an outage, each once, in order. Limits don't matter: it is done.
    pub(crate) async fn record_passed(
        &self,
        tenant: &TenantId,
        passed: &[&outage::Passed],
    ) -> Result<Vec<EventOutcome>, EngineError> {
        let (now, catalog) = (self.now(), self.catalog());
        let waiting = |(index, passed): (usize, &&outage::Passed)| {
            let (user, binding) = (passed.user.clone(), passed.binding);
            let op = Op::Record(passed.fact(now, &catalog));
            Waiting { index, user, op, binding, fresh: None, ask: None }
        };
        let waiting: Vec<Waiting> = passed.iter().enumerate().map(waiting).collect();
        let (mut done, commits) = self.record_of(tenant.clone(), waiting).await?;
        for commit in commits {
            commit.wait().await?;
        }
        done.sort_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Events in their order, by tenant in order of first appearance.
    fn by_tenant(&self, events: Vec<Event>) -> Vec<(TenantId, Vec<Waiting>)> {
        let mut places: FxHashMap<TenantId, usize> = FxHashMap::default();
        let mut groups: Vec<(TenantId, Vec<Waiting>)> = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            let binding = self.ids.of_fact(&event.tenant, event.user.as_ref(), &event.id, &event.fact);
            let mut fact = event.fact;
            fact.binding = Some(binding);
            let waiting = Waiting { index, user: event.user, op: Op::Record(fact), binding, fresh: None, ask: None };
            match places.get(&event.tenant) {
                Some(place) => groups[*place].1.push(waiting),
                None => {
                    places.insert(event.tenant.clone(), groups.len());
                    groups.push((event.tenant, vec![waiting]));
                }
            }
        }
        groups
    }

    async fn record_chunk(
        &self,
        tenant: &TenantId,
        mut waiting: Vec<Waiting>,
        commits: &mut Vec<Commit>,
    ) -> Result<Vec<(usize, EventOutcome)>, EngineError> {
        let mut users: Vec<UserId> = waiting.iter().filter_map(|waiting| waiting.user.clone()).collect();
        users.sort();
        users.dedup();
        let whom = Whom::new(tenant, &users).under_lease();
        let mut done = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let mut chunk = std::mem::take(&mut waiting);
            let epoch = self.epoch();
            let (pass, commit) = self.commit_with(whom, |open| record_pass(open, &mut chunk)).await?;
            let mut passed = match pass {
                Pass::Ask => Vec::new(),
                Pass::Done(passed) => passed,
            };
            passed.extend(self.ask_disk(tenant, &mut chunk).await?);
            passed.sort_by_key(|(place, _)| *place);
            commits.push(commit);
            let mut passed = passed.into_iter().peekable();
            for (place, event) in chunk.into_iter().enumerate() {
                let outcome = match passed.next_if(|(of, _)| *of == place) {
                    Some((_, Passed::Told(outcome))) => outcome,
                    Some((_, Passed::Before(seq))) => match self.bound(tenant, event.binding, seq, epoch).await? {
                        Bound::Same => EventOutcome::Duplicate,
                        Bound::Conflict { at } => EventOutcome::Rejected(EngineError::IdempotencyConflict { at, seq }),
                        Bound::LookAgain => {
                            waiting.push(event);
                            continue;
                        }
                    },
                    None => {
                        waiting.push(event);
                        continue;
                    }
                };
                done.push((event.index, outcome));
            }
        }
        Ok(done)
    }

    /// Asks the disk about ids that memory can't tell about. Gives those that were seen before, in their order; the
    /// others have to be passed again.
    async fn ask_disk(&self, tenant: &TenantId, chunk: &mut [Waiting]) -> Result<Vec<(usize, Passed)>, EngineError> {
        let mut before = Vec::new();
        for (place, event) in chunk.iter_mut().enumerate() {
            if let Some(generation) = event.ask.take() {
                match self.ledger.find_on_disk(tenant, event.binding.id).await? {
                    Some(seq) => before.push((place, Passed::Before(seq))),
                    None => event.fresh = Some(generation),
                }
            }
        }
        Ok(before)
    }
}

fn record_pass(open: &mut Open<'_>, chunk: &mut [Waiting]) -> Result<(Pass, Commit), EngineError> {
    open.engine.ledger.ready()?;
    // Under the tenant's lock no id of its can be bound by anybody else: what is found now holds until the end.
    let found: Vec<Seen> = chunk.iter().map(|event| open.seen(event.binding, event.fresh)).collect();
    let mut asks = false;
    for (event, seen) in chunk.iter_mut().zip(&found) {
        event.ask = None;
        if let Seen::AskDisk(generation) = seen {
            event.ask = Some(*generation);
            asks = true;
        }
    }
    if asks {
        return Ok((Pass::Ask, Commit::Done));
    }
    let mut passed = Vec::with_capacity(chunk.len());
    let mut entries: Vec<Entry> = Vec::with_capacity(chunk.len());
    // Ids accepted in this very pass, which the ledger does not know yet: position in `entries`.
    let mut accepted: FxHashMap<u128, usize> = FxHashMap::default();
    let mut twice: Vec<(usize, usize)> = Vec::new();
    let shared = open.engine.ledger.shared().is_some();
    let mut unsure: Vec<usize> = Vec::new();
    let mut last: Option<usize> = None;
    for (place, (event, seen)) in chunk.iter().zip(found).enumerate() {
        if let Seen::Before(seq) = seen {
            passed.push((place, Passed::Before(seq)));
            continue;
        }
        if let Some(first) = accepted.get(&event.binding.id) {
            twice.push((passed.len(), *first));
            passed.push((place, Passed::Before(0)));
            continue;
        }
        let applied = match open.is_leased() {
            true => match open.apply_under(event.user.as_ref(), &event.op) {
                // The rest has to wait until the tenant is loaded anew.
                Err(error @ EngineError::Ledger(_)) if entries.is_empty() && passed.is_empty() => return Err(error),
                Err(EngineError::Ledger(_)) => break,
                applied => applied,
            },
            false => {
                let catalog = open.catalog_of_fact(&event.op);
                open.apply_by(event.user.as_ref(), &event.op, catalog).map_err(EngineError::Op)
            }
        };
        let outcome = match applied {
            Ok(outcome) => {
                last = Some(place);
                accepted.insert(event.binding.id, entries.len());
                entries.extend(outcome.entry);
                EventOutcome::Accepted
            }
            // It may have been accepted on another node while it still could be: the disk is asked before it is refused.
            Err(_) if shared && event.fresh.is_none() => {
                unsure.push(place);
                continue;
            }
            Err(error) => EventOutcome::Rejected(error),
        };
        passed.push((place, Passed::Told(outcome)));
    }
    unsure.into_iter().for_each(|place| chunk[place].ask = Some(0));
    if entries.is_empty() {
        return Ok((Pass::Done(passed), open.settled()));
    }
    let appended = match open.is_leased() {
        true => open.append_under(entries)?,
        false => {
            let through = open.book.seq + entries.len() as Seq;
            if let (Some(last), Some(entry)) = (last, entries.last_mut()) {
                open.take_lease(&chunk[last].op, entry, through);
            }
            open.append(entries, false, true)?
        }
    };
    for (of, first) in twice {
        passed[of].1 = Passed::Before(appended.first + first as Seq);
    }
    Ok((Pass::Done(passed), appended.commit))
}
