//! What is left to chance: one stream of random numbers for a whole world, and how likely each fault is.

use crate::random::Random;
use parking_lot::Mutex;
use std::{future::poll_fn, sync::Arc, task::Poll};

/// How likely each fault is, in percent of the times it could happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// A message is lost on its way to the database.
    pub lost_requests: u64,
    /// A reply is lost, after what was sent is written.
    pub lost_replies: u64,
    /// What has no reply is given up instead of sent again.
    pub given_up: u64,
    /// A message is sent again while the first is still on its way.
    pub sent_again: u64,
    /// What meets a row that is kept for another node is refused instead of waiting.
    pub refused_at_rows: u64,
    /// The queue of a node says that it is full.
    pub overloaded: u64,
    /// Ids that memory can't tell about.
    pub unsure: u64,
    /// A client goes away, at every step.
    pub hung_up: u64,
    /// Others that get in between while something is read, at most.
    pub slowness: u64,
}

impl Weather {
    /// What a seed draws: in some worlds much goes wrong, in some nothing does.
    pub fn draw(random: &mut Random) -> Self {
        let mut pick = |values: &[u64]| *random.pick(values);
        Self {
            lost_requests: pick(&[0, 0, 3, 15]),
            lost_replies: pick(&[0, 0, 3, 15]),
            given_up: pick(&[0, 20, 60]),
            sent_again: pick(&[0, 0, 5, 20]),
            refused_at_rows: pick(&[0, 50, 100]),
            overloaded: pick(&[0, 0, 1]),
            unsure: pick(&[0, 0, 50]),
            hung_up: pick(&[0, 0, 1]),
            slowness: pick(&[0, 2, 6, 25]),
        }
    }
}

/// Shared by all that happens by chance in a world.
pub(super) struct Chance {
    random: Mutex<Random>,
    weather: Mutex<Weather>,
}

impl Chance {
    pub(super) fn new(seed: u64, weather: Weather) -> Arc<Self> {
        Arc::new(Self { random: Mutex::new(Random::new(seed)), weather: Mutex::new(weather) })
    }

    pub(super) fn weather(&self) -> Weather {
        *self.weather.lock()
    }

    /// Nothing goes wrong from here on.
    pub(super) fn calm(&self) {
        self.set(Weather::default());
    }

    pub(super) fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    pub(super) fn percent(&self, percent: u64) -> bool {
        percent > 0 && self.random.lock().percent(percent)
    }

    pub(super) fn below(&self, n: usize) -> usize {
        self.random.lock().below(n as u64) as usize
    }

    pub(super) fn with<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock())
    }

    /// Lets others get in between, as many as chance has it.
    pub(super) async fn dawdle(&self) {
        let slowness = self.weather().slowness;
        let yields = if slowness == 0 { 0 } else { self.with(|random| random.below(slowness + 1)) };
        for _ in 0..yields {
            give_way().await;
        }
    }
}

/// Lets others run once.
pub(super) async fn give_way() {
    let mut gave_way = false;
    poll_fn(|context| match std::mem::replace(&mut gave_way, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
