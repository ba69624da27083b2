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
}

/// What one hold of the lock led to.
#[derive(Default)]
struct Pass {
    done: Vec<(usize, EventOutcome)>,
    repeats: Vec<(usize, Binding, Seq)>,
    ask: Vec<(Waiting, u64)>,
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
            commit.wait().await.inspect_err(|error| self.fail(error))?;
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
            let waiting = Waiting { index, user: event.user, op: Op::Record(fact), binding, fresh: None };
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
            let pass =
                self.with_tenant(tenant, &users, IfUnknown::UseDefaultPlan, |open| record_pass(open, chunk)).await?;
            done.extend(pass.done);
            commits.extend(pass.commit);
            for (index, binding, seq) in pass.repeats {
                done.push((index, self.repeated(binding, seq).await?));
            }
            for (mut event, generation) in pass.ask {
                match self.ledger.find_on_disk(event.binding.id).await? {
                    Some(seq) => done.push((event.index, self.repeated(event.binding, seq).await?)),
                    None => {
                        event.fresh = Some(generation);
                        waiting.push(event);
                    }
                }
            }
        }
        Ok(done)
    }

    async fn repeated(&self, binding: Binding, seq: Seq) -> Result<EventOutcome, EngineError> {
        Ok(match self.bound(binding, seq).await? {
            Bound::Same => EventOutcome::Duplicate,
            Bound::Conflict { at } => EventOutcome::Rejected(EngineError::IdempotencyConflict { at, seq }),
        })
    }
}

fn record_pass(open: &mut Open<'_>, chunk: Vec<Waiting>) -> Result<Pass, EngineError> {
    open.engine.ledger.ready()?;
    let mut pass = Pass { done: Vec::with_capacity(chunk.len()), ..Pass::default() };
    let mut entries: Vec<Entry> = Vec::with_capacity(chunk.len());
    // Ids accepted in this very pass, which the ledger does not know yet: position in `entries`.
    let mut accepted: FxHashMap<u128, usize> = FxHashMap::default();
    let mut twice: Vec<(usize, Binding, usize)> = Vec::new();
    for event in chunk {
        if let Some(place) = accepted.get(&event.binding.id) {
            twice.push((event.index, event.binding, *place));
            continue;
        }
        match open.engine.ledger.find(event.binding.id) {
            Lookup::Bound(seq) => {
                pass.repeats.push((event.index, event.binding, seq));
                continue;
            }
            Lookup::Unsure { generation } if event.fresh != Some(generation) => {
                pass.ask.push((event, generation));
                continue;
            }
            Lookup::Fresh | Lookup::Unsure { .. } => {}
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
        return Ok(pass);
    }
    let appended = open.append(entries, false, true)?;
    pass.commit = Some(appended.commit);
    pass.repeats
        .extend(twice.into_iter().map(|(index, binding, place)| (index, binding, appended.first + place as Seq)));
    Ok(pass)
}
