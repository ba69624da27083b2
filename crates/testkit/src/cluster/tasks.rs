//! Futures that are polled in the order that chance has it. No runtime: nothing happens that the seed does not say, also
//! where a runtime that happens to be around would ration what its futures may do.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
use tokio::task::unconstrained;

/// Whether a future has something to do.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is under way.
pub(super) struct Task<T> {
    /// The attempt it is.
    pub(super) attempt: u64,
    /// The node it runs on.
    pub(super) node: usize,
    flag: Arc<Flag>,
    future: Pin<Box<dyn Future<Output = T>>>,
}

impl<T> Task<T> {
    pub(super) fn new(attempt: u64, node: usize, future: impl Future<Output = T> + 'static) -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        Self { attempt, node, flag, future: Box::pin(unconstrained(future)) }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::Relaxed)
    }

    pub(super) fn poll(&mut self) -> Poll<T> {
        self.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.flag.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// What a future gives; `step` is done whenever it waits. `None` if that leads nowhere.
pub(super) fn finish<T>(future: impl Future<Output = T>, mut step: impl FnMut()) -> Option<T> {
    let mut future = pin!(unconstrained(future));
    for _ in 0..10_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(value);
        }
        step();
    }
    None
}
