//! A clock that is told the time.

use domain::time::Instant;
use engine::ports::Clock;
use std::sync::atomic::{AtomicI64, Ordering};

/// Stands still until it is advanced.
pub struct SimClock(AtomicI64);

impl SimClock {
    /// A clock at an instant in RFC 3339.
    pub fn at(text: &str) -> Self {
        Self(AtomicI64::new(Instant::parse(text).expect("an instant in RFC 3339").ms()))
    }
    /// Moves it; a negative amount moves it back.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant::from_ms(self.0.load(Ordering::SeqCst))
    }
}
