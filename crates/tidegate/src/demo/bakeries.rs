//! Sixty days of twenty-five bakeries: what was there before the curtain rose, so that there is something to foresee.
//!
//! Made by a table and a little arithmetic, the same on every run: no tenant is real, and no number is drawn at random.

use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    op::{Adjustment, Movement, ProfileChange},
    time::Instant,
};
use engine::{
    Engine,
    ports::{Snapshot, SnapshotRun, SnapshotSource, Taken},
};
use std::sync::Arc;

/// Days of history of most of them.
const DAYS: i32 = 60;

/// A bakery, and how it grew.
struct Bakery {
    tenant: &'static str,
    plan: &'static str,
    /// How many days it has been a customer, at most [`DAYS`] are shown.
    days: i32,
    /// Products it has now, and how many came in a hundred days.
    products: (i64, i64),
    /// Megabytes of files it has now, and how many came a day.
    storage: (i64, i64),
    /// API calls of a middling day.
    calls: i64,
    /// Forecasts of a middling day.
    forecasts: i64,
}

const fn bakery(
    tenant: &'static str,
    plan: &'static str,
    days: i32,
    products: (i64, i64),
    storage: (i64, i64),
    calls: i64,
    forecasts: i64,
) -> Bakery {
    Bakery { tenant, plan, days, products, storage, calls, forecasts }
}

/// The three of the scene first. The starter plan has 50 products, 5 GB, 1,000 calls and 10 forecasts a day; the professional ten times that
/// (50 GB, 100 forecasts); the enterprise plan bounds files and calls alone.
const BAKERIES: [Bakery; 25] = [
    bakery("la-espiga", "starter", 60, (35, 50), (900, 8), 320, 4),
    bakery("el-horno", "starter", 60, (50, 30), (2_100, 12), 610, 9),
    bakery("panissimo", "professional", 60, (212, 120), (18_000, 95), 4_200, 61),
    bakery("forn-de-pa", "starter", 60, (48, 40), (1_400, 10), 280, 3),
    bakery("masa-madre", "starter", 60, (47, 60), (3_900, 30), 510, 6),
    bakery("la-tahona", "starter", 60, (41, 70), (4_700, 45), 730, 8),
    bakery("obrador-norte", "starter", 60, (18, 0), (350, 2), 140, 1),
    bakery("pan-y-sal", "starter", 60, (12, 5), (240, 1), 90, 1),
    bakery("trigo-limpio", "starter", 4, (9, 150), (60, 15), 200, 2),
    bakery("la-miga", "starter", 2, (3, 100), (10, 5), 60, 1),
    bakery("cal-forner", "starter", 60, (58, 20), (4_980, 6), 880, 9),
    bakery("dulce-alba", "starter", 33, (29, 60), (1_900, 40), 360, 5),
    bakery("horno-viejo", "starter", 60, (22, -10), (800, 0), 110, 2),
    bakery("santa-harina", "starter", 60, (44, 35), (2_600, 18), 940, 9),
    bakery("levain", "professional", 60, (388, 250), (47_500, 160), 6_100, 72),
    bakery("kornblume", "professional", 60, (491, 140), (31_000, 210), 7_700, 88),
    bakery("boulangerie-b", "professional", 60, (260, 60), (12_500, 70), 2_900, 40),
    bakery("fornace", "professional", 21, (140, 300), (6_200, 120), 3_300, 35),
    bakery("pane-nostro", "professional", 60, (505, 90), (22_000, 55), 5_000, 66),
    bakery("backhaus-nord", "professional", 60, (330, 20), (9_400, 20), 9_300, 95),
    bakery("molen", "professional", 60, (175, 0), (5_100, 12), 1_800, 22),
    bakery("rugbrod", "professional", 60, (468, 110), (40_500, 240), 4_600, 58),
    bakery("grupo-pan", "enterprise", 60, (2_900, 800), (410_000, 2_300), 61_000, 420),
    bakery("brot-ag", "enterprise", 60, (5_200, 1_500), (985_000, 3_100), 83_000, 610),
    bakery("panaria", "enterprise", 47, (1_100, 400), (120_000, 1_900), 38_000, 250),
];

