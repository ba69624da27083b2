//! `tidegate verify`: does every account say what the journal says?

use crate::{
    cli::VerifyArgs,
    config::{LedgerUrl, WrongSetting},
    output::{self, ProgressBar},
};
use anyhow::bail;
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use stores::sqlite;

/// Rebuilds every fold from the journal and compares. Ends with 1 where something differs.
///
/// # Errors
/// Where the file is no ledger, or a node holds it.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => ledger_file(&LedgerUrl::of(&args.ledger)?)?,
    };
    let mut bar = ProgressBar::new("verifying");
    let report = sqlite::verify(&path, &mut |progress| bar.at(progress.done, progress.total));
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
            "{}: {} entries, {} tenants, {} users, {} closed windows, {} denials, {} ids compared: {verdict}",
            path.display(),
            report.entries,
            report.tenants,
            report.users,
            report.closed,
            report.denials,
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
