//! A seeded world of many nodes: engines on one simulated database, each by a clock that is never quite right, while
//! messages are held back, lost, sent twice and overtaken, rows are kept, and nodes are paused, killed and started again.
//! Clients ask all of them at once, and ask again what was not answered. Afterwards an auditor goes through the entries
//! in their order and judges every answer.

mod attempts;
mod bugs;
mod chance;
mod database;
mod history;
mod judge;
mod known;
mod node_ledger;
mod node_port;
mod nodes;
mod outages;
mod queue;
mod run;
mod script;
mod shrink;
mod tasks;

pub use bugs::Bug;
pub use chance::Weather;
pub use outages::audit_outages;
pub use script::Size;
pub use shrink::shrunken;

use crate::random::Random;
use domain::{catalog::Catalog, lease::Terms};
use engine::{EngineOptions, LeaseOptions};
use run::Cluster;
use script::Step;

/// A world before anything has happened in it.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    size: Size,
    /// How many clients ask at once.
    clients: usize,
    weather: Weather,
    /// How far a node's clock may be off.
    jitter_ms: i64,
    options: EngineOptions,
    catalogs: Vec<(String, Catalog)>,
    script: Vec<(usize, Step)>,
    bug: Option<Bug>,
}

impl Plan {
    /// What a seed draws. A size of no nodes leaves their number to the seed.
    pub fn draw(seed: u64, nodes: usize, steps: usize, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed ^ 0x5eed_c1a5_7e12_0000);
        let nodes = if nodes == 0 { 2 + random.below(3) as usize } else { nodes };
        let crowded = random.percent(50);
        let tenants = if crowded { 1 } else { 1 + random.below(3) as usize };
        let in_flight = *random.pick(&[0, 15, 45]);
        let size = Size { nodes, tenants, steps, crowded, in_flight };
        let jitter_ms = *random.pick(&[0, 50, 900]);
        let drawn = script::catalogs(&mut random, crowded).into_iter().enumerate();
        let catalogs: Vec<_> = drawn.map(|(number, catalog)| (format!("catalog {number}"), catalog)).collect();
        let options = EngineOptions {
            checkpoint_every_ms: *random.pick(&[0, 500, 60_000]),
            flush_denials_every_ms: *random.pick(&[0, 10_000, 600_000]),
            leases: LeaseOptions {
                lost_within_ms: *random.pick(&[1_000, i64::MAX]),
                lasts_ms: *random.pick(&[50, 400, 1_000]),
                terms: *random.pick(&[Terms { first: 4, least: 1, share: 2, stale_ms: 500 }, Terms::DEFAULT]),
            },
            ..crate::workload::options(&mut random)
        };
        let steps = script::draw(&mut random, size, catalogs.len(), jitter_ms);
        Self {
            seed,
            size,
            clients: *random.pick(&[1, 3, 6, 12]),
            weather: Weather::draw(&mut random),
            jitter_ms,
            options,
            catalogs,
            script: steps.into_iter().enumerate().collect(),
            bug,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run(&self) -> Result<Tally, String> {
        self.run_and_tell().0
    }

    /// Runs it, and gives its history as well, one line per call.
    pub fn run_and_tell(&self) -> (Result<Tally, String>, Vec<String>) {
        let mut cluster = Cluster::new(self);
        let ran = cluster.run();
        let judged = ran.and_then(|()| judge::judge(&mut cluster));
        let history = if judged.is_err() { history::lines(&cluster) } else { Vec::new() };
        (judged, history)
    }
}

/// What happened in a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub attempts: u64,
    /// Entries committed.
    pub entries: u64,
    /// Answers that were judged by the state they were given on.
    pub judged: u64,
    /// Folds written.
    pub folds: u64,
    /// Entries committed under leases.
    pub leased: u64,
    /// Holds taken, settled or lapsed.
    pub holds: u64,
    /// Sessions opened, touched or ended.
    pub sessions: u64,
    /// Draws from grants.
    pub draws: u64,
    /// Warnings given.
    pub warnings: u64,
}

impl Tally {
    /// Adds what happened in another world.
    pub fn add(&mut self, other: &Tally) {
        self.attempts += other.attempts;
        self.entries += other.entries;
        self.judged += other.judged;
        self.folds += other.folds;
        self.leased += other.leased;
        self.holds += other.holds;
        self.sessions += other.sessions;
        self.draws += other.draws;
        self.warnings += other.warnings;
    }
}

/// Runs the world of a seed.
///
/// # Errors
/// What was wrong, with a history that was made as short as could be.
pub fn audit(seed: u64, nodes: usize, steps: usize) -> Result<Tally, String> {
    let plan = Plan::draw(seed, nodes, steps, None);
    plan.run().map_err(|wrong| format!("seed {seed}: {wrong}\n{}", shrunken(&plan)))
}
