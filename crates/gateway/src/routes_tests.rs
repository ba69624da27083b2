#![allow(clippy::unwrap_used)]

use super::*;
use crate::{path, sample};

fn found<'a>(table: &'a RouteTable, request: &str, segments: &'a mut Vec<Cow<'static, str>>) -> Option<Matched<'a>> {
    let (method, raw) = request.split_once(' ').unwrap();
    *segments = path::segments(raw).unwrap().into_iter().map(|segment| Cow::Owned(segment.into_owned())).collect();
    table.find(&method.parse().unwrap(), segments)
}

#[test]
fn the_most_specific_route_wins() {
    let routes = [
        "/files/*",
        "GET /files/{name}",
        "GET /files/list",
        "/files/list",
        "GET /t/{tenant}/x",
        "GET /t/{tenant}/*",
        "HEAD /files/list",
        "POST /v1/chat",
    ];
    let table = RouteTable::new(&routes.map(sample::route));
    for (request, expected) in [
        ("GET /files/list", Some("GET /files/list")),
        ("GET /files/list/", Some("GET /files/list")),
        ("POST /files/list", Some("/files/list")),
        ("HEAD /files/list", Some("HEAD /files/list")),
        ("GET /files/other", Some("GET /files/{name}")),
        ("HEAD /files/other", Some("GET /files/{name}")),
        ("GET /files/a/b", Some("/files/*")),
        ("GET /files", Some("/files/*")),
        ("GET /t/acme/x", Some("GET /t/{tenant}/x")),
        ("GET /t/acme/y/z", Some("GET /t/{tenant}/*")),
        ("GET /t", None),
        ("POST /v1/chat", Some("POST /v1/chat")),
        ("POST /V1/Chat", Some("POST /v1/chat")),
        ("POST /v1/ch%61t", Some("POST /v1/chat")),
        ("GET /v1/chat", None),
        ("POST /v1/chat/x", None),
        ("GET /", None),
    ] {
        let mut segments = Vec::new();
        let name = found(&table, request, &mut segments).map(|matched| matched.route.name.to_string());
        assert_eq!(name.as_deref(), expected, "{request}");
    }
}

#[test]
fn captures_are_what_stands_in_their_place() {
    let table = RouteTable::new(&[sample::route("GET /t/{tenant}/u/{user}/{thing}/*")]);
    let mut segments = Vec::new();
    let matched = found(&table, "GET /t/acme/u/ada%40x/a%20b/rest", &mut segments).unwrap();
    assert_eq!((matched.tenant(), matched.user()), (Some("acme"), Some("ada@x")));
    assert_eq!((matched.capture("thing"), matched.capture("tenant")), (Some("a b"), Some("acme")));
    assert_eq!(matched.capture("nothing"), None);
}
