//! Nodes: an engine each, on a ledger of its own that leads to the one database, by a clock that is never quite right.

use super::{chance::Chance, database::Database, node_ledger::NodeLedger, tasks::finish};
use domain::{catalog::Catalog, time::Instant};
use engine::{
    Engine, EngineOptions,
    ports::{BoxFuture, Clock, Follower, Ledger, StoredCatalog},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, Ordering},
    },
};

/// The database's clock, and some milliseconds.
pub(super) struct NodeClock {
    database: Arc<Database>,
    pub(super) ahead_ms: AtomicI64,
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        Instant::from_ms(self.database.now_ms() + self.ahead_ms.load(Ordering::Relaxed))
    }

    fn steady_ms(&self) -> i64 {
        self.database.now_ms()
    }
}

/// Catalogs by their text.
pub(super) type Registry = Arc<BTreeMap<String, Catalog>>;

/// A catalog as it was put in force.
pub(super) fn parsed(registry: &Registry, stored: &StoredCatalog) -> Option<Catalog> {
    registry.get(&*stored.text).map(|catalog| Catalog { version: stored.version, ..catalog.clone() })
}

struct Follows {
    engine: Weak<Engine>,
    ledger: Arc<NodeLedger>,
    registry: Registry,
}

impl Follower for Follows {
    fn follow<'a>(&'a self, _in_force: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(engine) = self.engine.upgrade() else { return };
            if let Ok(Some(stored)) = self.ledger.newest_catalog().await
                && let Some(catalog) = parsed(&self.registry, &stored)
            {
                engine.adopt_catalog(catalog);
            }
        })
    }
}

/// A node.
pub(super) struct Node {
    pub(super) clock: Arc<NodeClock>,
    pub(super) ledger: Arc<NodeLedger>,
    pub(super) engine: Arc<Engine>,
    pub(super) follower: Arc<dyn Follower>,
    /// It stands still until then.
    pub(super) paused_until_ms: i64,
}

/// What nodes are made of.
pub(super) struct Makings {
    pub(super) database: Arc<Database>,
    pub(super) chance: Arc<Chance>,
    pub(super) registry: Registry,
    pub(super) options: EngineOptions,
}

impl Makings {
    /// Starts a node with the catalog in force. Nothing gets in between while it starts.
    pub(super) fn node(&self, sender: u64, ahead_ms: i64) -> Node {
        let clock = Arc::new(NodeClock { database: self.database.clone(), ahead_ms: AtomicI64::new(ahead_ms) });
        let ledger = NodeLedger::new(self.database.clone(), self.chance.clone(), clock.clone(), sender);
        let stored = self.database.state().catalogs.last().expect("there is one from the beginning").stored.clone();
        let catalog = parsed(&self.registry, &stored).expect("it is one of the world's");
        let (weather, away) = (self.chance.weather(), self.database.state().set_down_until(0));
        self.chance.calm();
        let opened = Engine::open_with(ledger.clone(), clock.clone(), catalog, &stored.text, self.options);
        let engine = finish(opened, || {}).expect("nothing keeps it from starting").expect("the engine opens");
        self.chance.set(weather);
        self.database.state().set_down_until(away);
        let follower: Arc<dyn Follower> = Arc::new(Follows {
            engine: Arc::downgrade(&engine),
            ledger: ledger.clone(),
            registry: self.registry.clone(),
        });
        engine.set_follower(follower.clone());
        Node { clock, ledger, engine, follower, paused_until_ms: 0 }
    }
}
