//! One closing of a day at a time, on one node at a time: asked for, or when the schedule says so.

use super::{rules, start_of, try_close};
use crate::collect::Allowed;
use domain::{day::Day, time::Instant};
use engine::{
    Engine,
    ports::{Days, JobLease},
    requests::EngineError,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use wire::{
    catalog::SnapshotRules,
    v1::snapshots::{SnapshotAsked, SnapshotLine, SnapshotSummary},
};

/// The name under which nodes share the job.
const JOB: &str = "snapshot";
/// How long a node keeps the job from others without renewing it: one that dies delays it no longer.
const TURN: Duration = Duration::from_secs(60);
/// How often the schedule is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Days that are closed after a time in which no node ran, at most.
const CATCH_UP_DAYS: i32 = 60;
/// How long after it was closed in part a day is closed again by itself, and how often.
const AGAIN_AFTER_MS: i64 = 1_800_000;
const AGAIN_MAX: u32 = 2;
/// How long it is waited after a day could not be closed at all: doubled each time, up to an hour. Every try asks the customer's
/// databases.
const WAIT_FIRST_MS: i64 = 60_000;
const WAIT_MAX_MS: i64 = 3_600_000;
/// Lines that wait for a listener.
const LINES_MAX: usize = 64;

/// Told of every closing of a day of all tenants that ended, well or not. Tries that write nothing, and those of one tenant, are
/// nobody's last night.
pub type Ended = Arc<dyn Fn(&SnapshotSummary) + Send + Sync>;

/// Closes days.
pub struct Keeper {
    engine: Arc<Engine>,
    /// What this node is called among those that share the job.
    node: String,
    /// What of this node the catalog may name as a source.
    allowed: Allowed,
    busy: Arc<Mutex<()>>,
    ended: Ended,
}

impl Keeper {
    /// For a node.
    pub fn new(engine: Arc<Engine>, node: String, allowed: Allowed, ended: Ended) -> Arc<Self> {
        Arc::new(Self { engine, node, allowed, busy: Arc::default(), ended })
    }

    /// Begins to close a day, whether or not anybody listens to the end; `None` while this node closes one.
    pub fn begin(self: &Arc<Self>, asked: SnapshotAsked) -> Option<mpsc::Receiver<SnapshotLine>> {
        let busy = self.busy.clone().try_lock_owned().ok()?;
        let (lines, listener) = mpsc::channel(LINES_MAX);
        let keeper = self.clone();
        tokio::spawn(async move { drop(keeper.work(asked, lines, busy).await) });
        Some(listener)
    }

    /// How many days are kept.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn keep_days(&self) -> Result<i32, EngineError> {
        Ok(rules(&self.engine).await?.keep_days)
    }

    async fn work(
        &self,
        asked: SnapshotAsked,
        lines: mpsc::Sender<SnapshotLine>,
        _busy: OwnedMutexGuard<()>,
    ) -> Outcome {
        let lease = match self.claim().await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                fail(&lines, "another node is closing a day: ask again when it is through").await;
                return Outcome::Elsewhere;
            }
            Err(error) => {
                fail(&lines, &error.to_string()).await;
                return Outcome::Failed(error);
            }
        };
        let mut work = std::pin::pin!(try_close(&self.engine, &self.allowed, &asked, &lines));
        let (summary, outcome) = loop {
            match tokio::time::timeout(TURN / 4, &mut work).await {
                Ok(ended) => break ended,
                // Whoever has it now writes the same rows.
                Err(_) => drop(self.claim().await),
            }
        };
        if let Err(error) = self.engine.release(&lease).await {
            tracing::warn!(%error, "the turn to close days could not be given back; it ends by itself");
        }
        if !asked.dry_run && asked.tenant.is_none() {
            (self.ended)(&summary);
        }
        match outcome {
            Ok(()) => Outcome::Ended(summary),
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn claim(&self) -> Result<Option<JobLease>, EngineError> {
        self.engine.claim(JOB, &self.node, TURN.as_millis() as i64).await
    }

    /// Closes days when they are due, for as long as the node runs.
    pub async fn keep(self: Arc<Self>) {
        let mut often = tokio::time::interval(LOOK_EVERY);
        often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut schedule = Schedule::default();
        loop {
            often.tick().await;
            match schedule.due(&self.engine).await {
                Ok(Some(day)) => self.close_by_itself(day, &mut schedule).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "which days are due can't be read; the next look tries again"),
            }
        }
    }

    async fn close_by_itself(&self, day: Day, schedule: &mut Schedule) {
        let asked = SnapshotAsked { day, tenant: None, dry_run: false, per_tenant: false };
        let Ok(busy) = self.busy.clone().try_lock_owned() else { return };
        // Nobody listens.
        let (lines, _) = mpsc::channel(1);
        match self.work(asked, lines, busy).await {
            Outcome::Ended(summary) => {
                schedule.waiting.remove(&day);
                tracing::info!(
                    day = summary.day,
                    complete = summary.complete,
                    tenants_done = summary.tenants_done,
                    tenants_failed = summary.tenants_failed,
                    took_ms = summary.took_ms,
                    "a day was closed"
                );
            }
            Outcome::Failed(error) => {
                let wait_ms = schedule.failed(day, self.engine.now());
                tracing::warn!(%day, %error, wait_s = wait_ms / 1_000, "a day was not closed; it is tried again");
            }
            Outcome::Elsewhere => tracing::debug!(%day, "another node closes a day"),
        }
    }
}

