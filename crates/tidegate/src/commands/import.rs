//! `tidegate import`: tenants, opening balances and daily history from CSV, through the API of a running node. Every line has
//! an id of its own, so that an import that broke off is simply run again.

mod rows;

use super::wait_for;
use crate::{
    cli::NodeArgs,
    client::{Client, Refused},
    output::{self, ProgressBar, Table},
};
use anyhow::{Context, bail};
use clap::Args;
use rows::{Kind, Row};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::ExitCode, sync::Arc};
use tokio::task::JoinSet;

/// The largest file that is read.
const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Lines that are sent at once.
const AT_ONCE: usize = 16;
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
    /// What was used on days that are over: tenant_id, date, meter, used, and user_id
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
    failed: Vec<(usize, String)>,
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
        let mut report = Report { kind, file: file.clone(), done: 0, failed };
        match args.dry_run {
            true => report.done = rows.len(),
            false => wait_for(send(&client, rows, &mut report))?,
        }
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

/// Sends rows, some at once. Whoever can't be reached ends it: the same again goes on.
async fn send(client: &Arc<Client>, rows: Vec<Row>, report: &mut Report) -> anyhow::Result<()> {
    let mut bar = ProgressBar::new("importing");
    let total = rows.len() as u64;
    let mut sending: JoinSet<(usize, anyhow::Result<Value>)> = JoinSet::new();
    let mut rows = rows.into_iter();
    let mut finished = 0;
    loop {
        while sending.len() < AT_ONCE {
            let Some(row) = rows.next() else { break };
            let client = client.clone();
            sending.spawn(async move { (row.line, client.send(row.method, &row.path, Some(&row.body)).await) });
        }
        let Some(sent) = sending.join_next().await else { break };
        let (line, answer) = sent.context("a line could not be sent")?;
        match answer {
            Ok(_) => report.done += 1,
            Err(error) if !error.is::<Refused>() => {
                bar.end();
                return Err(error.context("the import broke off; run it again, nothing is counted twice"));
            }
            Err(error) => report.failed.push((line, error.to_string())),
        }
        finished += 1;
        bar.at(finished, total);
    }
    bar.end();
    Ok(())
}

fn show(args: &ImportArgs, reports: &[Report]) -> anyhow::Result<()> {
    if args.node.json {
        let file = |report: &Report| {
            let failed = report.failed.iter().map(|(line, why)| json!({ "line": line, "reason": why }));
            json!({
                "kind": report.kind.word(),
                "file": report.file.display().to_string(),
                "done": report.done,
                "failed": failed.collect::<Vec<_>>(),
            })
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
