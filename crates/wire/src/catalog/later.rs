//! Charges whose amount is known when it is over: sizes of bodies, time, and what the response reports.

use super::{
    AmountSource, Reported, UsageField, amount, gates, keys,
    problem::quoted,
    report::Report,
    table::{Node, Table, one_of},
};
use domain::catalog::{Meter, MeterKind};

#[derive(Clone, Copy)]
enum Place {
    RequestBytes,
    ResponseBytes,
    Usage,
    Duration,
}

const PLACES: &[(&str, Place)] = &[
    ("request_bytes", Place::RequestBytes),
    ("response_bytes", Place::ResponseBytes),
    ("usage", Place::Usage),
    ("duration", Place::Duration),
];

const FIELDS: &[(&str, UsageField)] = &[
    ("total_tokens", UsageField::Total),
    ("prompt_tokens", UsageField::Prompt),
    ("completion_tokens", UsageField::Completion),
];

/// What a charge says of an amount that is not known before.
pub(super) struct Later<'a> {
    from: Option<Node<'a>>,
    header: Option<Node<'a>>,
    field: Option<Node<'a>>,
    expect: Option<Node<'a>>,
}

impl<'a> Later<'a> {
    pub(super) fn of(table: &mut Table<'a>) -> Self {
        Self {
            from: table.get("from"),
            header: table.get("response_header"),
            field: table.get("field"),
            expect: table.get("expect"),
        }
    }

    /// In how many places the amount is said to be.
    pub(super) fn places(&self) -> usize {
        usize::from(self.from.is_some()) + usize::from(self.header.is_some())
    }

    /// Where the amount comes from, if it is said to be in one of these places.
    pub(super) fn source(self, report: &mut Report<'_>, meter: Option<&Meter>) -> Option<AmountSource> {
        if let Some(node) = self.header {
            self.refuse_field(report);
            let name = keys::header(report, node, "`response_header` of a charge");
            let expect = self.expected(report, node, meter);
            return Some(AmountSource::Reported { what: Reported::Header(name?), expect: expect? });
        }
        let node = self.from?;
        let text = node.text(report, "`from`")?;
        let place = one_of(report, text, "`from`", PLACES)?;
        if !matches!(place, Place::Usage) {
            self.refuse_field(report);
            self.refuse_expect(report);
        }
        match place {
            Place::RequestBytes => size(report, node, meter?, AmountSource::RequestBytes),
            Place::ResponseBytes => size(report, node, meter?, AmountSource::ResponseBytes),
            Place::Duration => time(report, node, meter?),
            Place::Usage => {
                let field = self.field.and_then(|node| node.text(report, "`field`"));
                let field = match field {
                    None if self.field.is_some() => None,
                    None => Some(UsageField::Total),
                    Some(text) => one_of(report, text, "`field`", FIELDS),
                };
                let expect = self.expected(report, node, meter);
                let meter = meter?;
                if meter.kind == MeterKind::Duration {
                    let message = format!("{} is a duration: tokens are no time", quoted(meter.key.as_str()));
                    report.error_help(node.span, message, "charge a counter");
                    return None;
                }
                Some(AmountSource::Reported { what: Reported::Usage(field?), expect: expect? })
            }
        }
    }

    /// `field` and `expect` mean nothing where the amount is known before.
    pub(super) fn refuse_strays(&self, report: &mut Report<'_>) {
        self.refuse_field(report);
        self.refuse_expect(report);
    }

    fn refuse_field(&self, report: &mut Report<'_>) {
        if let Some(field) = &self.field {
            let message = "`field` is a field of the usage that a response reports";
            report.error_help(field.span, message, "write from = \"usage\" beside it, or remove it");
        }
    }

    fn refuse_expect(&self, report: &mut Report<'_>) {
        if let Some(expect) = &self.expect {
            let message = "`expect` is the amount taken until a response reports another";
            report.error_help(
                expect.span,
                message,
                "write from = \"usage\" or response_header = \"x-tokens\" beside it",
            );
        }
    }

    fn expected(&self, report: &mut Report<'_>, node: Node<'_>, meter: Option<&Meter>) -> Option<i64> {
        let Some(expect) = self.expect else {
            let message = "`expect` is missing: how much is taken until the response reports it";
            report.error_help(node.span, message, "write expect = 1000; it stays charged where nothing is reported");
            return None;
        };
        let meter = meter?;
        if meter.kind == MeterKind::Gauge {
            let message = format!("{} is a gauge: what a response reports adds up", quoted(meter.key.as_str()));
            report.error_help(node.span, message, "charge a counter");
            return None;
        }
        gates::constant_amount(report, expect, meter, "expect")
    }
}

fn size(report: &mut Report<'_>, node: Node<'_>, meter: &Meter, source: AmountSource) -> Option<AmountSource> {
    if meter.kind == MeterKind::Duration {
        let message = format!("{} is a duration: the size of a body is no time", quoted(meter.key.as_str()));
        report.error_help(node.span, message, "charge a counter or gauge with unit = \"bytes\"");
        return None;
    }
    if !amount::counts_bytes(meter) {
        let (key, unit) = (quoted(meter.key.as_str()), quoted(&meter.unit));
        let message = format!("{key} is counted in {unit}, but charged in bytes");
        report.warn(node.span, message, format!("write unit = \"bytes\" in [meters.{}]", meter.key));
    }
    Some(source)
}

fn time(report: &mut Report<'_>, node: Node<'_>, meter: &Meter) -> Option<AmountSource> {
    if meter.kind != MeterKind::Duration {
        let message = format!("{} is no duration: time is charged in milliseconds", quoted(meter.key.as_str()));
        report.error_help(node.span, message, format!("write kind = \"duration\" in [meters.{}]", meter.key));
        return None;
    }
    Some(AmountSource::Reported { what: Reported::Duration, expect: 0 })
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;
