//! `tidegate snapshot`: asks the node to close a day, and shows how it goes. The file is the node's: nobody opens it beside
//! it.

use super::wait_for;
use crate::{
    cli::SnapshotArgs,
    client::Client,
    output::{self, ProgressBar, cell},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Nothing could be done.
const FATAL: u8 = 2;

/// Closes a day.
///
/// # Errors
/// Where standard output can't be written.
pub fn run(args: &SnapshotArgs) -> anyhow::Result<ExitCode> {
    let mut shown = Shown { args, bar: ProgressBar::new("tenants"), total: 0, summary: None, failed: None };
    let asked = wait_for(ask(args, &mut shown));
    let Shown { bar, summary, failed, .. } = shown;
    bar.end();
    match (asked, failed, summary) {
        (Ok(()), None, Some(summary)) => {
            match args.node.json {
                true => output::json(&summary)?,
                false => output::line(&report(&summary))?,
            }
            Ok(if summary["complete"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (Err(error), ..) => fatal(&format!("{error:#}")),
        (_, Some(reason), _) => fatal(&reason),
        (Ok(()), None, None) => fatal("the node stopped before the day was closed: run it again"),
    }
}

fn fatal(reason: &str) -> anyhow::Result<ExitCode> {
    eprintln!("error: {reason}");
    Ok(ExitCode::from(FATAL))
}

async fn ask(args: &SnapshotArgs, shown: &mut Shown<'_>) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let body = json!({
        "day": args.day, "tenant_id": args.tenant, "dry_run": args.dry_run, "per_tenant": args.verbose && !args.node.json,
    });
    client.lines("/api/v1/snapshots", &body, |line| shown.line(line)).await
}

struct Shown<'a> {
    args: &'a SnapshotArgs,
    bar: ProgressBar,
    total: u64,
    summary: Option<Value>,
    failed: Option<String>,
}

impl Shown<'_> {
    fn line(&mut self, line: Value) -> anyhow::Result<()> {
        match line["event"].as_str() {
            Some("begun") => self.total = line["tenants_about"].as_u64().unwrap_or(0),
            Some("not_collected") => eprintln!("{}: {}", cell(&line["meter"]), cell(&line["reason"])),
            Some("tenant") if self.args.verbose => {
                let values = line["values"].as_object().into_iter().flatten();
                let values: Vec<String> = values.map(|(meter, value)| format!("{meter} {value}")).collect();
                output::line(&format!("{}: {}", cell(&line["tenant_id"]), values.join(", ")))?;
            }
            Some("progress") if self.total > 0 => {
                let done = line["done"].as_u64().unwrap_or(0);
                self.bar.at(done, self.total.max(done));
            }
            Some("ended") => self.summary = Some(line),
            Some("failed") => self.failed = Some(cell(&line["reason"])),
            _ => {}
        }
        Ok(())
    }
}

/// The summary, as the first seed shows it: how many, and how long.
fn report(summary: &Value) -> String {
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    let all = number("tenants_done") + number("tenants_failed");
    let dry = if summary["dry_run"] == true { " (dry run: nothing was written)" } else { "" };
    let mut lines = vec![
        format!("Snapshot of {}{dry}", cell(&summary["day"])),
        format!("  tenants:   {} of {all} done, {} failed", number("tenants_done"), number("tenants_failed")),
        format!("  values:    {}", number("values")),
        format!("  duration:  {:.2} s", number("took_ms") as f64 / 1e3),
    ];
    if number("days_closed_again") > 0 {
        lines.push(format!("  closed again, since late use had come: {} days", number("days_closed_again")));
    }
    for failure in summary["meters_failed"].as_array().into_iter().flatten() {
        lines.push(format!("  lacking:   {}: {}", cell(&failure["meter"]), cell(&failure["reason"])));
    }
    let failures = summary["failures"].as_array().map_or(&[][..], Vec::as_slice);
    for failure in failures {
        let (tenant, meter) = (cell(&failure["tenant_id"]), cell(&failure["meter"]));
        lines.push(format!("  refused:   {meter} of {tenant}: {}", cell(&failure["reason"])));
    }
    let unnamed = number("failures_total").saturating_sub(failures.len() as u64);
    if unnamed > 0 {
        lines.push(format!("  refused:   {unnamed} more"));
    }
    lines.join("\n")
}
