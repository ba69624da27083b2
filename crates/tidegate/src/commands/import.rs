//! `tidegate import`: tenants, opening balances and daily history from CSV, through the API of a running node. Every line has
//! an id of its own, so that an import that broke off is simply run again.

mod closing;
mod rows;

use super::wait_for;
use crate::{
    cli::NodeArgs,
    client::{Client, Refused},
    output::{self, ProgressBar, Table},
};
use anyhow::{Context, bail};
use clap::Args;
use closing::{Closed, Told};
use rows::{Kind, OfDay, Row};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// The largest file that is read.
const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Lines that are sent at once.
const AT_ONCE: usize = 16;
/// How often it is asked again while history catches up with what was just sent, and how long it is waited in between.
const BEHIND_TRIES: usize = 600;
const BEHIND_WAIT: Duration = Duration::from_secs(1);
/// Lines with problems that are shown.
const SHOWN: usize = 20;

/// Arguments of `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Tenants: tenant_id, and plan, timezone, period_anchor, status as far as they are known
    #[arg(long, value_name = "FILE")]
    pub tenants: Option<PathBuf>,
    /// What was used so far, or how much there is of a gauge: tenant_id, meter, value, and user_id and window where they
    /// matter (without a window, a counter's value is that of the billing period)
    #[arg(long, value_name = "FILE")]
    pub balances: Option<PathBuf>,
    /// What was used on days that are over: tenant_id, date, meter, and used (with user_id where it matters) or, of a gauge,
    /// the level when the day ended. Forecasts know of these days at once
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Say what would be done and what is wrong, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Which node, and whether the report is JSON.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What became of one file.
struct Report {
    kind: Kind,
    file: PathBuf,
    done: usize,
    failed: Failed,
    /// Of history: what became daily history.
    closed: Option<Closed>,
}

/// Imports what is given, in the order in which it depends on each other.
///
/// # Errors
/// Where a file can't be read, or no node answers. Lines that can't be imported are in the report, and make the exit code 1.
pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let files = [(Kind::Tenants, &args.tenants), (Kind::Balances, &args.balances), (Kind::History, &args.history)];
    let files: Vec<(Kind, &PathBuf)> =
        files.into_iter().filter_map(|(kind, file)| Some((kind, file.as_ref()?))).collect();
    if files.is_empty() {
        bail!("nothing to import; name files with --tenants, --balances and --history");
    }
    let client = Arc::new(Client::of(&args.node)?);
    let mut reports = Vec::new();
    for (kind, file) in files {
        let (rows, failed) = read(kind, file)?;
        let mut report = Report { kind, file: file.clone(), done: 0, failed, closed: None };
        wait_for(import(&client, args.dry_run, rows, &mut report))?;
        report.failed.sort();
        reports.push(report);
    }
    show(args, &reports)?;
    let is_whole = reports.iter().all(|report| report.failed.is_empty());
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Failed = Vec<(usize, String)>;

/// The rows that can be sent, and the lines that can't.
fn read(kind: Kind, file: &PathBuf) -> anyhow::Result<(Vec<Row>, Failed)> {
    let shown = || file.display().to_string();
    if fs::metadata(file).with_context(shown)?.len() > FILE_MAX_BYTES {
        bail!("{} is larger than {} MiB; split it", shown(), FILE_MAX_BYTES >> 20);
    }
    let text = fs::read_to_string(file).with_context(shown)?;
    let records = wire::csv::records(&text).with_context(shown)?;
    rows::read(kind, &records).with_context(shown)
}

/// Sends what a file holds, or only counts it.
async fn import(client: &Arc<Client>, dry_run: bool, rows: Vec<Row>, report: &mut Report) -> anyhow::Result<()> {
    if report.kind != Kind::History {
        report.done = match dry_run {
            true => rows.len(),
            false => send(client, "importing", rows, &mut report.failed).await?.len(),
        };
        return Ok(());
    }
    let bounds = closing::bounds(client).await?;
    let done: Vec<(usize, Option<OfDay>)> = match dry_run {
        true => rows.into_iter().map(|row| (row.line, row.of_day)).collect(),
        false => send(client, "importing", rows, &mut report.failed).await?,
    };
    let mut told = Told::default();
    for (line, of_day) in done {
        match of_day {
            // A node would refuse it.
            Some(of) if dry_run && !Told::takes_level(bounds, &of) => {
                let why =
                    format!("of {} no level is kept: write a day from {} to {}", of.day, bounds.first, bounds.last + 1);
                report.failed.push((line, why));
            }
            Some(of) => {
                told.note(line, &of);
                report.done += 1;
            }
            None => {}
        }
    }
    let mut refused = Vec::new();
    if !dry_run {
        send(client, "closing days", told.requests(), &mut refused).await?;
    }
    report.closed = Some(told.closed(bounds, &refused));
    report
        .failed
        .extend(refused.into_iter().map(|(line, why)| (line, format!("its tenant's days are in no forecast: {why}"))));
    Ok(())
}

