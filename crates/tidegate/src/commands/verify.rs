//! `tidegate verify`: does every account say what the journal says?

use crate::{
    cli::VerifyArgs,
    config::{LedgerUrl, WrongSetting},
    output::{self, ProgressBar},
};
use anyhow::{Context, bail};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use stores::{Progress, postgres, sqlite};

/// Rebuilds every fold from the journal and compares. Ends with 1 where something differs.
///
/// # Errors
/// Where there is no ledger, or a node holds the file.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let url = match &args.path {
        Some(path) => LedgerUrl::Sqlite(path.clone()),
        None => LedgerUrl::of(&args.ledger)?,
    };
    let mut bar = ProgressBar::new("verifying");
    let mut progress = |progress: Progress| bar.at(progress.done, progress.total);
    let report = match &url {
        LedgerUrl::Postgres(url) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("no runtime could be started")?;
            runtime.block_on(postgres::verify(url.expose(), &mut progress))
        }
        other => sqlite::verify(&ledger_file(other)?, &mut progress),
    };
    bar.end();
    let report = report?;
    if args.json {
        output::json(&json!({
            "clean": report.is_clean(),
            "entries": report.entries,
            "cut_through": report.cut_through,
            "tenants": report.tenants,
            "users": report.users,
            "closed_windows": report.closed,
            "snapshots": report.snapshots,
            "history": report.history,
            "denials": report.denials,
            "ids": report.ids,
            "differences": report.differences,
            "differences_total": report.differences_total,
        }))?;
    } else {
        for difference in &report.differences {
            output::line(&format!("differs: {difference}"))?;
        }
        let verdict = if report.is_clean() {
            "every account says what the journal says".to_owned()
        } else {
            format!("{} differences; restore a backup, and please report this", report.differences_total)
        };
        output::line(&format!(
            "{url}: {} entries, {} tenants, {} users, {} closed windows, {} denials, {} snapshots, {} rows of history, {} ids compared: {verdict}",
            report.entries,
            report.tenants,
            report.users,
            report.closed,
            report.denials,
            report.snapshots,
            report.history,
            report.ids
        ))?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file of a ledger that has one.
///
/// # Errors
/// Where it is kept in memory.
pub fn ledger_file(url: &LedgerUrl) -> anyhow::Result<PathBuf> {
    match url {
        LedgerUrl::Sqlite(path) => Ok(path.clone()),
        LedgerUrl::Postgres(_) => bail!(WrongSetting(
            "this command works on a file; a database on PostgreSQL is backed up with its own tools, such as pg_dump"
                .into()
        )),
        LedgerUrl::Memory => {
            bail!(WrongSetting("a ledger in memory has no file; name one with --ledger sqlite:PATH".into()))
        }
    }
}
