//! Which route a request takes. The most specific one wins: a literal segment before a capture before the rest.
//!
//! Three readings are generous on purpose, so that no other spelling of a metered path goes by unmetered: a slash at
//! the end means nothing, `HEAD` takes the route of `GET` where it has none of its own, and where no route fits to the
//! letter, one that fits but for upper and lower case is taken.

use http::Method;
use std::{borrow::Cow, cmp::Reverse, sync::Arc};
use wire::catalog::{Route, Segment};

/// Routes, the most specific first.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: Vec<Arc<Route>>,
}

/// A route that a request takes, and the segments of its path.
#[derive(Debug)]
pub(crate) struct Matched<'a> {
    pub(crate) route: &'a Arc<Route>,
    segments: &'a [Cow<'a, str>],
}

impl RouteTable {
    pub(crate) fn new(routes: &[Arc<Route>]) -> Self {
        let mut routes = routes.to_vec();
        // `HEAD` of its own comes before `GET`, which would take it too.
        routes.sort_by_key(|route| (Reverse(route.specificity()), route.method != Some(Method::HEAD)));
        Self { routes }
    }

    /// The route of a request.
    pub(crate) fn find<'a>(&'a self, method: &Method, segments: &'a [Cow<'a, str>]) -> Option<Matched<'a>> {
        let fitting = |literal: fn(&str, &str) -> bool| {
            self.routes.iter().find(|route| takes(route, method) && fits(&route.pattern, segments, literal))
        };
        let route = fitting(|a, b| a == b).or_else(|| fitting(|a, b| a.eq_ignore_ascii_case(b)))?;
        Some(Matched { route, segments })
    }
}

impl Matched<'_> {
    /// What stands where the pattern has `{tenant}`.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.at(|segment| matches!(segment, Segment::Tenant))
    }

    /// What stands where the pattern has `{user}`.
    pub(crate) fn user(&self) -> Option<&str> {
        self.at(|segment| matches!(segment, Segment::User))
    }

    /// What stands where the pattern has this capture.
    pub(crate) fn capture(&self, name: &str) -> Option<&str> {
        self.at(|segment| match segment {
            Segment::Capture(capture) => &**capture == name,
            Segment::Tenant => name == "tenant",
            Segment::User => name == "user",
            Segment::Literal(_) | Segment::Rest => false,
        })
    }

    fn at(&self, wanted: impl Fn(&Segment) -> bool) -> Option<&str> {
        let index = self.route.pattern.iter().position(wanted)?;
        self.segments.get(index).map(|segment| &**segment)
    }
}

fn takes(route: &Route, method: &Method) -> bool {
    match &route.method {
        None => true,
        Some(own) => own == method || (method == Method::HEAD && own == Method::GET),
    }
}

fn fits(pattern: &[Segment], segments: &[Cow<'_, str>], literal: fn(&str, &str) -> bool) -> bool {
    let rest = matches!(pattern.last(), Some(Segment::Rest));
    let fixed = pattern.len() - usize::from(rest);
    let length_fits = if rest { segments.len() >= fixed } else { segments.len() == fixed };
    length_fits
        && pattern.iter().zip(segments).all(|(segment, part)| match segment {
            Segment::Literal(text) => literal(text, part),
            Segment::Tenant | Segment::User | Segment::Capture(_) | Segment::Rest => true,
        })
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
