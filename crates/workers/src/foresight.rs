//! What follows the closing of a day: the forecasts of all tenants are made and kept for the fleet, those whose day has come
//! are judged, and what all tenants show of each meter is learnt. Running it again judges nothing twice.
//!
//! A week's seven days share the tenants: of each tenant one forecast of every limit is kept in a week, and is judged when its
//! horizon has passed, not before. (What is reached early would be judged first otherwise, and teach that all is.)

mod ahead;

use ahead::ReadAhead;
use domain::{
    catalog::MeterKind,
    day::Day,
    id::{MeterKey, TenantId},
};
use engine::{
    Engine,
    ports::{
        Days, ForecastDates, ForecastScore, Forecasts, KeptForecast, KeptMeasure, LatestForecast, LedgerError,
        MeterGrowth, MeterSnapshots, SettledForecast,
    },
    requests::EngineError,
};
use forecast::{
    Dates, HISTORY_DAYS, Histories, Kept, Learning, Lessons, LimitOutlook, Measure, MeterOutlook, Outlook, Recorded,
    Score, Seen, Status, first_reached,
};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// The name under which nodes share the job.
const JOB: &str = "foresight";
/// How long a node keeps the job from others without renewing it: one that dies delays it no longer.
const TURN: Duration = Duration::from_secs(60);
/// How often a node looks whether a day was closed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Forecasts written at once. Many: each write is a commit.
const WRITE_ROWS: usize = 5_000;
/// Forecasts that are judged at once.
const DUE_ROWS: usize = 1_000;
/// How long a node that stops waits for the ledger to take the job back.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// Days of history beyond those that forecasts look at: what was kept is judged some nights late as well.
const SPARE_DAYS: i32 = 10;
/// Of so many days one may be missing when a level, or days one by one, are judged.
const DAYS_PER_GAP: i32 = 10;

/// How a night went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Foreseen {
    /// Tenants whose forecasts were made.
    pub tenants: u64,
    /// Forecasts that were kept to be judged.
    pub kept: u64,
    /// Forecasts that were judged.
    pub judged: u64,
    /// Forecasts that could not be judged: the limit is another by now, or days are missing.
    pub void: u64,
}

/// What was learnt from all tenants.
///
/// # Errors
/// A failing ledger.
pub async fn lessons(book: &dyn Forecasts) -> Result<Lessons, EngineError> {
    let scores = book.scores().await?.into_iter().map(ForecastScore::sums);
    Ok(Lessons::of(scores, book.growth().await?.into_iter().map(MeterGrowth::sums)))
}

/// How the forecasts of each meter did so far; nothing where none was judged.
///
/// # Errors
/// A failing ledger.
pub async fn scores(engine: &Engine) -> Result<Vec<(MeterKey, Score)>, EngineError> {
    let Some(book) = engine.forecast_book() else { return Ok(Vec::new()) };
    let lessons = lessons(book).await?;
    Ok(lessons
        .0
        .iter()
        .map(|(meter, lesson)| (meter.clone(), lesson.score()))
        .filter(|(_, score)| score.count > 0)
        .collect())
}

/// Told of every night's work that was done, and of how the forecasts of each meter did so far.
pub type Told<'a> = &'a (dyn Fn(&Foreseen, &[(MeterKey, Score)]) + Send + Sync);

/// Foresees whenever a day was closed, on one node at a time, until the node stops. It is a task's whole work: a page of
/// tenants is gone through at one go, and what shares its task waits meanwhile.
pub async fn watch(engine: &Arc<Engine>, node: &str, told: Told<'_>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut often = tokio::time::interval(LOOK_EVERY);
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    if let Ok(scores) = scores(engine).await {
        told(&Foreseen::default(), &scores);
    }
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = often.tick() => {}
        }
        match turn(engine, node, stop.as_mut()).await {
            Ok(Turn::Stopped) => return,
            Ok(Turn::NotNow) => {}
            Ok(Turn::Made(foreseen)) => {
                let Foreseen { tenants, kept, judged, void } = foreseen;
                tracing::info!(tenants, kept, judged, void, "forecasts were made");
                told(&foreseen, &scores(engine).await.unwrap_or_default());
            }
            Err(error) => tracing::warn!(%error, "forecasts could not be made; the next look tries again"),
        }
    }
}

