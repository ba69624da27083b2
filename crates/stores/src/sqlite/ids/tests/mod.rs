//! The index against a map that forgets nothing.
#![allow(clippy::unwrap_used)]

mod damage;
mod memory;
mod model;
mod slices;

use super::{IdIndex, Moment, Options, upkeep::Slice};
use engine::ports::{Lookup, Seq};
use rusqlite::Connection;
use std::collections::BTreeMap;

const DAY_MS: i64 = 86_400_000;
const WINDOW_MS: i64 = 16 * DAY_MS;

/// The `n`th of an endless row of uniform ids.
fn id(n: u64) -> u128 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let high = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    u128::from(high) << 64 | u128::from(mix(high ^ n))
}

/// An index, its database, and what it must know.
struct World {
    conn: Connection,
    index: IdIndex,
    options: Options,
    /// The journal: id and arrival of every position.
    journal: BTreeMap<Seq, (u128, i64)>,
    next: Seq,
    committed: Seq,
    now_ms: i64,
}

impl World {
    fn new(options: Options) -> Self {
        let conn = Connection::open_in_memory().unwrap();
        IdIndex::create_tables(&conn).unwrap();
        let (index, replay_after) = IdIndex::open(&conn, options).unwrap();
        assert_eq!(replay_after, 0);
        Self { conn, index, options, journal: BTreeMap::new(), next: 1, committed: 0, now_ms: 1_000 * DAY_MS }
    }

    fn small() -> Self {
        Self::new(Options { filter_budget_bytes: 1 << 20, seal_ids: 300, seal_positions: 2_000 })
    }

    fn insert(&mut self, count: u64) {
        for _ in 0..count {
            self.index.insert(id(self.next), self.next);
            self.journal.insert(self.next, (id(self.next), self.now_ms));
            self.next += 1;
        }
    }

    fn commit(&mut self) {
        self.committed = self.next - 1;
    }

    fn moment(&self) -> Moment {
        Moment { committed_seq: self.committed, now_ms: self.now_ms, dedupe_ms: WINDOW_MS }
    }

    fn maintain(&mut self, units: usize) -> bool {
        let moment = self.moment();
        let mut upkeep = self.index.upkeep.lock();
        self.index.slice(&mut upkeep, &mut self.conn, moment, Slice::Units(units)).unwrap()
    }

    fn settle(&mut self) {
        while self.maintain(10_000) {}
    }

    /// Everything that was not committed is lost.
    fn crash(&mut self) {
        self.journal.split_off(&(self.committed + 1));
        self.next = self.committed + 1;
        self.index = self.opened();
    }

    /// A new index on the same database.
    fn opened(&self) -> IdIndex {
        let (index, replay_after) = IdIndex::open(&self.conn, self.options).unwrap();
        assert!(replay_after <= self.committed, "sealed what was not committed");
        for (seq, (id, _)) in self.journal.range(replay_after + 1..) {
            index.insert(*id, *seq);
        }
        index
    }

    fn bound(&self, index: &IdIndex, id: u128) -> Option<Seq> {
        match index.find(id) {
            Lookup::Bound(seq) => Some(seq),
            Lookup::Fresh => None,
            Lookup::Unsure { .. } => index.find_on_disk(&self.conn, id).unwrap(),
        }
    }

    /// Every id inside the window is known, no other is.
    fn check(&self, index: &IdIndex) {
        for (seq, (id, arrived_ms)) in &self.journal {
            let found = self.bound(index, *id);
            let inside = arrived_ms + WINDOW_MS >= self.now_ms;
            assert!(found == Some(*seq) || (found.is_none() && !inside), "id of {seq}: {found:?}, inside: {inside}");
        }
        for never in self.next..self.next + 50 {
            assert_eq!(self.bound(index, id(never)), None);
        }
    }
}
