//! Events: facts, recorded in batches, each once.

use crate::{
    engine::{Engine, IfUnknown, Open},
    ports::{Commit, Lookup, Seq},
    repeat::Bound,
    requests::{EngineError, Event, EventOutcome},
};
use domain::{
    entry::{Binding, Entry},
    id::{TenantId, UserId},
    op::{Op, OpError},
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
    Ask(Vec<Waiting>),
    Done(Recorded),
}

#[derive(Default)]
struct Recorded {
    done: Vec<(usize, EventOutcome)>,
    repeats: Vec<(Waiting, Seq)>,
    commit: Option<Commit>,
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
        for (tenant, waiting) in self.by_tenant(events) {
            let mut waiting = waiting.into_iter().peekable();
            while waiting.peek().is_some() {
                let chunk: Vec<Waiting> = waiting.by_ref().take(CHUNK_EVENTS).collect();
                let indexes: Vec<usize> = chunk.iter().map(|waiting| waiting.index).collect();
                match self.record_chunk(&tenant, chunk, &mut commits).await {
                    Ok(done) => done.into_iter().for_each(|(index, outcome)| outcomes[index] = Some(outcome)),
                    Err(error @ EngineError::Ledger(_)) => return Err(error),
                    Err(error) => {
                        indexes.into_iter().for_each(|i| outcomes[i] = Some(EventOutcome::Rejected(error.clone())))
                    }
                }
            }
        }
        for commit in commits {
            commit.wait().await.inspect_err(|error| self.fail(epoch, error))?;
        }
        let lost = EngineError::Op(OpError::Empty);
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(EventOutcome::Rejected(lost.clone()))).collect())
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
        let mut done = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let chunk = std::mem::take(&mut waiting);
            let epoch = self.epoch();
            let pass =
                self.with_tenant(tenant, &users, IfUnknown::UseDefaultPlan, |open| record_pass(open, chunk)).await?;
            let repeats = match pass {
                Pass::Ask(chunk) => self.ask_disk(chunk, &mut waiting).await?,
                Pass::Done(recorded) => {
                    done.extend(recorded.done);
                    commits.extend(recorded.commit);
                    recorded.repeats
                }
            };
            for (event, seq) in repeats {
                let outcome = match self.bound(event.binding, seq, epoch).await? {
                    Bound::Same => EventOutcome::Duplicate,
                    Bound::Conflict { at } => EventOutcome::Rejected(EngineError::IdempotencyConflict { at, seq }),
                    Bound::LookAgain => {
                        waiting.push(event);
                        continue;
                    }
                };
                done.push((event.index, outcome));
            }
        }
        Ok(done)
    }

    /// Asks the disk about ids that memory can't tell about. Gives those that were seen before; the others are put back.
    async fn ask_disk(
        &self,
        chunk: Vec<Waiting>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<Vec<(Waiting, Seq)>, EngineError> {
        let mut repeats = Vec::new();
        for mut event in chunk {
            if let Some(generation) = event.ask.take() {
                if let Some(seq) = self.ledger.find_on_disk(event.binding.id).await? {
                    repeats.push((event, seq));
                    continue;
                }
                event.fresh = Some(generation);
            }
            waiting.push(event);
        }
        Ok(repeats)
    }
}

fn record_pass(open: &mut Open<'_>, mut chunk: Vec<Waiting>) -> Result<Pass, EngineError> {
    open.engine.ledger.ready()?;
    // Under the tenant's lock no id of its can be bound by anybody else: what is found now holds until the end.
    let found: Vec<Lookup> = chunk.iter().map(|event| open.engine.ledger.find(event.binding.id)).collect();
    let mut asks = false;
    for (event, lookup) in chunk.iter_mut().zip(&found) {
        if let Lookup::Unsure { generation } = *lookup
            && event.fresh != Some(generation)
        {
            event.ask = Some(generation);
            asks = true;
        }
    }
    if asks {
        return Ok(Pass::Ask(chunk));
    }
    let mut pass = Recorded { done: Vec::with_capacity(chunk.len()), ..Recorded::default() };
    let mut entries: Vec<Entry> = Vec::with_capacity(chunk.len());
    // Ids accepted in this very pass, which the ledger does not know yet: position in `entries`.
    let mut accepted: FxHashMap<u128, usize> = FxHashMap::default();
    let mut twice: Vec<(Waiting, usize)> = Vec::new();
    for (event, lookup) in chunk.into_iter().zip(found) {
        if let Lookup::Bound(seq) = lookup {
            pass.repeats.push((event, seq));
            continue;
        }
        if let Some(place) = accepted.get(&event.binding.id) {
            twice.push((event, *place));
            continue;
        }
        match open.apply(event.user.as_ref(), &event.op) {
            Ok(outcome) => {
                accepted.insert(event.binding.id, entries.len());
                entries.extend(outcome.entry);
                pass.done.push((event.index, EventOutcome::Accepted));
            }
            Err(error) => pass.done.push((event.index, EventOutcome::Rejected(error.into()))),
        }
    }
    if entries.is_empty() {
        return Ok(Pass::Done(pass));
    }
    let appended = open.append(entries, false, true)?;
    pass.commit = Some(appended.commit);
    pass.repeats.extend(twice.into_iter().map(|(event, place)| (event, appended.first + place as Seq)));
    Ok(Pass::Done(pass))
}
