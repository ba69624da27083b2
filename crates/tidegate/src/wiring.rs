//! Puts a node together: ledger, engine, gateway, API. The only place where a door meets a store.

use crate::{
    bootstrap,
    catalog_file::{self, CatalogFile},
    clock::NodeClock,
    config::{LedgerUrl, Settings},
    following::Following,
    keys, listen,
    observe::{self, figures::Figures, http::RequestIds},
    outages,
    remembering::Remembering,
    snapshots,
};
use anyhow::{Context, anyhow, bail};
use api::{ApiParts, ApiState, CatalogRefused, Door, TestClock};
use engine::{
    Engine,
    ports::{Ledger, Retention},
    requests::EngineError,
};
use gateway::{Gateway, GatewayOptions};
use http::Uri;
use std::{sync::Arc, time::Duration};
use stores::{
    memory::MemoryLedger,
    postgres::{PostgresLedger, PostgresOptions},
    sqlite::{SqliteLedger, SqliteOptions},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use wire::catalog::{GatewayRules, Upstream};
use workers::snapshot::Keeper;

/// How often the engine looks after itself.
const UPKEEP_EVERY: Duration = Duration::from_millis(250);
/// How often what is past its time is dropped.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// How often a node looks whether that is its turn, and how long it keeps the turn from others without renewing it: one
/// that dies in the middle delays it no longer than that.
const RETENTION_TURN: Duration = Duration::from_secs(60);
/// The name of the upstream that `TIDEGATE_GATEWAY_UPSTREAM` sets.
const SET_UPSTREAM: &str = "default";
/// How long a connection to that upstream may take, where the catalog gives none.
const CONNECT_TIMEOUT_MS: u64 = 5000;

/// A running node.
pub struct Node {
    /// Decides.
    pub engine: Arc<Engine>,
    /// Where the gateway listens.
    pub gateway_url: Option<String>,
    /// Where the API listens.
    pub api_url: String,
    figures: Arc<Figures>,
    following: Arc<Following>,
    settings: Settings,
    stopping: watch::Sender<bool>,
    doors: JoinSet<()>,
    upkeep: JoinHandle<()>,
    foresight: JoinHandle<()>,
}

impl Node {
    /// Opens the ledger and both doors. When this returns, both answer.
    ///
    /// # Errors
    /// A sentence that says what stood in the way.
    pub async fn start(settings: Settings, file: Option<CatalogFile>) -> anyhow::Result<Self> {
        let clock = Arc::new(NodeClock::default());
        let ledger = open_ledger(&settings.ledger).await?;
        let CatalogFile { text, loaded } = catalog_at_start(&*ledger, settings.apply, file).await?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for refusal in settings.sources.refusals(&loaded.snapshots) {
            tracing::warn!("{refusal}");
        }
        let spool = outages::spool(&settings, &*ledger, &loaded.catalog)?;
        let engine = Engine::open(ledger.clone(), clock.clone(), loaded.catalog, &text).await?;
        let figures = Arc::new(Figures::new(&engine));
        engine.set_observer(figures.clone());
        let following = Following::new(&engine, settings.gateway_upstream.clone());
        engine.set_follower(following.clone());
        engine.set_catalog_reader(Arc::new(catalog_file::Reader));
        if let Some(spool) = spool {
            engine.set_spool(spool, outages::options(settings.outage_after_ms)?)?;
            // Only now: what passed may be of tenants that are pinned to other catalogs.
            outages::reconcile(&engine).await;
        }

        // Addresses first: a key that is shown once should not be shown by a start that fails.
        let (api_listener, api_address) = listen::bind(&settings.api_listen, "TIDEGATE_API_LISTEN").await?;
        let rules = rules(loaded.gateway, settings.gateway_upstream.as_ref());
        let drain_max = Duration::from_millis(settings.drain_ms);
        let gateway = match &settings.gateway_listen {
            Some(listen) if is_gateway(&rules) => {
                let (listener, address) = listen::bind(listen, "TIDEGATE_GATEWAY_LISTEN").await?;
                let options = GatewayOptions {
                    drain_max,
                    observer: figures.clone(),
                    cors_origins: settings.cors_origins.clone(),
                    ..GatewayOptions::default()
                };
                Some((Arc::new(Gateway::new(engine.clone(), rules, options)?), listener, address))
            }
            _ => None,
        };
        let node = keys::node_name()?;
        let desk = snapshots::Desk::new(&engine, &figures, &node, settings.sources.clone());
        let keeper = desk.0.clone();
        let door = Door::new(ApiState::new(ApiParts {
            engine: engine.clone(),
            admin_key_hash: bootstrap::admin_key_hash(&engine, settings.admin_key.as_ref()).await?,
            catalogs: following.clone(),
            snapshots: Arc::new(desk),
            observer: figures.clone(),
            test_clock: settings.test_clock.then_some(clock as Arc<dyn TestClock>),
            metrics_open: settings.metrics_open,
            cors_origins: settings.cors_origins.clone(),
            random: keys::random,
        }));

        let (stopping, stop) = watch::channel(false);
        let mut doors = JoinSet::new();
        doors.spawn(serve_api(api_listener, door, stop.clone(), drain_max));
        let foresight = tokio::spawn(foresee(engine.clone(), figures.clone(), node.clone(), stop.clone()));
        let api_url = format!("http://{api_address}");
        let gateway_url = gateway.map(|(gateway, listener, address)| {
            following.set_gateway(&gateway);
            let stopped = stopped(stop);
            doors.spawn(async move { gateway.serve(listener, stopped).await });
            format!("http://{address}")
        });
        let remembering = Remembering { engine: engine.clone(), kept: settings.history_kept, node: node.clone() };
        let upkeep = Upkeep {
            engine: engine.clone(),
            figures: figures.clone(),
            following: following.clone(),
            retention: settings.retention,
            keeper,
            node,
        };
        let upkeep = tokio::spawn(async move { tokio::join!(upkeep.run(), remembering.run()).0 });
        Ok(Self { engine, gateway_url, api_url, figures, following, settings, stopping, doors, upkeep, foresight })
    }

    /// Reads the catalog again and puts it in force whole, or keeps the old one and says why.
    pub async fn reload(&self) {
        if self.settings.ledger.is_shared() && !self.settings.apply {
            tracing::info!(
                "the catalog in the ledger is followed, not the file; put a file in force with `tidegate catalog apply \
                 FILE`"
            );
            return;
        }
        match self.try_reload().await {
            Ok(version) => {
                self.figures.catalog_reloaded(true);
                tracing::info!(version, "the catalog was read again and is in force");
            }
            Err(error) => {
                self.figures.catalog_reloaded(false);
                tracing::error!("the catalog was refused, the old one stays in force: {error:#}");
            }
        }
    }

    async fn try_reload(&self) -> anyhow::Result<u32> {
        let file = catalog_file::read(&self.settings.catalog)?;
        self.following.put_in_force(file).await.map_err(|refused| match refused {
            CatalogRefused::Engine(error) => error.into(),
            CatalogRefused::Gateway(why) => anyhow!(why),
            CatalogRefused::Invalid(problems) => catalog_file::Problems(problems).into(),
        })
    }

    /// The line that says that both doors answer.
    pub fn ready_line(&self) -> String {
        serde_json::json!({"gateway": self.gateway_url, "api": self.api_url}).to_string()
    }

    /// Stops accepting, lets what is in flight end, and writes everything down.
    ///
    /// # Errors
    /// Where the ledger could not be written; nothing that was acknowledged is lost even then.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopping.send_replace(true);
        while let Some(ended) = self.doors.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a door did not end as it should");
            }
        }
        // It was told as the doors were, and gives its turn back.
        if let Err(error) = self.foresight.await {
            tracing::error!(%error, "forecasts did not end as they should");
        }
        self.upkeep.abort();
        let _ = self.upkeep.await;
        outages::reconcile(&self.engine).await;
        self.engine.drain().await.context("the last checkpoint could not be written; the next start folds the journal")
    }
}

