//! `tidegate sessions`: what is open, and how to end it.

use super::{all_pages, wait_for};
use crate::{
    cli::SessionsCommand,
    client::{Client, in_path},
    output::{self, Table, cell},
};
use http::Method;
use serde_json::json;

/// Lists a tenant's open sessions, or ends one.
///
/// # Errors
/// Those of the client.
pub fn run(command: &SessionsCommand) -> anyhow::Result<()> {
    match command {
        SessionsCommand::List { tenant, node } => {
            let client = Client::of(node)?;
            let path = format!("/api/v1/tenants/{}/sessions", in_path(tenant));
            let sessions = wait_for(all_pages(&client, &path, usize::MAX))?;
            if node.json {
                return output::json(&json!({ "items": sessions }));
            }
            let headings = ["key", "user", "meter", "status", "opened", "touched", ">accrued ms", ">held ms", "id"];
            let mut table = Table::new(&headings);
            for session in &sessions {
                let columns = [
                    "key",
                    "user_id",
                    "meter",
                    "status",
                    "opened_at",
                    "touched_at",
                    "accrued_ms",
                    "held_ms",
                    "session_id",
                ];
                table.row(columns.iter().map(|column| cell(&session[column])).collect());
            }
            output::line(&table.shown("no session is open"))
        }
        SessionsCommand::Close { id, node } => {
            let client = Client::of(node)?;
            let path = format!("/api/v1/sessions/{}/close", in_path(id));
            let closed = wait_for(client.send(Method::POST, &path, Some(&json!({ "force": true }))))?;
            if node.json {
                return output::json(&closed);
            }
            let (reason, ended_at) = (cell(&closed["reason"]), cell(&closed["ended_at"]));
            output::line(&format!("it ended at {ended_at} ({reason}) with {} ms", cell(&closed["accrued_ms"])))
        }
    }
}
