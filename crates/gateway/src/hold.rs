//! What an answer is expected to cost is held before the request goes on, and settled when the answer ends, whoever
//! ended it. While the ledger can't be written its settlement waits for it, as long as one is accepted. Should the node
//! die in between, what was held lapses by itself.

use crate::{
    reserve::Reserve,
    settle::{Pledge, Settler},
};
use domain::{
    hold::{Excess, HoldId, Settlement},
    id::TenantId,
    in_flight::IN_FLIGHT_MAX,
    op::OpError,
    time::DAY_MS,
};
use engine::{
    Engine,
    ports::LedgerError,
    requests::{Ack, Admission, Check, EngineError, HoldAsk},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinHandle, time};
use wire::catalog::ChargeWhen;

/// How long what is expected is held, milliseconds. An answer that takes longer is settled late, which a hold allows for
/// a day; what a node that died held is free again after this.
const HELD_MS: i64 = 3_600_000;

/// For how long a settlement is tried: until none is accepted any more.
const TRIED_FOR: Duration = Duration::from_millis((HELD_MS + DAY_MS) as u64);

/// The pause before a settlement is tried again: the first, each next twice as long, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How often it is tried while somebody may wait for it: a second and a half, the pauses together.
const PROMPT_TRIES: usize = 5;

/// How long the ledger is asked to release what it was too slow to hold, before it is taken to be away.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a ledger is believed that it does not know what may have been held: what was under way is there by then. (A
/// statement may take ten seconds.)
const SECOND_LOOK: Duration = Duration::from_secs(60);

const WHAT: &str = "the settlement of what was held";

/// How many settlements may wait for the ledger, all tenants together: one for each hold there is, of ten tenants that
/// have as many in flight as one may.
const WAITING_MAX: usize = 10 * IN_FLIGHT_MAX;

/// How many releases of what may have been held may wait. More lapse by themselves.
const DOUBTS_MAX: usize = IN_FLIGHT_MAX;

/// Places for settlements that wait.
#[derive(Clone)]
pub(crate) struct Waiting {
    settlements: Arc<Semaphore>,
    doubts: Arc<Semaphore>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { settlements: Arc::new(Semaphore::new(WAITING_MAX)), doubts: Arc::new(Semaphore::new(DOUBTS_MAX)) }
    }
}

/// A hold, and how it ends.
struct Ending {
    engine: Arc<Engine>,
    tenant: TenantId,
    id: HoldId,
    how: Settlement,
}

impl Ending {
    /// Tries it once. It is bound to an id of its own: however often it is tried, it is done once.
    async fn once(&self) -> Result<(), EngineError> {
        self.engine.healthy()?;
        // Boxed: who waits to try again shall be small.
        Box::pin(self.engine.settle(&self.tenant, self.id, &self.how)).await.map(drop)
    }

    /// Tries it until the ledger says something else than that it can't be written, so often, or for so long.
    async fn until_told(&self, tries_max: usize) -> Result<(), EngineError> {
        let (began, mut pause) = (time::Instant::now(), PAUSE);
        for _ in 1..tries_max {
            match self.once().await {
                Err(EngineError::Ledger(_)) if began.elapsed() < TRIED_FOR => time::sleep(pause).await,
                told => return told,
            }
            pause = PAUSE_MAX.min(pause * 2);
        }
        self.once().await
    }
}

impl Settler {
    fn ending(&self, tenant: &TenantId, id: HoldId, how: Settlement) -> Ending {
        Ending { engine: self.engine.clone(), tenant: tenant.clone(), id, how }
    }

    /// Settles a hold. What is given ends when it is settled, or waits for a ledger that is away.
    pub(crate) fn settle_hold(&self, tenant: &TenantId, id: HoldId, how: Settlement) -> JoinHandle<()> {
        let (settler, ending) = (self.clone(), self.ending(tenant, id, how));
        self.run(WHAT, async move {
            match ending.until_told(PROMPT_TRIES).await {
                Err(error @ EngineError::Ledger(_)) => settler.settle_later(ending, error),
                told => told,
            }
        })
    }

