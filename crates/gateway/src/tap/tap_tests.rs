#![allow(clippy::unwrap_used)]

use super::*;
use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use proptest::prelude::*;
use std::io::Write as _;

const SAID: Usage = Usage { prompt_tokens: Some(11), completion_tokens: Some(22), total_tokens: Some(33) };
/// `SAID` as two events, packed by another program (node's `zlib.brotliCompressSync`).
const BROTLI: &str = "1baa00401c07cee92b56da7e5ce962470983ffe5913fb0ca3e69301db46b30ebd62072a9c35aa1af8ba54e0ef4805a415b18e6519a\
    25898798dbd839921249f6639062b8bb4239c43ad120fa10fbaa9adf870d4741393e2d96680ed73ef7ad75110bb3153625e02ec6b4d6228af12c7f298e03";
/// 64 MiB of spaces.
const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0110870500baf77ffcffff\
    835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffcbffff3ffc1200715800a07bff07";
const SAID_JSON: &str = r#"{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33,
    "prompt_tokens_details":{"cached_tokens":7,"total_tokens":99}}"#;

/// A stream of events as models send them, with its line ends still to be chosen.
fn chat(usage: &str) -> String {
    let usage = usage.replace('\n', "");
    format!(
        ": ping\n\nevent: chunk\ndata: {{\"choices\":[{{\"delta\":{{\"content\":\"hé \\\"usage\\\" 🌊\"}}}}],\"usage\":null}}\n\n\
         : keep-alive\ndata: {{\"choices\":[],\"usage\":{usage}}}\n\n:\ndata: [DONE]\n\n"
    )
}

