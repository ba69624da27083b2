//! Names, references and small texts that several sections share.

use super::{
    Segment,
    problem::quoted,
    report::{Report, Span},
    table::{Node, Table, Text},
    units,
};
use domain::id::NameError;
use http::{HeaderName, Uri};
use std::sync::Arc;
use toml::de::DeValue;

/// Notes that there are too many of something.
pub(super) fn at_most(report: &mut Report<'_>, span: Option<Span>, what: &str, count: usize, max: usize) {
    if count > max {
        report.error(span.unwrap_or_default(), format!("{count} {what} are too many: at most {max} are allowed"));
    }
}

/// What a named thing is called in messages: plan `free`.
pub(super) fn about(noun: &str, name: Text<'_>) -> String {
    format!("{noun} {}", quoted(name.text))
}

/// The key of a declared thing, if it is well formed.
pub(super) fn key<T>(
    report: &mut Report<'_>,
    name: Text<'_>,
    noun: &str,
    new: impl Fn(&str) -> Result<T, NameError>,
) -> Option<T> {
    match new(name.text) {
        Ok(key) => Some(key),
        Err(problem) => {
            let better = slug(name.text);
            let help = match new(&better) {
                Ok(_) if better != name.text => format!("call it {}", quoted(&better)),
                _ => "use lower-case letters, digits, `_` and `-`, at most 64 of them".to_owned(),
            };
            report.error_help(name.span, format!("{} can't name a {noun}: {problem}", quoted(name.text)), help);
            None
        }
    }
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().take(64) {
        match c {
            'A'..='Z' if slug.ends_with(|last: char| last.is_ascii_lowercase()) => {
                slug.extend(['_', c.to_ascii_lowercase()])
            }
            c if c.is_ascii_alphanumeric() || c == '-' => slug.push(c.to_ascii_lowercase()),
            _ if slug.ends_with('_') => {}
            _ => slug.push('_'),
        }
    }
    slug.trim_matches('_').to_owned()
}

/// A key as people would say it: `conversation_time` is "Conversation time".
pub(super) fn humanized(key: &str) -> String {
    let words = key.replace(['_', '-'], " ");
    let mut letters = words.trim().chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => key.to_owned(),
    }
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(report: &mut Report<'_>, text: Text<'_>, what: &str) -> Option<Arc<str>> {
    let escapes_hold = text.text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if !text.text.starts_with('/') {
        // A claim named by a URL is one name; anything else with slashes is a path already.
        let whole = if text.text.contains("://") {
            text.text.replace('~', "~0").replace('/', "~1")
        } else {
            text.text.to_owned()
        };
        let meant = format!("/{whole}");
        report.error_help(text.span, format!("{what} must begin with `/`"), format!("did you mean \"{meant}\"?"));
        return None;
    }
    if !escapes_hold {
        let help = "in a JSON pointer, `~` is written `~0` and a `/` inside a name `~1`";
        report.error_help(text.span, format!("{what} has a `~` that is no escape"), help);
        return None;
    }
    if text.text.len() > 200 || text.text.chars().any(char::is_control) {
        report.error(text.span, format!("{what} is longer than 200 bytes or holds control characters"));
        return None;
    }
    Some(text.text.into())
}

/// The name of an HTTP header.
pub(super) fn header(report: &mut Report<'_>, node: Node<'_>, what: &str) -> Option<HeaderName> {
    let text = node.text(report, what)?;
    match HeaderName::from_bytes(text.text.as_bytes()) {
        Ok(name) if text.text.len() <= 100 => Some(name),
        _ => {
            let message = format!("{} is not the name of an HTTP header", quoted(text.text));
            report.error_help(text.span, message, "use letters, digits and `-`, such as \"x-tenant-id\"");
            None
        }
    }
}

/// A capture of a route's path.
pub(super) fn capture(report: &mut Report<'_>, name: Text<'_>, segments: &[Segment]) -> Option<Arc<str>> {
    let captures = segments.iter().filter_map(|segment| match segment {
        Segment::Capture(name) => Some(&**name),
        _ => None,
    });
    if captures.clone().any(|capture| capture == name.text) {
        return Some(name.text.into());
    }
    let message = format!("the path has no capture {}", quoted(name.text));
    report.unknown(name.span, message, "captures of the path", name.text, captures);
    None
}

