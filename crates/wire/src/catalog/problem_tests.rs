//! Goal: every kind of problem is told where it is, in words that help. Method: a table of small files; the snapshot
//! holds what a person would read. A case is a few lines, followed by a small catalog that they may refer to.

#![allow(clippy::unwrap_used)]

use super::*;
use std::fmt::Write;

const BASE: &str = r#"
[meters.messages]
kind = "counter"
[meters.documents]
kind = "gauge"
[meters.time]
kind = "duration"
[meters.storage]
kind = "gauge"
unit = "bytes"
[features.analytics]
[dimensions.model]
values = ["small", "large"]
[plans.free]
rank = 0
[plans.pro]
rank = 10
features = ["analytics"]
[upstreams.app]
url = "http://127.0.0.1:3000"
[[identity]]
type = "api_key"
"#;

fn told(lines: &str) -> String {
    let text = format!("{}\n{BASE}", lines.trim());
    let mut told = String::new();
    match load(&text, "tidegate.toml") {
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| writeln!(told, "{warning}").unwrap()),
        Err(problems) => problems.iter().for_each(|problem| writeln!(told, "{problem}").unwrap()),
    }
    told
}

/// Renders every case of a table: its lines are separated by lines of `---`.
fn table(cases: &str) -> String {
    let mut rendered = String::new();
    for case in cases.split("\n---\n") {
        let told = told(case);
        assert!(!told.is_empty(), "nothing is told about:\n{case}");
        writeln!(rendered, "{told}").unwrap();
    }
    rendered
}

#[test]
fn the_file() {
    insta::assert_snapshot!(table(include_str!("problem_cases/file.txt")));
}

#[test]
fn what_is_declared() {
    insta::assert_snapshot!(table(include_str!("problem_cases/declared.txt")));
}

#[test]
fn plans_and_limits() {
    insta::assert_snapshot!(table(include_str!("problem_cases/plans.txt")));
}

#[test]
fn routes_and_upstreams() {
    insta::assert_snapshot!(table(include_str!("problem_cases/routes.txt")));
}

#[test]
fn costs() {
    insta::assert_snapshot!(table(include_str!("problem_cases/costs.txt")));
}

#[test]
fn charges_from_the_response() {
    insta::assert_snapshot!(table(include_str!("problem_cases/reported.txt")));
}

#[test]
fn identity() {
    insta::assert_snapshot!(table(include_str!("problem_cases/identity.txt")));
}

#[test]
fn warnings() {
    insta::assert_snapshot!(table(include_str!("problem_cases/warnings.txt")));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let lines =
        "unmatched = \"drop\"\n[plans.b]\nrank = \"1\"\nlimits = [{ meter = \"mesages\", max = -1 }]\n[plans.c]\n";
    let problems = load(&format!("{lines}{BASE}"), "f").unwrap_err();
    let places: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(places, [1, 3, 4, 4, 5]);
}

#[test]
fn a_secret_is_never_shown() {
    for lines in [
        "[[identity]]\ntype = \"jwt\"\nsecret = \"hunter2-hunter2\"",
        "[[identity]]\ntype = \"jwt\"\nsecret_env = \"hunter2-hunter2\"",
        "[plans.x]\nrank = 3\nsecret = hunter2-hunter2",
        "admin_key = \"hunter2-hunter2\"",
        "[upstreams.x]\nurl = \"http://user:hunter2-hunter2@host\"",
        "[upstreams.x]\nurl = \"//user:hunter2-hunter2@host\"",
        "[upstreams.x]\nurl = \"user:hunter2-hunter2@host\"",
    ] {
        let told = told(lines);
        assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn what_a_file_says_can_not_steer_a_terminal() {
    let told = told("[plans.x]\nrank = 5\nfeatures = [\"a\\u001b[31m\\u202eb\"]\n\"\\u001b]0;x\\u0007\" = 1");
    assert!(told.chars().all(|c| c == '\n' || !c.is_control()) && !told.contains('\u{202e}'), "{told:?}");
}

#[test]
fn a_flood_of_problems_is_told_in_part_and_counted() {
    let mut lines = String::from("[plans.x]\nrank = 3\n");
    (0..5000).for_each(|index| writeln!(lines, "key{index} = 1").unwrap());
    let problems = load(&format!("{lines}{BASE}"), "f").unwrap_err();
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].message, "and 4900 more problems");
}

#[test]
fn a_file_too_large_is_refused_before_it_is_read() {
    let problems = load(&"#".repeat(CATALOG_MAX_BYTES + 1), "f").unwrap_err();
    assert_eq!(problems[0].to_string(), "f:1:1: the catalog is larger than 1024 KiB");
}
