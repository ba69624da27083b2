#![allow(clippy::unwrap_used)]

use super::*;
use crate::v1::sample;
use domain::{id::MeterKey, op::Movement};
use engine::requests::Event;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

fn one(body: &str) -> Result<Event, Problem> {
    let catalog = sample::catalog();
    let envelope = read_one(body.as_bytes())?;
    Reader::new(&catalog).event(&envelope, false)
}

fn event(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"e1","source":"app","subject":"acme",{members}}}"#)
}

fn movements(members: &str) -> Vec<(String, Movement)> {
    let movements = one(&event(members)).unwrap().fact.movements;
    movements.into_iter().map(|(meter, movement): (MeterKey, _)| (meter.to_string(), movement)).collect()
}

fn code(body: &str) -> String {
    one(body).unwrap_err().code.into_owned()
}

#[test]
fn the_media_type_tells_the_form() {
    for (content_type, ce_headers, form) in [
        (Some("application/cloudevents+json"), false, Some(Form::Structured)),
        (Some("application/cloudevents+json; charset=UTF-8"), true, Some(Form::Structured)),
        (Some("Application/CloudEvents-Batch+JSON"), false, Some(Form::Batch)),
        (Some("application/json"), true, Some(Form::Binary)),
        (Some("application/vnd.app+json"), true, Some(Form::Binary)),
        (None, true, Some(Form::Binary)),
        (Some("application/json;charset=\"utf-8\""), false, Some(Form::Plain)),
        (Some("application/json; charset=latin1"), false, None),
        (Some("application/vnd.app+json"), false, None),
        (Some("application/cloudevents+avro"), false, None),
        (Some("text/plain"), true, None),
        (None, false, None),
    ] {
        assert_eq!(Form::of(content_type, ce_headers).ok(), form, "{content_type:?} {ce_headers}");
    }
}