/// How busy the days of a week are, in percent of a middling one, from Monday on: bakers sell most before the weekend.
const WEEK: [i64; 7] = [80, 85, 95, 105, 130, 140, 65];

/// Makes the bakeries that the scene does not have, and writes down what all of them did until yesterday.
///
/// # Errors
/// A failing ledger.
pub async fn remember(engine: &Arc<Engine>) -> anyhow::Result<()> {
    let now = engine.now();
    let today = Day::of(now);
    let mut rows = Vec::new();
    for bakery in &BAKERIES {
        let tenant = TenantId::new(bakery.tenant)?;
        let change = ProfileChange { plan: Some(PlanKey::new(bakery.plan)?), ..ProfileChange::default() };
        engine.put_tenant(&tenant, &change, "demo").await?;
        for level in bakery.levels() {
            let movement = Movement::Set(level.now);
            let adjustment =
                Adjustment { meter: MeterKey::new(level.meter)?, movement, window: None, on: None, binding: None };
            engine.adjust(&tenant, None, adjustment, None, "demo", "what was there before").await?;
        }
        rows.extend(bakery.rows(&tenant, today, now)?);
    }
    let book = engine.snapshot_book();
    book.put(rows).await?;
    // So that the night of the demo itself does not close a day of which it counted nothing.
    let run = SnapshotRun {
        day: today + -1,
        started_at: now,
        ended_at: now,
        tenants_done: BAKERIES.len() as u64,
        tenants_failed: 0,
    };
    book.put_run(run).await?;
    workers::foresight::foresee_all(engine).await?;
    Ok(())
}

/// A gauge of a bakery.
struct Level {
    meter: &'static str,
    now: i64,
    /// What came in a hundred days.
    in_hundred_days: i64,
}

impl Bakery {
    fn levels(&self) -> [Level; 6] {
        let (products, growth) = self.products;
        let (storage, a_day) = self.storage;
        let level = |meter, now, in_hundred_days| Level { meter, now, in_hundred_days };
        [
            level("products", products, growth),
            level("recipes", products * 7 / 8, growth * 3 / 4),
            level("suppliers", 2 + products / 9, growth / 12),
            level("users", 1 + products / 30, growth / 40),
            level("locations", 1 + products / 400, 0),
            level("file_storage", storage * 1_000_000, a_day * 100_000_000),
        ]
    }

    fn rows(&self, tenant: &TenantId, today: Day, now: Instant) -> anyhow::Result<Vec<Snapshot>> {
        let mut rows = Vec::new();
        let mut row = |meter: &str, day: Day, value: i64| -> anyhow::Result<()> {
            let taken = Taken { day, value, after_reset: None, observed_at: now, source: SnapshotSource::Pushed };
            rows.push(Snapshot { tenant: tenant.clone(), meter: MeterKey::new(meter)?, taken });
            Ok(())
        };
        for back in 1..=self.days.min(DAYS) {
            let day = today + -back;
            for level in self.levels() {
                let jitter = i64::from(back % 3 == 1) * (level.in_hundred_days / 100);
                let grown = level.in_hundred_days * i64::from(back - 1) / 100 + jitter;
                row(level.meter, day, (level.now - grown).max(0))?;
            }
            let busy = |mean: i64, salt: i32| {
                let swing = i64::from((day.number() * 37 + salt * 11).rem_euclid(23)) - 11;
                (mean * WEEK[day.weekday()] * (100 + swing) / 10_000).max(0)
            };
            row("api_calls", day, busy(self.calls, 1))?;
            row("forecasts", day, busy(self.forecasts, 2))?;
            row("training_jobs", day, busy(self.forecasts, 3) / 20)?;
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[path = "bakeries_tests.rs"]
mod tests;
