//! What a request owes when it is over, whoever ended it: charges given back, and charges measured afterwards. Both
//! are settled on drop, by a task of their own, so that no vanished client can stop them.

use crate::{hold::Waiting, names::Names, observe::GatewayObserver};
use domain::{
    hold::{HoldId, Settlement},
    id::{MeterKey, TenantId, UserId},
    op::{Charge, Dimensions},
};
use engine::{
    Engine,
    ports::LedgerError,
    requests::{Admission, Charged, EngineError},
};
use http::StatusCode;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};
use wire::catalog::ChargeWhen;

/// How often a settlement is tried while the ledger has too much to do, and the pause between.
const TRIES_MAX: usize = 20;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// Runs settlements to their end.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) engine: Arc<Engine>,
    observer: Arc<dyn GatewayObserver>,
    runtime: Handle,
    open: Arc<Open>,
    pub(crate) names: Arc<Names>,
    pub(crate) waiting: Waiting,
}

#[derive(Default)]
struct Open {
    count: AtomicUsize,
    none_left: Notify,
}

impl Settler {
    /// Settlements run on the runtime that this is called on; `None` outside one.
    pub(crate) fn new(engine: Arc<Engine>, observer: Arc<dyn GatewayObserver>) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        Some(Self {
            engine,
            observer,
            runtime,
            open: Arc::default(),
            names: Arc::default(),
            waiting: Waiting::default(),
        })
    }

    /// Waits until nothing is left to settle.
    pub(crate) async fn settled(&self) {
        loop {
            let none_left = self.open.none_left.notified();
            if self.open.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Runs something on the runtime of the gateway.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Runs something to its end, even if nobody waits for it any more.
    pub(crate) fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(work)
    }

    /// Settles something, tried again while the ledger has too much to do.
    pub(crate) fn settle<F: Future<Output = Result<(), EngineError>> + Send>(
        &self,
        what: &'static str,
        work: impl FnMut() -> F + Send + 'static,
    ) {
        drop(self.run(what, async move { patiently(work).await }));
    }

    pub(crate) fn run(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<(), EngineError>> + Send + 'static,
    ) -> JoinHandle<()> {
        self.open.count.fetch_add(1, Ordering::AcqRel);
        let (open, settler) = (self.open.clone(), self.clone());
        self.runtime.spawn(async move {
            if let Err(error) = work.await {
                settler.unsettled(what, &error);
            }
            if open.count.fetch_sub(1, Ordering::AcqRel) == 1 {
                open.none_left.notify_waiters();
            }
        })
    }
}

impl Settler {
    /// Tells that something is never settled.
    pub(crate) fn unsettled(&self, what: &'static str, error: &EngineError) {
        tracing::error!(%error, "{what} could not be recorded");
        self.observer.unsettled(what);
    }

    /// Gives back what was charged.
    pub(crate) fn give_back(&self, tenant: &TenantId, user: Option<&UserId>, charged: Charged) -> JoinHandle<()> {
        let (engine, tenant, user) = (self.engine.clone(), tenant.clone(), user.cloned());
        let work = async move {
            patiently(|| async {
                let commit = engine.refund(&tenant, user.as_ref(), &charged).await?;
                Ok(commit.wait().await?)
            })
            .await
        };
        self.run("a charge given back", work)
    }

    /// Charges what was measured afterwards.
    pub(crate) fn measured(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        charges: Vec<Charge>,
        dimensions: Dimensions,
    ) {
        let (engine, tenant, user) = (self.engine.clone(), tenant.clone(), user.cloned());
        let work = async move {
            patiently(|| async {
                let commit = engine.measured(&tenant, user.as_ref(), charges.clone(), dimensions.clone()).await?;
                Ok(commit.wait().await?)
            })
            .await
        };
        drop(self.run("a measured charge", work));
    }
}

/// Repeats what the ledger was too busy for. Nothing was recorded by a try that failed so.
pub(crate) async fn patiently<F: Future<Output = Result<(), EngineError>>>(
    mut work: impl FnMut() -> F,
) -> Result<(), EngineError> {
    for _ in 1..TRIES_MAX {
        match work().await {
            Err(EngineError::Ledger(LedgerError::Overloaded { .. })) => tokio::time::sleep(TRY_PAUSE).await,
            other => return other,
        }
    }
    work().await
}

