//! `tidegate events`: the newest lines of the journal, as they are kept.

use super::{parameter, wait_for};
use crate::{
    cli::EventsArgs,
    client::Client,
    output::{self, cell},
};
use serde_json::Value;
use std::time::Duration;

/// How often `--follow` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows lines of the journal, and goes on if asked to.
///
/// # Errors
/// Those of the client.
pub fn run(args: &EventsArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    wait_for(async {
        let mut after = match args.after {
            Some(after) => after,
            None => newest(&client).await?.saturating_sub(args.limit as u64),
        };
        let mut shown = 0;
        loop {
            let page = entries(&client, after, args.tenant.as_deref()).await?;
            let lines = page["items"].as_array().cloned().unwrap_or_default();
            for line in &lines {
                if !args.follow && shown == args.limit {
                    return Ok(());
                }
                show(line, args.node.json)?;
                shown += 1;
            }
            after = lines.last().and_then(|line| line["seq"].as_u64()).unwrap_or(after);
            match (lines.is_empty(), args.follow) {
                (true, true) => tokio::time::sleep(LOOK_EVERY).await,
                (true, false) => return Ok(()),
                (false, _) => {}
            }
        }
    })
}

async fn entries(client: &Client, after: u64, tenant: Option<&str>) -> anyhow::Result<Value> {
    client.get(&format!("/api/v1/entries?after={after}&limit=100{}", parameter("tenant_id", tenant))).await
}

/// The last position of the journal, as the node's figures have it.
async fn newest(client: &Client) -> anyhow::Result<u64> {
    let figures = client.text("/metrics").await?;
    let position = figures.lines().find_map(|line| line.strip_prefix("tidegate_ledger_position "));
    Ok(position.and_then(|position| position.parse().ok()).unwrap_or_default())
}

fn show(line: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::line(&line.to_string());
    }
    let user = line["user_id"].as_str().map(|user| format!(" ({user})")).unwrap_or_default();
    let effects: Vec<String> = line["effects"].as_array().into_iter().flatten().filter_map(effect).collect();
    output::line(&format!(
        "{:>8}  {}  {:<8} {}{user}  {}",
        cell(&line["seq"]),
        cell(&line["at"]),
        cell(&line["cause"]),
        cell(&line["tenant_id"]),
        effects.join(", ")
    ))
}

/// An effect in a few words; a window that turned is not news.
fn effect(effect: &Value) -> Option<String> {
    let meter = cell(&effect["meter"]);
    let signed = |field: &str| format!("{:+}", effect[field].as_i64().unwrap_or_default());
    match effect["effect"].as_str()? {
        "use" => Some(format!("{meter} {}", signed("amount"))),
        "level" => Some(format!("{meter} level {}", signed("tenant_delta"))),
        "denied" => Some(format!("{meter} denied {}", cell(&effect["amount"]))),
        "profile" => Some(format!("now on {}, {}", cell(&effect["plan"]), cell(&effect["status"]))),
        "denials" => Some(format!("{} x{}", cell(&effect["code"]), cell(&effect["count"]))),
        _ => None,
    }
}
