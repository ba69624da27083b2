//! `tidegate usage`: the same numbers that are checked.

use super::{parameter, wait_for};
use crate::{
    cli::UsageArgs,
    client::{Client, in_path},
    output::{self, Table, cell},
};
use serde_json::Value;

/// Shows what a tenant (or one of its users) uses now.
///
/// # Errors
/// Those of the client.
pub fn run(args: &UsageArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let query = parameter("user_id", args.user.as_deref()).replacen('&', "?", 1);
    let usage = wait_for(client.get(&format!("/api/v1/tenants/{}/usage{query}", in_path(&args.tenant))))?;
    if args.node.json {
        return output::json(&usage);
    }
    let period = &usage["period"];
    let plan = cell(&usage["plan"]);
    output::line(&format!(
        "{} on {plan}, period {} to {}\n",
        args.tenant,
        cell(&period["start"]),
        cell(&period["end"])
    ))?;
    let headings = ["meter", ">used", ">held", ">denied", "limit", ">used", ">max", ">remaining", ">%", "resets"];
    let mut table = Table::new(&headings);
    for meter in usage["meters"].as_array().into_iter().flatten() {
        add_meter(&mut table, meter);
    }
    output::line(&table.shown("the catalog has no meters"))
}

/// One row for each limit; the meter itself is named in its first row alone.
fn add_meter(table: &mut Table, meter: &Value) {
    let name = match (cell(&meter["meter"]), meter["unit"].as_str()) {
        (name, Some(unit @ ("ms" | "bytes"))) => format!("{name} ({unit})"),
        (name, _) => name,
    };
    let mut first = vec![name, cell(&meter["used"]), cell(&meter["held"]), cell(&meter["denied"])];
    let none = Vec::new();
    let limits = meter["limits"].as_array().unwrap_or(&none);
    for limit in limits {
        let soft = if limit["mode"] == "hard" { String::new() } else { format!(" ({})", cell(&limit["mode"])) };
        let max = if limit["max"].is_null() { "unlimited".to_owned() } else { cell(&limit["max"]) };
        let mut row = std::mem::replace(&mut first, vec![String::new(); 4]);
        // How many are open is a count, whatever the meter is counted in.
        let counted = if limit["window"] == "concurrent" { " (sessions)" } else { "" };
        row.push(format!("{}{counted}{soft}", cell(&limit["name"])));
        row.push(cell(&limit["used"]));
        row.push(max);
        row.extend(["remaining", "percent", "resets_at"].iter().map(|column| cell(&limit[column])));
        table.row(row);
    }
    if limits.is_empty() {
        first.extend(["no limit", "", "", "", "", ""].map(str::to_owned));
        table.row(first);
    }
}