#[test]
fn an_event_moves_every_meter_that_reads_its_type() {
    let moved = movements(r#""type":"messages","data":{"value":3,"text":{"characters":120}}"#);
    assert_eq!(moved, [("characters".into(), Movement::Add(120)), ("messages".into(), Movement::Add(3))]);
}

#[test]
fn an_amount_that_is_not_given_is_one() {
    for data in ["", r#","data":{}"#, r#","data":null"#, r#","data":{"text":{}}"#, r#","data":{"text":5}"#] {
        let moved = movements(&format!(r#""type":"messages"{data}"#));
        assert_eq!(moved, [("characters".into(), Movement::Add(1)), ("messages".into(), Movement::Add(1))], "{data}");
    }
}

#[test]
fn gauges_are_set_or_moved() {
    for (data, movement) in [
        (r#"{"op":"set","value":7}"#, Movement::Set(7)),
        (r#"{"op":"add","value":-2}"#, Movement::Add(-2)),
        (r#"{"value":2.0}"#, Movement::Add(2)),
        (r#"{"op":"add"}"#, Movement::Add(1)),
    ] {
        let moved = movements(&format!(r#""type":"documents","data":{data}"#));
        assert_eq!(moved, [("documents".to_owned(), movement)], "{data}");
    }
    assert_eq!(code(&event(r#""type":"documents","data":{"op":"set"}"#)), "invalid_amount");
    assert_eq!(code(&event(r#""type":"documents","data":{"op":"grow"}"#)), "invalid_event");
}

#[test]
fn user_time_source_and_declared_dimensions_come_along() {
    let event = one(&event(
        r#""type":"messages","time":"2026-03-01T13:00:00+01:00","data":{"user_id":"ada","model":"small","other":"x"}"#,
    ))
    .unwrap();
    assert_eq!(event.user.unwrap().as_str(), "ada");
    assert_eq!(event.fact.time.unwrap().rfc3339(), "2026-03-01T12:00:00Z");
    assert_eq!((&*event.id.source, &*event.id.id), ("app", "e1"));
    let dimensions: Vec<_> = event.fact.dimensions.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
    assert_eq!(dimensions, [("model", "small")]);
}

#[test]
fn escapes_in_names_and_values_are_read() {
    let event =
        one(r#"{"specversion":"1.0","\u0069d":"\u0065\n1","source":"a","subject":"a\u0063me","type":"messages"}"#);
    assert_eq!(event.unwrap_err().code, "invalid_event");
    let event =
        one(r#"{"specversion":"1.0","\u0069d":"\u00651","source":"a","subject":"a\u0063me","type":"messages"}"#)
            .unwrap();
    assert_eq!((&*event.id.id, event.tenant.as_str()), ("e1", "acme"));
}

#[test]
fn hostile_events_are_refused_by_name() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (members, expected) in [
        (r#""type":"nothing""#.to_owned(), "unknown_event_type"),
        (r#""type":5"#.into(), "invalid_event"),
        (r#""data":{}"#.into(), "invalid_event"),
        (r#""type":"messages","type":"documents""#.into(), "invalid_event"),
        (r#""type":"messages","data":{"value":1,"value":2}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"text":{},"text":{"characters":2}}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"user_id":"a","user_id":"b"}"#.into(), "invalid_event"),
        (r#""type":"messages","data":{"user_id":["a"]}"#.into(), "invalid_event"),
        (r#""type":"messages","data":{"user_id":"a/../b"}"#.into(), "invalid_event"),
        (r#""type":"messages","data":{"value":5.5}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"value":"5"}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"value":null}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"value":true}"#.into(), "invalid_amount"),
        (r#""type":"messages","data":{"value":9007199254740992}"#.into(), "amount_too_large"),
        (r#""type":"messages","data":{"value":1e300}"#.into(), "amount_too_large"),
        (r#""type":"messages","data":{"value":99999999999999999999}"#.into(), "amount_too_large"),
        (r#""type":"messages","data":"value""#.into(), "invalid_event"),
        (r#""type":"messages","data":[1]"#.into(), "invalid_event"),
        (r#""type":"messages","data":{"model":3}"#.into(), "invalid_dimension"),
        (r#""type":"messages","data_base64":"e30=""#.into(), "invalid_event"),
        (r#""type":"messages","time":"yesterday""#.into(), "invalid_event"),
        (r#""type":"messages","time":"2026-03-01T12:00:00""#.into(), "invalid_event"),
        (r#""type":"messages","time":5"#.into(), "invalid_event"),
        (format!(r#""type":"messages","data":{deep}"#), "invalid_event"),
        (format!(r#""type":"messages","extension":{deep}"#), "malformed_json"),
    ] {
        let clip: String = members.chars().take(80).collect();
        assert_eq!(code(&event(&members)), expected, "{clip}");
    }
    for (body, expected) in [
        ("", "malformed_json"),
        ("{", "malformed_json"),
        ("[]", "invalid_event"),
        ("5", "invalid_event"),
        (r#"{"specversion":"1.0"} x"#, "malformed_json"),
        (r#"{"specversion":"0.3","id":"1","source":"a","subject":"t","type":"messages"}"#, "invalid_event"),
        (r#"{"specversion":"1.0","id":"","source":"a","subject":"t","type":"messages"}"#, "invalid_event"),
        (r#"{"specversion":"1.0","id":"1","subject":"t","type":"messages"}"#, "invalid_event"),
        (r#"{"specversion":"1.0","id":"1","source":"a","type":"messages"}"#, "invalid_event"),
        (r#"{"specversion":"1.0","id":"1","source":"a","subject":"t/u","type":"messages"}"#, "invalid_event"),
    ] {
        assert_eq!(code(body), expected, "{body}");
    }
    assert_eq!(read_one(b"{\"id\":\"\xff\"}").unwrap_err().code, "malformed_json");
}

#[test]
fn a_fraction_is_refused_with_the_smallest_unit_named() {
    let detail = one(&event(r#""type":"conversation_time","data":{"value":5.5}"#)).unwrap_err().detail;
    assert!(detail.contains("ms") && detail.contains("5.5"), "{detail}");
}

#[test]
fn one_bad_event_spoils_no_other() {
    let catalog = sample::catalog();
    let body = format!(r#"[{}, 7, {{"id":[]}}, {}]"#, event(r#""type":"messages""#), event(r#""type":"documents""#));
    let Batch::Many(envelopes) = read_batch(body.as_bytes(), false).unwrap() else { panic!("a batch") };
    let mut reader = Reader::new(&catalog);
    let outcomes: Vec<bool> = envelopes.iter().map(|envelope| reader.event(envelope, false).is_ok()).collect();
    assert_eq!(outcomes, [true, false, false, true]);
}

#[test]
fn a_batch_is_an_array_of_bounded_length() {
    let many = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    let length = |body: &str| match read_batch(body.as_bytes(), false) {
        Ok(Batch::Many(envelopes)) => Ok(envelopes.len()),
        Ok(Batch::One(_)) => panic!("not asked for"),
        Err(problem) => Err(problem.code.into_owned()),
    };
    assert_eq!(length("[]"), Ok(0));
    assert_eq!(length(&many(BATCH_MAX)), Ok(BATCH_MAX));
    assert_eq!(length(&many(BATCH_MAX + 1)), Err("batch_too_large".into()));
    assert_eq!(length("{}"), Err("invalid_body".into()));
    assert_eq!(length("3"), Err("invalid_body".into()));
    assert_eq!(length("[{}"), Err("malformed_json".into()));
    assert!(matches!(read_batch(b" {}", true), Ok(Batch::One(_))));
}

#[test]
fn plain_json_may_leave_specversion_and_source_out() {
    let catalog = sample::catalog();
    let envelope = read_one(br#"{"id":"1","type":"messages","subject":"acme"}"#).unwrap();
    let event = Reader::new(&catalog).event(&envelope, true).unwrap();
    assert_eq!(&*event.id.source, "");
    assert!(Reader::new(&catalog).event(&envelope, false).is_err());
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[test]
fn binary_mode_reads_percent_encoded_headers() {
    let headers = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "caf%C3%A9%20%22x%22"),
        ("ce-source", "/app"),
        ("ce-type", "messages"),
        ("ce-subject", "acme"),
    ]);
    let catalog = sample::catalog();
    let envelope = binary_envelope(&headers, br#"{"value":4}"#).unwrap();
    let event = Reader::new(&catalog).event(&envelope, false).unwrap();
    assert_eq!(&*event.id.id, "café \"x\"");
    assert!(event.fact.movements.contains(&(MeterKey::trusted("messages"), Movement::Add(4))));
    assert!(binary_envelope(&headers, b"").is_ok());
    assert!(binary_envelope(&headers, b"{").is_err());
}

#[test]
fn binary_headers_that_are_repeated_or_broken_are_refused() {
    let mut twice = headers(&[("ce-id", "a")]);
    twice.append("ce-id", HeaderValue::from_static("b"));
    assert!(binary_envelope(&twice, b"").is_err());
    for broken in ["%", "%4", "%zz", "%ff"] {
        assert!(binary_envelope(&headers(&[("ce-id", broken)]), b"").is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_fall(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let catalog = sample::catalog();
        if let Ok(Batch::Many(envelopes)) = read_batch(&body, true) {
            let mut reader = Reader::new(&catalog);
            for envelope in &envelopes {
                let _ = reader.event(envelope, true);
            }
        }
    }

    #[test]
    fn what_is_sent_is_what_moves(value in -9_007_199_254_740_991i64..=9_007_199_254_740_991) {
        let moved = movements(&format!(r#""type":"documents","data":{{"value":{value}}}"#));
        prop_assert_eq!(moved, [("documents".to_owned(), Movement::Add(value))]);
    }
}
