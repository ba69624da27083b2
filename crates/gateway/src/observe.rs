//! What the gateway tells whoever counts. Nothing here names a tenant.

use std::{sync::Arc, time::Duration};

/// A request that is over: its answer was sent whole, or broke off.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The route it took; `None` where none matched.
    pub route: Option<&'a str>,
    /// The status it was answered with.
    pub status: u16,
    /// From its head to the end of its answer.
    pub duration: Duration,
    /// Bytes of the answer's body that were handed on.
    pub response_bytes: u64,
}

/// Told what happens at the gateway. Must be quick: called on the request path.
pub trait GatewayObserver: Send + Sync {
    /// A request is over.
    fn finished(&self, finished: &Finished<'_>);
    /// A request was refused because the ledger could not answer (it fails closed).
    fn refused_by_outage(&self) {}
    /// A charge given back or measured afterwards could not be recorded.
    fn unsettled(&self, what: &'static str) {
        let _ = what;
    }
}

/// Nobody counts.
#[derive(Debug, Default)]
pub struct Unobserved;

impl GatewayObserver for Unobserved {
    fn finished(&self, _finished: &Finished<'_>) {}
}

/// Tells the observer on drop.
pub(crate) struct Report {
    pub(crate) observer: Arc<dyn GatewayObserver>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) status: u16,
    pub(crate) started: std::time::Instant,
    pub(crate) response_bytes: u64,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.observer.finished(&Finished {
            route: self.route.as_deref(),
            status: self.status,
            duration: self.started.elapsed(),
            response_bytes: self.response_bytes,
        });
    }
}