    /// Settles a hold when the ledger can be written again. Nobody waits for that, not even the end of the process.
    fn settle_later(self, ending: Ending, error: EngineError) -> Result<(), EngineError> {
        let Ok(place) = self.waiting.settlements.clone().try_acquire_owned() else { return Err(error) };
        self.clone().spawn(async move {
            if let Err(error) = ending.until_told(usize::MAX).await {
                self.unsettled(WHAT, &error);
            }
            drop(place);
        });
        Ok(())
    }

    /// Releases what may have been held, once the ledger can say so. Nobody waits for it: it lapses by itself as well.
    pub(crate) fn release_in_doubt(&self, tenant: &TenantId, id: HoldId) {
        let Ok(place) = self.waiting.doubts.clone().try_acquire_owned() else { return };
        let ending = self.ending(tenant, id, Settlement::Release);
        self.spawn(async move {
            let told = match ending.until_told(usize::MAX).await {
                Err(error) if is_unknown(&error) => {
                    time::sleep(SECOND_LOOK).await;
                    ending.until_told(usize::MAX).await
                }
                told => told,
            };
            if let Some(error) = told.err().filter(|error| !is_unknown(error)) {
                tracing::error!(%error, "what may have been held was not released");
            }
            drop(place);
        });
    }
}

/// Whether there was nothing to settle.
fn is_unknown(error: &EngineError) -> bool {
    matches!(error, EngineError::Op(OpError::UnknownHold) | EngineError::UnknownTenant(_))
}

/// What was taken for a request: charged or held. Dropped, it is given back.
pub(crate) struct Taken {
    pub(crate) admission: Admission,
    pub(crate) reserve: Reserve,
    pub(crate) pledge: Pledge,
}

impl Taken {
    pub(crate) fn new(settler: &Settler, mut admission: Admission, check: &Check, charge_when: ChargeWhen) -> Self {
        let reserve = Reserve::new(settler, &admission, &check.charges);
        let pledge = Pledge::new(settler, &mut admission, charge_when);
        Self { admission, reserve, pledge }
    }
}

/// Asks the engine for what a request costs: charged at once, or all of it held where a part is only `expected`.
///
/// What is held is held by the ledger alone. While that is away, and limits are open, it is charged at once instead.
///
/// # Errors
/// As [`engine::Engine::admit`].
pub(crate) async fn take(
    settler: &Settler,
    check: &Check,
    expected: bool,
    charge_when: ChargeWhen,
) -> Result<Taken, EngineError> {
    if !expected || settler.engine.is_in_outage() {
        let admission = settler.engine.admit(check, Ack::Disk).await?;
        return Ok(Taken::new(settler, admission, check, charge_when));
    }
    let (known, check) = (settler.clone(), check.clone());
    // In a task of its own: who goes away meanwhile leaves a pledge behind that releases what was held.
    let taking = settler.run_to_end(async move {
        let admission = hold(&known, &check).await?;
        Ok(Taken::new(&known, admission, &check, charge_when))
    });
    taking.await.unwrap_or_else(|_| Err(LedgerError::Unwritable("the hold could not be taken".into()).into()))
}

async fn hold(settler: &Settler, check: &Check) -> Result<Admission, EngineError> {
    let engine = &settler.engine;
    let ask = HoldAsk { ttl_ms: HELD_MS, excess: Excess::Overage, fresh: settler.names.draw() };
    let held = Check { hold: Some(ask), ..check.clone() };
    let error = match engine.admit(&held, Ack::Disk).await {
        // Of these nothing is written.
        Err(EngineError::Ledger(error)) if !matches!(error, LedgerError::Overloaded { .. }) => error,
        answered => return answered,
    };
    // It may have been written all the same.
    if !matches!(error, LedgerError::Unwritable(_)) || !engine.passes_outages() {
        settler.release_in_doubt(&check.tenant, HoldId(ask.fresh));
        return Err(error.into());
    }
    // Where the ledger still answers, it shall not be in the way of what is charged in its stead.
    let release = settler.ending(&check.tenant, HoldId(ask.fresh), Settlement::Release);
    if !matches!(time::timeout(PATIENCE, release.once()).await, Ok(Ok(()))) {
        settler.release_in_doubt(&check.tenant, HoldId(ask.fresh));
    }
    engine.admit(check, Ack::Disk).await
}
