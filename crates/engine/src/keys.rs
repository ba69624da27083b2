//! API keys: stored hashed, all in memory.

use crate::{engine::Engine, ports::ApiKey, requests::EngineError};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Every key, and the live ones by hash.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    all: Vec<Arc<ApiKey>>,
    live: FxHashMap<[u8; 32], Arc<ApiKey>>,
}

impl KeyRing {
    pub(crate) fn new(keys: Vec<ApiKey>) -> Self {
        let all: Vec<Arc<ApiKey>> = keys.into_iter().map(Arc::new).collect();
        let live = all.iter().filter(|key| key.revoked_at.is_none()).map(|key| (key.hash, key.clone())).collect();
        Self { all, live }
    }

    fn with(&self, key: ApiKey) -> Self {
        let mut keys: Vec<ApiKey> =
            self.all.iter().filter(|known| known.id != key.id).map(|known| known.as_ref().clone()).collect();
        keys.push(key);
        Self::new(keys)
    }
}

impl Engine {
    /// The live key with this SHA-256.
    pub fn key_by_hash(&self, hash: &[u8; 32]) -> Option<Arc<ApiKey>> {
        self.keys.load().live.get(hash).cloned()
    }

    /// Every key, revoked ones included, oldest first.
    pub fn keys(&self) -> Vec<ApiKey> {
        let mut keys: Vec<ApiKey> = self.keys.load().all.iter().map(|key| key.as_ref().clone()).collect();
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// Writes a key; in force when it returns.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn create_key(&self, key: ApiKey) -> Result<(), EngineError> {
        let _in_order = self.key_writes.lock().await;
        self.write_key(key).await
    }

    async fn write_key(&self, key: ApiKey) -> Result<(), EngineError> {
        self.ledger.put_key(&key).await?;
        self.keys.rcu(|ring| ring.with(key.clone()));
        Ok(())
    }

    /// Revokes a key; refused here when it returns, and by other nodes once they [follow](Engine::follow_keys). `None` if there is no such key.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn revoke_key(&self, id: &str, actor: &str) -> Result<Option<ApiKey>, EngineError> {
        if self.ledger.shared().is_some() {
            // It may have been made on another node a moment ago.
            self.follow_keys().await?;
        }
        let _in_order = self.key_writes.lock().await;
        let Some(known) = self.keys.load().all.iter().find(|key| &*key.id == id).cloned() else { return Ok(None) };
        if known.revoked_at.is_some() {
            return Ok(Some(known.as_ref().clone()));
        }
        let created_by = format!("{}; revoked by {actor}", known.created_by).into();
        let revoked = ApiKey { revoked_at: Some(self.now()), created_by, ..known.as_ref().clone() };
        self.write_key(revoked.clone()).await?;
        Ok(Some(revoked))
    }
}
