//! `tidegate copy`: from one store to another.

use crate::{
    config::{LedgerUrl, WrongSetting},
    output::{self, ProgressBar},
};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use stores::copy::{Place, copy};

/// Arguments of `copy`.
#[derive(Debug, Clone, Args)]
pub struct CopyArgs {
    /// The ledger to copy: `sqlite:PATH` or `postgres://...`
    #[arg(long, value_name = "URL", env = "TIDEGATE_COPY_FROM", hide_env_values = true)]
    pub from: String,
    /// Where the copy is to stand; nothing may be there yet
    #[arg(long, value_name = "URL", env = "TIDEGATE_COPY_TO", hide_env_values = true)]
    pub to: String,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Copies a ledger, compares the copy with it, and puts it in its place.
///
/// # Errors
/// Where one of them can't be opened or is in use, or the target is taken. What was copied so far is kept.
pub fn run(args: &CopyArgs) -> anyhow::Result<()> {
    let (from, to) = (LedgerUrl::parse(&args.from)?, LedgerUrl::parse(&args.to)?);
    let (source, target) = match (&from, &to) {
        (LedgerUrl::Sqlite(path), LedgerUrl::Postgres(url)) => {
            (Place::Sqlite(path.clone()), Place::Postgres(url.expose().to_owned()))
        }
        (LedgerUrl::Postgres(url), LedgerUrl::Sqlite(path)) => {
            (Place::Postgres(url.expose().to_owned()), Place::Sqlite(path.clone()))
        }
        _ => bail!(WrongSetting(
            "a copy goes from sqlite:PATH to postgres://... or back; within one store, `tidegate backup` or PostgreSQL's \
             own tools copy"
                .into()
        )),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime could be started")?;
    let mut bar = ProgressBar::new("copying and comparing");
    let report = runtime.block_on(copy(&source, &target, &mut |progress| bar.at(progress.done, progress.total)));
    bar.end();
    let report = report?;
    if args.json {
        return output::json(&json!({
            "entries": report.entries, "resumed_at": report.resumed_at, "ids": report.ids, "tenants": report.tenants,
            "users": report.users, "closed_windows": report.closed, "denials": report.denials, "snapshots": report.snapshots, "history": report.history, "keys": report.keys,
            "catalogs": report.catalogs,
        }));
    }
    if report.resumed_at > 0 {
        output::line(&format!("went on behind {} entries that were copied before", report.resumed_at))?;
    }
    output::line(&format!(
        "{to}: {} entries, {} tenants, {} users, {} closed windows, {} denials, {} snapshots, {} rows of history, {} ids, {} keys and {} catalogs were \
         copied, read again and found equal",
        report.entries,
        report.tenants,
        report.users,
        report.closed,
        report.denials,
        report.snapshots,
        report.history,
        report.ids,
        report.keys,
        report.catalogs
    ))
}