/// Sends rows, some at once; gives those that were taken. Whoever can't be reached ends it: the same again goes on.
async fn send(
    client: &Arc<Client>,
    what: &'static str,
    rows: Vec<Row>,
    failed: &mut Failed,
) -> anyhow::Result<Vec<(usize, Option<OfDay>)>> {
    let mut bar = ProgressBar::new(what);
    let total = rows.len() as u64;
    let mut sending: JoinSet<(usize, Option<OfDay>, anyhow::Result<Value>)> = JoinSet::new();
    let mut rows = rows.into_iter();
    let (mut done, mut finished) = (Vec::new(), 0);
    loop {
        while sending.len() < AT_ONCE {
            let Some(row) = rows.next() else { break };
            let client = client.clone();
            sending.spawn(async move {
                let answer = patiently(&client, &row).await;
                (row.line, row.of_day, answer)
            });
        }
        let Some(sent) = sending.join_next().await else { break };
        let (line, of_day, answer) = sent.context("a line could not be sent")?;
        match answer {
            Ok(_) => done.push((line, of_day)),
            Err(error) if !error.is::<Refused>() => {
                bar.end();
                return Err(error.context("the import broke off; run it again, nothing is counted twice"));
            }
            Err(error) => failed.push((line, error.to_string())),
        }
        finished += 1;
        bar.at(finished, total);
    }
    bar.end();
    Ok(done)
}

/// Sends a row, and again while history has not caught up.
async fn patiently(client: &Client, row: &Row) -> anyhow::Result<Value> {
    let mut tries = 0;
    loop {
        let answer = client.send(row.method.clone(), &row.path, Some(&row.body)).await;
        let refused = answer.as_ref().err().and_then(|error| error.downcast_ref::<Refused>());
        tries += 1;
        if tries > BEHIND_TRIES || refused.is_none_or(|refused| refused.code() != "history_behind") {
            return answer;
        }
        tokio::time::sleep(BEHIND_WAIT).await;
    }
}

fn show(args: &ImportArgs, reports: &[Report]) -> anyhow::Result<()> {
    if args.node.json {
        let file = |report: &Report| {
            let failed = report.failed.iter().map(|(line, why)| json!({ "line": line, "reason": why }));
            let mut shown = json!({
                "kind": report.kind.word(),
                "file": report.file.display().to_string(),
                "done": report.done,
                "failed": failed.collect::<Vec<_>>(),
            });
            if let Some(closed) = &report.closed {
                shown["snapshot_days"] = closed.days.into();
            }
            shown
        };
        let files: Vec<Value> = reports.iter().map(file).collect();
        return output::json(&json!({ "dry_run": args.dry_run, "files": files }));
    }
    let done = if args.dry_run { ">would do" } else { ">done" };
    let mut table = Table::new(&["what", "file", done, ">failed"]);
    for report in reports {
        let (kind, file) = (report.kind.word().to_owned(), report.file.display().to_string());
        table.row(vec![kind, file, report.done.to_string(), report.failed.len().to_string()]);
    }
    output::line(&table.shown(""))?;
    for closed in reports.iter().filter_map(|report| report.closed.as_ref()) {
        let became = if args.dry_run { "would become" } else { "became" };
        let Closed { days, first, last } = closed;
        output::line(&format!(
            "{days} days of tenants {became} snapshots, of those from {first} to {last}: forecasts read them"
        ))?;
    }
    for report in reports {
        for (line, why) in report.failed.iter().take(SHOWN) {
            output::line(&format!("{}:{line}: {why}", report.file.display()))?;
        }
        if report.failed.len() > SHOWN {
            let more = report.failed.len() - SHOWN;
            output::line(&format!("{}: and {more} more; --json shows them all", report.file.display()))?;
        }
    }
    Ok(())
}
