#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    catalog_file,
    commands::simulate::{Format, shown},
};
use domain::time::{DAY_MS, Instant, Zone};

const MONTH: i64 = 1_767_225_600_000; // 2026-01-01

fn catalog(free: i64, professional: i64) -> Catalog {
    let text = format!(
        r#"
        [meters.messages]
        kind = "counter"
        [meters.documents]
        kind = "gauge"
        [plans.free]
        rank = 0
        price = {{ amount = 0, currency = "USD", per = "month" }}
        limits = [{{ meter = "messages", max = {free}, per = "month" }}, {{ meter = "documents", max = 5 }}, {{ meter = "messages", max = 5, per = "minute" }}]
        [plans.professional]
        rank = 1
        price = {{ amount = 99, currency = "USD", per = "month" }}
        limits = [{{ meter = "messages", max = {professional}, per = "month" }}]
        "#
    );
    catalog_file::parse(text, "test").unwrap().loaded.catalog
}

fn subject(tenant: &str, plan: &str, messages: i64) -> Subject {
    let points = (0..31).map(|day| (Instant::from_ms(MONTH + day * DAY_MS), messages)).collect();
    Subject {
        tenant: tenant.to_owned(),
        plan: PlanKey::new(plan).unwrap(),
        frame: Frame { anchor: Instant::from_ms(MONTH), zone: Zone::utc() },
        overrides: Vec::new(),
        recorded: vec![Recorded { meter: domain::id::MeterKey::new("messages").unwrap(), points }],
    }
}

fn days() -> (Day, Day) {
    (Day::parse("2026-01-01").unwrap(), Day::parse("2026-01-31").unwrap())
}

fn report(subjects: &[Subject]) -> Report {
    let mut report = Report::new(catalog(1_000, 10_000), catalog(310, 3_100), BTreeMap::new(), days());
    subjects.iter().for_each(|subject| report.add(subject).unwrap());
    report
}

#[test]
fn who_would_have_been_refused_is_named_with_what_would_have_held() {
    let own = domain::catalog::Limit { max: None, ..catalog(1, 1).plans["free"].limits[0].clone() };
    let spared = Subject { overrides: vec![own], ..subject("spared", "free", 500) };
    let found = report(&[
        subject("calm", "free", 1),
        subject("near", "free", 10),
        subject("over", "free", 11),
        spared,
        subject("vast", "professional", 101),
    ]);
    let told: Vec<_> = found
        .lines
        .iter()
        .map(|line| (&*line.tenant, line.refused(), line.limits.len(), line.needs.as_ref().map(PlanKey::as_str)))
        .collect();
    assert_eq!(
        told,
        [
            ("calm", false, 0, Some("free")),
            ("near", false, 1, Some("free")),
            ("over", true, 1, Some("professional")),
            ("spared", false, 0, Some("free")),
            ("vast", true, 1, None),
        ]
    );
    assert_eq!((found.refused(), found.only_warned()), (2, 1));
    insta::assert_snapshot!("simulate_table", shown::text(&found, Format::Table));
    insta::assert_snapshot!("simulate_csv", shown::text(&found, Format::Csv));
    insta::assert_snapshot!("simulate_json", shown::text(&found, Format::Json));
}

#[test]
fn a_plan_that_is_gone_needs_a_word_about_who_takes_its_place() {
    let mut found = report(&[]);
    let error = found.add(&subject("acme", "basic", 1)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the tenant acme is on basic, but the proposed catalog has no plan basic; say which takes its place with --move basic=NAME (free, professional)"
    );
    let moves = BTreeMap::from([(PlanKey::new("basic").unwrap(), PlanKey::new("free").unwrap())]);
    let mut found = Report::new(catalog(1, 1), catalog(310, 3_100), moves, days());
    found.add(&subject("acme", "basic", 1)).unwrap();
    assert_eq!(found.lines[0].proposed.as_str(), "free");
}

#[test]
fn cells_are_no_formulas() {
    assert_eq!(shown::quoted("=1+1".to_owned()), "'=1+1");
    assert_eq!(shown::quoted("a,\"b\"".to_owned()), "\"a,\"\"b\"\"\"");
}
