//! Closes a UTC day: what every meter of every tenant stood at when it ended, or gained in it, is written into the daily
//! history. Running it again writes the same rows over the ones that are there.
//!
//! Collectors are asked first, one question a meter for all tenants; then tenants are gone through in order of id, page by
//! page, beside what the history says they used. Each tenant is loaded on the way, so that what has lapsed of tenants that
//! nobody asked for (holds, idle sessions) is written down.

mod asked;
mod counted;
mod keeper;
mod late;
mod levels;
mod tenant;

pub use keeper::{Ended, Keeper};

use self::{asked::Asked, counted::Counted, levels::Levels, tenant::Known};
use crate::collect::Allowed;
use domain::{
    day::Day,
    history::Resolution,
    id::{MeterKey, TenantId},
    time::{DAY_MS, Instant},
};
use engine::{
    Engine,
    ports::{Days, LedgerError, Snapshot, SnapshotRun, SnapshotSource, TenantSnapshots},
    requests::{EngineError, TenantCard},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use wire::{
    catalog::SnapshotRules,
    v1::snapshots::{FAILURES_NAMED_MAX, MeterFailure, SnapshotAsked, SnapshotLine, SnapshotSummary, ValueFailure},
};

/// Tenants gone through between two writes.
const PAGE_TENANTS: usize = 500;

/// How long a line waits to be taken before nothing more is told.
const LISTENER_PATIENCE: Duration = Duration::from_secs(30);

/// How often, and how many times, it is looked whether history has caught up.
const REMEMBERED_EVERY: Duration = Duration::from_millis(200);
const REMEMBERED_TRIES: usize = 1_500;

/// Where a day begins.
pub(crate) fn start_of(day: Day) -> Instant {
    Instant::from_ms(i64::from(day.number()) * DAY_MS)
}

/// Closes a day and tells of it; the last line says how it went. If nobody listens any more it goes on all the same.
/// Of what the catalog names as sources, what is allowed on this node is asked.
pub async fn close(
    engine: &Arc<Engine>,
    allowed: &Allowed,
    asked: &SnapshotAsked,
    lines: &mpsc::Sender<SnapshotLine>,
) -> SnapshotSummary {
    try_close(engine, allowed, asked, lines).await.0
}

/// The same; says as well whether the day was gone through.
async fn try_close(
    engine: &Arc<Engine>,
    allowed: &Allowed,
    asked: &SnapshotAsked,
    lines: &mpsc::Sender<SnapshotLine>,
) -> (SnapshotSummary, Result<(), EngineError>) {
    let begun = engine.steady_ms();
    let (summary, is_heard) = (SnapshotSummary::default(), AtomicBool::new(true));
    let mut work = Work { engine, allowed, asked, lines, summary, is_heard };
    work.summary.day = asked.day.to_string();
    work.summary.dry_run = asked.dry_run;
    work.begin().await;
    let outcome = work.run().await;
    let Work { mut summary, .. } = work;
    summary.took_ms = (engine.steady_ms() - begun).max(0) as u64;
    let last = match &outcome {
        Ok(()) => {
            // A row that is no tenant's spoils none, but whoever wrote it has to know.
            summary.complete =
                summary.tenants_failed == 0 && summary.meters_failed.is_empty() && summary.failures_total == 0;
            SnapshotLine::Ended(summary.clone())
        }
        Err(error) => {
            tracing::warn!(%error, day = %asked.day, "a day could not be closed");
            SnapshotLine::Failed { reason: error.to_string() }
        }
    };
    // A listener that is gone, or asleep, needs no last word.
    let _ = tokio::time::timeout(LISTENER_PATIENCE, lines.send(last)).await;
    (summary, outcome)
}

/// The rules of the catalog in force.
///
/// # Errors
/// A failing ledger.
pub async fn rules(engine: &Engine) -> Result<Arc<SnapshotRules>, EngineError> {
    let text = engine.catalog_in_force().await?.map_or_else(|| "".into(), |stored| stored.text);
    match wire::catalog::load(&text, "tidegate.toml") {
        Ok(loaded) => Ok(Arc::new(loaded.snapshots)),
        // It was valid when it was put in force, by this release or another.
        Err(problems) => {
            let why = problems.first().map_or_else(String::new, ToString::to_string);
            Err(EngineError::Ledger(LedgerError::Damaged(why.into())))
        }
    }
}

struct Work<'a> {
    engine: &'a Arc<Engine>,
    allowed: &'a Allowed,
    asked: &'a SnapshotAsked,
    lines: &'a mpsc::Sender<SnapshotLine>,
    summary: SnapshotSummary,
    /// Whether lines are taken.
    is_heard: AtomicBool,
}

