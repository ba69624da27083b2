//! Goal: sorting by specificity agrees with what patterns match. Method: an independent matcher over every short path
//! of a small alphabet, and every pair of patterns over the same alphabet.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalog::{ChargeWhen, Reading, load};

fn route(method: Option<Method>, pattern: &[Segment]) -> Route {
    Route {
        name: "".into(),
        method,
        pattern: pattern.to_vec(),
        upstream: None,
        public: false,
        features: Vec::new(),
        charges: Vec::new(),
        charge_when: ChargeWhen::Reached,
        commit_first: false,
        enforce: None,
        dimensions: Vec::new(),
        reading: Reading { include_usage: false, identity_encoding: false, body_peek_max_bytes: 0 },
        session: None,
    }
}

/// Every pattern of at most two segments and an optional rest, with and without a method.
fn routes() -> Vec<Route> {
    let texts =
        [Segment::Literal("a".into()), Segment::Literal("b".into()), Segment::Capture("c".into()), Segment::Tenant];
    let mut patterns: Vec<Vec<Segment>> = vec![Vec::new()];
    for first in &texts {
        patterns.push(vec![first.clone()]);
        for second in &texts {
            patterns.push(vec![first.clone(), second.clone()]);
        }
    }
    let with_rest: Vec<Vec<Segment>> =
        patterns.iter().map(|pattern| pattern.iter().cloned().chain([Segment::Rest]).collect()).collect();
    patterns.extend(with_rest);
    let methods = [None, Some(Method::GET), Some(Method::POST)];
    methods.iter().flat_map(|method| patterns.iter().map(|pattern| route(method.clone(), pattern))).collect()
}

/// Every request of at most three segments. `z` stands for whatever no pattern names.
fn requests() -> Vec<(Method, Vec<&'static str>)> {
    let mut paths: Vec<Vec<&str>> = vec![Vec::new()];
    for length in 0..3 {
        let longest: Vec<Vec<&str>> = paths.iter().filter(|path| path.len() == length).cloned().collect();
        for path in longest {
            for segment in ["a", "b", "z"] {
                paths.push(path.iter().copied().chain([segment]).collect());
            }
        }
    }
    let methods = [Method::GET, Method::POST, Method::PUT];
    methods.iter().flat_map(|method| paths.iter().map(|path| (method.clone(), path.clone()))).collect()
}

fn matches(route: &Route, (method, path): &(Method, Vec<&str>)) -> bool {
    let prefix: Vec<&Segment> = route.pattern.iter().filter(|segment| **segment != Segment::Rest).collect();
    let length_fits = match prefix.len() == route.pattern.len() {
        true => path.len() == prefix.len(),
        false => path.len() >= prefix.len(),
    };
    route.method.as_ref().is_none_or(|own| own == method)
        && length_fits
        && prefix.iter().zip(path).all(|(segment, text)| match segment {
            Segment::Literal(literal) => **literal == **text,
            _ => true,
        })
}

#[test]
fn overlap_within_and_order_are_what_matching_says() {
    let (routes, requests) = (routes(), requests());
    let matched: Vec<Vec<bool>> =
        routes.iter().map(|route| requests.iter().map(|request| matches(route, request)).collect()).collect();
    for (left, one) in routes.iter().enumerate() {
        for (right, other) in routes.iter().enumerate() {
            let pairs = || matched[left].iter().zip(&matched[right]);
            let overlap = pairs().any(|(one, other)| *one && *other);
            let within = pairs().all(|(one, other)| !*one || *other);
            assert_eq!(one.overlaps(other), overlap, "{one:?} {other:?}");
            assert_eq!(one.is_within(other), within, "{one:?} {other:?}");
            let narrower = within && !other.is_within(one);
            assert!(!narrower || one.specificity() > other.specificity(), "{one:?} {other:?}");
            if overlap {
                assert!(one.conflicts_with(other) || one.specificity() != other.specificity());
            }
        }
    }
}

#[test]
fn routes_come_most_specific_first() {
    let lines: String = ["/*", "/a/*", "/a/{x}", "GET /a/{x}", "/a", "GET /a/b", "/a/{x}/c", "/", "/a/{tenant}/c/d"]
        .iter()
        .map(|text| format!("[[routes]]\nmatch = \"{text}\"\n"))
        .collect();
    let loaded = load(&format!("{lines}[plans.free]\nrank = 0\n"), "f").unwrap();
    let names: Vec<&str> = loaded.gateway.routes.iter().map(|route| &*route.name).collect();
    let expected = ["GET /a/b", "/a/{tenant}/c/d", "/a/{x}/c", "GET /a/{x}", "/a/{x}", "/a", "/a/*", "/", "/*"];
    assert_eq!(names, expected);
}

#[test]
fn the_example_of_an_overlap_is_a_request_for_both() {
    for one in routes() {
        for other in routes().iter().filter(|other| one.overlaps(other)) {
            let example = one.example_of_both(other);
            let (method, path) = example.split_once(" /").unwrap();
            let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
            let request = (Method::from_bytes(method.as_bytes()).unwrap(), path);
            assert!(matches(&one, &request) && matches(other, &request), "{one:?} {other:?} {example}");
        }
    }
}
