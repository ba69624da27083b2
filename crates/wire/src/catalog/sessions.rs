//! A route's `session`: which meter of time its requests feed, and what makes several requests one session.

use super::{
    RouteSession, Segment, SessionKey, keys,
    problem::quoted,
    report::Report,
    table::{Declared, Node, Text, resolve},
};
use domain::catalog::{Meter, MeterKind};
use toml::de::DeValue;

const HELP: &str = "write key = \"stream\" (each request of its own), { header = \"x-conversation-id\" }, \
                    { cookie = \"conversation\" }, { capture = \"conversation\" } or { body = \"/conversation_id\" }";

/// Reads the session of a route.
pub(super) fn read(
    report: &mut Report<'_>,
    node: Node<'_>,
    meters: &Declared<Meter>,
    segments: &[Segment],
) -> Option<RouteSession> {
    let mut table = node.table(report, "`session`")?;
    let help = "write session = { meter = \"conversation_time\", key = { header = \"x-conversation-id\" } }";
    let meter = table.required(report, "meter", help).and_then(|node| node.text(report, "`meter` of `session`"));
    let span = meter.map(|text| text.span);
    let meter = meter.and_then(|name| resolve(report, name, "meter", meters));
    let key = match table.get("key") {
        None => Some(SessionKey::Stream),
        Some(node) => key(report, node, segments),
    };
    table.finish(report);
    let (meter, key) = (meter?, key?);
    if meter.kind != MeterKind::Duration {
        let message = format!("{} is a {}: it has no sessions", quoted(meter.key.as_str()), meter.kind.word());
        report.error_help(span.unwrap_or_default(), message, "name a meter of kind = \"duration\"");
        return None;
    }
    Some(RouteSession { meter: meter.key.clone(), key })
}

fn key(report: &mut Report<'_>, node: Node<'_>, segments: &[Segment]) -> Option<SessionKey> {
    if let DeValue::String(text) = node.value {
        if &**text == "stream" {
            return Some(SessionKey::Stream);
        }
        report.error_help(node.span, format!("`key` can't be {}", quoted(text)), HELP);
        return None;
    }
    let mut table = node.table(report, "`key` of `session`")?;
    let header = table.get("header");
    let (cookie, capture, body) =
        (table.text(report, "cookie"), table.text(report, "capture"), table.text(report, "body"));
    table.finish(report);
    match (header, cookie, capture, body) {
        (Some(node), None, None, None) => keys::header(report, node, "`header` of a session").map(SessionKey::Header),
        (None, Some(name), None, None) => cookie_name(report, name),
        (None, None, Some(name), None) => keys::capture(report, name, segments).map(SessionKey::Capture),
        (None, None, None, Some(text)) => {
            keys::pointer(report, text, "`body`, a JSON pointer into the request,").map(SessionKey::Body)
        }
        _ => {
            report.error_help(node.span, "a session takes its key from one place", HELP);
            None
        }
    }
}

/// A cookie's name is a token (RFC 6265, section 4.1.1).
fn cookie_name(report: &mut Report<'_>, name: Text<'_>) -> Option<SessionKey> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=100).contains(&name.text.len()) && name.text.bytes().all(is_token) {
        return Some(SessionKey::Cookie(name.text.into()));
    }
    report.error_help(name.span, format!("{} can't be the name of a cookie", quoted(name.text)), HELP);
    None
}
