//! How a report looks: a table, CSV, JSON.

use super::{
    Format,
    report::{Line, Report},
};
use crate::output::{self, Table};
use domain::time::Instant;
use forecast::simulate::{Replayed, Revenue};
use serde_json::{Value, json};

/// Prints a report.
///
/// # Errors
/// Where standard output can't be written.
pub fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    output::line(&text(report, format))
}

/// A report as it is printed.
pub fn text(report: &Report, format: Format) -> String {
    match format {
        Format::Json => format!("{:#}", as_json(report)),
        Format::Csv => as_csv(report),
        Format::Table => as_table(report),
    }
}

fn date(at: Option<Instant>) -> Option<String> {
    at.map(|at| at.rfc3339()[..10].to_owned())
}

fn money(revenue: &Revenue) -> String {
    let sums: Vec<String> = revenue
        .cents_per_month()
        .map(|(currency, cents)| format!("{}.{:02} {currency}", cents.div_euclid(100), cents.rem_euclid(100)))
        .collect();
    let unpriced = match revenue.unpriced {
        0 => String::new(),
        count => format!(" and {count} without a price"),
    };
    if sums.is_empty() { format!("nothing{unpriced}") } else { format!("{}{unpriced}", sums.join(" + ")) }
}

fn as_table(report: &Report) -> String {
    let mut table =
        Table::new(&["tenant", "plan", "limit", ">refused", "first", ">past it", ">warned", "first", "needs"]);
    for line in &report.lines {
        for (index, limit) in line.limits.iter().enumerate() {
            table.row(row(line, limit, index == 0));
        }
    }
    let (first, last) = report.days;
    let mut text = table.shown("no tenant would have come near a limit of the proposed plans");
    text.push_str(&format!(
        "\n\n{} tenants, {first} to {last}: {} would have been refused, {} more warned",
        report.lines.len(),
        report.refused(),
        report.only_warned()
    ));
    for (plan, count) in report.moved() {
        match plan {
            Some(plan) => text.push_str(&format!("\n{count} would have needed {plan}")),
            None => text.push_str(&format!("\n{count} would have been refused by every public plan above theirs too")),
        }
    }
    text.push_str(&format!(
        "\na month: {} now; {} if all stay where they are; {} if all buy what would have held",
        money(&report.revenue_now),
        money(&report.revenue_staying),
        money(&report.revenue_holding)
    ));
    let left_out = report.not_replayed();
    if !left_out.is_empty() {
        let names: Vec<String> = left_out.iter().map(|(plan, limit)| format!("{plan}/{limit}")).collect();
        text.push_str(&format!("\nnot replayed, for daily history can't tell: {}", names.join(", ")));
    }
    text
}

fn row(line: &Line, limit: &Replayed, first: bool) -> Vec<String> {
    let shown = |text: &str| if first { text.to_owned() } else { String::new() };
    let soft = if limit.limit.mode.word() == "hard" { "" } else { " (soft)" };
    let plan = match line.plan == line.proposed {
        true => line.plan.to_string(),
        false => format!("{} -> {}", line.plan, line.proposed),
    };
    let needs = match &line.needs {
        Some(plan) if *plan == line.proposed => "-".to_owned(),
        Some(plan) => plan.to_string(),
        None => "none holds".to_owned(),
    };
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        shown(&line.tenant),
        shown(&plan),
        format!("{}{soft}", limit.limit.name),
        limit.passed.to_string(),
        dash(date(limit.first_passed)),
        limit.past.to_string(),
        limit.warned.to_string(),
        dash(date(limit.first_warned)),
        shown(&needs),
    ]
}

fn as_csv(report: &Report) -> String {
    let mut text = "tenant_id,plan,proposed_plan,limit,meter,window,mode,max,refused,first_refused,past_limit,warned,first_warned,needs_plan".to_owned();
    for line in &report.lines {
        for limit in &line.limits {
            let cells = [
                line.tenant.clone(),
                line.plan.to_string(),
                line.proposed.to_string(),
                limit.limit.name.to_string(),
                limit.limit.meter.to_string(),
                limit.limit.window.word().to_owned(),
                limit.limit.mode.word().to_owned(),
                limit.limit.max.map(|max| max.to_string()).unwrap_or_default(),
                limit.passed.to_string(),
                date(limit.first_passed).unwrap_or_default(),
                limit.past.to_string(),
                limit.warned.to_string(),
                date(limit.first_warned).unwrap_or_default(),
                line.needs.as_ref().map(ToString::to_string).unwrap_or_default(),
            ];
            text.push('\n');
            text.push_str(&cells.map(quoted).join(","));
        }
    }
    text
}

/// A cell as RFC 4180 has it; one that a spreadsheet would take for a formula is made a text.
pub fn quoted(cell: String) -> String {
    let cell = if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    }
}

fn as_json(report: &Report) -> Value {
    let revenue = |revenue: &Revenue| {
        let by_currency: serde_json::Map<String, Value> =
            revenue.cents_per_month().map(|(currency, cents)| (currency.to_owned(), json!(cents))).collect();
        json!({ "cents_per_month": by_currency, "tenants_without_price": revenue.unpriced })
    };
    let moved: Vec<Value> = report
        .moved()
        .into_iter()
        .map(|(plan, count)| json!({ "plan": plan.map(ToString::to_string), "tenants": count }))
        .collect();
    let left_out: Vec<Value> = report
        .not_replayed()
        .into_iter()
        .map(|(plan, limit)| json!({ "plan": plan.as_str(), "limit": limit }))
        .collect();
    json!({
        "from": report.days.0.to_string(),
        "to": report.days.1.to_string(),
        "tenants": report.lines.iter().map(line_json).collect::<Vec<_>>(),
        "summary": {
            "tenants": report.lines.len(),
            "refused": report.refused(),
            "only_warned": report.only_warned(),
            "needed": moved,
            "revenue_now": revenue(&report.revenue_now),
            "revenue_staying": revenue(&report.revenue_staying),
            "revenue_holding": revenue(&report.revenue_holding),
            "not_replayed": left_out,
        },
    })
}

fn line_json(line: &Line) -> Value {
    let limits: Vec<Value> = line
        .limits
        .iter()
        .map(|limit| {
            json!({
                "name": &*limit.limit.name,
                "meter": limit.limit.meter.as_str(),
                "window": limit.limit.window.word(),
                "mode": limit.limit.mode.word(),
                "max": limit.limit.max,
                "passed": limit.passed,
                "first_passed": date(limit.first_passed),
                "past_limit": limit.past,
                "warned": limit.warned,
                "first_warned": date(limit.first_warned),
            })
        })
        .collect();
    json!({
        "tenant_id": line.tenant,
        "plan": line.plan.as_str(),
        "proposed_plan": line.proposed.as_str(),
        "refused": line.refused(),
        "needs_plan": line.needs.as_ref().map(ToString::to_string),
        "limits": limits,
    })
}
