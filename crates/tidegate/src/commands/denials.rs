//! `tidegate denials` and `tidegate explain`: unmet demand, and why.

use super::{all_pages, parameter, wait_for};
use crate::{
    cli::{DenialsArgs, ExplainArgs},
    client::{Client, in_path},
    output::{self, Table, cell},
};
use serde_json::json;

/// Lists denials, newest first.
///
/// # Errors
/// Those of the client.
pub fn list(args: &DenialsArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let path = format!(
        "/api/v1/denials?shadow={}{}{}",
        args.shadow,
        parameter("tenant_id", args.tenant.as_deref()),
        parameter("code", args.code.as_deref())
    );
    let denials = wait_for(all_pages(&client, &path, args.limit))?;
    if args.node.json {
        return output::json(&json!({ "items": denials }));
    }
    let mut table = Table::new(&["last", "tenant", "code", "refused by", ">times", ">amount", "id"]);
    for denial in &denials {
        let columns = ["last_at", "tenant_id", "code", "denied_by", "count", "amount", "denial_id"];
        table.row(columns.iter().map(|column| cell(&denial[column])).collect());
    }
    output::line(&table.shown(if args.shadow { "nothing would have been refused" } else { "nothing was refused" }))
}

/// Explains one denial.
///
/// # Errors
/// Those of the client.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let denial = wait_for(client.get(&format!("/api/v1/denials/{}", in_path(&args.denial))))?;
    if args.node.json {
        return output::json(&denial);
    }
    output::line(&format!("{}\n", cell(&denial["message"])))?;
    let fields = [
        ("tenant", "tenant_id"),
        ("user", "user_id"),
        ("plan", "plan"),
        ("code", "code"),
        ("refused by", "denied_by"),
        ("meter", "meter"),
        ("feature", "feature"),
        ("times", "count"),
        ("asked for", "amount"),
        ("used then", "used"),
        ("allowed", "max"),
        ("first", "first_at"),
        ("last", "last_at"),
        ("resets", "resets_at"),
    ];
    for (label, field) in fields.into_iter().filter(|(_, field)| !denial[field].is_null()) {
        output::line(&format!("{label:<11} {}", cell(&denial[field])))?;
    }
    Ok(())
}
