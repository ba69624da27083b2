//! `tidegate forecast`: when a tenant's meters, or all tenants', will reach their limits.

use super::{all_pages, parameter, wait_for};
use crate::{
    cli::ForecastArgs,
    client::{Client, in_path},
    output::{self, Table, cell},
};
use serde_json::{Value, json};

/// From the lowest to the highest value shown.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Shows a tenant's forecasts, how they would have done, or those of all tenants.
///
/// # Errors
/// Those of the client.
pub fn run(args: &ForecastArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    match &args.tenant {
        Some(tenant) if args.backtest => backtest(args, &client, tenant),
        Some(tenant) => of_tenant(args, &client, tenant),
        None => fleet(args, &client),
    }
}

fn of_tenant(args: &ForecastArgs, client: &Client, tenant: &str) -> anyhow::Result<()> {
    let answer = wait_for(client.get(&format!("/api/v1/usage-forecast?tenant_id={}", in_path(tenant))))?;
    if args.node.json {
        return output::json(&answer);
    }
    output::line(&format!("{tenant} on {}, {}\n", cell(&answer["plan"]), cell(&answer["forecasted_at"])))?;
    let headings =
        ["meter", ">used", ">limit", ">%", ">a day", "status", "likely", ">days", "between", "would hold", "30 days"];
    let mut table = Table::new(&headings);
    for metric in answer["metrics"].as_array().into_iter().flatten() {
        let values: Vec<f64> =
            metric["trend_data"].as_array().into_iter().flatten().filter_map(|point| point["value"].as_f64()).collect();
        table.row(vec![
            metric_name(metric),
            cell(&metric["current"]),
            limit(metric),
            cell(&metric["usage_percentage"]),
            cell(&metric["daily_growth_rate"]),
            status(metric),
            cell(&metric["predicted_breach_date"]),
            cell(&metric["days_until_breach"]),
            between(metric),
            cell(&metric["upgrade"]["plan"]),
            sparkline(&values),
        ]);
    }
    output::line(&table.shown("the catalog has no meters"))
}

fn fleet(args: &ForecastArgs, client: &Client) -> anyhow::Result<()> {
    let filters = [("meter", &args.meter), ("plan", &args.plan), ("status", &args.status)];
    let query: String = filters.iter().map(|(name, value)| parameter(name, value.as_deref())).collect();
    let path = format!("/api/v1/usage-forecast/fleet{}", query.replacen('&', "?", 1));
    let rows = wait_for(all_pages(client, &path, args.limit))?;
    if args.node.json {
        return output::json(&json!({ "items": rows }));
    }
    let headings =
        ["tenant", "plan", "meter", ">used", ">limit", ">%", ">a day", "status", "likely", ">days", "between"];
    let mut table = Table::new(&headings);
    for row in &rows {
        table.row(vec![
            cell(&row["tenant_id"]),
            cell(&row["plan"]),
            metric_name(row),
            cell(&row["current"]),
            limit(row),
            cell(&row["usage_percentage"]),
            cell(&row["daily_growth_rate"]),
            cell(&row["status"]),
            cell(&row["predicted_breach_date"]),
            cell(&row["days_until_breach"]),
            between(row),
        ]);
    }
    let nothing = "no forecasts: they are made when a day is closed (`tidegate snapshot`), or none is as asked for";
    output::line(&table.shown(nothing))
}

fn backtest(args: &ForecastArgs, client: &Client, tenant: &str) -> anyhow::Result<()> {
    let answer = wait_for(client.get(&format!("/api/v1/usage-forecast/backtest?tenant_id={}", in_path(tenant))))?;
    if args.node.json {
        return output::json(&answer);
    }
    let headings =
        ["meter", "limit", ">days", ">judged", ">error, days", ">covered %", ">alerts right %", ">alerts found %"];
    let mut table = Table::new(&headings);
    for metric in answer["metrics"].as_array().into_iter().flatten() {
        let score = &metric["score"];
        table.row(vec![
            cell(&metric["metric"]),
            cell(&metric["limit_name"]),
            cell(&metric["history_days"]),
            cell(&score["count"]),
            cell(&score["mean_error_days"]),
            cell(&score["interval_coverage_percent"]),
            cell(&score["alert_precision_percent"]),
            cell(&score["alert_recall_percent"]),
        ]);
    }
    output::line(&table.shown("no meter has both a history and a limit that can be foreseen"))
}

fn metric_name(metric: &Value) -> String {
    match (cell(&metric["metric"]), metric["unit"].as_str()) {
        (name, Some(unit @ ("ms" | "bytes"))) => format!("{name} ({unit})"),
        (name, _) => name,
    }
}

fn limit(metric: &Value) -> String {
    if metric["limit"].is_null() { "unlimited".to_owned() } else { cell(&metric["limit"]) }
}

fn status(metric: &Value) -> String {
    match metric["confidence"]["days_missing"].as_u64() {
        Some(missing @ 1..) => format!("{missing} days missing"),
        _ => cell(&metric["status"]),
    }
}

fn between(metric: &Value) -> String {
    match (metric["earliest"].as_str(), metric["latest"].as_str()) {
        (Some(earliest), Some(latest)) => format!("{earliest} and {latest}"),
        (Some(earliest), None) => format!("{earliest} or later"),
        _ => "-".to_owned(),
    }
}

/// A line of bars, the lowest value the smallest.
fn sparkline(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        BARS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(|value| bar(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn sparklines_go_from_the_lowest_to_the_highest() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[5.0, 5.0]), "▁▁");
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[35.0, 20.0, 50.0]), "▅▁█");
    }
}
