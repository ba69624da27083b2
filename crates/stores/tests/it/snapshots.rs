//! The daily history, on every ledger: part of the conformance suite.

use crate::world::{Random, wait};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::ports::{Days, Ledger, MeterSnapshots, Snapshot, SnapshotRun, SnapshotSource, Taken, TenantSnapshots};
use std::collections::BTreeMap;

const FIRST: i32 = 20_000;

fn day(number: i32) -> Day {
    Day::from_number(FIRST + number)
}

fn days(first: i32, last: i32) -> Days {
    Days { first: day(first), last: day(last) }
}

pub(crate) fn row(tenant: &str, meter: &str, number: i32, value: i64, observed_ms: i64) -> Snapshot {
    let taken = Taken {
        day: day(number),
        value,
        after_reset: (value % 3 == 0).then_some(value / 3),
        observed_at: Instant::from_ms(observed_ms),
        source: SnapshotSource::ALL[value.rem_euclid(3) as usize],
    };
    Snapshot { tenant: TenantId::new(tenant).unwrap(), meter: MeterKey::new(meter).unwrap(), taken }
}

fn values(meters: &[MeterSnapshots]) -> Vec<(&str, Vec<i64>)> {
    meters.iter().map(|meter| (meter.meter.as_str(), meter.days.iter().map(|taken| taken.value).collect())).collect()
}

pub(crate) fn snapshots_are_kept_by_tenant_meter_and_day(ledger: &dyn Ledger) {
    let book = ledger.snapshots();
    let acme = TenantId::new("acme").unwrap();
    assert!(wait(book.of_tenant(&acme, Days::ALL)).unwrap().is_empty());
    assert!(wait(book.of_tenants(None, &acme, Days::ALL)).unwrap().is_empty());
    wait(book.put(vec![])).unwrap();
    let rows = vec![
        row("acme", "users", 2, 30, 1),
        row("acme", "users", 1, i64::MAX, 1),
        row("bloom", "users", 1, -7, 1),
        row("acme", "api_calls", 1, 5, 1),
        row("acme", "users", 9, 0, 1),
    ];
    wait(book.put(rows.clone())).unwrap();
    let found = wait(book.of_tenant(&acme, days(1, 5))).unwrap();
    assert_eq!(values(&found), [("api_calls", vec![5]), ("users", vec![i64::MAX, 30])]);
    assert_eq!(found[1].days[1], rows[0].taken, "all of a row comes back");
    assert_eq!(found[1].days[0], rows[1].taken);
    assert_eq!(values(&wait(book.of_tenant(&acme, days(9, 9))).unwrap()), [("users", vec![0])]);
    assert!(wait(book.of_tenant(&acme, days(3, 8))).unwrap().is_empty());
    assert!(wait(book.of_tenant(&acme, days(5, 1))).unwrap().is_empty());
}

pub(crate) fn a_day_is_written_again_never_added_to(ledger: &dyn Ledger) {
    let book = ledger.snapshots();
    let acme = TenantId::new("acme").unwrap();
    let put = |rows: Vec<Snapshot>| wait(book.put(rows)).unwrap();
    let found = || wait(book.of_tenant(&acme, Days::ALL)).unwrap()[0].days[0].value;
    put(vec![row("acme", "users", 1, 10, 100)]);
    put(vec![row("acme", "users", 1, 11, 100)]);
    assert_eq!(found(), 11, "the same moment again overwrites");
    put(vec![row("acme", "users", 1, 12, 99)]);
    assert_eq!(found(), 11, "what was observed earlier does not");
    // Several of one place in one call.
    put(vec![row("acme", "users", 1, 13, 101), row("acme", "users", 1, 14, 103), row("acme", "users", 1, 15, 102)]);
    assert_eq!(found(), 14);
    assert_eq!(wait(book.of_tenant(&acme, Days::ALL)).unwrap()[0].days.len(), 1);
}

