//! What an answer is expected to cost is held before the request goes on, and settled when the answer ends, whoever
//! ended it. Should the node die in between, what was held lapses by itself.

use crate::{
    gateway::Running,
    settle::{Settler, patiently},
};
use domain::{
    hold::{Excess, HoldId, Settlement},
    id::TenantId,
    op::OpError,
};
use engine::{
    ports::LedgerError,
    requests::{Ack, Admission, Check, EngineError, HoldAsk},
};
use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::task::JoinHandle;

/// How long what is expected is held, milliseconds. An answer that takes longer is settled late, which a hold allows for
/// a day; what a node that died held is free again after this.
const HELD_MS: i64 = 3_600_000;

/// The pause between two tries to release what may have been held in an outage.
const DOUBT_PAUSE: Duration = Duration::from_secs(5);

/// How often that is tried: until it lapses by itself.
const DOUBT_TRIES_MAX: u64 = HELD_MS as u64 / 1_000 / DOUBT_PAUSE.as_secs();

/// Names that nobody has drawn before, on any node: numbers under two keys that the system drew for this process.
#[derive(Default)]
pub(crate) struct HoldNames {
    keys: [RandomState; 2],
    drawn: AtomicU64,
}

impl HoldNames {
    fn draw(&self) -> u128 {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(number)));
        high << 64 | low
    }
}

impl Settler {
    /// Settles a hold.
    pub(crate) fn settle_hold(&self, tenant: &TenantId, id: HoldId, how: Settlement) -> JoinHandle<()> {
        let (engine, tenant) = (self.engine.clone(), tenant.clone());
        self.run("the settlement of what was held", async move {
            patiently(|| async { engine.settle(&tenant, id, &how).await.map(drop) }).await
        })
    }

    /// Releases what may have been held, once the ledger can say so. Nobody waits for it: it lapses by itself as well.
    fn release_in_doubt(&self, tenant: &TenantId, id: HoldId) {
        let (engine, tenant) = (self.engine.clone(), tenant.clone());
        self.spawn(async move {
            for _ in 0..DOUBT_TRIES_MAX {
                match engine.settle(&tenant, id, &Settlement::Release).await {
                    Err(EngineError::Ledger(_)) => tokio::time::sleep(DOUBT_PAUSE).await,
                    Ok(_) | Err(EngineError::Op(OpError::UnknownHold)) => return,
                    Err(error) => return tracing::error!(%error, "what may have been held was not released"),
                }
            }
        });
    }
}

/// Asks the engine for what a request costs: charged at once, or all of it held where a part is only `expected`.
///
/// What is held is held by the ledger alone. While that is away, and limits are open, it is charged at once instead.
///
/// # Errors
/// As [`engine::Engine::admit`].
pub(crate) async fn take(running: &Running, check: &Check, expected: bool) -> Result<Admission, EngineError> {
    let settler = &running.settler;
    let engine = &settler.engine;
    if !expected || engine.is_in_outage() {
        return engine.admit(check, Ack::Disk).await;
    }
    let ask = HoldAsk { ttl_ms: HELD_MS, excess: Excess::Overage, fresh: settler.hold_names.draw() };
    let held = Check { hold: Some(ask), ..check.clone() };
    match engine.admit(&held, Ack::Disk).await {
        Err(EngineError::Ledger(LedgerError::Unwritable(_))) if engine.passes_outages() => {
            settler.release_in_doubt(&check.tenant, HoldId(ask.fresh));
            engine.admit(check, Ack::Disk).await
        }
        answered => answered,
    }
}