/// An `http://` or `https://` URL without credentials, query or fragment.
pub(super) fn url(report: &mut Report<'_>, text: Text<'_>, what: &str) -> Option<Uri> {
    if authority_of(text.text).contains('@') {
        let help = "let the network or a header set by the upstream's proxy authenticate Tidegate";
        report.error_veiled(text.span, format!("{what} holds credentials: secrets stay out of the catalog"), help);
        return None;
    }
    let parsed = callable(text.text);
    if parsed.is_none() {
        let authority = authority_of(text.text);
        let nearby = authority.contains(':') || authority == "localhost";
        let guess = format!("{}://{}", if nearby { "http" } else { "https" }, text.text);
        let help = match !text.text.contains("://") && callable(&guess).is_some() {
            true => format!("did you mean \"{guess}\"?"),
            false => "write http:// or https://, a host, and a port if needed: \"http://127.0.0.1:3000\"".to_owned(),
        };
        report.error_help(text.span, format!("{what} is not a URL that can be called: {}", quoted(text.text)), help);
    }
    parsed
}

/// What stands where a URL names its host, also if it is no whole URL.
fn authority_of(text: &str) -> &str {
    let after_scheme = text.split_once("//").map_or(text, |(_, rest)| rest);
    after_scheme.split(['/', '?', '#']).next().unwrap_or(after_scheme)
}

fn callable(text: &str) -> Option<Uri> {
    text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.host().is_empty() && port_holds(authority.as_str()))
            && !text.contains('#')
    })
}

fn port_holds(authority: &str) -> bool {
    let after_host = authority.rsplit(']').next().unwrap_or(authority);
    match after_host.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port > 0),
        None => true,
    }
}

/// A link for people: a template that is an http(s) URL or a path, with no slot but the known ones.
pub(super) fn link(report: &mut Report<'_>, text: Text<'_>, what: &str) -> Option<Arc<str>> {
    const SLOTS: [&str; 4] = ["plan", "from", "feature", "tenant"];
    let path = text.text.starts_with('/') && !text.text.starts_with("//");
    let absolute = ["https://", "http://"].iter().any(|scheme| text.text.starts_with(scheme));
    let clean = text.text.chars().all(|c| !c.is_control() && c != ' ' && !"<>\"\\".contains(c));
    if !(path || absolute) || !clean || text.text.len() > 1000 {
        let help = "write a path or an http(s) URL, such as \"/settings/plan?upgrade={plan}&from={from}\"";
        report.error_help(text.span, format!("{what} is not a link: {}", quoted(text.text)), help);
        return None;
    }
    for rest in text.text.split('{').skip(1) {
        let Some((slot, _)) = rest.split_once('}') else {
            report.error_help(
                text.span,
                format!("{what} has a `{{` without a `}}`"),
                "close it, or write %7B for a brace",
            );
            return None;
        };
        if !SLOTS.contains(&slot) {
            let message = format!("{what} has the unknown slot {}", quoted(&format!("{{{slot}}}")));
            report.unknown(text.span, message, "slots", slot, SLOTS.into_iter());
            return None;
        }
    }
    Some(text.text.into())
}

/// A length of time between two bounds, in milliseconds.
pub(super) fn duration_ms(
    report: &mut Report<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    bounds_ms: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    let node = table.get(key)?;
    let what = table.what(key);
    let DeValue::String(text) = node.value else {
        node.expected(report, &what, "a length of time", Some("write a text such as \"5s\" or \"7d\""));
        return None;
    };
    match units::duration_ms(text) {
        Ok(ms) if bounds_ms.contains(&ms) => Some(ms),
        Ok(_) => {
            let (min, max) = (shown_ms(*bounds_ms.start()), shown_ms(*bounds_ms.end()));
            report.error(node.span, format!("{what} must be between {min} and {max}"));
            None
        }
        Err(_) => {
            let help = "write a number and a unit: \"500ms\", \"5s\", \"10m\", \"1h30m\", \"7d\"";
            report.error_help(node.span, format!("{what} is not a length of time: {}", quoted(text)), help);
            None
        }
    }
}

fn shown_ms(ms: i64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, unit)| ms > 0 && ms % unit == 0) {
        Some((word, unit)) => format!("{}{word}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}