async fn serve_api(listener: TcpListener, door: Door, stop: watch::Receiver<bool>, drain: Duration) {
    let ids = Arc::new(RequestIds::new());
    let handler = move |request| {
        let (door, ids) = (door.clone(), ids.clone());
        async move { observe::http::answer(door, &ids, request).await }
    };
    listen::serve(listener, handler, stopped(stop), drain).await;
}

/// Makes forecasts when a day was closed: in a task of its own, so that a night with many tenants holds up nothing else.
async fn foresee(engine: Arc<Engine>, figures: Arc<Figures>, node: String, stop: watch::Receiver<bool>) {
    let told = |foreseen: &_, scores: &[_]| figures.foreseen(foreseen, scores);
    workers::foresight::watch(&engine, &node, &told, stopped(stop)).await;
}

/// Ends when the node is told to stop.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the node is gone: that too is a reason to stop.
    let _ = stop.wait_for(|stopping| *stopping).await;
}

/// Opens the ledger; a file is held by this process from then on.
///
/// # Errors
/// A sentence that says what stood in the way.
pub async fn open_ledger(url: &LedgerUrl) -> anyhow::Result<Arc<dyn Ledger>> {
    match url {
        LedgerUrl::Memory => Ok(MemoryLedger::new(keys::random().context("the system gave no random bytes")?)),
        LedgerUrl::Sqlite(path) => Ok(SqliteLedger::open(path, SqliteOptions::default())?),
        LedgerUrl::Postgres(url) => Ok(PostgresLedger::open(url.expose(), PostgresOptions::default()).await?),
    }
}

