//! Keeps the sessions of streams that run: touches each in time, warns, and cuts what has reached its limit. One task
//! looks at all of them, by the engine's clock that does not jump.

use super::{SessionDemand, texts};
use crate::{settle::Settler, tap::StreamHandle};
use domain::{
    catalog::{Catalog, Enforce, SessionPolicy},
    decision::Decision,
    id::{PlanKey, TenantId, UserId},
    session::{CloseReason, SessionId, SessionState},
};
use engine::{
    Engine,
    ports::LedgerError,
    requests::EngineError,
    session::{SessionAnswer, SessionTouch, Touched},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

/// How often it is looked whether a session is to be touched.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How late a touch may be, milliseconds, before the stream is ended for want of one.
const LATE_MAX_MS: i64 = 5_000;
/// How long a stream that was cut may take to come between two events.
const END_MAX: Duration = Duration::from_secs(5);
/// When a touch is tried again that the ledger did not take, milliseconds.
const TRY_AGAIN_MS: i64 = 500;

/// A stream that runs in a session.
pub(crate) struct Stream {
    tenant: TenantId,
    user: Option<UserId>,
    id: SessionId,
    /// Whether its route refuses; `None` follows tenant and catalog.
    enforce: Option<Enforce>,
    handle: StreamHandle,
    /// When it is looked at next.
    planned: Mutex<Option<(i64, u64)>>,
    /// Until when what it runs is held, or may finish: without a touch by then it ends.
    covered_until_ms: AtomicI64,
    warned: AtomicBool,
    over: AtomicBool,
    cut: AtomicBool,
    /// It was cut, and had its time to end between two events.
    overdue: AtomicBool,
    /// Told when it is cut.
    cut_told: Notify,
    waiting: Mutex<Option<Waker>>,
}

impl Stream {
    /// Speaks into the response, where that is a stream of events.
    pub(crate) fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }

    /// Resolves when its time is over.
    pub(crate) async fn cut(&self) {
        loop {
            let told = self.cut_told.notified();
            if self.cut.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.lock().take() {
            waker.wake();
        }
    }

    /// Whether it must end at once: its time is over and it can't be ended between two events, or was not in time.
    pub(crate) fn must_break(&self, ends_by_event: bool) -> bool {
        if ends_by_event { self.overdue.load(Ordering::Acquire) } else { self.is_cut() }
    }

    /// As [`Stream::must_break`]. If not, the task is woken when it must.
    pub(crate) fn poll_break(&self, ends_by_event: bool, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        self.must_break(ends_by_event)
    }

    /// Whether its time is over.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// Everything that runs in sessions.
pub(crate) struct Keeper {
    settler: Settler,
    due: Mutex<BTreeMap<(i64, u64), Weak<Stream>>>,
    numbers: AtomicU64,
}

impl Keeper {
    /// A keeper whose task lives as long as it does.
    pub(crate) fn start(settler: &Settler) -> Arc<Self> {
        let keeper = Arc::new(Self { settler: settler.clone(), due: Mutex::default(), numbers: AtomicU64::new(0) });
        let known = Arc::downgrade(&keeper);
        settler.spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                let Some(keeper) = known.upgrade() else { return };
                keeper.look();
            }
        });
        keeper
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.settler.engine
    }

    /// Runs something to its end, even if nobody waits for it any more.
    pub(super) fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.settler.run_to_end(work)
    }

    /// A number that nobody has drawn before, here or on another node.
    pub(super) fn fresh(&self) -> u128 {
        self.settler.names.draw()
    }

    /// A stream in a session that was just opened or touched.
    pub(super) async fn stream(
        self: &Arc<Self>,
        demand: &SessionDemand,
        state: &SessionState,
        decision: &Decision,
        catalog_pin: Option<u32>,
    ) -> Arc<Stream> {
        let stream = Arc::new(Stream {
            tenant: demand.tenant.clone(),
            user: demand.user.clone(),
            id: state.session.id,
            enforce: demand.enforce,
            handle: StreamHandle::default(),
            planned: Mutex::default(),
            covered_until_ms: AtomicI64::new(i64::MAX),
            warned: AtomicBool::new(false),
            over: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            cut_told: Notify::new(),
            waiting: Mutex::default(),
        });
        let catalog = self.catalog(catalog_pin).await;
        let policy = policy_of(&catalog, &decision.plan);
        self.cover(&stream, state);
        self.plan(&stream, next_touch_ms(state, &policy, false));
        stream
    }

    /// Notes until when what a stream runs is covered by its last touch.
    fn cover(&self, stream: &Stream, state: &SessionState) {
        let until = self.engine().steady_ms().saturating_add(state.touch_within_ms()).saturating_add(LATE_MAX_MS);
        stream.covered_until_ms.store(until, Ordering::Release);
    }

    fn plan(&self, stream: &Arc<Stream>, in_ms: i64) {
        let at = self.engine().steady_ms().saturating_add(in_ms.max(1));
        let key = (at, self.numbers.fetch_add(1, Ordering::Relaxed));
        let mut due = self.due.lock();
        if let Some(before) = stream.planned.lock().replace(key) {
            due.remove(&before);
        }
        if !stream.over.load(Ordering::Acquire) {
            due.insert(key, Arc::downgrade(stream));
        }
    }

    /// The ledger does not take a touch: it is tried again, until what is held has run.
    fn try_again(&self, stream: &Arc<Stream>) {
        match self.engine().steady_ms() < stream.covered_until_ms.load(Ordering::Acquire) {
            true => self.plan(stream, TRY_AGAIN_MS),
            false => self.cut(stream, texts::lost()),
        }
    }

    fn look(self: &Arc<Self>) {
        let now = self.engine().steady_ms();
        let due: Vec<Arc<Stream>> = {
            let mut waiting = self.due.lock();
            let later = waiting.split_off(&(now + 1, 0));
            let due = std::mem::replace(&mut *waiting, later);
            due.into_values().filter_map(|stream| stream.upgrade()).collect()
        };
        for stream in due {
            let keeper = self.clone();
            self.settler.spawn(async move { keeper.touch(&stream).await });
        }
    }

    async fn touch(self: &Arc<Self>, stream: &Arc<Stream>) {
        if stream.over.load(Ordering::Acquire) {
            return;
        }
        let touch = SessionTouch { id: stream.id, close: None, enforce: stream.enforce };
        match self.engine().touch_session(&stream.tenant, touch).await {
            Ok(Touched::Now(answer)) => self.touched(stream, *answer).await,
            Ok(Touched::Before(end)) => self.cut(stream, texts::ended(&end)),
            Err(EngineError::Ledger(LedgerError::Damaged(why))) => {
                tracing::error!(%why, "a session can't be touched");
                self.try_again(stream);
            }
            Err(EngineError::Ledger(_)) => self.try_again(stream),
            Err(error) => {
                tracing::warn!(%error, "a session can't go on");
                self.cut(stream, texts::lost());
            }
        }
    }

    async fn touched(self: &Arc<Self>, stream: &Arc<Stream>, answer: SessionAnswer) {
        let catalog = self.catalog(answer.catalog_pin).await;
        let (Some(state), Some(decision)) = (&answer.state, &answer.decision) else {
            return self.cut(stream, texts::lost());
        };
        if let Some(end) = &state.ended {
            let event = match decision.denial.is_some() {
                true => texts::refused(&stream.tenant, stream.user.as_ref(), &answer, decision, &catalog),
                false => texts::ended(end),
            };
            return self.cut(stream, event);
        }
        let policy = policy_of(&catalog, &decision.plan);
        if is_to_be_warned(state, &policy) && !stream.warned.swap(true, Ordering::AcqRel) {
            stream.handle.notify(texts::warning(state, decision));
        }
        self.cover(stream, state);
        self.plan(stream, next_touch_ms(state, &policy, stream.warned.load(Ordering::Acquire)));
    }

    fn cut(&self, stream: &Arc<Stream>, event: bytes::Bytes) {
        stream.over.store(true, Ordering::Release);
        stream.cut.store(true, Ordering::Release);
        stream.handle.cut(event);
        stream.cut_told.notify_waiters();
        stream.wake();
        let stream = Arc::downgrade(stream);
        self.settler.spawn(async move {
            tokio::time::sleep(END_MAX).await;
            if let Some(stream) = stream.upgrade() {
                stream.overdue.store(true, Ordering::Release);
                stream.wake();
            }
        });
    }

    /// A stream is over: its session was used until now, and ends if it says so.
    pub(super) fn end(self: &Arc<Self>, stream: &Arc<Stream>, close: Option<CloseReason>) {
        let was_over = stream.over.swap(true, Ordering::AcqRel);
        if let Some(key) = stream.planned.lock().take() {
            self.due.lock().remove(&key);
        }
        if was_over && close.is_none() {
            return;
        }
        let enforce = stream.enforce;
        let (engine, tenant, id) = (self.engine().clone(), stream.tenant.clone(), stream.id);
        self.settler.settle("the end of a session", move || {
            let (engine, tenant) = (engine.clone(), tenant.clone());
            async move {
                let touch = SessionTouch { id, close, enforce };
                match engine.touch_session(&tenant, touch).await {
                    Ok(Touched::Now(answer)) => Ok(answer.commit.wait().await?),
                    Ok(Touched::Before(_)) | Err(EngineError::Op(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        });
    }

    async fn catalog(&self, pin: Option<u32>) -> Arc<Catalog> {
        let in_force = self.engine().catalog();
        match pin {
            None => in_force,
            Some(version) => self.engine().catalog_at(version).await.unwrap_or(in_force),
        }
    }
}

fn policy_of(catalog: &Catalog, plan: &PlanKey) -> SessionPolicy {
    catalog.plans.get(plan).map(|plan| plan.sessions).unwrap_or_default()
}

fn is_to_be_warned(state: &SessionState, policy: &SessionPolicy) -> bool {
    let left = state.may_run_ms.filter(|_| !state.session.is_finishing);
    left.zip(policy.warn_before_ms).is_some_and(|(left, before)| left <= before)
}

/// When a session is to be touched next: before what is held ahead has run, so that more is held by then; when there is
/// no more, when that has run; and when it is to be warned.
fn next_touch_ms(state: &SessionState, policy: &SessionPolicy, warned: bool) -> i64 {
    let ahead = state.touch_within_ms();
    let is_last = state.may_run_ms.is_some_and(|left| left <= ahead);
    // Touched at its idle timeout it would have ended when it was touched last.
    let idle = state.session.idle_timeout_ms;
    let touch = if is_last { ahead.min(idle - idle / 10) } else { ahead - ahead / 10 };
    let left = state.may_run_ms.filter(|_| !warned && !state.session.is_finishing);
    match left.zip(policy.warn_before_ms) {
        Some((left, before)) => touch.min((left - before).max(1)),
        None => touch,
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