/// Against a model: rows in any order, tenants paged, days dropped.
pub(crate) fn snapshots_of_many_tenants_are_paged_and_dropped_by_day(ledger: &dyn Ledger) {
    let book = ledger.snapshots();
    let mut random = Random(7);
    let mut model: BTreeMap<(String, String, Day), Taken> = BTreeMap::new();
    for batch in 0..6 {
        let rows: Vec<Snapshot> = (0..400)
            .map(|at| {
                let tenant = format!("tenant-{}", random.below(23));
                let meter = ["api_calls", "products", "users"][random.below(3) as usize];
                let observed_ms = batch * 1_000 + at;
                row(&tenant, meter, random.below(12) as i32, random.below(1_000) as i64, observed_ms)
            })
            .collect();
        for row in &rows {
            let place = (row.tenant.as_str().to_owned(), row.meter.as_str().to_owned(), row.taken.day);
            model.insert(place, row.taken);
        }
        wait(book.put(rows)).unwrap();
    }
    let expected = |days: Days| {
        let mut tenants: BTreeMap<&str, BTreeMap<&str, Vec<Taken>>> = BTreeMap::new();
        for ((tenant, meter, day), taken) in &model {
            if days.first <= *day && *day <= days.last {
                tenants.entry(tenant).or_default().entry(meter).or_default().push(*taken);
            }
        }
        let meter = |(meter, days)| MeterSnapshots { meter: MeterKey::trusted(meter), days };
        let tenants = tenants.into_iter().map(|(tenant, meters)| TenantSnapshots {
            tenant: TenantId::trusted(tenant),
            meters: meters.into_iter().map(meter).collect(),
        });
        tenants.collect::<Vec<_>>()
    };
    let last = TenantId::new("~").unwrap();
    for asked in [Days::ALL, days(3, 8), Days::only(day(5))] {
        assert_eq!(wait(book.of_tenants(None, &last, asked)).unwrap(), expected(asked));
    }
    // Page by page it is the same.
    let bounds = ["tenant-13", "tenant-2", "tenant-4", "~"].map(|bound| TenantId::new(bound).unwrap());
    let mut paged = Vec::new();
    let mut after = None;
    for through in &bounds {
        paged.extend(wait(book.of_tenants(after, through, days(2, 9))).unwrap());
        after = Some(through);
    }
    assert_eq!(paged, expected(days(2, 9)));
    for tenant in expected(days(2, 9)) {
        assert_eq!(wait(book.of_tenant(&tenant.tenant, days(2, 9))).unwrap(), tenant.meters);
    }
    wait(book.drop_before(day(6))).unwrap();
    assert_eq!(wait(book.of_tenants(None, &last, Days::ALL)).unwrap(), expected(days(6, 99)));
    wait(book.drop_before(day(6))).unwrap();
}

pub(crate) fn closed_days_are_noted(ledger: &dyn Ledger) {
    let book = ledger.snapshots();
    let run = |number: i32, tenants_done: u64| SnapshotRun {
        day: day(number),
        started_at: Instant::from_ms(1_000),
        ended_at: Instant::from_ms(1_000 + i64::from(number)),
        tenants_done,
        tenants_failed: 2,
    };
    assert!(wait(book.runs(Days::ALL)).unwrap().is_empty());
    for run in [run(4, 10), run(3, 9), run(4, 12)] {
        wait(book.put_run(run)).unwrap();
    }
    assert_eq!(wait(book.runs(Days::ALL)).unwrap(), [run(3, 9), run(4, 12)]);
    assert_eq!(wait(book.runs(days(4, 9))).unwrap(), [run(4, 12)]);
    wait(book.drop_before(day(4))).unwrap();
    assert_eq!(wait(book.runs(Days::ALL)).unwrap(), [run(4, 12)]);
}

pub(crate) fn snapshots_outlive_a_reopening(ledger: &dyn Ledger) {
    let acme = TenantId::new("acme").unwrap();
    wait(ledger.snapshots().put(vec![row("acme", "users", 1, 10, 100)])).unwrap();
    ledger.reopen().unwrap();
    assert_eq!(wait(ledger.snapshots().of_tenant(&acme, Days::ALL)).unwrap()[0].days[0].value, 10);
}

pub(crate) fn what_was_written_gives_a_tenant_another_version(ledger: &dyn Ledger) {
    let book = ledger.snapshots();
    let acme = TenantId::new("acme").unwrap();
    let version = || wait(book.version(&acme, days(0, 100))).unwrap();
    let mut known = vec![version()];
    for written in [
        row("acme", "users", 1, 10, 1),
        row("acme", "users", 2, 10, 1),
        row("acme", "calls", 2, 10, 1),
        row("acme", "users", 1, 11, 1),
        row("acme", "users", 1, 11, 2),
    ] {
        wait(book.put(vec![written.clone()])).unwrap();
        assert_eq!(version(), version(), "nothing was written in between");
        assert!(!known.contains(&version()), "{written:?}");
        known.push(version());
    }
}
