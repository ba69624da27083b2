//! Names of what the gateway makes itself: holds and sessions.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// Names that nobody has drawn before, on any node: numbers under two keys that the system drew for this process.
#[derive(Default)]
pub(crate) struct Names {
    keys: [RandomState; 2],
    drawn: AtomicU64,
}

impl Names {
    pub(crate) fn draw(&self) -> u128 {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(number)));
        high << 64 | low
    }
}
