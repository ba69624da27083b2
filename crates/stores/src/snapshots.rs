//! What all stores do alike with snapshots.

use domain::{
    day::Day,
    id::{MeterKey, TenantId},
};
use engine::ports::{MeterSnapshots, Snapshot, SnapshotSource, Taken, TenantSnapshots};
use rustc_hash::FxHasher;
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// Tenants share so many numbers.
const SLOTS: usize = 1024;

/// What [`Snapshots::version`](engine::ports::Snapshots::version) tells, in a ledger that one process writes alone.
pub(crate) struct Versions(Box<[AtomicU64]>);

impl Default for Versions {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Versions {
    fn slot(&self, tenant: &TenantId) -> &AtomicU64 {
        let mut hasher = FxHasher::default();
        tenant.as_str().hash(&mut hasher);
        &self.0[(hasher.finish() >> 32) as usize % SLOTS]
    }

    pub(crate) fn of(&self, tenant: &TenantId) -> u64 {
        self.slot(tenant).load(Ordering::Acquire)
    }

    /// These rows are there for whoever reads from now on.
    pub(crate) fn written(&self, rows: &[Snapshot]) {
        for row in rows {
            self.slot(&row.tenant).fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Puts rows in the order in which they are kept (day, tenant, meter), and of two of one place keeps the one that was
/// observed later, of equals the later one.
pub(crate) fn ordered(rows: Vec<Snapshot>) -> Vec<Snapshot> {
    let mut places: BTreeMap<(Day, TenantId, MeterKey), Taken> = BTreeMap::new();
    for Snapshot { tenant, meter, taken } in rows {
        let known = places.entry((taken.day, tenant, meter)).or_insert(taken);
        if taken.observed_at >= known.observed_at {
            *known = taken;
        }
    }
    places.into_iter().map(|((_, tenant, meter), taken)| Snapshot { tenant, meter, taken }).collect()
}

/// What the number in a row stands for.
pub(crate) fn source(number: i64) -> Option<SnapshotSource> {
    usize::try_from(number).ok().and_then(|index| SnapshotSource::ALL.get(index).copied())
}

/// Gathers rows that come day by day, each day in order of tenant and meter, into one list per tenant and meter.
///
/// Most days have the same tenants and meters, so that the place of the next row is nearly always the next one: nothing
/// is looked up and no name is made twice.
#[derive(Default)]
pub(crate) struct Gathering {
    tenants: Vec<TenantSnapshots>,
    tenant: usize,
    meter: usize,
    day: Option<Day>,
}

impl Gathering {
    /// Adds the next row.
    pub(crate) fn add(&mut self, tenant: &str, meter: &str, taken: Taken) {
        if self.day != Some(taken.day) {
            (self.day, self.tenant, self.meter) = (Some(taken.day), 0, 0);
        }
        while self.tenants.get(self.tenant).is_some_and(|known| known.tenant.as_str() < tenant) {
            (self.tenant, self.meter) = (self.tenant + 1, 0);
        }
        if self.tenants.get(self.tenant).is_none_or(|known| known.tenant.as_str() != tenant) {
            self.tenants.insert(self.tenant, TenantSnapshots { tenant: TenantId::trusted(tenant), meters: Vec::new() });
            self.meter = 0;
        }
        let meters = &mut self.tenants[self.tenant].meters;
        while meters.get(self.meter).is_some_and(|known| known.meter.as_str() < meter) {
            self.meter += 1;
        }
        if meters.get(self.meter).is_none_or(|known| known.meter.as_str() != meter) {
            meters.insert(self.meter, MeterSnapshots { meter: MeterKey::trusted(meter), days: Vec::new() });
        }
        meters[self.meter].days.push(taken);
    }

    /// All tenants, in order.
    pub(crate) fn tenants(self) -> Vec<TenantSnapshots> {
        self.tenants
    }

    /// The meters of the only tenant.
    pub(crate) fn meters(mut self) -> Vec<MeterSnapshots> {
        self.tenants.pop().map_or_else(Vec::new, |tenant| tenant.meters)
    }
}