/// What became of a look.
enum Turn {
    /// Nothing is due, or another node is at it.
    NotNow,
    /// Forecasts were made.
    Made(Foreseen),
    /// The node stops.
    Stopped,
}

/// Foresees if a day was closed since it was done last, and no other node is at it. What was done of a night when the node
/// stops stands; another node, or the next start, does the whole again.
async fn turn(
    engine: &Arc<Engine>,
    node: &str,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Turn, EngineError> {
    if !is_due(engine).await? {
        return Ok(Turn::NotNow);
    }
    let claim = || engine.claim(JOB, node, TURN.as_millis() as i64);
    let Some(lease) = claim().await? else { return Ok(Turn::NotNow) };
    let mut work = std::pin::pin!(foresee_all(engine));
    let done = loop {
        tokio::select! {
            biased;
            () = &mut stop => {
                // It ends by itself where this can't be told.
                let _ = tokio::time::timeout(RELEASE_PATIENCE, engine.release(&lease)).await;
                return Ok(Turn::Stopped);
            }
            done = &mut work => break done,
            // Whoever has it now writes the same rows.
            () = tokio::time::sleep(TURN / 4) => drop(claim().await?),
        }
    };
    engine.release(&lease).await?;
    done.map(Turn::Made)
}

/// Whether a day was closed after forecasts were made last.
///
/// # Errors
/// A failing ledger.
pub async fn is_due(engine: &Engine) -> Result<bool, EngineError> {
    let Some(book) = engine.forecast_book() else { return Ok(false) };
    let yesterday = Day::of(engine.now()) + -1;
    let runs = engine.snapshot_book().runs(Days { first: yesterday, last: yesterday }).await?;
    let Some(run) = runs.last() else { return Ok(false) };
    // A night writes all tenants in their order, and drops what it did not write: so the last row tells, also of one that
    // was broken off.
    let last = book.last().await?;
    let has_meters = !engine.catalog().meters.is_empty();
    Ok(last.map_or(run.tenants_done > 0 && has_meters, |row| row.made_at < run.ended_at))
}

/// Makes, keeps and judges the forecasts of all tenants.
///
/// # Errors
/// A failing ledger. What was written by then stands; the same call again goes on with what is left.
pub async fn foresee_all(engine: &Arc<Engine>) -> Result<Foreseen, EngineError> {
    let Some(book) = engine.forecast_book() else { return Ok(Foreseen::default()) };
    let started_at = engine.now();
    let through = Day::of(started_at) + -1;
    let lessons = lessons(book).await?;
    let mut night = Night { engine, book, lessons, through, learning: BTreeMap::new(), foreseen: Foreseen::default() };
    night.judge_what_is_due().await?;
    night.tenants().await?;
    book.drop_latest_before(started_at).await?;
    Ok(night.foreseen)
}

struct Night<'a> {
    engine: &'a Arc<Engine>,
    book: &'a dyn Forecasts,
    lessons: Lessons,
    /// The day that was closed last.
    through: Day,
    learning: BTreeMap<MeterKey, Learning>,
    foreseen: Foreseen,
}

/// What is to be written.
#[derive(Default)]
struct Page {
    latest: Vec<LatestForecast>,
    kept: Vec<KeptForecast>,
}

impl Page {
    async fn write(self, engine: &Engine) -> Result<(), EngineError> {
        let Some(book) = engine.forecast_book() else { return Ok(()) };
        if !self.kept.is_empty() {
            book.keep(self.kept).await?;
        }
        // Last: by these it is told how far a night came.
        Ok(book.put_latest(self.latest).await?)
    }
}

/// A page that is written while the next one is worked on.
#[derive(Default)]
struct Writing(Option<JoinHandle<Result<(), EngineError>>>);

impl Writing {
    async fn next(&mut self, engine: &Arc<Engine>, page: Page) -> Result<(), EngineError> {
        self.done().await?;
        let engine = engine.clone();
        self.0 = Some(tokio::spawn(async move { page.write(&engine).await }));
        Ok(())
    }

    async fn done(&mut self) -> Result<(), EngineError> {
        let lost = |_| Err(LedgerError::Unwritable("forecasts could not be written".into()).into());
        match self.0.take() {
            Some(writing) => writing.await.unwrap_or_else(lost),
            None => Ok(()),
        }
    }
}

