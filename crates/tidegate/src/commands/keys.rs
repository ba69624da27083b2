//! `tidegate keys` and `tidegate token`: who may ask.

use super::{all_pages, wait_for};
use crate::{
    cli::{KeysCommand, KeysCreateArgs, ScopeArg, TokenArgs},
    client::{Client, in_path},
    clock::NodeClock,
    config::{LedgerUrl, WrongSetting},
    keys::new_key,
    output::{self, Table, cell},
    wiring,
};
use anyhow::{Context, bail};
use domain::id::TenantId;
use engine::ports::{Clock, KeyScope};
use http::Method;
use serde_json::{Value, json};

/// Creates, lists or revokes keys.
///
/// # Errors
/// Those of the client or the ledger.
pub fn run(command: &KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create(args) => create(args),
        KeysCommand::List(node) => {
            let client = Client::of(node)?;
            let keys = wait_for(all_pages(&client, "/api/v1/keys", usize::MAX))?;
            if node.json {
                return output::json(&json!({ "items": keys }));
            }
            let mut table = Table::new(&["id", "scope", "tenant", "name", "created", "revoked"]);
            for key in &keys {
                let columns = ["key_id", "scope", "tenant_id", "name", "created_at", "revoked_at"];
                table.row(columns.iter().map(|column| cell(&key[column])).collect());
            }
            output::line(&table.shown("no keys"))
        }
        KeysCommand::Revoke { id, node } => {
            let client = Client::of(node)?;
            let revoked = wait_for(client.send(Method::DELETE, &format!("/api/v1/keys/{}", in_path(id)), None))?;
            if node.json { output::json(&revoked) } else { output::line(&format!("{id} is revoked")) }
        }
    }
}

fn create(args: &KeysCreateArgs) -> anyhow::Result<()> {
    if args.scope != ScopeArg::Tenant && args.tenant.is_some() {
        bail!(WrongSetting("--tenant belongs to --scope tenant".into()));
    }
    let created = match &args.ledger_url {
        Some(url) => create_in_ledger(args, &LedgerUrl::parse(url)?)?,
        None => {
            let scope = match args.scope {
                ScopeArg::Admin => "admin",
                ScopeArg::Ingest => "ingest",
                ScopeArg::Read => "read",
                ScopeArg::Tenant => "tenant",
            };
            let mut body = json!({"scope": scope, "name": args.name});
            if let Some(tenant) = &args.tenant {
                body["tenant_id"] = json!(tenant);
            }
            let client = Client::of(&args.node)?;
            wait_for(client.send(Method::POST, "/api/v1/keys", Some(&body)))?
        }
    };
    if args.node.json {
        return output::json(&created);
    }
    eprintln!("{} ({}); the key is shown this once:", cell(&created["key_id"]), cell(&created["scope"]));
    output::line(&cell(&created["key"]))
}

/// Writes a key into a ledger that no node holds.
fn create_in_ledger(args: &KeysCreateArgs, url: &LedgerUrl) -> anyhow::Result<Value> {
    if *url == LedgerUrl::Memory {
        bail!(WrongSetting(
            "memory: is gone when this command ends; name a file, e.g. --ledger sqlite:tidegate.db".into()
        ));
    }
    let scope = match (args.scope, &args.tenant) {
        (ScopeArg::Admin, _) => KeyScope::Admin,
        (ScopeArg::Ingest, _) => KeyScope::Ingest,
        (ScopeArg::Read, _) => KeyScope::Read,
        (ScopeArg::Tenant, tenant) => {
            let tenant = tenant.as_deref().unwrap_or_default();
            KeyScope::Tenant(TenantId::new(tenant).map_err(|error| WrongSetting(format!("--tenant: {error}")))?)
        }
    };
    let (secret, key) = new_key(&args.name, scope, "cli", NodeClock::default().now())?;
    wait_for(async {
        let ledger = wiring::open_ledger(url).await.context(
            "a key can be written into the file only while no node holds it; leave --ledger out to ask the running node \
             (TIDEGATE_API_URL, TIDEGATE_API_KEY)",
        )?;
        Ok(ledger.put_key(&key).await?)
    })?;
    Ok(json!({
        "key_id": &*key.id,
        "name": &*key.name,
        "scope": wire::v1::keys::scope_word(&key.scope),
        "tenant_id": args.tenant,
        "key": secret.expose(),
    }))
}

/// Makes a short-lived token of one tenant.
///
/// # Errors
/// Those of the client.
pub fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let client = Client::of(&args.node)?;
    let body = json!({"tenant_id": args.tenant, "ttl": args.ttl});
    let token = wait_for(client.send(Method::POST, "/api/v1/tokens", Some(&body)))?;
    if args.node.json {
        return output::json(&token);
    }
    eprintln!("valid until {}:", cell(&token["expires_at"]));
    output::line(&cell(&token["token"]))
}
