//! One closing of a day at a time, on one node at a time: asked for, or when the schedule says so.

use super::{close, rules, start_of};
use crate::collect::Allowed;
use domain::{day::Day, time::Instant};
use engine::{
    Engine,
    ports::{Days, JobLease},
    requests::EngineError,
};
use std::{sync::Arc, time::Duration};
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
/// Lines that wait for a listener.
const LINES_MAX: usize = 64;

/// Told of every closing that ended.
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
        tokio::spawn(async move { keeper.work(asked, lines, busy).await });
        Some(listener)
    }

    /// How many days are kept.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn keep_days(&self) -> Result<i32, EngineError> {
        Ok(rules(&self.engine).await?.keep_days)
    }

    async fn work(&self, asked: SnapshotAsked, lines: mpsc::Sender<SnapshotLine>, _busy: OwnedMutexGuard<()>) {
        let lease = match self.claim().await {
            Ok(Some(lease)) => lease,
            Ok(None) => return fail(&lines, "another node is closing a day: ask again when it is through").await,
            Err(error) => return fail(&lines, &error.to_string()).await,
        };
        let mut work = std::pin::pin!(close(&self.engine, &self.allowed, &asked, &lines));
        let summary = loop {
            match tokio::time::timeout(TURN / 4, &mut work).await {
                Ok(summary) => break summary,
                // Whoever has it now writes the same rows.
                Err(_) => drop(self.claim().await),
            }
        };
        if let Err(error) = self.engine.release(&lease).await {
            tracing::warn!(%error, "the turn to close days could not be given back; it ends by itself");
        }
        (self.ended)(&summary);
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
                Ok(Some(day)) => self.close_by_itself(day).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "which days are due can't be read; the next look tries again"),
            }
        }
    }

    async fn close_by_itself(self: &Arc<Self>, day: Day) {
        let asked = SnapshotAsked { day, tenant: None, dry_run: false, per_tenant: false };
        let Some(mut lines) = self.begin(asked) else { return };
        while let Some(line) = lines.recv().await {
            match line {
                SnapshotLine::Ended(summary) => tracing::info!(
                    day = summary.day,
                    complete = summary.complete,
                    tenants_done = summary.tenants_done,
                    tenants_failed = summary.tenants_failed,
                    took_ms = summary.took_ms,
                    "a day was closed"
                ),
                SnapshotLine::Failed { reason } => tracing::debug!(%day, reason, "a day was not closed here"),
                _ => {}
            }
        }
    }
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
        if let Some(day) = first_due(rules, &closed, now) {
            return Ok(Some(day));
        }
        let in_part = runs.last().filter(|run| run.day == yesterday && run.tenants_failed > 0);
        let Some(run) = in_part.filter(|run| run.ended_at.plus_ms(AGAIN_AFTER_MS) <= now) else { return Ok(None) };
        let tried = self.again.filter(|(day, _)| *day == run.day).map_or(0, |(_, tried)| tried);
        self.again = Some((run.day, tried + 1));
        Ok((tried < AGAIN_MAX && rules.schedule.is_some()).then_some(run.day))
    }
}

/// The oldest day that is due and was not closed. A day is due when the schedule has come round after its end; days
/// before the first that was ever closed are not.
fn first_due(rules: &SnapshotRules, closed: &[Day], now: Instant) -> Option<Day> {
    let schedule = rules.schedule.as_ref()?;
    let yesterday = Day::of(now) + -1;
    let first = closed.first().copied().unwrap_or(yesterday);
    let open = (first.number()..=yesterday.number()).map(Day::from_number).find(|day| !closed.contains(day))?;
    let due = schedule.next_after(start_of(open + 1).plus_ms(-1), &rules.zone)?;
    (due <= now).then_some(open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(text: &str) -> Instant {
        let (day, time) = text.split_once(' ').unwrap();
        let (hour, minute) = time.split_once(':').unwrap();
        let minutes = hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap();
        start_of(Day::parse(day).unwrap()).plus_ms(minutes * 60_000)
    }

    #[test]
    fn days_are_due_when_the_schedule_has_come_round() {
        for (schedule, zone, closed, now, due) in [
            // Nothing was closed yet: yesterday, when its time has come.
            ("0 2 * * *", "UTC", "", "2026-03-10 01:59", "-"),
            ("0 2 * * *", "UTC", "", "2026-03-10 02:00", "2026-03-09"),
            ("0 2 * * *", "UTC", "2026-03-09", "2026-03-10 02:00", "-"),
            // After days without a node the oldest comes first.
            ("0 2 * * *", "UTC", "2026-03-05 2026-03-07", "2026-03-10 09:00", "2026-03-06"),
            ("0 2 * * *", "UTC", "2026-03-05 2026-03-06 2026-03-07", "2026-03-10 09:00", "2026-03-08"),
            // Two in the morning in New York is seven in UTC, in winter.
            ("0 2 * * *", "America/New_York", "2026-01-08", "2026-01-10 06:59", "-"),
            ("0 2 * * *", "America/New_York", "2026-01-08", "2026-01-10 07:00", "2026-01-09"),
            // Once a week, on Mondays: all that is missing.
            ("0 2 * * 1", "UTC", "2026-03-07", "2026-03-09 01:00", "-"),
            ("0 2 * * 1", "UTC", "2026-03-07", "2026-03-09 02:00", "2026-03-08"),
            ("off", "UTC", "", "2026-03-10 09:00", "-"),
        ] {
            let text = format!("[snapshots]\nschedule = \"{schedule}\"\ntimezone = \"{zone}\"\n[plans.free]\nrank = 0");
            let rules = wire::catalog::load(&text, "test").unwrap().snapshots;
            let closed: Vec<Day> = closed.split_whitespace().map(|day| Day::parse(day).unwrap()).collect();
            let found = first_due(&rules, &closed, at(now)).map_or("-".to_owned(), |day| day.to_string());
            assert_eq!(found, due, "{schedule} in {zone} at {now}");
        }
    }
}