impl Night<'_> {
    /// The days that are looked at.
    fn days(&self) -> Days {
        Days { first: self.through + -(HISTORY_DAYS + SPARE_DAYS), last: self.through }
    }

    /// Judges page by page: what was judged is due no more.
    async fn judge_what_is_due(&mut self) -> Result<(), EngineError> {
        loop {
            let mut due: BTreeMap<TenantId, Vec<KeptForecast>> = BTreeMap::new();
            for kept in self.book.due(self.through, DUE_ROWS).await? {
                due.entry(kept.tenant.clone()).or_default().push(kept);
            }
            if due.is_empty() {
                return Ok(());
            }
            let mut settled = Vec::new();
            for (tenant, kept) in due {
                self.judge_all(&tenant, kept, &mut settled).await?;
            }
            self.book.settle(settled).await?;
            tokio::task::yield_now().await;
        }
    }

    /// What came of the forecasts of a tenant; of one that is there no more it can't be said.
    async fn judge_all(
        &mut self,
        id: &TenantId,
        due: Vec<KeptForecast>,
        settled: &mut Vec<SettledForecast>,
    ) -> Result<(), EngineError> {
        let known = self.engine.snapshot_book().of_tenant(id, self.days()).await?;
        let seen = self.look_at(id, &known).await?;
        for kept in due {
            let score = seen.as_ref().and_then(|(outlook, histories)| judge(&kept, outlook, histories));
            let counts = score.map(|score| score.counts());
            match counts {
                Some(_) => self.foreseen.judged += 1,
                None => self.foreseen.void += 1,
            }
            settled.push(SettledForecast { kept, counts });
        }
        Ok(())
    }

    /// A tenant's outlook, and what it is made of; nothing where there is no such tenant (any more).
    async fn look_at(
        &self,
        id: &TenantId,
        meters: &[MeterSnapshots],
    ) -> Result<Option<(Outlook, Histories)>, EngineError> {
        let usage = match self.engine.usage(id, None).await {
            Ok((_, usage)) => usage,
            Err(EngineError::UnknownTenant(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let catalog = self.engine.prices_for(id).await?;
        let histories = histories(meters);
        let seen = Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &self.lessons };
        Ok(Some((forecast::outlook(seen), histories)))
    }

    async fn tenants(&mut self) -> Result<(), EngineError> {
        let days = self.days();
        let (mut page, mut writing) = (Page::default(), Writing::default());
        let mut ahead = ReadAhead::of(self.engine, days);
        while let Some(tenants) = ahead.next().await? {
            if page.latest.len() >= WRITE_ROWS {
                self.foreseen.kept += page.kept.len() as u64;
                writing.next(self.engine, std::mem::take(&mut page)).await?;
            }
            for (id, meters) in tenants {
                self.tenant(&id, &meters, &mut page).await?;
            }
            // What is read is there at once, often enough: others have their turn all the same.
            tokio::task::yield_now().await;
        }
        // Before the last tenants are written: what is not through is due again.
        let growth = self.learning.iter().map(|(meter, learning)| {
            let (tenants, growth_millionths) = learning.sums();
            MeterGrowth { meter: meter.clone(), tenants, growth_millionths }
        });
        self.book.put_growth(growth.collect()).await?;
        self.foreseen.kept += page.kept.len() as u64;
        writing.next(self.engine, page).await?;
        writing.done().await
    }

    async fn tenant(&mut self, id: &TenantId, meters: &[MeterSnapshots], page: &mut Page) -> Result<(), EngineError> {
        let Some((outlook, histories)) = self.look_at(id, meters).await? else { return Ok(()) };
        self.foreseen.tenants += 1;
        for meter in &outlook.meters {
            let recorded = histories.get(&meter.meter.key);
            if let (MeterKind::Gauge, Some(recorded)) = (meter.meter.kind, recorded) {
                self.learning.entry(meter.meter.key.clone()).or_default().add(&recorded.history);
            }
            page.latest.push(latest(id, &outlook, meter));
            if is_day_of(id, outlook.today) {
                page.kept.extend(meter.limits().filter_map(|limit| keep(id, &outlook, meter, limit)));
            }
        }
        Ok(())
    }
}

/// What was recorded, as the forecaster takes it.
pub fn histories(meters: &[MeterSnapshots]) -> Histories {
    meters.iter().map(|of| (of.meter.clone(), Recorded::of(of.values(), of.is_from_outside()))).collect()
}

/// Whether a tenant's forecasts are kept on this day: on one of seven in a row.
fn is_day_of(tenant: &TenantId, day: Day) -> bool {
    let sum = tenant.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (i64::from(sum) + i64::from(day.number())).rem_euclid(7) == 0
}

fn dates(of: &Dates) -> ForecastDates {
    ForecastDates { earliest: of.earliest, likely: of.likely, latest: of.latest }
}

fn latest(tenant: &TenantId, outlook: &Outlook, meter: &MeterOutlook) -> LatestForecast {
    let answer = &meter.answer;
    let now = Day::of(outlook.at);
    // What is reached was reached by today, whichever day the history ends with.
    let reached = ForecastDates { earliest: Some(now), likely: Some(now), latest: Some(now) };
    LatestForecast {
        tenant: tenant.clone(),
        meter: meter.meter.key.clone(),
        plan: outlook.plan.clone(),
        limit: answer.limit.as_ref().map(|limit| limit.name.clone()),
        status: answer.forecast.status.word().into(),
        used: answer.used,
        max: answer.max,
        dates: if answer.forecast.status == Status::Breached { reached } else { dates(&answer.forecast.dates) },
        growth_per_day_thousandths: (answer.forecast.growth_per_day * 1_000.0).round() as i64,
        made_at: outlook.at,
    }
}

/// What is kept of a forecast that says something.
fn keep(tenant: &TenantId, outlook: &Outlook, meter: &MeterOutlook, found: &LimitOutlook) -> Option<KeptForecast> {
    let (limit, max) = (found.limit.as_ref()?, found.max?);
    let says = matches!(found.forecast.status, Status::Critical | Status::Warning | Status::Safe);
    let (measure, start) = match found.measure {
        Measure::Level => (KeptMeasure::Level, outlook.today),
        Measure::EachDay => (KeptMeasure::EachDay, outlook.today),
        Measure::Total { start, .. } => (KeptMeasure::Total, start),
    };
    (says && found.forecast.horizon > outlook.today).then(|| KeptForecast {
        tenant: tenant.clone(),
        meter: meter.meter.key.clone(),
        limit: limit.name.clone(),
        asked: outlook.today,
        plan: outlook.plan.clone(),
        measure,
        start,
        horizon: found.forecast.horizon,
        used: found.used,
        max,
        dates: dates(&found.forecast.dates),
    })
}

/// What came of a forecast; `None` where that can't be said: the limit is another by now, or days are missing.
fn judge(kept: &KeptForecast, outlook: &Outlook, histories: &Histories) -> Option<Score> {
    let meter = outlook.meters.iter().find(|meter| meter.meter.key == kept.meter)?;
    let is_same = |found: &LimitOutlook| {
        found.max == Some(kept.max) && found.limit.as_ref().is_some_and(|limit| limit.name == kept.limit)
    };
    meter.limits().find(|found| is_same(found))?;
    let measure = match kept.measure {
        KeptMeasure::Level => Measure::Level,
        KeptMeasure::EachDay => Measure::EachDay,
        KeptMeasure::Total => Measure::Total { start: kept.start, end: kept.horizon },
    };
    let known = histories.get(&kept.meter)?.history.until(kept.horizon);
    let later = &known[known.partition_point(|(day, _)| *day <= kept.asked)..];
    let missing = kept.horizon - kept.asked - later.len() as i32;
    let gaps_max = if kept.measure == KeptMeasure::Total { 0 } else { (kept.horizon - kept.asked) / DAYS_PER_GAP };
    if missing > gaps_max {
        return None;
    }
    let ForecastDates { earliest, likely, latest } = kept.dates;
    let said = Kept::of(measure, kept.asked, Dates { earliest, likely, latest }, kept.horizon);
    let reached = first_reached(measure, kept.used as f64, later, kept.max as f64, kept.horizon);
    let mut score = Score::default();
    score.add(&said.judge(reached, kept.horizon)?);
    Some(score)
}
