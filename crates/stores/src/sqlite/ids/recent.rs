//! Ids that are in no sealed run yet, in memory.

use engine::ports::Seq;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::atomic::{AtomicUsize, Ordering},
};

/// How many parts the map has. A part is chosen by an id's top bits, so the parts in turn give ids in order.
pub(super) const SHARDS: usize = 256;

/// An id as two words: as a `u128` it would take 32 bytes beside its position, not 24.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
}

impl Key {
    fn new(id: u128) -> Self {
        Self { high: (id >> 64) as u64, low: id as u64 }
    }

    fn id(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// Ids are keyed hashes already: their bits serve as they are.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

type Shard = HashMap<Key, Seq, BuildHasherDefault<AsIs>>;

/// One lock to a cache line, so that threads do not wait for each other's lines.
#[repr(align(64))]
#[derive(Default)]
struct Aligned(Mutex<Shard>);

/// Recent ids.
pub(super) struct Recent {
    shards: Box<[Aligned]>,
    len: AtomicUsize,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Aligned::default()).collect(), len: AtomicUsize::new(0) }
    }

    pub(super) fn insert(&self, id: u128, seq: Seq) {
        match self.shard(id).lock().entry(Key::new(id)) {
            Entry::Occupied(mut bound) => {
                bound.insert(seq);
            }
            Entry::Vacant(free) => {
                free.insert(seq);
                self.len.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn get(&self, id: u128) -> Option<Seq> {
        self.shard(id).lock().get(&Key::new(id)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The ids of one part that are bound at or before `cut`, in order.
    pub(super) fn sorted_through(&self, shard: usize, cut: Seq) -> Vec<(u128, Seq)> {
        let mut ids: Vec<_> = {
            let shard = self.shards[shard].0.lock();
            shard.iter().filter(|(_, seq)| **seq <= cut).map(|(key, seq)| (key.id(), *seq)).collect()
        };
        ids.sort_unstable();
        ids
    }

    /// Forgets what is bound at or before `cut`, and gives memory back that a burst has taken.
    pub(super) fn forget_through(&self, cut: Seq) {
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            let before = shard.len();
            shard.retain(|_, seq| *seq > cut);
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
            if shard.capacity() > before.saturating_mul(4) {
                shard.shrink_to(before);
            }
        }
    }

    fn shard(&self, id: u128) -> &Mutex<Shard> {
        &self.shards[(id >> 120) as usize].0
    }
}
