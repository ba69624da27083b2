//! Which of two routes is more specific, and whether any request is for both.

use super::{Route, Segment};
use http::Method;

/// How specific a route is; a greater one is tried first. Sorting by it gives: where two routes match one request,
/// the first is the more specific (for routes that [`Route::conflicts_with`] does not object to).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    segments: Vec<u8>,
    has_method: bool,
}

impl Route {
    /// How specific the route is: segment by segment, a text beats a capture, a capture (or the path's end) beats the
    /// rest; then a method beats any.
    pub fn specificity(&self) -> Specificity {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 3,
            Segment::Tenant | Segment::User | Segment::Capture(_) => 2,
            Segment::Rest => 0,
        };
        // 1 stands for the end of the path.
        let segments = self.pattern.iter().map(rank).chain([1]).collect();
        Specificity { segments, has_method: self.method.is_some() }
    }

    /// Whether some request is for both routes.
    pub fn overlaps(&self, other: &Route) -> bool {
        let methods_meet = match (&self.method, &other.method) {
            (Some(own), Some(others)) => own == others,
            _ => true,
        };
        methods_meet && paths_meet(&self.pattern, &other.pattern)
    }

    /// Whether every request for this route is also for the other one.
    pub fn is_within(&self, other: &Route) -> bool {
        let method_within = other.method.is_none() || self.method == other.method;
        method_within && path_within(&self.pattern, &other.pattern)
    }

    /// Whether some request is for both routes and neither is more specific: then nothing says which one it takes.
    pub fn conflicts_with(&self, other: &Route) -> bool {
        self.overlaps(other) && self.is_within(other) == other.is_within(self)
    }

    /// A request that is for both routes, which overlap.
    pub(super) fn example_of_both(&self, other: &Route) -> String {
        let method = self.method.as_ref().or(other.method.as_ref()).unwrap_or(&Method::GET);
        let mut path = String::new();
        let longest = self.pattern.len().max(other.pattern.len());
        for index in 0..longest {
            let segments = [&self.pattern, &other.pattern].map(|pattern| pattern.get(index));
            let literal = segments.iter().find_map(|segment| match segment {
                Some(Segment::Literal(text)) => Some(&**text),
                _ => None,
            });
            let rests = segments.iter().all(|segment| matches!(segment, Some(Segment::Rest) | None));
            if let Some(text) = literal.or((!rests).then_some("x")) {
                path.push('/');
                path.push_str(text);
            }
        }
        let path = if path.is_empty() { "/" } else { &path };
        format!("{method} {path}")
    }
}

fn paths_meet(left: &[Segment], right: &[Segment]) -> bool {
    match (left.split_first(), right.split_first()) {
        (Some((Segment::Rest, _)), _) | (_, Some((Segment::Rest, _))) | (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
        (Some((Segment::Literal(one), left)), Some((Segment::Literal(other), right))) => {
            one == other && paths_meet(left, right)
        }
        (Some((_, left)), Some((_, right))) => paths_meet(left, right),
    }
}

fn path_within(inner: &[Segment], outer: &[Segment]) -> bool {
    match (inner.split_first(), outer.split_first()) {
        (_, Some((Segment::Rest, _))) | (None, None) => true,
        (Some((Segment::Rest, _)), _) | (None, Some(_)) | (Some(_), None) => false,
        (Some((Segment::Literal(one), inner)), Some((Segment::Literal(other), outer))) => {
            one == other && path_within(inner, outer)
        }
        (Some(_), Some((Segment::Literal(_), _))) => false,
        (Some((_, inner)), Some((_, outer))) => path_within(inner, outer),
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
