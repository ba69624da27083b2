//! The `match` of a route: `POST /v1/chat/completions`, `GET /tenants/{tenant}/files/*`, `/health`.

use super::{
    Segment,
    problem::{closest, quoted},
    report::Report,
    table::Text,
};
use http::Method;

/// How many segments a path pattern may have.
const SEGMENTS_MAX: usize = 64;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A `match`, read.
pub(super) struct Pattern {
    /// The text, with one space between method and path.
    pub(super) text: String,
    /// The method; `None` is any.
    pub(super) method: Option<Method>,
    /// The path. A slash at its end is dropped, as it is when requests are matched.
    pub(super) segments: Vec<Segment>,
}

/// Reads a `match`.
pub(super) fn read(report: &mut Report<'_>, text: Text<'_>) -> Option<Pattern> {
    let written = text.text.trim();
    let (method, path) = match written.split_once(char::is_whitespace) {
        Some((method, path)) => (Some(method), path.trim_start()),
        None => (None, written),
    };
    if !path.starts_with('/') {
        let help = "write a method and a path, \"POST /v1/chat/completions\", or a path alone for every method";
        report.error_help(text.span, format!("{} is not what a route can match", quoted(written)), help);
        return None;
    }
    let method = match method {
        None => None,
        Some(method) => Some(read_method(report, text, method)?),
    };
    let segments = read_path(report, text, path)?;
    let shown = method.as_ref().map_or(path.to_owned(), |method| format!("{method} {path}"));
    Some(Pattern { text: shown, method, segments })
}

fn read_method(report: &mut Report<'_>, text: Text<'_>, method: &str) -> Option<Method> {
    if METHODS.contains(&method) {
        return Method::from_bytes(method.as_bytes()).ok();
    }
    let message = format!("{} is not a method", quoted(method));
    if method == "*" || method.eq_ignore_ascii_case("any") {
        report.error_help(text.span, message, "write the path alone to match every method");
    } else if method.contains(['|', ',']) {
        report.error_help(text.span, message, "write one route per method, or the path alone to match every method");
    } else if let Some(meant) = closest(&method.to_uppercase(), METHODS) {
        report.error_help(text.span, message, format!("did you mean `{meant}`?"));
    } else if method.len() <= 20
        && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        && method != "CONNECT"
    {
        return Method::from_bytes(method.as_bytes()).ok();
    } else {
        report.error_help(text.span, message, format!("the usual methods are {}", super::problem::listed(METHODS)));
    }
    None
}

fn read_path(report: &mut Report<'_>, text: Text<'_>, path: &str) -> Option<Vec<Segment>> {
    if let Some(c) = path.chars().find(|c| c.is_whitespace() || c.is_control() || "?#\\;".contains(*c)) {
        let help = "a pattern is a path only: queries are never matched, and odd characters are written as %XX";
        report.error_help(text.span, format!("a route's path can't hold {c:?}"), help);
        return None;
    }
    let inner = path.trim_start_matches('/');
    if path.len() - inner.len() > 1 {
        report.error_help(text.span, "the path has an empty segment", "write one `/` between segments");
        return None;
    }
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let parts: Vec<&str> = inner.split('/').collect();
    if parts.len() > SEGMENTS_MAX {
        report.error(text.span, format!("the path has more than {SEGMENTS_MAX} segments"));
        return None;
    }
    let mut segments = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let segment = read_segment(report, text, part, index + 1 == parts.len())?;
        if !matches!(segment, Segment::Literal(_)) && segments.contains(&segment) {
            report.error_help(
                text.span,
                format!("{} stands twice in one path", quoted(part)),
                "give each capture its own name",
            );
            return None;
        }
        segments.push(segment);
    }
    Some(segments)
}

fn read_segment(report: &mut Report<'_>, text: Text<'_>, part: &str, last: bool) -> Option<Segment> {
    let refuse = |report: &mut Report<'_>, message: String, help: &str| {
        report.error_help(text.span, message, help);
        None
    };
    if part == "*" {
        return match last {
            true => Some(Segment::Rest),
            false => {
                refuse(report, "`*` can only end a path".to_owned(), "write {name} for one segment inside the path")
            }
        };
    }
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        return match name {
            "tenant" => Some(Segment::Tenant),
            "user" => Some(Segment::User),
            name if !name.is_empty() && name.len() <= 64 && name.chars().all(word) => {
                Some(Segment::Capture(name.into()))
            }
            _ => refuse(
                report,
                format!("{} is not a capture", quoted(part)),
                "name it with letters, digits, `_` and `-`: {id}",
            ),
        };
    }
    if part.starts_with(':') && part.len() > 1 {
        let help = format!("did you mean {{{}}}?", &part[1..]);
        return refuse(report, format!("{} is not how a capture is written", quoted(part)), &help);
    }
    if part.contains(['{', '}', '*']) {
        let help = "{name} stands for one whole segment, `*` for the rest at the end";
        return refuse(report, format!("{} mixes a capture with text", quoted(part)), help);
    }
    match decoded(part) {
        None => refuse(
            report,
            format!("{} is not a text that is percent-encoded rightly", quoted(part)),
            "write `%` as %25",
        ),
        Some(literal) if literal.is_empty() => {
            refuse(report, "the path has an empty segment".to_owned(), "write one `/` between segments")
        }
        Some(literal) if literal == "." || literal == ".." => refuse(
            report,
            format!("{} would never be matched: requests with it are refused", quoted(part)),
            "leave it out",
        ),
        Some(literal) if literal.contains(['/', '\\']) || literal.chars().any(char::is_control) => refuse(
            report,
            format!("{} hides a separator or a control character", quoted(part)),
            "write `/` only between segments",
        ),
        Some(literal) => Some(Segment::Literal(literal.into())),
    }
}

fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
    }
    String::from_utf8(bytes).ok()
}
