//! Snapshots in memory.

use crate::snapshots::{Gathering, Versions, ordered};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
};
use engine::ports::{
    BoxFuture, Days, LedgerError, MeterSnapshots, Snapshot, SnapshotRun, Snapshots, Taken, TenantSnapshots,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
struct Book {
    rows: BTreeMap<(Day, TenantId, MeterKey), Taken>,
    runs: BTreeMap<Day, SnapshotRun>,
}

/// A book of snapshots in memory.
#[derive(Default)]
pub struct MemorySnapshots {
    book: Mutex<Book>,
    versions: Versions,
}

impl MemorySnapshots {
    fn with<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Book) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        Box::pin(async move { Ok(work(&mut self.book.lock())) })
    }
}

impl Book {
    fn gather(&self, days: Days, mut is_asked: impl FnMut(&TenantId) -> bool) -> Gathering {
        let mut gathering = Gathering::default();
        let of_days = self.rows.iter().filter(|((day, ..), _)| days.first <= *day && *day <= days.last);
        for ((_, tenant, meter), taken) in of_days.filter(|((_, tenant, _), _)| is_asked(tenant)) {
            gathering.add(tenant.as_str(), meter.as_str(), *taken);
        }
        gathering
    }
}

impl Snapshots for MemorySnapshots {
    fn put<'a>(&'a self, rows: Vec<Snapshot>) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(|book| {
            self.versions.written(&rows);
            for Snapshot { tenant, meter, taken } in ordered(rows) {
                let known = book.rows.entry((taken.day, tenant, meter)).or_insert(taken);
                if taken.observed_at >= known.observed_at {
                    *known = taken;
                }
            }
        })
    }

    fn of_tenant<'a>(
        &'a self,
        tenant: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<MeterSnapshots>, LedgerError>> {
        self.with(move |book| book.gather(days, |whose| whose == tenant).meters())
    }

    fn of_tenants<'a>(
        &'a self,
        after: Option<&'a TenantId>,
        through: &'a TenantId,
        days: Days,
    ) -> BoxFuture<'a, Result<Vec<TenantSnapshots>, LedgerError>> {
        let is_asked = move |whose: &TenantId| after.is_none_or(|after| whose > after) && whose <= through;
        self.with(move |book| book.gather(days, is_asked).tenants())
    }

    fn version<'a>(&'a self, tenant: &'a TenantId, _days: Days) -> BoxFuture<'a, Result<u64, LedgerError>> {
        self.with(|_| self.versions.of(tenant))
    }

    fn put_run<'a>(&'a self, run: SnapshotRun) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |book| {
            book.runs.insert(run.day, run);
        })
    }

    fn runs<'a>(&'a self, days: Days) -> BoxFuture<'a, Result<Vec<SnapshotRun>, LedgerError>> {
        self.with(move |book| {
            let of_days = book.runs.values().filter(|run| days.first <= run.day && run.day <= days.last);
            of_days.copied().collect()
        })
    }

    fn drop_before<'a>(&'a self, day: Day) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.with(move |book| {
            book.rows.retain(|(of, ..), _| *of >= day);
            book.runs.retain(|of, _| *of >= day);
        })
    }
}
