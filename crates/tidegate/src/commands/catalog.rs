//! `tidegate catalog`: what is in force, what was, what would change, and a new one for every node.

use super::wait_for;
use crate::{
    catalog_file,
    cli::{CatalogCommand, NodeArgs},
    client::{Client, in_path},
    output::{self, Table, cell},
};
use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};
use similar::TextDiff;
use std::path::Path;

/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// Lists, shows, compares or applies catalogs.
///
/// # Errors
/// Those of the client; for `apply`, everything that is wrong with the file.
pub fn run(command: &CatalogCommand) -> anyhow::Result<()> {
    match command {
        CatalogCommand::Apply { file, node } => apply(file, node),
        CatalogCommand::List { node } => list(node),
        CatalogCommand::Show { version, node } => {
            let client = Client::of(node)?;
            let catalog = wait_for(stored(&client, *version))?;
            if node.json { output::json(&catalog) } else { output::line(cell(&catalog["text"]).trim_end()) }
        }
        CatalogCommand::Pin { tenant, version, node, .. } => pin(tenant, *version, node),
        CatalogCommand::Diff { file, version, node } => diff(file, *version, node),
    }
}

fn apply(file: &Path, node: &NodeArgs) -> anyhow::Result<()> {
    // What is wrong is said here with the file's own name, before anybody is asked.
    let file = catalog_file::read(file)?;
    for warning in &file.loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let client = Client::of(node)?;
    let applied = wait_for(client.post_text("/api/v1/catalogs", "application/toml", file.text))?;
    if node.json {
        return output::json(&applied);
    }
    output::line(&format!("version {} is in force", cell(&applied["version"])))
}

fn list(node: &NodeArgs) -> anyhow::Result<()> {
    let client = Client::of(node)?;
    let catalogs = wait_for(client.get("/api/v1/catalogs"))?;
    if node.json {
        return output::json(&catalogs);
    }
    let mut table = Table::new(&[">version", "applied", ">bytes", ""]);
    for catalog in catalogs["items"].as_array().into_iter().flatten() {
        let in_force = if catalog["in_force"] == json!(true) { "in force" } else { "" };
        let [version, applied, bytes] = ["version", "applied_at", "bytes"].map(|column| cell(&catalog[column]));
        table.row(vec![version, applied, bytes, in_force.to_owned()]);
    }
    output::line(&table.shown("no catalog was put in force yet"))
}

fn pin(tenant: &str, version: Option<u32>, node: &NodeArgs) -> anyhow::Result<()> {
    let client = Client::of(node)?;
    let path = format!("/api/v1/tenants/{}", in_path(tenant));
    // Pinning must not create a tenant whose name was mistyped.
    wait_for(client.get(&path))?;
    let tenant = wait_for(client.send(Method::PUT, &path, Some(&json!({ "catalog_pin": version }))))?;
    if node.json {
        return output::json(&tenant);
    }
    let name = cell(&tenant["tenant_id"]);
    output::line(&match version {
        Some(version) => format!("{name} is decided by version {version}, whatever is put in force"),
        None => format!("{name} follows the catalog in force"),
    })
}

fn diff(file: &Path, version: Option<u32>, node: &NodeArgs) -> anyhow::Result<()> {
    let new = catalog_file::read(file)?.text;
    let client = Client::of(node)?;
    let old = wait_for(stored(&client, version))?;
    let name = format!("version {}", cell(&old["version"]));
    let old = old["text"].as_str().unwrap_or_default();
    let shown = TextDiff::from_lines(old, &new)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&name, &file.display().to_string())
        .to_string();
    if node.json {
        return output::json(&json!({"from": name, "differs": old != new, "diff": shown}));
    }
    output::line(if old == new { "nothing would change" } else { shown.trim_end() })
}

/// A catalog of this version; without one, the one that is in force.
async fn stored(client: &Client, version: Option<u32>) -> anyhow::Result<Value> {
    let version = match version {
        Some(version) => version.to_string(),
        None => {
            let all = client.get("/api/v1/catalogs").await?;
            let items = all["items"].as_array().context("the node lists no catalogs")?;
            match items.iter().find(|catalog| catalog["in_force"] == json!(true)).or(items.first()) {
                Some(catalog) => cell(&catalog["version"]),
                None => bail!("no catalog was put in force yet"),
            }
        }
    };
    client.get(&format!("/api/v1/catalogs/{version}")).await
}
