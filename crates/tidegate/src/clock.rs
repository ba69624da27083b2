//! The clock of the process, which tests may move ahead.

use domain::time::Instant;
use engine::ports::Clock;
use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// From where on what does not jump is counted.
static STARTED: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// The system's clock plus an offset, which is zero unless `--test-clock` lets tests add to it.
#[derive(Debug, Default)]
pub struct NodeClock {
    offset_ms: AtomicI64,
}

impl NodeClock {
    /// Moves the clock ahead for good. Never back: accounts never roll back.
    fn advance_by(&self, by_ms: i64) -> Instant {
        self.offset_ms.fetch_add(by_ms.max(0), Ordering::Relaxed);
        self.now()
    }
}

impl api::TestClock for NodeClock {
    fn advance(&self, ms: i64) -> Instant {
        self.advance_by(ms)
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let real_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        Instant::from_ms(real_ms.saturating_add(self.offset_ms.load(Ordering::Relaxed)))
    }

    fn steady_ms(&self) -> i64 {
        let real_ms = i64::try_from(STARTED.elapsed().as_millis()).unwrap_or(i64::MAX);
        real_ms.saturating_add(self.offset_ms.load(Ordering::Relaxed))
    }
}
