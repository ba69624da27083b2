//! `tidegate export`: history of many tenants, from a running node into a file.

use super::{all_pages, parameter, wait_for};
use crate::{
    cli::NodeArgs,
    client::{Client, in_path},
    output::{self, ProgressBar},
};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::PathBuf,
};
use wire::v1::history::csv_line;

/// Arguments of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Only these tenants; without any, all
    #[arg(value_name = "TENANT")]
    pub tenants: Vec<String>,
    /// The file to write; without one, standard output. It must not exist, and is there only when it is whole
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,
    /// `minute`, `hour`, `day` or `month`
    #[arg(long, default_value = "day")]
    pub per: String,
    /// From when on: an instant, or a date of the time zone [default: 30 days back, or what suits the buckets]
    #[arg(long, value_name = "INSTANT|DATE")]
    pub from: Option<String>,
    /// Until when [default: now]
    #[arg(long, value_name = "INSTANT|DATE")]
    pub to: Option<String>,
    /// In which time zone hours, days and months are cut
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub timezone: String,
    /// Only these meters, separated by commas
    #[arg(long, value_name = "METERS")]
    pub meter: Option<String>,
    /// What use is told apart by: `user` and declared dimensions, separated by commas
    #[arg(long, value_name = "NAMES")]
    pub group_by: Option<String>,
    /// Go on after this tenant, in order of their ids: what an export that broke off says
    #[arg(long, value_name = "TENANT")]
    pub after: Option<String>,
    /// Which node, and whether the summary is JSON.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values with a line of names
    Csv,
    /// A JSON object a line
    Jsonl,
}

/// What was written.
struct Written {
    tenants: usize,
    rows: u64,
    complete_until: Option<String>,
}

/// Writes history.
///
/// # Errors
/// Those of the client, and where the file can't be written. The error says where to go on.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let Some(out) = &args.out else {
        wait_for(export(&client, args, &mut BufWriter::new(io::stdout().lock())))?;
        return Ok(());
    };
    if out.exists() {
        bail!("{} is there already; name a file that is not", out.display());
    }
    let mut partial = out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = File::create(&partial).with_context(|| partial.display().to_string())?;
    let mut writer = BufWriter::new(file);
    let written = wait_for(export(&client, args, &mut writer))
        .with_context(|| format!("what was written so far is in {}", partial.display()))?;
    writer.into_inner().context("the file can't be written")?.sync_all()?;
    fs::rename(&partial, out).with_context(|| out.display().to_string())?;
    if args.node.json {
        return output::json(&json!({
            "path": out.display().to_string(),
            "tenants": written.tenants,
            "rows": written.rows,
            "complete_until": written.complete_until,
        }));
    }
    let until = written.complete_until.map(|until| format!(", complete until {until}")).unwrap_or_default();
    output::line(&format!("{}: {} rows of {} tenants{until}", out.display(), written.rows, written.tenants))
}

async fn export(client: &Client, args: &ExportArgs, out: &mut impl Write) -> anyhow::Result<Written> {
    let tenants = tenants(client, args).await?;
    let dimensions: Vec<&str> = args.group_by.iter().flat_map(|names| names.split(',')).map(str::trim).collect();
    if args.format == Format::Csv {
        let names = ["tenant_id", "start", "end", "meter"].into_iter();
        let told = dimensions.iter().map(|name| if *name == "user" { "user_id" } else { name });
        out.write_all(&csv_line(names.chain(told).chain(["used", "denied"])))?;
    }
    let mut bar = ProgressBar::new("exporting");
    let mut written = Written { tenants: tenants.len(), rows: 0, complete_until: None };
    for (done, tenant) in tenants.iter().enumerate() {
        bar.at(done as u64, tenants.len() as u64);
        let exported = one(client, args, tenant, &dimensions, out, &mut written).await;
        if let Err(error) = exported {
            bar.end();
            out.flush()?;
            let go_on = done.checked_sub(1).map(|last| format!("; go on with --after {}", tenants[last]));
            return Err(error.context(format!("tenant {tenant}{}", go_on.unwrap_or_default())));
        }
    }
    bar.at(1, 1);
    bar.end();
    out.flush()?;
    Ok(written)
}

/// In order of their ids.
async fn tenants(client: &Client, args: &ExportArgs) -> anyhow::Result<Vec<String>> {
    let mut tenants = args.tenants.clone();
    if tenants.is_empty() {
        let rows = all_pages(client, "/api/v1/tenants", usize::MAX).await?;
        tenants = rows.iter().filter_map(|row| row["tenant_id"].as_str().map(str::to_owned)).collect();
    }
    tenants.sort();
    tenants.dedup();
    if let Some(after) = &args.after {
        tenants.retain(|tenant| tenant > after);
    }
    Ok(tenants)
}

/// A tenant, whole or not at all.
async fn one(
    client: &Client,
    args: &ExportArgs,
    tenant: &str,
    dimensions: &[&str],
    out: &mut impl Write,
    written: &mut Written,
) -> anyhow::Result<()> {
    let path = format!(
        "/api/v1/tenants/{}/history?format=ndjson{}{}{}{}{}{}",
        in_path(tenant),
        parameter("per", Some(&args.per)),
        parameter("timezone", Some(&args.timezone)),
        parameter("from", args.from.as_deref()),
        parameter("to", args.to.as_deref()),
        parameter("meter", args.meter.as_deref()),
        parameter("group_by", args.group_by.as_deref()),
    );
    let text = client.text(&path).await?;
    let mut rows: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("the answer")?;
    // The last line says that it is whole, and up to when.
    let Some(until) = rows.pop().and_then(|last| last["complete_until"].as_str().map(str::to_owned)) else {
        bail!("the answer broke off");
    };
    for row in &mut rows {
        match args.format {
            Format::Jsonl => {
                row["tenant_id"] = tenant.into();
                writeln!(out, "{row}")?;
            }
            Format::Csv => out.write_all(&csv_row(tenant, row, dimensions))?,
        }
    }
    written.rows += rows.len() as u64;
    if written.complete_until.as_ref().is_none_or(|known| *known > until) {
        written.complete_until = Some(until);
    }
    Ok(())
}

fn csv_row(tenant: &str, row: &Value, dimensions: &[&str]) -> Vec<u8> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut columns = vec![tenant.to_owned(), text(&row["start"]), text(&row["end"]), text(&row["meter"])];
    columns.extend(dimensions.iter().map(|name| match *name {
        "user" => text(&row["user_id"]),
        key => text(&row["dimensions"][key]),
    }));
    columns.extend([text(&row["used"]), text(&row["denied"])]);
    csv_line(columns.iter().map(String::as_str))
}
