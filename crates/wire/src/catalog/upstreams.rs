//! `[upstreams.X]`: the servers behind the gateway.

use super::{
    Upstream, keys,
    report::Report,
    table::{Declared, Node, Table, Text, resolve},
};
use std::sync::Arc;

/// How many upstreams a catalog may have.
const UPSTREAMS_MAX: usize = 256;

/// How long a connection may take to be made, when the catalog does not say.
const CONNECT_TIMEOUT_MS: i64 = 5_000;

/// Reads every upstream.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>) -> Declared<Upstream> {
    let entries = document.named(report, "upstreams", "upstream");
    keys::at_most(report, document.key_span("upstreams"), "upstreams", entries.len(), UPSTREAMS_MAX);
    let read = |(name, node): (Text<'_>, Node<'_>)| (name.text.to_owned(), upstream(report, name, node).map(Arc::new));
    entries.into_iter().take(UPSTREAMS_MAX).map(read).collect()
}

fn upstream(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>) -> Option<Upstream> {
    let key = keys::key(report, name, "upstream", domain::id::MeterKey::new);
    let mut table = node.table(report, keys::about("upstream", name))?.at(name.span);
    let url = table.required(report, "url", "write url = \"http://127.0.0.1:3000\"");
    let url = url.and_then(|node| node.text(report, "`url`")).and_then(|text| {
        let url = keys::url(report, text, "`url`")?;
        if url.query().is_some() {
            report.error_help(
                text.span,
                "`url` of an upstream has a query",
                "leave the query out; a path prefix is allowed",
            );
            return None;
        }
        Some(url)
    });
    let connect_timeout_ms = keys::duration_ms(report, &mut table, "connect_timeout", 1..=300_000);
    let response_timeout_ms = keys::duration_ms(report, &mut table, "response_timeout", 1..=86_400_000);
    let ca_file = ca_file(report, &mut table, url.as_ref());
    table.finish(report);
    Some(Upstream {
        name: key?.as_str().into(),
        url: url?,
        connect_timeout_ms: connect_timeout_ms.unwrap_or(CONNECT_TIMEOUT_MS).unsigned_abs(),
        response_timeout_ms: response_timeout_ms.map(i64::unsigned_abs),
        ca_file,
    })
}

fn ca_file(report: &mut Report<'_>, table: &mut Table<'_>, url: Option<&http::Uri>) -> Option<Arc<str>> {
    let text = table.text(report, "ca_file")?;
    if url.is_some_and(|url| url.scheme_str() != Some("https")) {
        report.error_help(text.span, "`ca_file` is for an upstream with https://", "write url = \"https://...\"");
        return None;
    }
    if text.text.contains("-----BEGIN") {
        let help = "write the path of the file that holds it";
        report.error_help(text.span, "`ca_file` holds a certificate instead of a path", help);
        return None;
    }
    super::table::prose(report, text, "`ca_file`", 1000)
}

/// The upstream of routes that name none: the one that `default_upstream` names, or the only one there is.
pub(super) fn default(
    report: &mut Report<'_>,
    document: &mut Table<'_>,
    known: &Declared<Upstream>,
) -> Option<Arc<str>> {
    if let Some(name) = document.text(report, "default_upstream") {
        return resolve(report, name, "upstream", known).map(|upstream| upstream.name.clone());
    }
    let mut names = known.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Some(only.as_str().into()),
        _ => None,
    }
}