impl Work<'_> {
    async fn tell(&self, line: SnapshotLine) {
        // Nobody needs to listen, and who stops listening keeps nobody waiting.
        if self.is_heard.load(Ordering::Relaxed) {
            let sent = tokio::time::timeout(LISTENER_PATIENCE, self.lines.send(line)).await;
            self.is_heard.store(matches!(sent, Ok(Ok(()))), Ordering::Relaxed);
        }
    }

    async fn begin(&self) {
        let days = Days { first: self.asked.day + -7, last: self.asked.day };
        let known = self.engine.snapshot_runs(days).await.unwrap_or_default();
        let tenants_about = known.last().map_or(0, |run| run.tenants_done + run.tenants_failed);
        let (day, dry_run) = (self.asked.day.to_string(), self.asked.dry_run);
        self.tell(SnapshotLine::Begun { day, dry_run, tenants_about }).await;
    }

    async fn run(&mut self) -> Result<(), EngineError> {
        let started_at = self.engine.now();
        let rules = rules(self.engine).await?;
        let mut collected = Asked::all(self, &rules).await;
        self.until_remembered(started_at).await?;
        let mut known = self.known(&collected).await?;
        let mut after: Option<TenantId> = None;
        loop {
            let cards = self.page(after.as_ref()).await?;
            let Some(last) = cards.last() else { break };
            let through = last.id.clone();
            known.levels.next(&cards).await?;
            self.close_page(&cards, after.as_ref(), &mut collected, &mut known).await?;
            self.tell(SnapshotLine::Progress { done: self.summary.tenants_done + self.summary.tenants_failed }).await;
            if self.asked.tenant.is_some() {
                break;
            }
            after = Some(through);
        }
        if self.asked.dry_run || self.asked.tenant.is_some() {
            return Ok(());
        }
        if self.asked.day + 1 == Day::of(started_at) {
            self.summary.days_closed_again = late::close_again(self.engine, &rules, self.asked.day).await?;
        }
        let run = SnapshotRun {
            day: self.asked.day,
            started_at,
            ended_at: self.engine.now(),
            tenants_done: self.summary.tenants_done,
            tenants_failed: self.summary.tenants_failed,
        };
        self.engine.put_snapshot_run(run).await?;
        self.engine.drop_snapshots(Day::of(started_at) + -rules.keep_days).await
    }

    /// A meter is lacking in every tenant: that is told once.
    async fn lacks(&mut self, failure: MeterFailure) {
        self.summary.meters_failed.push(failure.clone());
        let MeterFailure { meter, reason } = failure;
        self.tell(SnapshotLine::NotCollected { meter, reason }).await;
    }

    /// Waits until history has everything that was recorded before this began.
    async fn until_remembered(&self, started_at: Instant) -> Result<(), EngineError> {
        let day = start_of(self.asked.day);
        for _ in 0..REMEMBERED_TRIES {
            let page = self.engine.history_of_all(Resolution::Day, day, None, 1).await?;
            if page.state.at >= started_at || self.engine.journal(page.state.through, 1).await?.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(REMEMBERED_EVERY).await;
        }
        Err(EngineError::Ledger(LedgerError::Unwritable("history is far behind the journal: try again later".into())))
    }

    /// The next tenants; the only one, where only one is asked for.
    async fn page(&self, after: Option<&TenantId>) -> Result<Vec<TenantCard>, EngineError> {
        match &self.asked.tenant {
            Some(tenant) => Ok(vec![self.engine.tenant(tenant).await?]),
            None => self.engine.tenants(after, PAGE_TENANTS).await,
        }
    }

    async fn close_page(
        &mut self,
        cards: &[TenantCard],
        after: Option<&TenantId>,
        collected: &mut Asked,
        known: &mut Known<'_>,
    ) -> Result<(), EngineError> {
        let pushed = self.pushed(cards, after).await?;
        let mut rows = Vec::new();
        for card in cards {
            let found = tenant::Closed::of(self, card, collected, known, pushed.get(&card.id)).await?;
            let Some(found) = found else { continue };
            match found.is_whole {
                true => self.summary.tenants_done += 1,
                false => self.summary.tenants_failed += 1,
            }
            for failure in found.failures {
                self.note(failure);
            }
            if self.asked.per_tenant {
                let values = found.rows.iter().map(|row| (row.meter.as_str().to_owned(), row.taken.value)).collect();
                self.tell(SnapshotLine::Tenant { tenant_id: card.id.as_str().to_owned(), values }).await;
            }
            rows.extend(found.rows);
        }
        self.write(rows).await
    }

    /// What was pushed for the day stands, where no collector is asked.
    async fn pushed(
        &self,
        cards: &[TenantCard],
        after: Option<&TenantId>,
    ) -> Result<BTreeMap<TenantId, TenantSnapshots>, EngineError> {
        let Some(last) = cards.last() else { return Ok(BTreeMap::new()) };
        let days = Days::only(self.asked.day);
        let mut known = match &self.asked.tenant {
            Some(tenant) => {
                let meters = self.engine.snapshots(tenant, days).await?;
                vec![TenantSnapshots { tenant: tenant.clone(), meters }]
            }
            None => self.engine.snapshots_of_all(after, &last.id, days).await?,
        };
        for tenant in &mut known {
            tenant.meters.retain(|meter| meter.days.iter().any(|taken| taken.source == SnapshotSource::Pushed));
        }
        Ok(known.into_iter().map(|tenant| (tenant.tenant.clone(), tenant)).collect())
    }

    async fn write(&mut self, rows: Vec<Snapshot>) -> Result<(), EngineError> {
        self.summary.values += rows.len() as u64;
        if self.asked.dry_run {
            return Ok(());
        }
        self.engine.put_snapshots(rows).await
    }

    fn note(&mut self, failure: ValueFailure) {
        self.summary.failures_total += 1;
        if self.summary.failures.len() < FAILURES_NAMED_MAX {
            self.summary.failures.push(failure);
        }
    }
}

impl<'a> Work<'a> {
    /// What the ledger knows of the day. Where history has lost it, the meters that it counts are lacking.
    async fn known(&mut self, collected: &Asked) -> Result<Known<'a>, EngineError> {
        let day = self.asked.day;
        let first = self.engine.history_kept().await?.first_whole_day();
        if day < first {
            let meters: Vec<MeterKey> = self.engine.catalog().meters.keys().cloned().collect();
            for meter in meters.into_iter().filter(|meter| !collected.asks(meter)) {
                let reason = format!(
                    "history of this day is not kept any more, only from {first} on (TIDEGATE_LEDGER_HISTORY says how long)"
                );
                self.lacks(MeterFailure { meter: meter.as_str().to_owned(), reason }).await;
            }
        }
        let (counted, levels) = (Counted::of(self.engine, day), Levels::since(self.engine, day));
        Ok(Known { counted, levels, is_kept: day >= first })
    }
}
