//! The first admin key: given by the operator, or made and shown once.

use crate::{keys, secret::Secret};
use engine::{
    Engine,
    ports::{ApiKey, KeyScope},
};

/// The id of the key that the operator gives in `TIDEGATE_ADMIN_KEY`.
const BOOTSTRAP_ID: &str = "key_bootstrap";
/// Shorter keys can be guessed by patience.
const ADMIN_KEY_SHORT_BYTES: usize = 16;

/// Sees to it that an admin can get in. What is made is shown on standard error, once, and never logged.
///
/// # Errors
/// A failing ledger, or no randomness.
pub async fn ensure_admin_key(engine: &Engine, given: Option<&Secret>) -> anyhow::Result<()> {
    let Some(secret) = given else {
        let is_live_admin = |key: &ApiKey| key.scope == KeyScope::Admin && key.revoked_at.is_none();
        if engine.keys().iter().any(is_live_admin) {
            return Ok(());
        }
        let (secret, key) = keys::new_key("first admin key", KeyScope::Admin, "bootstrap", engine.now())?;
        engine.create_key(key).await?;
        eprintln!(
            "The first admin key, shown this once:\n\n  {}\n\nKeep it, and give it to commands as TIDEGATE_API_KEY.",
            secret.expose()
        );
        return Ok(());
    };
    if secret.expose().len() < ADMIN_KEY_SHORT_BYTES {
        tracing::warn!("TIDEGATE_ADMIN_KEY is short; use at least {ADMIN_KEY_SHORT_BYTES} characters outside of tests");
    }
    let hash = keys::hash(secret.expose());
    if engine.key_by_hash(&hash).is_some() {
        return Ok(());
    }
    if engine.keys().iter().any(|key| key.hash == hash) {
        tracing::warn!("the key in TIDEGATE_ADMIN_KEY was revoked before; being set, it works again");
    }
    let key = ApiKey {
        id: BOOTSTRAP_ID.into(),
        hash,
        name: "TIDEGATE_ADMIN_KEY".into(),
        scope: KeyScope::Admin,
        created_at: engine.now(),
        created_by: "bootstrap".into(),
        revoked_at: None,
    };
    Ok(engine.create_key(key).await?)
}
