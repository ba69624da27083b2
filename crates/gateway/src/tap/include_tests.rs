#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

fn edited(body: &str) -> Option<String> {
    include_usage(body.as_bytes()).map(|edit| String::from_utf8(edit.apply(body.as_bytes())).unwrap())
}

#[test]
fn one_member_is_put_in_and_nothing_else_is_touched() {
    for (body, expected) in [
        (
            r#" {"stream" : true,"messages":[ 1.0, "\u00e9" ]}"#,
            r#" {"stream_options":{"include_usage":true},"stream" : true,"messages":[ 1.0, "\u00e9" ]}"#,
        ),
        (
            r#"{"prompt":"{","stream":true,"stream_options":{ },"x":1e3}"#,
            r#"{"prompt":"{","stream":true,"stream_options":{"include_usage":true },"x":1e3}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"a":{}}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true,"a":{}}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options": null }"#,
            r#"{"messages":[],"stream":true,"stream_options": {"include_usage":true} }"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage": false, "b":2}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage": true, "b":2}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(edited(body).as_deref(), Some(expected));
        let (mut before, after): (Value, Value) =
            (serde_json::from_str(body).unwrap(), serde_json::from_str(expected).unwrap());
        if !before["stream_options"].is_object() {
            before["stream_options"] = json!({});
        }
        before["stream_options"]["include_usage"] = true.into();
        assert_eq!(before, after);
        assert_eq!(edited(expected), None, "asked for already");
    }
}

#[test]
fn what_is_not_a_streamed_chat_stays_as_it_is() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"messages":[]}"#,
        r#"{"messages":[],"stream":false}"#,
        r#"{"messages":[],"stream":"true"}"#,
        r#"{"input":[],"stream":true}"#,
        r#"{"messages":[],"stream":true,"stream":true}"#,
        r#"{"messages":[],"stream":true,"stream_options":{},"stream_options":{}}"#,
        r#"{"messages":[],"stream":true,"stream_options":[]}"#,
        r#"{"messages":[],"stream":true,"stream_options":7}"#,
        r#"{"messages":[],"stream":true} {}"#,
    ] {
        assert_eq!(edited(body), None, "{body}");
    }
}
