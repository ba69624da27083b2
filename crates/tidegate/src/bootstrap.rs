//! The first admin key: given by the operator, or made and shown once.

use crate::{keys, secret::Secret};
use engine::{
    Engine,
    ports::{ApiKey, KeyScope},
};

/// Shorter keys can be guessed by patience.
const ADMIN_KEY_SHORT_BYTES: usize = 16;

/// Sees to it that an admin can get in. A key that the operator gives is never written down: its hash is handed to the
/// API, and it stops working when it is no longer given. One that is made is shown on standard error, once, and never
/// logged.
///
/// # Errors
/// A failing ledger, or no randomness.
pub async fn admin_key_hash(engine: &Engine, given: Option<&Secret>) -> anyhow::Result<Option<[u8; 32]>> {
    if let Some(secret) = given {
        if secret.expose().len() < ADMIN_KEY_SHORT_BYTES {
            tracing::warn!(
                "TIDEGATE_ADMIN_KEY is short; outside of tests use at least {ADMIN_KEY_SHORT_BYTES} characters"
            );
        }
        return Ok(Some(api::secrets::key_hash(secret.expose())));
    }
    let is_live_admin = |key: &ApiKey| key.scope == KeyScope::Admin && key.revoked_at.is_none();
    if engine.keys().iter().any(is_live_admin) {
        return Ok(None);
    }
    let (secret, key) = keys::new_key("first admin key", KeyScope::Admin, "bootstrap", engine.now())?;
    engine.create_key(key).await?;
    eprintln!(
        "The first admin key, shown this once:\n\n  {}\n\nKeep it, and give it to commands as TIDEGATE_API_KEY.\n",
        secret.expose()
    );
    Ok(None)
}
