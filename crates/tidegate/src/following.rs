//! Catalogs, in both doors or in none. With many nodes this one follows what another puts in force: catalogs and keys
//! are looked for a few times a second, and a catalog at once when a commit says that there is a newer one.

use crate::{
    catalog_file::{self, CatalogFile, Problems},
    outages, wiring,
};
use api::{CatalogDesk, CatalogRefused};
use engine::{
    Engine,
    ports::{BoxFuture, Follower, LedgerError, Signals},
    requests::EngineError,
};
use gateway::{Gateway, PreparedRules};
use http::Uri;
use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicU64, Ordering},
};
use wire::catalog::GatewayRules;

/// Brings one node to what is in force.
pub struct Following {
    engine: Weak<Engine>,
    gateway: OnceLock<Weak<Gateway>>,
    upstream: Option<Uri>,
    keys_version: AtomicU64,
    /// One at a time: whoever comes second finds it done.
    busy: tokio::sync::Mutex<()>,
}

impl Following {
    /// For this engine; `upstream` is the one that a setting names.
    pub fn new(engine: &Arc<Engine>, upstream: Option<Uri>) -> Arc<Self> {
        Arc::new(Self {
            engine: Arc::downgrade(engine),
            gateway: OnceLock::new(),
            upstream,
            keys_version: AtomicU64::new(u64::MAX),
            busy: tokio::sync::Mutex::default(),
        })
    }

    /// The gateway whose routes follow too.
    pub fn set_gateway(&self, gateway: &Arc<Gateway>) {
        let _ = self.gateway.set(Arc::downgrade(gateway));
    }

    /// Follows what the ledger says is new.
    ///
    /// # Errors
    /// A failing ledger, or a catalog that this version of the program can't read.
    pub async fn heed(&self, signals: Signals) -> anyhow::Result<()> {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        if self.keys_version.load(Ordering::Acquire) != signals.keys_version {
            engine.follow_keys().await?;
            self.keys_version.store(signals.keys_version, Ordering::Release);
        }
        self.catch_up(&engine, signals.catalog_version).await
    }

    /// Puts a catalog in force; gives its version.
    ///
    /// # Errors
    /// Where the gateway can't follow its routes, or the engine refuses it. The old one stays.
    pub async fn put_in_force(&self, file: CatalogFile) -> Result<u32, CatalogRefused> {
        let engine = self.engine.upgrade().ok_or_else(stopped)?;
        if file.loaded.catalog.any_open() && engine.lacks_spool() {
            return Err(CatalogRefused::Gateway(outages::NO_SPOOL.to_owned()));
        }
        let _one_at_a_time = self.busy.lock().await;
        let rules = wiring::rules(file.loaded.gateway, self.upstream.as_ref());
        // What can fail comes first, so that the new catalog is in force in both doors or in none.
        let prepared = self.prepare(rules).map_err(|error| CatalogRefused::Gateway(format!("{error:#}")))?;
        let applied = engine.apply_catalog(file.loaded.catalog, &file.text).await;
        let version = applied.map_err(CatalogRefused::Engine)?;
        install(prepared);
        Ok(version)
    }

    fn prepare(&self, rules: GatewayRules) -> anyhow::Result<Prepared> {
        let Some(gateway) = self.gateway.get().and_then(Weak::upgrade) else {
            if !rules.upstreams.is_empty() {
                tracing::warn!("this node has no gateway: upstreams and routes of the catalog mean nothing to it");
            }
            return Ok(None);
        };
        let rules = gateway.prepare_rules(rules)?;
        Ok(Some((gateway, rules)))
    }

    async fn catch_up(&self, engine: &Engine, in_force: u32) -> anyhow::Result<()> {
        if engine.catalog().version >= in_force {
            return Ok(());
        }
        let _one_at_a_time = self.busy.lock().await;
        if engine.catalog().version >= in_force {
            return Ok(());
        }
        let Some(stored) = engine.catalog_in_force().await? else { return Ok(()) };
        let name = format!("catalog version {}", stored.version);
        let file = catalog_file::parse(stored.text.to_string(), &name)?;
        let rules = wiring::rules(file.loaded.gateway, self.upstream.as_ref());
        let prepared = self.prepare(rules)?;
        let mut catalog = file.loaded.catalog;
        if catalog.any_open() && engine.lacks_spool() {
            tracing::error!(version = stored.version, "on this node open limits are closed: {}", outages::NO_SPOOL);
        }
        catalog.version = stored.version;
        engine.adopt_catalog(catalog);
        install(prepared);
        tracing::info!(version = stored.version, "a catalog that another node put in force is followed");
        Ok(())
    }
}

impl Follower for Following {
    fn follow<'a>(&'a self, in_force: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(engine) = self.engine.upgrade() else { return };
            if let Err(error) = self.catch_up(&engine, in_force).await {
                tracing::error!("the catalog in force, version {in_force}, can't be followed: {error:#}");
            }
        })
    }
}

impl CatalogDesk for Following {
    fn apply(&self, text: String) -> BoxFuture<'_, Result<u32, CatalogRefused>> {
        Box::pin(async move {
            let file =
                catalog_file::parse(text, "tidegate.toml").map_err(|error| match error.downcast::<Problems>() {
                    Ok(Problems(problems)) => CatalogRefused::Invalid(problems),
                    Err(error) => CatalogRefused::Gateway(format!("{error:#}")),
                })?;
            self.put_in_force(file).await
        })
    }
}

/// Rules that are ready, with the gateway that shall follow them.
type Prepared = Option<(Arc<Gateway>, PreparedRules)>;

fn install(prepared: Prepared) {
    if let Some((gateway, rules)) = prepared {
        gateway.install_rules(rules);
    }
}

fn stopped() -> CatalogRefused {
    CatalogRefused::Engine(EngineError::Ledger(LedgerError::Unwritable("the node is stopping".into())))
}