fn responses() -> String {
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n\
         event: response.completed\ndata: {\"type\":\"response.completed\",\ndata: \"response\":{\"output\":[{\"usage\":1}],\n\
         data: \"usage\":{\"input_tokens\":11,\"output_tokens\":22,\"total_tokens\":33}}}\n\n"
    .to_owned()
}

fn read(format: Format, encoding: Encoding, chunks: &[&[u8]]) -> Option<Usage> {
    let mut tap = Tap::new(format, encoding);
    for chunk in chunks {
        tap.feed(chunk);
    }
    tap.usage(true)
}

/// In one piece, at every cut into two, and byte by byte.
fn at_every_cut(format: Format, encoding: Encoding, body: &[u8], expected: Option<Usage>) {
    for at in 0..=body.len() {
        let (first, second) = body.split_at(at);
        assert_eq!(read(format, encoding, &[first, second]), expected, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(read(format, encoding, &bytes), expected, "byte by byte");
}

fn packed(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Identity | Encoding::Brotli => body.to_vec(),
    }
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn events_cut_anywhere_report_the_same() {
    for text in [chat(SAID_JSON), responses()] {
        for line_end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', line_end);
            for start in ["", "\u{feff}"] {
                at_every_cut(Format::Events, Encoding::Identity, format!("{start}{text}").as_bytes(), Some(SAID));
            }
            // The last event may lack its blank line, and its line end.
            let open = text.split("data: [DONE]").next().unwrap().trim_end_matches(['\r', '\n', ':']);
            at_every_cut(Format::Events, Encoding::Identity, open.as_bytes(), Some(SAID));
        }
    }
}

#[test]
fn what_reports_nothing_is_no_usage() {
    let huge = r#"{"total_tokens":9007199254740992}"#;
    for usage in ["null", "{}", "[1]", "7", "\"x\"", r#"{"total_tokens":-1}"#, r#"{"total_tokens":1.5}"#, huge] {
        at_every_cut(Format::Events, Encoding::Identity, chat(usage).as_bytes(), None);
    }
    for body in [
        "",
        "data: [DONE]\n\n",
        "usage: {\"usage\":{\"total_tokens\":1}}\n\n",
        ": {\"usage\":{\"total_tokens\":1}}\n\n",
    ] {
        at_every_cut(Format::Events, Encoding::Identity, body.as_bytes(), None);
    }
    for body in [
        "",
        "[]",
        "[{\"usage\":{\"total_tokens\":1}}]",
        "{\"a\":{\"usage\":{\"total_tokens\":1}}}",
        "{\"a\":\"\\\\\",\"b\":\"\\\"usage\\\":{\\\"total_tokens\\\":1}\"}",
        "{\"usage\":{\"total_tokens\":12",
        "<html>",
    ] {
        at_every_cut(Format::Json, Encoding::Identity, body.as_bytes(), None);
    }
}

#[test]
fn the_last_report_wins_and_a_null_after_it_takes_nothing_back() {
    let first = chat(r#"{"prompt_tokens":11,"completion_tokens":1,"total_tokens":12}"#);
    let body = format!("{first}{}{}", chat(SAID_JSON), chat("null"));
    at_every_cut(Format::Events, Encoding::Identity, body.as_bytes(), Some(SAID));
}

#[test]
fn a_total_is_the_sum_of_its_parts_where_it_is_not_reported() {
    let of = |text: &str| read(Format::Json, Encoding::Identity, &[text.as_bytes()]).and_then(|usage| usage.total());
    assert_eq!(of(r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#), Some(7));
    assert_eq!(of(r#"{"usage":{"prompt_tokens":3,"total_tokens":9}}"#), Some(9));
    assert_eq!(of(r#"{"usage":{"prompt_tokens":3}}"#), None);
}

#[test]
fn json_cut_anywhere_reports_the_same() {
    for body in [
        format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"é \\\"usage\\\": {{ \\\\\"}}}}],\"usage\":{SAID_JSON},\"x\":[[{{}}]]}}"
        ),
        format!(" \r\n{{ \"usage\" : {SAID_JSON}\n}}\n"),
        format!("{{\"id\":\"r\",\"usage\":{SAID_JSON},\"response\":{{\"a\":[],\"usage\":null}}}}"),
        format!("{{\"response\":{{\"usage\":{SAID_JSON}}},\"n\":-1.5e3,\"t\":true}}"),
    ] {
        at_every_cut(Format::Json, Encoding::Identity, body.as_bytes(), Some(SAID));
    }
}

#[test]
fn encoded_bodies_cut_anywhere_report_the_same() {
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        at_every_cut(Format::Events, encoding, &packed(encoding, chat(SAID_JSON).as_bytes()), Some(SAID));
        let json = format!("{{\"usage\":{SAID_JSON}}}");
        at_every_cut(Format::Json, encoding, &packed(encoding, json.as_bytes()), Some(SAID));
    }
    at_every_cut(Format::Events, Encoding::Brotli, &from_hex(BROTLI), Some(SAID));
    // Two members are one body.
    let mut members = packed(Encoding::Gzip, b"{\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22,");
    members.extend(packed(Encoding::Gzip, b"\"total_tokens\":33}}"));
    at_every_cut(Format::Json, Encoding::Gzip, &members, Some(SAID));
}

#[test]
fn an_encoded_body_that_breaks_off_keeps_what_it_reported() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(chat(SAID_JSON).as_bytes()).unwrap();
    encoder.flush().unwrap();
    assert_eq!(read(Format::Events, Encoding::Gzip, &[encoder.get_ref()]), Some(SAID));
    let garbage = [encoder.get_ref().as_slice(), &[0xFF; 40], b"more"].concat();
    at_every_cut(Format::Events, Encoding::Gzip, &garbage, Some(SAID));
}

#[test]
fn what_unfolds_without_end_is_given_up() {
    let bomb = packed(Encoding::Gzip, &vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let mut tap = Tap::new(Format::Json, Encoding::Gzip);
    tap.feed(&bomb);
    tap.feed(&packed(Encoding::Gzip, format!("{{\"usage\":{SAID_JSON}}}").as_bytes()));
    assert_eq!(tap.usage(true), None);
    let mut tap = Tap::new(Format::Json, Encoding::Brotli);
    tap.feed(&from_hex(BROTLI_BOMB));
    assert!(tap.0.has_failed());
    // In chunks of a sensible size it is a body like any other.
    let slow: Vec<&[u8]> = bomb.chunks(1024).collect();
    let json = packed(Encoding::Gzip, format!("{{\"usage\":{SAID_JSON}}}").as_bytes());
    assert_eq!(read(Format::Json, Encoding::Gzip, &[slow, vec![&json]].concat()), Some(SAID));
}

#[test]
fn a_large_event_is_searched_and_not_kept() {
    let filler = "x".repeat(3 * EVENT_HELD_MAX_BYTES);
    let body = format!(
        "data: {{\"response\":{{\"text\":\"{filler}\",\"usage\":{}}}}}\r\n\r\ndata: [DONE]\n\n",
        SAID_JSON.replace('\n', "")
    );
    for size in [1000, 4096, 100_000] {
        let mut reader = EventReader::default();
        for chunk in body.as_bytes().chunks(size) {
            reader.feed(chunk);
            assert!(reader.held_bytes() <= 2 * EVENT_HELD_MAX_BYTES);
        }
        assert_eq!(reader.usage(), Some(SAID), "in chunks of {size}");
    }
}

#[test]
fn heads_say_how_a_body_is_read() {
    let head = |kind: &str, encoding: &[&str]| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        for value in encoding {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        (Format::of(&headers), Encoding::of(&headers))
    };
    let (events, json) = (Some(Format::Events), Some(Format::Json));
    assert_eq!(head("text/event-stream; charset=utf-8", &[]), (events, Some(Encoding::Identity)));
    assert_eq!(head("Application/JSON", &["GZIP"]), (json, Some(Encoding::Gzip)));
    assert_eq!(head("application/vnd.x+json", &["br"]), (json, Some(Encoding::Brotli)));
    assert_eq!(head("text/plain", &["deflate"]), (None, Some(Encoding::Deflate)));
    assert_eq!(head("application/json", &["gzip, br"]), (json, None));
    assert_eq!(head("application/json", &["gzip", "br"]), (json, None));
    assert_eq!(head("application/json", &["zstd"]), (json, None));
}

fn is_usage_only(event: &str) -> bool {
    let mut scan = EventScan::default();
    scan.feed(event.as_bytes());
    scan.is_usage_only()
}

#[test]
fn an_event_for_usage_alone_has_no_choices() {
    assert!(is_usage_only("data: {\"choices\":[ ],\"usage\":{\"total_tokens\":3}}\n\n"));
    assert!(is_usage_only("data:{\"usage\":{\"total_tokens\":3},\"choices\":[]}\n\n"));
    assert!(!is_usage_only("data: {\"choices\":[],\"usage\":null}\n\n"));
    assert!(!is_usage_only("data: {\"choices\":[{}],\"usage\":{\"total_tokens\":3}}\n\n"));
    assert!(!is_usage_only("data: {\"usage\":{\"total_tokens\":3}}\n\n"));
    assert!(!is_usage_only("data: {\"choices\":[]}\n\n"));
}

/// Where events end, read line by line from a whole text: the slow and obvious way.
fn obvious_boundaries(text: &[u8]) -> Vec<usize> {
    let (mut ends, mut open, mut start, mut at) = (Vec::new(), false, 0, 0);
    while at < text.len() {
        if text[at] == b'\n' || text[at] == b'\r' {
            let line = &text[start..at];
            let both = text[at] == b'\r' && text.get(at + 1) == Some(&b'\n');
            at += if both { 2 } else { 1 };
            start = at;
            open = match line.first() {
                None => false,
                Some(b':') => open,
                Some(_) => true,
            };
            if !open {
                ends.push(at);
            }
        } else {
            at += 1;
        }
    }
    ends
}

fn found_boundaries(chunks: &[&[u8]]) -> Vec<usize> {
    let (mut boundaries, mut ends, mut read) = (Boundaries::default(), Vec::new(), 0);
    for chunk in chunks {
        let mut rest = *chunk;
        while let Some(length) = boundaries.next(rest) {
            assert!(length > 0 && boundaries.at_boundary());
            rest = &rest[length..];
            ends.push(read + chunk.len() - rest.len());
        }
        assert!(rest.is_empty() || !boundaries.at_boundary());
        read += chunk.len();
    }
    ends
}

fn cut<'a>(text: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = at.iter().map(|index| index.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let key = prop_oneof![
        Just("usage".to_owned()),
        Just("response".to_owned()),
        Just("choices".to_owned()),
        Just("prompt_tokens".to_owned()),
        Just("output_tokens".to_owned()),
        Just("total_tokens".to_owned()),
        "[a-z\"\\\\é]{0,20}",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (0..100_i64).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[ -~é🌊\"\\\\]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn obvious_usage(document: &serde_json::Value) -> Option<Usage> {
    let of = |place: &serde_json::Value| {
        let object = place.get("usage")?.as_object()?;
        let amount = |keys: [&str; 2]| {
            // The later key in the text wins, as serde_json writes them in order.
            let last = object.iter().rfind(|(key, _)| keys.contains(&key.as_str()))?.1;
            last.as_i64().filter(|amount| (0..=domain::catalog::AMOUNT_MAX).contains(amount))
        };
        let usage = Usage {
            prompt_tokens: amount(["prompt_tokens", "input_tokens"]),
            completion_tokens: amount(["completion_tokens", "output_tokens"]),
            total_tokens: amount(["total_tokens", "total_tokens"]),
        };
        (!usage.is_empty()).then_some(usage)
    };
    // In a serialised map, `response` stands before `usage`.
    of(document).or_else(|| of(document.get("response")?))
}

proptest! {
    #[test]
    fn boundaries_do_not_depend_on_cuts(
        text in "[:ad \r\n]{0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let chunks = cut(text.as_bytes(), &cuts);
        let found = found_boundaries(&chunks);
        let obvious = obvious_boundaries(text.as_bytes());
        // Between CR and LF there is one boundary or two, by where the cut falls: both are between events.
        let within = |ends: &[usize]| -> Vec<usize> {
            let is_between = |end: &usize| *end > 0 && text.as_bytes()[*end - 1] == b'\r' && text.as_bytes().get(*end) == Some(&b'\n');
            ends.iter().copied().filter(|end| !is_between(end)).collect()
        };
        prop_assert_eq!(within(&found), within(&obvious));
    }

    #[test]
    fn json_is_read_as_a_parser_would(
        document in json_value(),
        pretty in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let expected = obvious_usage(&document);
        prop_assert_eq!(read(Format::Json, Encoding::Identity, &cut(text.as_bytes(), &cuts)), expected);
        let event = format!("data: {}\r\n\r\n", text.replace('\n', "\ndata: "));
        prop_assert_eq!(read(Format::Events, Encoding::Identity, &cut(event.as_bytes(), &cuts)), expected);
    }

    #[test]
    fn streams_cut_at_random_report_what_was_said_last(
        events in prop::collection::vec((0..6_u8, 0..1000_i64, 0..3_usize), 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        closed in any::<bool>(),
    ) {
        let (mut text, mut expected) = (String::new(), None);
        for (kind, number, line_end) in events {
            let line_end = ["\n", "\r\n", "\r"][line_end];
            let event = match kind {
                0 => ": ping\n".to_owned(),
                1 => ": ping\n\n".to_owned(),
                2 => "data: {\"choices\":[{\"delta\":{\"content\":\"né 🌊\"}}],\"usage\":null}\n\n".to_owned(),
                3 => "data: [DONE]\n\n".to_owned(),
                _ => {
                    expected = Some(Usage { total_tokens: Some(number), ..Usage::default() });
                    format!("id: 1\ndata:{{\"choices\":[],\"usage\":{{\"total_tokens\":{number}}}}}\n: x\n\n")
                }
            };
            text.push_str(&event.replace('\n', line_end));
        }
        let text = if closed { text.as_str() } else { text.trim_end_matches(['\r', '\n']) };
        prop_assert_eq!(read(Format::Events, Encoding::Identity, &cut(text.as_bytes(), &cuts)), expected);
        let packed = packed(Encoding::Gzip, text.as_bytes());
        prop_assert_eq!(read(Format::Events, Encoding::Gzip, &cut(&packed, &cuts)), expected);
    }
}