/// The catalog a node starts with: the file's, or, where there are other nodes, the one that is in force.
async fn catalog_at_start(ledger: &dyn Ledger, apply: bool, file: Option<CatalogFile>) -> anyhow::Result<CatalogFile> {
    let in_force = match ledger.shared() {
        Some(_) if !apply => ledger.newest_catalog().await?,
        _ => None,
    };
    match (in_force, file) {
        (Some(stored), file) => {
            if file.is_some_and(|file| *file.text != *stored.text) {
                tracing::warn!(
                    version = stored.version,
                    "the catalog in the ledger is in force; the file differs from it and does not count (put it in force \
                     with `tidegate catalog apply FILE`)"
                );
            }
            catalog_file::parse(stored.text.to_string(), &format!("catalog version {}", stored.version))
        }
        (None, Some(file)) => Ok(file),
        (None, None) => bail!("the ledger holds no catalog yet: start one node with --config FILE"),
    }
}

/// Whether there is anything for a gateway to do.
fn is_gateway(rules: &GatewayRules) -> bool {
    !rules.upstreams.is_empty()
}

/// The catalog's rules, with the upstream that a setting names as the default one.
pub fn rules(mut rules: GatewayRules, upstream: Option<&Uri>) -> GatewayRules {
    let Some(url) = upstream else { return rules };
    let of_catalog = rules.default_upstream.as_ref().and_then(|name| rules.upstreams.get(name));
    let upstream = Upstream {
        name: SET_UPSTREAM.into(),
        url: url.clone(),
        connect_timeout_ms: of_catalog.map_or(CONNECT_TIMEOUT_MS, |upstream| upstream.connect_timeout_ms),
        response_timeout_ms: of_catalog.and_then(|upstream| upstream.response_timeout_ms),
        ca_file: None,
    };
    rules.upstreams.insert(SET_UPSTREAM.into(), upstream);
    rules.default_upstream = Some(SET_UPSTREAM.into());
    rules
}

/// What a node does unasked, for as long as it runs.
struct Upkeep {
    engine: Arc<Engine>,
    figures: Arc<Figures>,
    following: Arc<Following>,
    retention: Retention,
    keeper: Arc<Keeper>,
    /// What this node is called among those that share jobs.
    node: String,
}

impl Upkeep {
    /// Upkeep four times a second, and retention once an hour on one node; and what outages ask for.
    async fn run(self) {
        // None waits for another: a long round must not keep a key that was revoked, nor a catalog that can't be
        // read the memory from being tidied.
        tokio::join!(self.keep(), self.follow(), outages::watch(&self.engine), self.keeper.clone().keep());
    }

    async fn follow(&self) {
        let mut often = tokio::time::interval(UPKEEP_EVERY);
        often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            often.tick().await;
            let outcome = self.heed().await;
            match (&outcome, well) {
                (Err(error), true) => tracing::error!("this node can't follow the others: {error:#}"),
                (Ok(()), false) => tracing::info!("this node follows the others again"),
                _ => {}
            }
            well = outcome.is_ok();
        }
    }

    async fn keep(&self) {
        let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = tokio::time::Instant::now();
        let mut retained: Option<tokio::time::Instant> = None;
        let mut well = true;
        loop {
            upkeep.tick().await;
            let outcome = self.engine.upkeep().await;
            match (&outcome, well) {
                (Err(error), true) => tracing::error!("requests may be refused until this is over: {error}"),
                (Ok(()), false) => tracing::info!("the ledger is back"),
                _ => {}
            }
            well = outcome.is_ok();
            if !well {
                self.figures.upkeep_failed();
            } else if looked.elapsed() >= RETENTION_TURN && retained.is_none_or(|at| at.elapsed() >= RETENTION_EVERY) {
                looked = tokio::time::Instant::now();
                match self.retain().await {
                    Ok(true) => retained = Some(looked),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(%error, "what is past its time could not be dropped; the next round tries again");
                    }
                }
            }
        }
    }

    async fn heed(&self) -> anyhow::Result<()> {
        match self.engine.signals().await? {
            Some(signals) => self.following.heed(signals).await,
            None => Ok(()),
        }
    }

    /// Whether it was this node's turn.
    async fn retain(&self) -> Result<bool, EngineError> {
        let claim = |held: Duration| self.engine.claim("retention", &self.node, held.as_millis() as i64);
        if claim(RETENTION_TURN).await?.is_none() {
            return Ok(false);
        }
        let mut work = std::pin::pin!(self.engine.retain(self.retention));
        loop {
            match tokio::time::timeout(RETENTION_TURN / 4, &mut work).await {
                Ok(done) => break done?,
                // Whoever has it now does the rest.
                Err(_) if claim(RETENTION_TURN).await?.is_none() => return Ok(false),
                Err(_) => {}
            }
        }
        // It is nobody's turn until then.
        claim(RETENTION_EVERY).await?;
        Ok(true)
    }
}
