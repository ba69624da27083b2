//! `[meters.X]`: what can be counted.

use super::{
    keys,
    problem::quoted,
    report::Report,
    table::{Declared, Node, Table, Text},
};
use domain::{
    catalog::{Meter, MeterKind, SessionTerms, Unsettled},
    id::MeterKey,
    time::DAY_MS,
};
use std::sync::Arc;

/// How many meters a catalog may have.
const METERS_MAX: usize = 256;

const KINDS: &[(&str, MeterKind)] =
    &[("counter", MeterKind::Counter), ("gauge", MeterKind::Gauge), ("duration", MeterKind::Duration)];

const UNSETTLED: &[(&str, Unsettled)] = &[("release", Unsettled::Release), ("charge", Unsettled::Charge)];

/// Reads every meter. The second list holds those that say themselves whether they count requests.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>) -> (Declared<Meter>, Vec<MeterKey>) {
    let mut meters = Declared::new();
    let mut decided = Vec::new();
    let entries = document.named(report, "meters", "meter");
    keys::at_most(report, document.key_span("meters"), "meters", entries.len(), METERS_MAX);
    for (name, node) in entries.into_iter().take(METERS_MAX) {
        let meter = meter(report, name, node, &mut decided);
        meters.insert(name.text.to_owned(), meter.map(Arc::new));
    }
    check_counting(report, document, &meters);
    (meters, decided)
}

fn meter(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>, decided: &mut Vec<MeterKey>) -> Option<Meter> {
    let key = keys::key(report, name, "meter", MeterKey::new);
    let mut table = node.table(report, keys::about("meter", name))?.at(name.span);
    let kind = kind(report, &mut table);
    let label = table.prose(report, "label", 100).unwrap_or_else(|| keys::humanized(name.text).into());
    let unit = unit(report, &mut table, name, kind);
    let decimals = table.integer(report, "decimals", 0, 9).unwrap_or(0);
    let event_type = event_type(report, &mut table).unwrap_or_else(|| name.text.into());
    let value = table.text(report, "value");
    let pointer = value.map(|text| keys::pointer(report, text, "`value`, a JSON pointer into an event's `data`,"));
    let value_pointer = pointer.unwrap_or_else(|| Some("/value".into()));
    let counts_requests = table.boolean(report, "counts_requests", false);
    let said = table.key_span("counts_requests");
    let unsettled = table.word(report, "unsettled", UNSETTLED).unwrap_or_default();
    let session = session_terms(report, &mut table, kind);
    table.finish(report);
    let (key, kind) = (key?, kind?);
    if let Some(span) = said {
        if counts_requests && kind != MeterKind::Counter {
            report.error(span, format!("a {} can't count requests: only a counter can", kind.word()));
        }
        decided.push(key.clone());
    }
    Some(Meter {
        key,
        kind,
        label,
        unit,
        decimals: decimals as u8,
        event_type,
        value_pointer: value_pointer?,
        counts_requests,
        unsettled,
        session,
    })
}

/// How sessions feed a meter of time.
fn session_terms(report: &mut Report<'_>, table: &mut Table<'_>, kind: Option<MeterKind>) -> SessionTerms {
    let default = SessionTerms::DEFAULT;
    if kind.is_some_and(|kind| kind != MeterKind::Duration) {
        for key in ["idle_timeout", "debit_interval", "counted_by"] {
            let help = "only meters of kind = \"duration\" are fed by sessions";
            table.refuse(report, key, &format!("`{key}` is about sessions"), help);
        }
        return default;
    }
    let idle_timeout_ms = keys::duration_ms(report, table, "idle_timeout", 1_000..=DAY_MS);
    let debit_interval_ms = keys::duration_ms(report, table, "debit_interval", 100..=3_600_000);
    let idle_timeout_ms = idle_timeout_ms.unwrap_or(default.idle_timeout_ms);
    // What is held ahead is no longer than what is waited for.
    let debit_interval_ms = debit_interval_ms.unwrap_or(default.debit_interval_ms).min(idle_timeout_ms);
    let counted_by = table.text(report, "counted_by");
    let counted_by = counted_by.and_then(|text| keys::key(report, text, "meter", MeterKey::new));
    SessionTerms { idle_timeout_ms, debit_interval_ms, counted_by }
}

/// Notes what counts sessions without being a counter.
fn check_counting(report: &mut Report<'_>, document: &Table<'_>, meters: &Declared<Meter>) {
    for meter in meters.values().flatten() {
        let Some(counted_by) = &meter.session.counted_by else { continue };
        let span = document.name_span("meters", meter.key.as_str()).unwrap_or_default();
        match meters.get(counted_by.as_str()) {
            Some(Some(counter)) if counter.kind != MeterKind::Counter => {
                let message = format!("`counted_by` of {} must name a counter", quoted(meter.key.as_str()));
                report.error_help(span, message, "each session that is opened adds one to it");
            }
            Some(_) => {}
            None => {
                let message = format!(
                    "`counted_by` of {} names the unknown meter {}",
                    quoted(meter.key.as_str()),
                    quoted(counted_by.as_str())
                );
                let help = format!("declare it: [meters.{counted_by}] with kind = \"counter\"");
                report.error_help(span, message, help);
            }
        }
    }
}

fn kind(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<MeterKind> {
    let help = "write kind = \"counter\" (adds up in a window), \"gauge\" (a level that stays) or \"duration\" (time)";
    let node = table.required(report, "kind", help)?;
    let text = node.text(report, &table.what("kind"))?;
    if text.text == "unique" {
        report.error_help(
            text.span,
            "meters of kind `unique` (distinct values in a window) come with a later version",
            "use kind = \"gauge\" and set it to the number of distinct values you know of",
        );
        return None;
    }
    super::table::one_of(report, text, &table.what("kind"), KINDS)
}

fn unit(report: &mut Report<'_>, table: &mut Table<'_>, name: Text<'_>, kind: Option<MeterKind>) -> Arc<str> {
    let given = table.text(report, "unit");
    if kind == Some(MeterKind::Duration) {
        if let Some(text) = given.filter(|text| text.text != "ms") {
            let help = "leave `unit` out; limits may be written as \"60m\" or \"1h30m\"";
            report.error_help(text.span, "a duration is always counted in `ms`", help);
        }
        return "ms".into();
    }
    let what = table.what("unit");
    given.and_then(|text| super::table::prose(report, text, &what, 40)).unwrap_or_else(|| name.text.into())
}

fn event_type(report: &mut Report<'_>, table: &mut Table<'_>) -> Option<Arc<str>> {
    let text = table.text(report, "event_type")?;
    let fits = (1..=200).contains(&text.text.len()) && text.text.chars().all(|c| c.is_ascii_graphic());
    if !fits {
        let help = "use 1 to 200 printable ASCII characters, such as \"com.example.message.sent\"";
        report.error_help(text.span, format!("{} can't be an event type", super::problem::quoted(text.text)), help);
        return None;
    }
    Some(text.text.into())
}
