#![allow(clippy::unwrap_used)]
//! Questions in, answers out.

use super::answer_all;
use std::io::BufReader;
use wire::forecast_lines::LINE_MAX_BYTES;

fn answers(input: &[u8]) -> (u64, Vec<serde_json::Value>) {
    let mut output = Vec::new();
    let refused = answer_all(BufReader::with_capacity(64, input), &mut output).unwrap();
    let lines = String::from_utf8(output).unwrap();
    (refused, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn gauge(id: &str, days: usize) -> String {
    let history: Vec<String> =
        (0..days).map(|day| format!(r#"{{"date":"2026-01-{:02}","value":{}}}"#, day + 1, 20 + day / 2)).collect();
    format!(r#"{{"id":"{id}","kind":"gauge","history":[{}],"limit":50}}"#, history.join(","))
}

#[test]
fn a_bad_line_spoils_no_other() {
    let long = "x".repeat(LINE_MAX_BYTES + 1);
    let text =
        [&gauge("first", 30), "nonsense", "", &long, &gauge("twice", 2).replace("-02", "-01"), &gauge("last", 7)];
    let (refused, answers) = answers(text.join("\r\n").as_bytes());
    assert_eq!(refused, 3);
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_str()).collect();
    assert_eq!(ids, [Some("first"), None, None, Some("twice"), Some("last")]);
    let lines: Vec<_> = answers.iter().filter_map(|answer| answer["line"].as_u64()).collect();
    assert_eq!(lines, [2, 4, 5]);
    assert!(answers[0]["lower"].is_string() && answers[0]["path"].as_array().unwrap().len() == 30);
    assert!(answers[3]["error"].as_str().unwrap().contains("2026-01-01 twice"));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let (refused, answers) = answers(&[0xff, 0xfe, b'\n']);
    assert_eq!((refused, answers.len()), (1, 1));
    assert!(answers[0]["error"].as_str().unwrap().contains("UTF-8"));
}

#[test]
fn nothing_asked_is_nothing_answered() {
    assert_eq!(answers(b""), (0, vec![]));
}
