//! Amounts on top of the plan, as the auditor knows them: what is left of each, and what of the use came out of them.

use super::{Book, Who};
use domain::{
    catalog::Catalog,
    grant::{Grant, GrantId},
    id::MeterKey,
    time::WindowKind,
};

/// An amount on top of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantBook {
    id: GrantId,
    meter: MeterKey,
    amount: i64,
    left: i64,
    priority: i64,
    ends_ms: Option<i64>,
}

impl GrantBook {
    fn is_open(&self, now_ms: i64) -> bool {
        self.left > 0 && self.ends_ms.is_none_or(|end| now_ms < end)
    }
}

/// An amount that came out of a grant.
#[derive(Debug, Clone, PartialEq)]
pub struct Taking {
    /// Which grant.
    pub grant: GrantId,
    meter: MeterKey,
    amount: i64,
}

/// Where use may come out of, in the order in which it does: by priority, then what ends soonest; the plan's own
/// allowance, whose priority is nought, after what ends with it.
struct Pool {
    order: (i64, i64, bool, Option<GrantId>),
    room: i64,
}

impl Book {
    /// An amount was granted.
    pub fn granted(&mut self, grant: &Grant) {
        let now_ms = self.now_ms;
        self.grants.retain(|known| known.id != grant.id && known.is_open(now_ms));
        self.grants.push(GrantBook {
            id: grant.id,
            meter: grant.meter.clone(),
            amount: grant.amount,
            left: grant.amount,
            priority: grant.priority,
            ends_ms: grant.expires_at.map(|end| end.ms()),
        });
    }

    /// What was left of a grant was taken back; whether there was one.
    pub fn revoked(&mut self, id: GrantId) -> bool {
        let before = self.grants.len();
        self.grants.retain(|known| known.id != id);
        self.grants.len() < before
    }

    /// Every grant there is, and what is left of it.
    pub fn grants(&self) -> impl Iterator<Item = (GrantId, i64)> {
        self.grants.iter().map(|grant| (grant.id, grant.left))
    }

    /// What is left of the grants on a meter.
    pub fn left_of_grants(&self, meter: &MeterKey) -> i64 {
        let open = self.grants.iter().filter(|grant| grant.meter == *meter && grant.is_open(self.now_ms));
        open.map(|grant| grant.left).sum()
    }

    /// What of the use in the open window of a kind came out of grants.
    pub(super) fn drawn(&self, meter: &MeterKey, kind: WindowKind) -> i64 {
        let window = (meter.clone(), kind.index(), self.windows[kind.index()].0);
        self.drawn.get(&window).copied().unwrap_or(0)
    }

    /// Counts use, and says what of it came out of grants: nothing of what was used in a period that is over.
    pub(super) fn use_up(
        &mut self,
        who: &Who,
        meter: &MeterKey,
        amount: i64,
        windows: [(i64, i64); 5],
        catalog: &Catalog,
    ) -> Vec<Taking> {
        let mut takings = Vec::new();
        if windows[0].0 == self.windows[0].0 && self.left_of_grants(meter) > 0 {
            let mut rest = amount.max(0);
            for pool in self.pools(meter, catalog) {
                let part = rest.min(pool.room);
                rest -= part;
                let out_of = pool.order.3.filter(|_| part > 0);
                takings.extend(out_of.map(|grant| Taking { grant, meter: meter.clone(), amount: part }));
            }
        }
        self.add(who, meter, amount, windows);
        takings.iter().for_each(|taking| self.take(taking, 1, windows));
        takings
    }

    /// Gives back to grants what came out of them.
    pub(super) fn put_back(&mut self, takings: &[Taking], windows: [(i64, i64); 5]) {
        takings.iter().for_each(|taking| self.take(taking, -1, windows));
    }

    fn take(&mut self, taking: &Taking, sign: i64, windows: [(i64, i64); 5]) {
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == taking.grant) {
            grant.left = (grant.left - sign * taking.amount).clamp(0, grant.amount);
        }
        for (kind, window) in windows.iter().enumerate() {
            let drawn = self.drawn.entry((taking.meter.clone(), kind, window.0)).or_default();
            *drawn = (*drawn + sign * taking.amount).max(0);
        }
    }

    fn pools(&self, meter: &MeterKey, catalog: &Catalog) -> Vec<Pool> {
        let Some((room, ends_ms)) = self.allowance(meter, catalog) else { return Vec::new() };
        let mut pools = vec![Pool { order: (0, ends_ms, true, None), room }];
        let open = self.grants.iter().filter(|grant| grant.meter == *meter && grant.is_open(self.now_ms));
        pools.extend(open.map(|grant| Pool {
            order: (grant.priority, grant.ends_ms.unwrap_or(i64::MAX), false, Some(grant.id)),
            room: grant.left,
        }));
        pools.sort_by_key(|pool| pool.order);
        pools
    }
}
