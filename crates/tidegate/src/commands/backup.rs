//! `tidegate backup`: a consistent copy, also while a node writes.

use super::verify::ledger_file;
use crate::{
    cli::BackupArgs,
    config::LedgerUrl,
    output::{self, ProgressBar},
};
use serde_json::json;
use stores::sqlite;

/// Copies the ledger.
///
/// # Errors
/// Where there is no ledger, the copy exists, or it can't be written; then no half copy is left.
pub fn run(args: &BackupArgs) -> anyhow::Result<()> {
    let from = ledger_file(&LedgerUrl::of(&args.ledger)?)?;
    let mut bar = ProgressBar::new("copying");
    let report = sqlite::backup(&from, &args.out, &mut |progress| bar.at(progress.done, progress.total));
    bar.end();
    let report = report?;
    let out = args.out.display();
    if args.json {
        return output::json(&json!({
            "path": out.to_string(),
            "entries": report.entries,
            "last": report.last,
            "tenants": report.tenants,
            "bytes": report.bytes,
        }));
    }
    output::line(&format!(
        "{out}: {} entries through position {}, {} tenants, {} KiB. `tidegate verify {out}` checks it",
        report.entries,
        report.last,
        report.tenants,
        report.bytes / 1024
    ))
}
