//! Outages of PostgreSQL, as a node is told of them and tells of them: its spool, and when what is in it is recorded.

use crate::{
    config::{Settings, WrongSetting},
    keys,
};
use anyhow::Context;
use domain::catalog::Catalog;
use engine::{
    Engine,
    ports::{Ledger, OutageOptions, Spool},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use stores::spool::{FileSpool, LINES_MAX};

/// Said where a catalog leaves limits open and there is nowhere to keep what they let through.
pub const NO_SPOOL: &str = "the catalog has limits with outage = \"open\", and this node has no file to keep what they \
                            let through: set TIDEGATE_LEDGER_SPOOL (or --spool) to one of its own, on a disk that \
                            outlives the node";
/// How often a node looks whether an outage is over.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The spool that the settings name, where it can be of use.
///
/// # Errors
/// Where a limit is open and there is none, or it can't be opened.
pub fn spool(settings: &Settings, ledger: &dyn Ledger, catalog: &Catalog) -> anyhow::Result<Option<Arc<dyn Spool>>> {
    let is_shared = ledger.shared().is_some();
    match &settings.spool {
        _ if !is_shared => {
            if catalog.any_open() {
                tracing::warn!(
                    "outage = \"open\" means something only with a ledger on PostgreSQL: while the ledger of this node \
                     can't be written, requests are refused with 503"
                );
            }
            Ok(None)
        }
        None if catalog.any_open() => Err(WrongSetting(NO_SPOOL.to_owned()).into()),
        None => Ok(None),
        Some(path) => {
            let spool = FileSpool::open(path, &ledger.secret(), LINES_MAX);
            Ok(Some(spool.with_context(|| format!("the spool {} (TIDEGATE_LEDGER_SPOOL)", path.display()))?))
        }
    }
}

/// How this node passes through outages.
///
/// # Errors
/// Where the system has no randomness.
pub fn options(patience_ms: u64) -> anyhow::Result<OutageOptions> {
    let random = keys::random().context("the system gave no random bytes")?;
    let mut first = [0; 16];
    first.copy_from_slice(&random[..16]);
    // No two nodes begin near each other.
    let (first, count) = (u128::from_le_bytes(first), AtomicU64::new(0));
    Ok(OutageOptions {
        patience_ms,
        ids: Arc::new(move || first.wrapping_add(u128::from(count.fetch_add(1, Ordering::Relaxed)))),
        timer: Arc::new(|ms| Box::pin(tokio::time::sleep(Duration::from_millis(ms)))),
    })
}

/// Records what passed in outages, as soon as it can be, for as long as the node runs.
pub async fn watch(engine: &Arc<Engine>) {
    let mut often = tokio::time::interval(LOOK_EVERY);
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_under_way = false;
    loop {
        often.tick().await;
        let Some(outage) = engine.stats().outage else { return std::future::pending().await };
        if outage.under_way && !was_under_way {
            tracing::warn!(
                spool_lines = outage.spool_lines,
                "OUTAGE: PostgreSQL does not answer; what open limits allow is let through and kept in the spool"
            );
        }
        was_under_way = outage.under_way;
        was_under_way &= !reconcile(engine).await;
    }
}

/// Records what is in the spool, if the ledger can be written, and says so. Gives whether it did.
pub async fn reconcile(engine: &Engine) -> bool {
    match engine.reconcile().await {
        Ok(None) => false,
        Ok(Some(done)) => {
            for why in &done.set_aside {
                tracing::error!("a charge of an outage can't be recorded, and is set aside in the spool: {why}");
            }
            let total = engine.stats().outage.unwrap_or_default();
            tracing::warn!(
                recorded = done.recorded,
                duplicates = done.duplicates,
                under_another_id = done.conflicts,
                given_back = done.given_back,
                set_aside = done.set_aside.len(),
                passed_since_start = total.passed,
                refused_since_start = total.refused,
                closed_since_start = total.closed,
                spool_lines = total.spool_lines,
                "the outage is over: what was let through is recorded"
            );
            true
        }
        Err(error) => {
            tracing::debug!(%error, "what passed in the outage can't be recorded yet");
            false
        }
    }
}
