#![allow(clippy::unwrap_used)]

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

fn scrub() -> Scrub {
    Scrub {
        identity_headers: vec![HeaderName::from_static("x-auth-org")],
        trusted: vec![Network { address: "10.0.0.0".parse().unwrap(), prefix_bits: 8 }],
    }
}

#[test]
fn what_could_be_forged_and_what_belongs_to_one_connection_is_taken_out() {
    let mut headers = headers(&[
        ("x-tidegate-tenant", "evil"),
        ("X-TideGate-Plan", "enterprise"),
        ("x_tidegate_tenant", "evil"),
        ("x-tidegate_user", "evil"),
        ("x-auth-org", "evil"),
        ("x_auth_org", "evil"),
        ("connection", "close, x-secret"),
        ("connection", "upgrade"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAA"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip, trailers;q=0.5"),
        ("trailer", "digest"),
        ("authorization", "Bearer x"),
        ("traceparent", "00-1-2-01"),
        ("x-tidegat", "mine"),
    ]);
    scrub().request(&mut headers);
    assert_eq!(names(&headers), ["authorization", "te", "traceparent", "trailer", "x-tidegat"]);
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn only_a_trusted_proxy_is_believed_about_where_a_request_came_from() {
    let lines = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
    ];
    let host = || Some(HeaderValue::from_static("gate.example"));
    let mut from_stranger = headers(&lines);
    scrub().forwarded(&mut from_stranger, "192.0.2.9".parse().unwrap(), host());
    assert_eq!(names(&from_stranger), ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
    assert_eq!(from_stranger["x-forwarded-for"], "192.0.2.9");
    assert_eq!(from_stranger["x-forwarded-host"], "gate.example");
    assert_eq!(from_stranger["x-forwarded-proto"], "http");

    let mut from_proxy = headers(&lines);
    scrub().forwarded(&mut from_proxy, "::ffff:10.1.2.3".parse().unwrap(), host());
    assert_eq!(from_proxy["x-forwarded-for"], "1.2.3.4, 10.1.2.3");
    assert_eq!(from_proxy["x-forwarded-host"], "a.example");
    assert_eq!(from_proxy["x-forwarded-proto"], "https");
}

#[test]
fn only_websockets_are_switched_to() {
    let asks = |lines: &[(&str, &str)]| asks_for_websocket(&Method::GET, Version::HTTP_11, &headers(lines));
    assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
    assert!(!asks(&[("connection", "upgrade"), ("upgrade", "h2c")]));
    assert!(!asks(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]));
    assert!(!asks(&[("upgrade", "websocket")]));
}
