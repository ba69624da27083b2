//! One file per command. What they print goes to standard output; what goes wrong is an error with a sentence.

pub mod backup;
pub mod catalog;
pub mod check_config;
pub mod copy;
pub mod denials;
pub mod events;
pub mod export;
pub mod forecast;
pub mod foresight;
pub mod import;
pub mod init;
pub mod keys;
pub mod sessions;
pub mod simulate;
pub mod snapshot;
pub mod tenants;
pub mod usage;
pub mod verify;

use crate::client::Client;
use anyhow::Context;
use serde_json::Value;
use std::future::Future;

/// Runs what a command has to wait for.
///
/// # Errors
/// Those of the command.
pub fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime could be started")?.block_on(work)
}

/// Every row of a list, page by page, at most `limit`.
///
/// # Errors
/// Those of the client.
pub async fn all_pages(client: &Client, path: &str, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut cursor = None::<String>;
    let joint = if path.contains('?') { '&' } else { '?' };
    while rows.len() < limit {
        let after = cursor.map(|cursor| format!("&cursor={}", crate::client::in_path(&cursor))).unwrap_or_default();
        let size = (limit - rows.len()).min(PAGE_ROWS);
        let mut page = client.get(&format!("{path}{joint}limit={size}{after}")).await?;
        if let Value::Array(more) = page["items"].take() {
            rows.extend(more);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    rows.truncate(limit);
    Ok(rows)
}

/// Rows a page.
const PAGE_ROWS: usize = 100;

/// A parameter of a query, if it was given.
pub fn parameter(name: &str, value: Option<&str>) -> String {
    value.map(|value| format!("&{name}={}", crate::client::in_path(value))).unwrap_or_default()
}
