#![allow(clippy::unwrap_used)]

use crate::catalog::{AmountSource, Reading, Reported, UsageField, load};

#[test]
fn what_a_response_reports_can_be_charged() {
    let text = r#"
[meters.tokens]
kind = "counter"
[meters.time]
kind = "duration"
[plans.free]
rank = 0
[[routes]]
match = "POST /chat"
charge = [
  { meter = "tokens", from = "usage", expect = 1000 },
  { meter = "tokens", from = "usage", field = "prompt_tokens", expect = 0 },
  { meter = "tokens", from = "usage", field = "completion_tokens", expect = 7 },
  { meter = "tokens", response_header = "x-tokens", expect = 5 },
  { meter = "time", response_header = "x-time", expect = "2s" },
  { meter = "time", from = "duration" },
]
include_usage = true
identity_encoding = false
body_peek_max_bytes = 4096
[[routes]]
match = "POST /plain"
charge = [{ meter = "tokens" }]
[[routes]]
match = "POST /read"
charge = [{ meter = "tokens", from = "usage", expect = 1 }]
"#;
    let routes = load(text, "test.toml").unwrap().gateway.routes;
    let route = |name: &str| routes.iter().find(|route| &*route.name == name).unwrap();
    let amounts: Vec<AmountSource> = route("POST /chat").charges.iter().map(|charge| charge.amount.clone()).collect();
    let reported = |what, expect| AmountSource::Reported { what, expect };
    let header = |name: &'static str| Reported::Header(http::HeaderName::from_static(name));
    assert_eq!(
        amounts,
        [
            reported(Reported::Usage(UsageField::Total), 1000),
            reported(Reported::Usage(UsageField::Prompt), 0),
            reported(Reported::Usage(UsageField::Completion), 7),
            reported(header("x-tokens"), 5),
            reported(header("x-time"), 2000),
            reported(Reported::Duration, 0),
        ]
    );
    let reading = |include_usage, identity_encoding, body_peek_max_bytes| Reading {
        include_usage,
        identity_encoding,
        body_peek_max_bytes,
    };
    assert_eq!(route("POST /chat").reading, reading(true, false, 4096));
    assert_eq!(route("POST /plain").reading, reading(false, false, 1 << 20));
    assert_eq!(route("POST /read").reading, reading(false, true, 1 << 20));
}
