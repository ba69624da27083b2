//! History says when what the accounts say was used.

use crate::{
    steps::{Act, Life, whole_life},
    table,
    world::{at, meter},
};
use domain::{
    entry::{Cause, ClosedWindow, Effect, Entry, KindSet},
    history::{Amounts, KeptFrom, Resolution, Rows, Series, fold, starts},
    id::{DimensionKey, TenantId, UserId},
    tenant::Accounts,
    time::{DAY_MS, Instant, Window, WindowKind},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const COUNTERS: [&str; 2] = ["messages", "tokens"];
const GAUGES: [&str; 2] = ["documents", "seats"];

fn folded(entries: &[Entry]) -> Rows {
    let mut rows = Rows::new();
    let tenant = TenantId::new("acme").unwrap();
    entries.iter().for_each(|entry| fold(&mut rows, &tenant, entry, &KeptFrom::default()));
    rows
}

fn sum(rows: &Rows, resolution: Resolution, series: &Series, key: &str) -> Amounts {
    let mut sum = Amounts::default();
    for ((_, place), amounts) in rows.iter().filter(|((found, _), _)| *found == resolution) {
        if place.series == *series && place.meter == meter(key) {
            sum.add(amounts);
        }
    }
    sum
}

/// Days of the accounts, by the quarters of an hour that lie in them.
fn days(rows: &Rows, series: &Series, key: &str, accounts: &Accounts) -> BTreeMap<Instant, (i64, i64)> {
    let known = table::history(accounts, key, WindowKind::Day);
    let mut days: BTreeMap<Instant, (i64, i64)> = BTreeMap::new();
    for ((resolution, place), amounts) in rows {
        if *resolution == Resolution::Quarter && place.series == *series && place.meter == meter(key) {
            let start = known.range(..=place.start).next_back().map_or(Instant::EPOCH, |(start, _)| *start);
            let day = days.entry(start).or_default();
            *day = (day.0 + amounts.used, day.1 + amounts.denied);
        }
    }
    days.retain(|_, day| *day != (0, 0));
    days
}

fn total(days: &BTreeMap<Instant, (i64, i64)>) -> (i64, i64) {
    days.values().fold((0, 0), |sum, day| (sum.0 + day.0, sum.1 + day.1))
}

proptest! {
    #![proptest_config(crate::config(256, "history"))]

    /// Whatever a tenant lives through: what history has between the ends of a day, as the tenant's clocks showed it then,
    /// is what the accounts have of that day; every resolution has the same sum; and levels are the sum of what moved them.
    #[test]
    fn history_is_of_the_days_of_the_accounts(steps in whole_life()) {
        let mut life = Life::begin();
        for step in &steps {
            life.step(step);
        }
        life.end();
        let rows = folded(&life.world.entries);
        let state = &life.world.state;
        let of_user = |id: &UserId| Series { user: Some(id.clone()), ..Series::WHOLE };
        let users = state.users.values().map(|user| (of_user(&user.id), &user.accounts));
        for (series, accounts) in [(Series::WHOLE, &state.tenant.accounts)].into_iter().chain(users) {
            for key in GAUGES.into_iter().chain(COUNTERS) {
                let sums = Resolution::ALL.map(|resolution| sum(&rows, resolution, &series, key));
                prop_assert_eq!(sums, [sums[0]; 3], "{} of {:?}", key, &series);
            }
            for key in COUNTERS.into_iter().filter(|key| !life.auditor.corrected.contains(&meter(key))) {
                let known = table::history(accounts, key, WindowKind::Day);
                let found = days(&rows, &series, key, accounts);
                // What is older than a change of zone and the day before is counted in days as they would be cut today.
                match steps.iter().any(|(_, act)| matches!(act, Act::Zone(_))) {
                    true => prop_assert_eq!(total(&found), total(&known), "{} of {:?}", key, &series),
                    false => prop_assert_eq!(found, known, "{} of {:?}", key, &series),
                }
            }
            for key in GAUGES {
                let moved = sum(&rows, Resolution::Day, &series, key).moved;
                prop_assert_eq!(moved, accounts.level(&meter(key)), "{} of {:?}", key, &series);
            }
        }
    }

    /// Folding entries in any order, and some of them apart from the others, changes nothing.
    #[test]
    fn the_order_of_entries_does_not_matter(steps in whole_life(), cut in any::<prop::sample::Index>()) {
        let mut life = Life::begin();
        for step in &steps {
            life.step(step);
        }
        let entries = life.world.entries;
        let (first, second) = entries.split_at(cut.index(entries.len() + 1).min(entries.len()));
        let mut sums = folded(second);
        for (place, amounts) in folded(first) {
            sums.entry(place).or_default().add(&amounts);
        }
        prop_assert_eq!(sums, folded(&entries));
    }
}

fn used(text: &str, open: KindSet, closed: &[(WindowKind, &str)]) -> Entry {
    let closed = closed.iter().map(|(kind, start)| ClosedWindow {
        kind: *kind,
        window: Window { start: at(start), end: at(start).plus_ms(60_000) },
    });
    Entry {
        at: at(text),
        catalog: 1,
        cause: Cause::Event,
        binding: None,
        user: Some(UserId::new("ann").unwrap()),
        dimensions: vec![(DimensionKey::new("model").unwrap(), "tide-1".into())],
        note: None,
        effects: vec![Effect::Use { meter: meter("messages"), amount: 3, open, closed: closed.collect() }],
    }
}

fn shown(rows: &Rows) -> Vec<String> {
    let one = |((resolution, place), amounts): (&(Resolution, _), &Amounts)| {
        let place: &domain::history::Place = place;
        let user = place.series.user.as_ref().map_or("-", UserId::as_str);
        let dimensions: Vec<String> =
            place.series.dimensions.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{resolution:?} {:?} {user} [{}] {} {}", place.start, dimensions.join(" "), place.meter, amounts.used)
    };
    rows.iter().map(one).collect()
}

#[test]
fn what_is_now_counts_now_and_what_is_late_in_its_own_minute() {
    let now = used("2027-03-04T10:20:30Z", KindSet::ALL, &[]);
    assert_eq!(
        shown(&folded(&[now])),
        [
            "Minute 2027-03-04T10:20:00Z - [] messages 3",
            "Minute 2027-03-04T10:20:00Z ann [model=tide-1] messages 3",
            "Quarter 2027-03-04T10:15:00Z - [] messages 3",
            "Quarter 2027-03-04T10:15:00Z ann [model=tide-1] messages 3",
            "Day 2027-03-04T00:00:00Z - [] messages 3",
            "Day 2027-03-04T00:00:00Z ann [model=tide-1] messages 3",
        ]
    );
    let day = (WindowKind::Day, "2027-03-02T23:00Z");
    let late = used("2027-03-04T10:20:30Z", KindSet::NONE, &[day, (WindowKind::Minute, "2027-03-03T08:59Z")]);
    assert_eq!(shown(&folded(&[late]))[0], "Minute 2027-03-03T08:59:00Z - [] messages 3");
    let unnamed = used("2027-03-04T10:20:30Z", KindSet::NONE, &[day]);
    assert_eq!(shown(&folded(&[unnamed]))[0], "Minute 2027-03-02T23:00:00Z - [] messages 3");
}

#[test]
fn a_correction_of_a_period_alone_is_no_use_of_a_day() {
    let period = KindSet::NONE.with(WindowKind::Period);
    assert_eq!(folded(&[used("2027-03-04T10:20:30Z", period, &[])]), Rows::new());
}

#[test]
fn what_is_not_kept_is_not_made() {
    let now = at("2027-03-04T10:20:30Z");
    let mut rows = Rows::new();
    let kept = KeptFrom([now, now.plus_ms(-900_000), now.plus_ms(-DAY_MS)]);
    let entry = used("2027-03-04T10:14:59Z", KindSet::ALL, &[]);
    fold(&mut rows, &TenantId::new("acme").unwrap(), &entry, &kept);
    assert!(shown(&rows).iter().all(|row| !row.starts_with("Minute")), "{:?}", shown(&rows));
    assert_eq!(rows.len(), 4);
}

#[test]
fn buckets_tile_a_stretch() {
    let window = Window { start: at("2027-03-04T10:20Z"), end: at("2027-03-04T11:00Z") };
    let found: Vec<String> = starts(Resolution::Quarter, window).map(Instant::rfc3339).collect();
    assert_eq!(found, ["2027-03-04T10:15:00Z", "2027-03-04T10:30:00Z", "2027-03-04T10:45:00Z"]);
    assert_eq!(starts(Resolution::Day, Window { start: window.end, end: window.start }).count(), 0);
}

#[test]
fn what_was_dropped_in_part_is_not_whole() {
    let day = at("2027-03-04T00:00Z");
    for (from, first, both) in [
        ("1970-01-01T00:00Z", "1970-01-01", "1970-01-01T00:00:00Z"),
        ("2027-03-04T00:00Z", "2027-03-04", "2027-03-05T00:00:00Z"),
        ("2027-03-04T00:01Z", "2027-03-05", "2027-03-05T00:00:00Z"),
    ] {
        let kept = KeptFrom([Instant::EPOCH, Instant::EPOCH, at(from)]);
        assert_eq!(kept.first_whole_day().to_string(), first);
        assert_eq!(kept.is_whole(Resolution::Day, day.plus_ms(DAY_MS - 1)), first <= "2027-03-04");
        // Whichever of the two is kept for less.
        assert_eq!(kept.both_from(Resolution::Quarter, Resolution::Day).rfc3339(), both);
        let other = KeptFrom([Instant::EPOCH, at(from), Instant::EPOCH]);
        assert_eq!(other.both_from(Resolution::Quarter, Resolution::Day).rfc3339(), both);
    }
}
