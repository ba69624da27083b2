//! What a decision and its charge cost in memory: `cargo bench -p domain --bench decide -- [seconds]`.
//!
//! 200,000 tenants with five accounts each (a million accounts), chosen at random by name; one charge against three
//! limits (month, day, minute) on one thread. The entry that would go to the ledger is made and dropped. The name is
//! written anew each time, as it is read from a request, and looked up with the hash that the engine uses. With
//! `-- SECONDS TENANTS` there are more tenants or fewer: few show what is left when nothing waits for memory.
// The core may look at no clock and keep no random order; who measures it may.
#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]

use domain::{
    catalog::{Catalog, Enforce, EventBounds, Limit, LimitWindow, Meter, MeterKind, Mode, Outage, Plan, Scope},
    entry::{Cause, Profile, Status},
    id::{MeterKey, PlanKey, TenantId},
    op::{Charge, Op, Spend},
    tenant::Tenant,
    time::{Instant, WindowKind, Zone},
};
use rustc_hash::FxHashMap;
use std::{hint::black_box, sync::Arc};

const TENANTS: usize = 200_000;
const METERS: [&str; 5] = ["messages", "api_calls", "tokens", "exports", "conversation_time"];
const CALLS: u32 = 100_000;
const NOW_MS: i64 = 1_800_000_000_000;

fn meter(number: usize) -> MeterKey {
    MeterKey::new(METERS[number]).unwrap()
}

fn limit(meter: &MeterKey, kind: WindowKind) -> Limit {
    Limit {
        name: Limit::default_name(meter, LimitWindow::Of(kind), Scope::Tenant).into(),
        meter: meter.clone(),
        max: Some(1_000_000_000_000),
        window: LimitWindow::Of(kind),
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Outage::Closed,
        quota: Default::default(),
    }
}

fn catalog() -> Catalog {
    let meters = (0..METERS.len()).map(|number| {
        let (key, word) = (meter(number), Arc::from(meter(number).as_str()));
        let meter = Meter {
            key: key.clone(),
            kind: MeterKind::Counter,
            label: Arc::clone(&word),
            unit: "requests".into(),
            decimals: 0,
            event_type: word,
            value_pointer: "/value".into(),
            counts_requests: true,
            unsettled: Default::default(),
            session: Default::default(),
        };
        (key, Arc::new(meter))
    });
    let kinds = [WindowKind::Month, WindowKind::Day, WindowKind::Minute];
    let limits = (0..METERS.len()).flat_map(|number| kinds.map(|kind| limit(&meter(number), kind))).collect();
    let plan = Plan {
        key: PlanKey::new("plan").unwrap(),
        label: "Plan".into(),
        rank: 0,
        price: None,
        public: true,
        features: Vec::new(),
        limits,
        sessions: Default::default(),
    };
    Catalog {
        version: 1,
        meters: meters.collect(),
        features: Default::default(),
        plans: [(plan.key.clone(), Arc::new(plan))].into(),
        default_plan: None,
        dimensions: Vec::new(),
        enforce: Enforce::On,
        event_bounds: EventBounds { late_ms: 86_400_000, future_ms: 60_000 },
        upgrade_url: None,
        warn_percent: 80,
        forecast: domain::catalog::ForecastTerms::DEFAULT,
        warnings: vec![80, 100],
        costs: Default::default(),
    }
}

/// Fixed steps through a row of numbers: the same tenants in every run.
struct Row(u64);

impl Row {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Time this thread has had a processor, in nanoseconds, so that other programs do not count; elsewhere than on Linux,
/// the clock.
fn busy_ns(since: std::time::Instant) -> u64 {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let busy = figures.as_deref().and_then(|figures| figures.split(' ').next()).and_then(|figure| figure.parse().ok());
    busy.unwrap_or_else(|| since.elapsed().as_nanos() as u64)
}

/// The name of a tenant, as cheap as to read it from a request.
fn write_name(name: &mut [u8; 14], mut number: usize) -> &str {
    for place in (7..14).rev() {
        name[place] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    std::str::from_utf8(name).unwrap()
}

/// A round of decisions. Says how many were allowed.
#[inline(never)]
fn decide(tenants: &mut FxHashMap<TenantId, Tenant>, ops: &[Op], row: &mut Row, catalog: &Catalog) -> u64 {
    let now = Instant::from_ms(NOW_MS);
    let (mut allowed, count) = (0, tenants.len());
    let mut name = *b"tenant-0000000";
    for _ in 0..CALLS {
        let name = write_name(&mut name, row.next(count));
        let op = &ops[row.next(METERS.len())];
        let tenant = tenants.get_mut(name).unwrap();
        let outcome = tenant.apply(None, op, now, catalog).unwrap();
        allowed += u64::from(outcome.decision.as_ref().is_some_and(|decision| decision.allowed));
        black_box(outcome);
    }
    allowed
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter(|word| word != "--bench").map(|word| word.parse().unwrap());
    let (seconds, count): (u64, usize) = (numbers.next().unwrap_or(3), numbers.next().map_or(TENANTS, |n| n as usize));
    let catalog = catalog();
    let ops: Vec<Op> = (0..METERS.len())
        .map(|number| {
            let charges = vec![Charge { meter: meter(number), amount: 1 }];
            Op::Spend(Spend { charges, consume: true, ..Spend::default() }, Cause::Check)
        })
        .collect();
    let names = (0..count).map(|number| TenantId::new(&format!("tenant-{number:07}")).unwrap());
    let profile = Profile {
        plan: PlanKey::new("plan").unwrap(),
        status: Status::Active,
        enforce: None,
        zone: Zone::utc(),
        anchor: Instant::from_ms(NOW_MS),
        created_at: Instant::from_ms(NOW_MS),
        catalog_pin: None,
        shares: Vec::new(),
        overrides: Vec::new(),
    };
    let now = Instant::from_ms(NOW_MS);
    let mut tenants: FxHashMap<TenantId, Tenant> =
        names.map(|id| (id.clone(), Tenant::unborn(id, profile.clone()))).collect();
    for tenant in tenants.values_mut() {
        for op in &ops {
            tenant.apply(None, op, now, &catalog).unwrap();
        }
    }

    let mut row = Row(0x9e37_79b9_7f4a_7c15);
    let mut rounds: Vec<f64> = Vec::new();
    let started = std::time::Instant::now();
    let mut allowed = 0_u64;
    while started.elapsed().as_secs() < seconds {
        let before = busy_ns(started);
        allowed += decide(&mut tenants, &ops, &mut row, &catalog);
        rounds.push((busy_ns(started) - before) as f64 / f64::from(CALLS));
    }
    assert_eq!(allowed, rounds.len() as u64 * u64::from(CALLS), "a limit was met");
    rounds.sort_by(f64::total_cmp);
    let (median, best) = (rounds[rounds.len() / 2], rounds[0]);
    println!("decide\t{median:.0} ns\t{:.0} per second\t(best {best:.0} ns, {allowed} decisions)", 1e9 / median);
}
