//! Makes API keys where no node does: before the first start, and on the command line.

use crate::secret::Secret;
use anyhow::{Context, anyhow};
use api::secrets;
use domain::time::Instant;
use engine::ports::{ApiKey, KeyScope};
use wire::v1::keys::scope_word;

/// A new key: what its owner gets, and what the ledger keeps.
///
/// # Errors
/// Where the system has no randomness.
pub fn new_key(name: &str, scope: KeyScope, created_by: &str, now: Instant) -> anyhow::Result<(Secret, ApiKey)> {
    let no_randomness = "the system gave no random bytes";
    let secret = Secret::new(secrets::key_text(scope_word(&scope), &random().context(no_randomness)?));
    let key = ApiKey {
        id: secrets::key_id(&random().ok_or_else(|| anyhow!(no_randomness))?).into(),
        hash: secrets::key_hash(secret.expose()),
        name: name.into(),
        scope,
        created_at: now,
        created_by: created_by.into(),
        revoked_at: None,
    };
    Ok((secret, key))
}

/// Random bytes of the operating system, if it has any to give.
pub fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

/// A name for this node among others: no two runs share one.
///
/// # Errors
/// Where the system has no randomness.
pub fn node_name() -> anyhow::Result<String> {
    let bytes = random().context("the system gave no random bytes")?;
    Ok(bytes[..8].iter().fold("node_".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}