/// How a closing ended.
enum Outcome {
    /// The day was gone through.
    Ended(SnapshotSummary),
    /// It was not.
    Failed(EngineError),
    /// Another node is at it.
    Elsewhere,
}

async fn fail(lines: &mpsc::Sender<SnapshotLine>, reason: &str) {
    // Nobody needs to listen.
    let _ = lines.send(SnapshotLine::Failed { reason: reason.to_owned() }).await;
}

/// What the schedule says, and what has been tried.
#[derive(Default)]
struct Schedule {
    rules: Option<(u32, Arc<SnapshotRules>)>,
    again: Option<(Day, u32)>,
    /// Days that could not be closed.
    waiting: BTreeMap<Day, Waiting>,
}

/// A day that could not be closed so many times, and is tried again from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    tries: u32,
    until: Instant,
}

impl Waiting {
    fn is_over(&self, now: Instant) -> bool {
        // A clock that was set back must not make it wait for longer.
        self.until <= now || now.plus_ms(WAIT_MAX_MS) < self.until
    }
}

impl Schedule {
    /// A day that is to be closed now.
    async fn due(&mut self, engine: &Engine) -> Result<Option<Day>, EngineError> {
        let version = engine.catalog().version;
        if self.rules.as_ref().is_none_or(|(known, _)| *known != version) {
            self.rules = Some((version, rules(engine).await?));
        }
        let Some((_, rules)) = &self.rules else { return Ok(None) };
        let now = engine.now();
        let yesterday = Day::of(now) + -1;
        let runs = engine.snapshot_runs(Days { first: yesterday + -CATCH_UP_DAYS, last: yesterday }).await?;
        let closed: Vec<Day> = runs.iter().map(|run| run.day).collect();
        self.waiting.retain(|day, _| yesterday + -CATCH_UP_DAYS <= *day);
        let waits = |day: Day| self.waiting.get(&day).is_some_and(|waiting| !waiting.is_over(now));
        if let Some(day) = first_due(rules, &closed, now, waits) {
            return Ok(Some(day));
        }
        let in_part = runs.last().filter(|run| run.day == yesterday && run.tenants_failed > 0 && !waits(run.day));
        let Some(run) = in_part.filter(|run| run.ended_at.plus_ms(AGAIN_AFTER_MS) <= now) else { return Ok(None) };
        let tried = self.again.filter(|(day, _)| *day == run.day).map_or(0, |(_, tried)| tried);
        self.again = Some((run.day, tried + 1));
        Ok((tried < AGAIN_MAX && rules.schedule.is_some()).then_some(run.day))
    }

    /// A day could not be closed; says how long it is waited before the next try.
    fn failed(&mut self, day: Day, now: Instant) -> i64 {
        let tries = self.waiting.get(&day).map_or(0, |waiting| waiting.tries);
        let wait_ms = WAIT_FIRST_MS.saturating_mul(1 << tries.min(16)).min(WAIT_MAX_MS);
        self.waiting.insert(day, Waiting { tries: tries + 1, until: now.plus_ms(wait_ms) });
        wait_ms
    }
}

/// The oldest day that is due, was not closed and does not wait: one that can't be closed keeps no other from it. A day is due
/// when the schedule has come round after its end; days before the first that was ever closed are not.
fn first_due(rules: &SnapshotRules, closed: &[Day], now: Instant, waits: impl Fn(Day) -> bool) -> Option<Day> {
    let schedule = rules.schedule.as_ref()?;
    let yesterday = Day::of(now) + -1;
    let first = closed.first().copied().unwrap_or(yesterday);
    let is_open = |day: &Day| !closed.contains(day) && !waits(*day);
    let open = (first.number()..=yesterday.number()).map(Day::from_number).find(is_open)?;
    let due = schedule.next_after(start_of(open + 1).plus_ms(-1), &rules.zone)?;
    (due <= now).then_some(open)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
