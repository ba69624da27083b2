//! The ledger is back: what passed is recorded in it, each once.

use super::desk::{Desk, Kept};
use crate::{
    engine::Engine,
    open::{Open, Whom},
    ports::Commit,
    repeat::Once,
    requests::{EngineError, EventOutcome},
};
use domain::{
    entry::Binding,
    id::{TenantId, UserId},
    op::{Op, OpError},
    outage::Passed,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many lines are recorded before they are removed from the spool.
const CHUNK_LINES: usize = 256;

/// What is given back under an id, and what passed under one that the ledger had for something else, is bound to another
/// that follows from it.
const GIVEN_BACK: u128 = 0x6769_7665_6e5f_6261_636b_0000_0000_0001;
const CONFLICT: u128 = 0x636f_6e66_6c69_6374_0000_0000_0000_0002;

/// What became of the lines of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Recorded.
    pub recorded: u64,
    /// The ledger had them.
    pub duplicates: u64,
    /// Recorded under another id, since theirs was bound to something else.
    pub conflicts: u64,
    /// Given back after they were recorded.
    pub given_back: u64,
    /// Not taken by the ledger, and why. They stay in the spool, set aside.
    pub set_aside: Vec<String>,
}

/// What became of one line.
enum Ended {
    Recorded,
    Duplicate,
    SetAside(String),
}

impl Engine {
    /// Ends an outage if the ledger is back, and records what is in the spool. `None` if there is nothing to do, or
    /// somebody else does it. Call it several times a second.
    ///
    /// # Errors
    /// What is wrong with the ledger, or with the spool; what was recorded is not recorded again by the next call.
    pub async fn reconcile(&self) -> Result<Option<Reconciled>, EngineError> {
        let Some(desk) = self.desk.get() else { return Ok(None) };
        if !desk.is_under_way() && desk.is_empty() {
            return Ok(None);
        }
        let Ok(_one_at_a_time) = desk.busy.try_lock() else { return Ok(None) };
        // Whether it answers at all; and then everybody asks it again.
        self.healthy()?;
        self.signals().await?;
        desk.end();
        let mut reconciled = Reconciled::default();
        let done = self.record_kept(desk, &mut reconciled).await;
        desk.put_down();
        done.map(|()| Some(reconciled))
    }

    async fn record_kept(&self, desk: &Desk, reconciled: &mut Reconciled) -> Result<(), EngineError> {
        let mut failed = Ok(());
        for (tenant, lines) in desk.take_up() {
            for chunk in lines.chunks(CHUNK_LINES) {
                if let Err(error) = self.record_chunk_of(desk, &tenant, chunk, reconciled).await {
                    // One tenant's trouble is no reason to keep the others waiting, unless it is everybody's.
                    self.healthy()?;
                    failed = failed.and(Err(error));
                    break;
                }
            }
        }
        failed
    }

    async fn record_chunk_of(
        &self,
        desk: &Desk,
        tenant: &TenantId,
        chunk: &[Kept],
        reconciled: &mut Reconciled,
    ) -> Result<(), EngineError> {
        let passed: Vec<&Passed> = chunk.iter().map(|kept| &kept.passed).collect();
        let mut outcomes = self.record_passed(tenant, &passed).await?;
        let (mut settled, mut set_aside) = (Vec::new(), Vec::new());
        for (kept, outcome) in chunk.iter().zip(outcomes.drain(..)) {
            match self.end_of(tenant, &kept.passed, outcome, reconciled).await? {
                Ended::Recorded => add(&desk.figures.reconciled, &mut reconciled.recorded),
                Ended::Duplicate => add(&desk.figures.duplicates, &mut reconciled.duplicates),
                Ended::SetAside(why) => {
                    desk.figures.set_aside.fetch_add(1, Ordering::Relaxed);
                    reconciled.set_aside.push(format!("{why}: {:?} of tenant {tenant:?}", kept.passed));
                    set_aside.push((kept.number, why));
                    settled.extend(kept.given_back);
                    continue;
                }
            }
            if kept.given_back.is_some() {
                self.give_back_once(tenant, &kept.passed).await?;
                reconciled.given_back += 1;
            }
            settled.extend([kept.number].into_iter().chain(kept.given_back));
        }
        desk.spool.settle(settled, set_aside).wait().await?;
        let mut state = desk.state.lock();
        chunk.iter().for_each(|kept| state.forget(kept.passed.binding.id));
        desk.counted(&state);
        Ok(())
    }

    async fn end_of(
        &self,
        tenant: &TenantId,
        passed: &Passed,
        outcome: EventOutcome,
        reconciled: &mut Reconciled,
    ) -> Result<Ended, EngineError> {
        match outcome {
            EventOutcome::Accepted => Ok(Ended::Recorded),
            EventOutcome::Duplicate => Ok(Ended::Duplicate),
            // Another node accepted something else under the client's id. This was done as well, and has to be counted.
            EventOutcome::Rejected(EngineError::IdempotencyConflict { .. }) => {
                let renamed =
                    Passed { binding: derived(passed.binding, CONFLICT ^ mark_of(passed.binding)), ..passed.clone() };
                reconciled.conflicts += 1;
                match self.record_passed(tenant, &[&renamed]).await?.pop() {
                    Some(EventOutcome::Rejected(error)) => set_aside(error),
                    Some(EventOutcome::Duplicate) => Ok(Ended::Duplicate),
                    Some(EventOutcome::Accepted) | None => Ok(Ended::Recorded),
                }
            }
            EventOutcome::Rejected(error) => set_aside(error),
        }
    }

    /// Gives back a charge that is in the ledger, once.
    async fn give_back_once(&self, tenant: &TenantId, passed: &Passed) -> Result<(), EngineError> {
        let users: Vec<UserId> = passed.user.clone().into_iter().collect();
        let binding = derived(passed.binding, GIVEN_BACK);
        let work = |open: &mut Open<'_>| {
            open.engine.ledger.ready()?;
            let receipt = open.book.tenant.receipt_of(passed, open.now, open.catalog);
            let outcome = open.apply(passed.user.as_ref(), &Op::Refund(receipt))?;
            let Some(mut entry) = outcome.entry else { return Ok(((), Commit::Done)) };
            entry.binding = Some(binding);
            Ok(((), open.append(vec![entry], false, true)?.commit))
        };
        match self.once(Whom::known(tenant, &users), Some(binding), work, |_| Ok(false)).await? {
            Once::Done((), commit) => Ok(commit.wait().await?),
            Once::Repeat => Ok(()),
        }
    }
}

/// Sets a line aside if the ledger will never take it. Otherwise it is tried again.
fn set_aside(error: EngineError) -> Result<Ended, EngineError> {
    match error {
        // The clock is to blame, or a catalog that came in between.
        EngineError::Op(OpError::TooLate { .. } | OpError::TooEarly { .. }) => Err(error),
        EngineError::Op(_) | EngineError::UnknownTenant(_) | EngineError::IdempotencyConflict { .. } => {
            Ok(Ended::SetAside(error.to_string()))
        }
        error => Err(error),
    }
}

/// Several may have passed under one id, on several nodes.
fn mark_of(binding: Binding) -> u128 {
    u128::from(binding.fingerprint) << 64
}

fn derived(binding: Binding, from: u128) -> Binding {
    Binding { id: binding.id ^ from, ..binding }
}

fn add(figure: &AtomicU64, sum: &mut u64) {
    figure.fetch_add(1, Ordering::Relaxed);
    *sum += 1;
}
