#![allow(clippy::unwrap_used)]

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn shop() -> CorsOrigins {
    CorsOrigins::parse("https://app.example.com, http://localhost:5173,").unwrap()
}

#[test]
fn origins_are_written_as_a_browser_writes_them() {
    assert_eq!(shop().to_string(), "https://app.example.com,http://localhost:5173");
    assert!(CorsOrigins::parse(" ").unwrap().is_empty());
    for wrong in [
        "*",
        "null",
        "app.example.com",
        "https://*.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://App.example.com",
        "https://me@app.example.com",
        "ftp://app.example.com",
        "https://",
    ] {
        assert_eq!(CorsOrigins::parse(wrong), Err(CorsError::NotAnOrigin(wrong.to_owned())), "{wrong}");
    }
    let many = (0..=ORIGINS_MAX).map(|n| format!("https://a{n}.example,")).collect::<String>();
    assert_eq!(CorsOrigins::parse(&many), Err(CorsError::TooMany));
}

#[test]
fn only_a_named_origin_is_allowed() {
    assert_eq!(shop().allowed(&headers(&[("origin", "https://app.example.com")])).unwrap(), "https://app.example.com");
    for refused in [
        &[][..],
        &[("origin", "https://app.example.com.evil.example")],
        &[("origin", "http://app.example.com")],
        &[("origin", "https://app.example.com:8443")],
        &[("origin", "null")],
        &[("origin", "https://app.example.com"), ("origin", "https://evil.example")],
    ] {
        assert_eq!(shop().allowed(&headers(refused)), None, "{refused:?}");
    }
    assert_eq!(CorsOrigins::default().allowed(&headers(&[("origin", "null")])), None);
}

#[test]
fn a_preflight_is_a_question_by_options_from_a_named_origin() {
    let asked = [
        ("origin", "http://localhost:5173"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = shop().preflight(&Method::OPTIONS, &headers(&asked)).unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:5173");
    assert_eq!(answer.headers()["access-control-allow-methods"], "PUT");
    assert_eq!(answer.headers()["access-control-allow-headers"], "authorization");
    assert!(answer.headers().get_all("vary").iter().any(|name| name == "origin"));
    assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    assert!(shop().preflight(&Method::GET, &headers(&asked)).is_none());
    assert!(shop().preflight(&Method::OPTIONS, &headers(&asked[..1])).is_none());
    assert!(shop().preflight(&Method::OPTIONS, &headers(&asked[1..])).is_none());
}

#[test]
fn answers_vary_by_origin_and_name_it_only_where_it_is_allowed() {
    let mut answer = HeaderMap::new();
    shop().finish(None, &mut answer);
    assert_eq!(answer["vary"], "origin");
    assert_eq!(answer.len(), 1);
    let mut answer = HeaderMap::new();
    shop().finish(Some(HeaderValue::from_static("https://app.example.com")), &mut answer);
    assert_eq!(answer["access-control-allow-origin"], "https://app.example.com");
    assert!(answer["access-control-expose-headers"].to_str().unwrap().contains("retry-after"));
    let mut silent = HeaderMap::new();
    CorsOrigins::default().finish(None, &mut silent);
    assert!(silent.is_empty());
}
