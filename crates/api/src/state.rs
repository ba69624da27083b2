//! What the API stands on.

use crate::foresight::Foresight;
use domain::time::Instant;
use engine::{Engine, ports::BoxFuture, requests::EngineError};
use http::Method;
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::sync::mpsc::Receiver;
use wire::{
    cors::CorsOrigins,
    problem::Problem,
    rescue,
    v1::snapshots::{SnapshotAsked, SnapshotLine},
};

/// Who is told of answers, and writes `/metrics`.
pub trait ApiObserver: Send + Sync {
    /// A request was answered. `route` is a pattern such as `/api/v1/tenants/{id}`, never a path with names in it, and
    /// `unmatched` where there was none.
    fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let _ = (method, route, status, took);
    }
    /// A forecast was answered; `was_held` says whether its history was in memory.
    fn foreseen(&self, was_held: bool) {
        let _ = was_held;
    }
    /// The figures, as OpenMetrics text.
    fn metrics_text(&self) -> String;
}

/// A clock that can be moved, for tests in users' own CI.
pub trait TestClock: Send + Sync {
    /// Moves the clock ahead, and tells the new instant.
    fn advance(&self, ms: i64) -> Instant;
}

/// Why a catalog was not put in force. The old one stays.
#[derive(Debug)]
pub enum CatalogRefused {
    /// It is not valid.
    Invalid(Vec<wire::catalog::Problem>),
    /// The gateway can't follow its routes.
    Gateway(String),
    /// Tenants are on plans it lacks, or the ledger failed.
    Engine(EngineError),
}

/// Puts catalogs in force, in both doors.
pub trait CatalogDesk: Send + Sync {
    /// Reads a catalog's text and puts it in force whole; gives its version.
    fn apply(&self, text: String) -> BoxFuture<'_, Result<u32, CatalogRefused>>;
}

/// Closes days, and knows how long they are kept.
pub trait SnapshotDesk: Send + Sync {
    /// Begins to close a day and tells of it line by line; `None` while one is being closed.
    fn begin(&self, asked: SnapshotAsked) -> Option<Receiver<SnapshotLine>>;
    /// How many days are kept.
    fn keep_days(&self) -> BoxFuture<'_, Result<i32, EngineError>>;
}

/// What the API is made of.
pub struct ApiParts {
    /// Decides and records.
    pub engine: Arc<Engine>,
    /// SHA-256 of the bootstrap admin key; `None` where there is none.
    pub admin_key_hash: Option<[u8; 32]>,
    /// Puts catalogs in force.
    pub catalogs: Arc<dyn CatalogDesk>,
    /// Closes days.
    pub snapshots: Arc<dyn SnapshotDesk>,
    /// Told of answers.
    pub observer: Arc<dyn ApiObserver>,
    /// Present only with `--test-clock`.
    pub test_clock: Option<Arc<dyn TestClock>>,
    /// Whether `/metrics` needs no key.
    pub metrics_open: bool,
    /// Which web pages may call from a browser.
    pub cors_origins: CorsOrigins,
    /// Random bytes from the operating system, for keys and names; `None` if it has none to give.
    pub random: fn() -> Option<[u8; 32]>,
}

/// What handlers share.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

/// See [`ApiState`].
pub struct Shared {
    /// What it is made of.
    pub parts: ApiParts,
    /// Signs tenant tokens.
    pub secret: [u8; 32],
    pub(crate) foresight: Foresight,
}

impl ApiState {
    /// The state over these parts.
    pub fn new(parts: ApiParts) -> Self {
        let secret = parts.engine.secret();
        Self(Arc::new(Shared { parts, secret, foresight: Foresight::default() }))
    }
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }
    /// A number that nobody has drawn before.
    ///
    /// # Errors
    /// A problem where the system has no randomness to give.
    pub(crate) fn fresh(&self) -> Result<u128, Problem> {
        let random = (self.parts.random)()
            .ok_or_else(|| rescue::UNAVAILABLE.problem("The system has no randomness to give; try again."))?;
        let (first, _) = random.split_at(16);
        Ok(first.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

impl Deref for ApiState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
