//! Makes API keys where no node does: before the first start, and on the command line.

use crate::secret::Secret;
use anyhow::anyhow;
use domain::time::Instant;
use engine::ports::{ApiKey, KeyScope};
use sha2::{Digest, Sha256};

/// What the ledger keeps of a key.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A new key of 192 random bits: what its owner gets, and what the ledger keeps.
///
/// # Errors
/// Where the system has no randomness.
pub fn new_key(name: &str, scope: KeyScope, created_by: &str, now: Instant) -> anyhow::Result<(Secret, ApiKey)> {
    let secret = Secret::new(format!("tg_{}", random_hex(24)?));
    let key = ApiKey {
        id: format!("key_{}", random_hex(8)?).into(),
        hash: hash(secret.expose()),
        name: name.into(),
        scope,
        created_at: now,
        created_by: created_by.into(),
        revoked_at: None,
    };
    Ok((secret, key))
}

fn random_hex(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| anyhow!("the system gave no random bytes: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
