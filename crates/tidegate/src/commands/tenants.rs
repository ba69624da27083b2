//! `tidegate tenants`: who they are, and what they bought.

use super::{all_pages, wait_for};
use crate::{
    cli::{TenantSetArgs, TenantsCommand},
    client::{Client, in_path},
    output::{self, Table, cell},
};
use http::Method;
use serde_json::{Map, Value, json};

/// Lists, shows or changes tenants.
///
/// # Errors
/// Those of the client.
pub fn run(command: &TenantsCommand) -> anyhow::Result<()> {
    match command {
        TenantsCommand::List { limit, node } => {
            let client = Client::of(node)?;
            let tenants = wait_for(all_pages(&client, "/api/v1/tenants", *limit))?;
            if node.json {
                return output::json(&json!({ "items": tenants }));
            }
            let mut table = Table::new(&["tenant", "plan", "status", "enforce", "time zone", "created"]);
            for tenant in &tenants {
                let columns = ["tenant_id", "plan", "status", "enforce", "timezone", "created_at"];
                table.row(columns.iter().map(|column| cell(&tenant[column])).collect());
            }
            output::line(&table.shown("no tenants yet; make one with `tidegate tenants set NAME --plan PLAN`"))
        }
        TenantsCommand::Show { tenant, node } => {
            let client = Client::of(node)?;
            let tenant = wait_for(client.get(&format!("/api/v1/tenants/{}", in_path(tenant))))?;
            show(&tenant, node.json)
        }
        TenantsCommand::Set(args) => set(args),
    }
}

fn set(args: &TenantSetArgs) -> anyhow::Result<()> {
    let mut change = Map::new();
    let fields = [
        ("plan", &args.plan),
        ("status", &args.status),
        ("timezone", &args.timezone),
        ("period_anchor", &args.period_anchor),
        ("enforce", &args.enforce),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            change.insert(field.to_owned(), json!(value));
        }
    }
    let client = Client::of(&args.node)?;
    let path = format!("/api/v1/tenants/{}", in_path(&args.tenant));
    let tenant = wait_for(client.send(Method::PUT, &path, Some(&Value::Object(change))))?;
    show(&tenant, args.node.json)
}

fn show(tenant: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(tenant);
    }
    let fields = [
        ("tenant", "tenant_id"),
        ("plan", "plan"),
        ("status", "status"),
        ("enforce", "enforce"),
        ("catalog", "catalog_pin"),
        ("time zone", "timezone"),
        ("period anchor", "period_anchor"),
        ("created", "created_at"),
    ];
    for (label, field) in fields {
        let value = if field == "enforce" && tenant[field].is_null() {
            "as the catalog says".to_owned()
        } else if field == "catalog_pin" {
            tenant[field]
                .as_u64()
                .map_or("the one in force".to_owned(), |version| format!("pinned to version {version}"))
        } else {
            cell(&tenant[field])
        };
        output::line(&format!("{label:<14} {value}"))?;
    }
    for own in tenant["overrides"].as_array().into_iter().flatten() {
        let max = if own["max"].is_null() { "unlimited".to_owned() } else { cell(&own["max"]) };
        output::line(&format!(
            "{:<14} {} per {}, {}: {max} ({})",
            "override",
            cell(&own["meter"]),
            cell(&own["window"]),
            cell(&own["scope"]),
            cell(&own["mode"])
        ))?;
    }
    for share in tenant["shares"].as_array().into_iter().flatten() {
        output::line(&format!("{:<14} {}", "share", share_text(share)))?;
    }
    Ok(())
}

fn share_text(share: &Value) -> String {
    let how = match share["mode"].as_str() {
        Some("equal") => format!("equal parts for {} seats", cell(&share["seats"])),
        Some("custom") => {
            let users = share["users"].as_object().map_or(0, Map::len);
            let default = if share["default"].is_null() { "no limit".to_owned() } else { cell(&share["default"]) };
            format!("custom for {users} users, {default} for the others")
        }
        _ => "pooled".to_owned(),
    };
    format!("{}: {how}", cell(&share["meter"]))
}
