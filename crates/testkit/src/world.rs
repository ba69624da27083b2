//! A small world around an engine, and short words for what tests ask of it.

use crate::{catalog::meter, clock::SimClock, faulty::FaultyLedger};
use domain::{
    catalog::{Catalog, LimitWindow},
    entry::Cause,
    id::{TenantId, UserId},
    op::{Charge, Fact, Movement, ProfileChange},
    time::{Instant, WindowKind},
    view::{MeterUsage, Usage},
};
use engine::{
    Engine, EngineOptions, LeaseOptions,
    ports::{Clock, Ledger},
    requests::{Ack, Admission, Check, EngineError, Event, OpId},
};
use std::sync::Arc;
use stores::memory::MemoryLedger;

/// Options under which loads, folds and drops happen all the time.
pub const RESTLESS: EngineOptions = EngineOptions {
    tenants_max: 1,
    users_max: 1,
    checkpoint_every_ms: 0,
    tail_max: 1,
    fold_max: 1,
    flush_denials_every_ms: 0,
    recent_ms: 0,
    leases: LeaseOptions::DEFAULT,
};

/// A tenant's name.
pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant's name")
}

/// A user's name.
pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user's name")
}

/// A charge.
pub fn charge(key: &str, amount: i64) -> Charge {
    Charge { meter: meter(key), amount }
}

/// A check that charges.
pub fn spend(of: &str, charges: Vec<Charge>) -> Check {
    Check {
        tenant: tenant(of),
        user: None,
        charges,
        features: Vec::new(),
        consume: true,
        enforce: None,
        dimensions: Vec::new(),
        id: None,
        cause: Cause::Check,
        hold: None,
        sent: None,
    }
}

/// The same check under an idempotency key.
pub fn with_id(check: Check, id: &str) -> Check {
    Check { id: Some(op_id("", id)), ..check }
}

/// The same check by a user.
pub fn by_user(check: Check, name: &str) -> Check {
    Check { user: Some(user(name)), ..check }
}

/// An idempotency key.
pub fn op_id(source: &str, id: &str) -> OpId {
    OpId { source: source.into(), id: id.into() }
}

/// An event that adds to a meter, from the source `test`.
pub fn event(of: &str, id: &str, key: &str, amount: i64) -> Event {
    Event { tenant: tenant(of), user: None, id: op_id("test", id), fact: fact(key, Movement::Add(amount)) }
}

/// A fact about one meter, now.
pub fn fact(key: &str, movement: Movement) -> Fact {
    Fact { movements: vec![(meter(key), movement)], time: None, dimensions: Vec::new(), binding: None }
}

/// A change to another plan.
pub fn to_plan(key: &str) -> ProfileChange {
    ProfileChange { plan: Some(crate::catalog::plan(key)), ..ProfileChange::default() }
}

/// Numbers of one meter.
pub fn of_meter<'a>(usage: &'a Usage, key: &str) -> &'a MeterUsage {
    usage.meters.iter().find(|usage| usage.meter.key == meter(key)).expect("a meter of the catalog")
}

/// An engine on a ledger in memory behind a faulty one.
pub struct World {
    /// Tells the time.
    pub clock: Arc<SimClock>,
    /// What is durable.
    pub disk: Arc<dyn Ledger>,
    /// What the engine sees.
    pub ledger: Arc<FaultyLedger>,
    /// The engine.
    pub engine: Arc<Engine>,
    catalog: Catalog,
    text: String,
    options: EngineOptions,
}

impl World {
    /// On an empty ledger in memory.
    pub async fn new(catalog: Catalog, options: EngineOptions) -> Self {
        Self::on(MemoryLedger::new([7; 32]), catalog, options).await
    }

    /// On a ledger.
    pub async fn on(disk: Arc<dyn Ledger>, catalog: Catalog, options: EngineOptions) -> Self {
        let clock = Arc::new(SimClock::at("2027-01-15T10:00:00Z"));
        Self::at(clock, disk, catalog, options).await
    }

    /// On a ledger, by a clock.
    pub async fn at(clock: Arc<SimClock>, disk: Arc<dyn Ledger>, catalog: Catalog, options: EngineOptions) -> Self {
        Self::open(clock, disk, catalog, "first", options).await
    }

    async fn open(
        clock: Arc<SimClock>,
        disk: Arc<dyn Ledger>,
        catalog: Catalog,
        text: &str,
        options: EngineOptions,
    ) -> Self {
        let ledger = FaultyLedger::new(disk.clone());
        let engine = Engine::open_with(ledger.clone(), clock.clone(), catalog.clone(), text, options).await;
        let engine = engine.expect("the engine opens");
        Self { clock, disk, ledger, engine, catalog, text: text.to_owned(), options }
    }

    /// What a crash leaves behind: all that is durable, and nothing else.
    pub async fn crashed(self) -> Self {
        self.reopened().await
    }

    /// Another engine on what is durable. The old one must not be used any more.
    pub async fn reopened(&self) -> Self {
        self.disk.reopen().expect("the ledger opens again");
        Self::open(self.clock.clone(), self.disk.clone(), self.catalog.clone(), &self.text, self.options).await
    }

    /// The catalog that the next engine is opened with.
    pub fn set_catalog(&mut self, catalog: Catalog, text: &str) {
        self.catalog = catalog;
        self.text = text.to_owned();
    }

    /// Makes a tenant.
    pub async fn put(&self, of: &str, plan: &str) {
        self.engine.put_tenant(&tenant(of), &to_plan(plan), "test").await.expect("the tenant is made");
    }

    /// Decides and waits for the commit.
    ///
    /// # Errors
    /// Either's.
    pub async fn admit(&self, check: &Check) -> Result<Admission, EngineError> {
        admit(&self.engine, check).await
    }

    /// Use of a meter in the billing period, and unmet demand.
    pub async fn used(&self, of: &str, by: Option<&str>, key: &str) -> (i64, i64) {
        let by = by.map(user);
        let (_, usage) = self.engine.usage(&tenant(of), by.as_ref()).await.expect("usage is never refused");
        let meter = of_meter(&usage, key);
        (meter.used, meter.denied)
    }

    /// Use that counts against the limits on a meter in this window.
    pub async fn used_in(&self, of: &str, by: Option<&str>, key: &str, kind: WindowKind) -> Vec<i64> {
        let by = by.map(user);
        let (_, usage) = self.engine.usage(&tenant(of), by.as_ref()).await.expect("usage is never refused");
        let limits = of_meter(&usage, key).limits.iter().filter(|limit| limit.window == LimitWindow::Of(kind));
        limits.map(|limit| limit.used).collect()
    }

    /// Calls upkeep until the engine is healthy.
    pub async fn recover(&self) {
        for _ in 0..10 {
            let _ = self.engine.upkeep().await;
            if self.engine.healthy().is_ok() {
                return;
            }
        }
        panic!("the engine does not recover: {:?}", self.engine.healthy());
    }

    /// The present instant.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// Decides and waits for the commit.
///
/// # Errors
/// Either's.
pub async fn admit(engine: &Engine, check: &Check) -> Result<Admission, EngineError> {
    let mut admission = engine.admit(check, Ack::Disk).await?;
    std::mem::replace(&mut admission.commit, engine::ports::Commit::Done).wait().await?;
    Ok(admission)
}
