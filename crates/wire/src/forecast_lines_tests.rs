//! Lines of questions: what is read, and how what is wrong is named.

use super::{Answer, Refusal, line, read};
use proptest::prelude::*;

const GAUGE: &str = r#"{"id":"a","kind":"gauge","history":[{"date":"2026-01-01","value":30},{"date":"2026-01-02","value":31.5}],"limit":50,"period_start":null,"period_end":null}"#;
const COUNTER: &str = r#"{"id":"b","kind":"counter","history":[{"date":"2026-02-01","value":3}],"limit":90,"period_start":"2026-02-01","period_end":"2026-03-02"}"#;

#[test]
fn questions_are_read() {
    insta::assert_debug_snapshot!([read(GAUGE), read(COUNTER)]);
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = [
        ("", ""),
        ("{}", ""),
        ("[1]", ""),
        (GAUGE, r#""id":"a""#),
        (r#""id":"a""#, r#""id":"""#),
        (r#""kind":"gauge""#, r#""kind":"dial""#),
        (r#""limit":50"#, r#""limit":0"#),
        (r#""limit":50"#, r#""limit":"50""#),
        (r#""limit":50"#, r#""limit":1e300"#),
        (r#""value":31.5"#, r#""value":-1"#),
        ("2026-01-02", "2026-02-30"),
        (r#"{"date":"2026-01-01","value":30},{"date":"2026-01-02","value":31.5}"#, ""),
        (r#""kind":"gauge""#, r#""kind":"counter""#),
    ];
    let mut told: Vec<String> = wrong
        .iter()
        .map(|(old, new)| if new.is_empty() && old.len() < 4 { (*old).to_owned() } else { GAUGE.replace(old, new) })
        .chain([
            COUNTER.replace("2026-03-02", "2026-01-02"),
            COUNTER.replace("2026-02-01\",\"value", "2026-03-03\",\"value"),
        ])
        .map(|text| match read(&text) {
            Ok(asked) => format!("{asked:?}"),
            Err(wrong) => line(&Refusal { id: wrong.id.as_deref(), line: 1, error: &wrong.detail }),
        })
        .collect();
    told.dedup();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn answers_have_the_shape_of_the_protocol() {
    let answer = Answer {
        id: "a",
        predicted_breach_date: Some("2026-02-10".to_owned()),
        lower: Some("2026-01-20".to_owned()),
        upper: None,
        path: vec![[0.0, 0.5, 1.25]],
    };
    insta::assert_snapshot!(line(&answer));
}

proptest! {
    #[test]
    fn reading_ends_whatever_is_sent(text in ".{0,200}", at in 0..GAUGE.len()) {
        let _ = read(&text);
        let broken = format!("{}{text}{}", &GAUGE[..at], &GAUGE[at..]);
        if let Ok(asked) = read(&broken) {
            prop_assert!(asked.limit > 0.0 && !asked.history.is_empty());
        }
    }
}