/// What was taken for a request before it goes on.
enum Stake {
    Charged(Charged),
    Held(HoldId),
}

/// A charge, or a hold, that stands only if its condition comes true. Dropped before, it is given back.
pub(crate) struct Pledge {
    settler: Settler,
    tenant: TenantId,
    user: Option<UserId>,
    stake: Option<Stake>,
    charge_when: ChargeWhen,
    on_its_way: bool,
}

impl Pledge {
    pub(crate) fn new(settler: &Settler, admission: &mut Admission, charge_when: ChargeWhen) -> Self {
        Self {
            settler: settler.clone(),
            tenant: admission.tenant.clone(),
            user: admission.user.clone(),
            stake: match admission.hold {
                Some(hold) => Some(Stake::Held(hold.id)),
                None => admission.charged.take().filter(|charged| !charged.is_nothing()).map(Stake::Charged),
            },
            charge_when,
            on_its_way: false,
        }
    }

    /// Whether the request may reach the upstream from here on. Then a charge for reaching it stands.
    pub(crate) fn on_its_way(&mut self, on_its_way: bool) {
        self.on_its_way = on_its_way;
    }

    /// Whether it is charged only for a successful answer.
    pub(crate) fn is_for_success(&self) -> bool {
        self.charge_when == ChargeWhen::Success
    }

    /// Whether the charge stands after an answer with this status.
    pub(crate) fn stands_after(&self, status: StatusCode) -> bool {
        self.charge_when == ChargeWhen::Reached || status.as_u16() < 400
    }

    /// The charge stands. (What is held is settled when the answer ends.)
    pub(crate) fn keep(&mut self) {
        self.stake = None;
    }

    /// What was taken could not be written, as far as is known. A charge then never was; what may have been held returns.
    pub(crate) fn doubt(&mut self) {
        if let Some(Stake::Held(id)) = self.stake.take() {
            self.settler.release_in_doubt(&self.tenant, id);
        }
    }

    /// Gives the charge back, if it does not stand already, and waits until that is recorded.
    pub(crate) async fn give_back(&mut self) {
        if let Some(task) = self.begin_giving_back() {
            let _ = task.await;
        }
    }

    fn begin_giving_back(&mut self) -> Option<JoinHandle<()>> {
        let stake = self.stake.take().filter(|_| !(self.on_its_way && self.charge_when == ChargeWhen::Reached))?;
        Some(match stake {
            Stake::Charged(charged) => self.settler.give_back(&self.tenant, self.user.as_ref(), charged),
            Stake::Held(id) => self.settler.settle_hold(&self.tenant, id, Settlement::Release),
        })
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        drop(self.begin_giving_back());
    }
}

/// Bytes that are counted while a body passes, and charged when the last holder lets go.
pub(crate) struct Measure {
    settler: Settler,
    tenant: TenantId,
    user: Option<UserId>,
    meters: Vec<MeterKey>,
    dimensions: Dimensions,
    /// Meters of which one unit was charged before.
    prepaid: bool,
    bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl Measure {
    /// `None` where nothing is measured.
    pub(crate) fn new(
        settler: &Settler,
        admission: &Admission,
        meters: Vec<MeterKey>,
        prepaid: bool,
    ) -> Option<Arc<Self>> {
        (!meters.is_empty()).then(|| {
            Arc::new(Self {
                settler: settler.clone(),
                tenant: admission.tenant.clone(),
                user: admission.user.clone(),
                meters,
                dimensions: admission.dimensions.clone(),
                prepaid,
                bytes: AtomicU64::new(0),
                cancelled: AtomicBool::new(false),
            })
        })
    }

    /// So many bytes passed.
    pub(crate) fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was counted is not charged.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let bytes = i64::try_from(*self.bytes.get_mut()).unwrap_or(i64::MAX);
        let amount = bytes.min(domain::catalog::AMOUNT_MAX) - i64::from(self.prepaid);
        if amount <= 0 || *self.cancelled.get_mut() {
            return;
        }
        let charges: Vec<Charge> = self.meters.drain(..).map(|meter| Charge { meter, amount }).collect();
        let dimensions = std::mem::take(&mut self.dimensions);
        self.settler.measured(&self.tenant, self.user.as_ref(), charges, dimensions);
    }
}
