//! Gateway traffic is folded before it is written: requests of one tenant, user and set of dimensions that wait for the
//! same commit become one row, so that the cost follows active tenants, not requests.
//!
//! Two entries may be added up when they differ in their (positive) amounts alone and nothing else of their tenant was
//! queued after the first: then the order of the two does not matter, to the fold or to anybody.

use super::queue::{Body, Row, Segment};
use domain::{
    entry::{Effect, Entry},
    id::TenantId,
};
use engine::ports::Seq;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};

/// Which rows of a segment may still be added to.
#[derive(Default)]
pub(super) struct Merge {
    /// The newest open row of each shape, by the shape's hash.
    open: FxHashMap<u64, usize>,
    /// Rows of a tenant before this index are closed.
    closed_before: FxHashMap<TenantId, usize>,
}

impl Merge {
    /// Something that can't be added to was queued for the tenant: nothing is added to its rows before `index`.
    pub(super) fn no_more_for(&mut self, tenant: &TenantId, index: usize) {
        if !self.open.is_empty() {
            self.closed_before.insert(tenant.clone(), index);
        }
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.closed_before.clear();
    }
}

impl Segment {
    /// Adds an entry to a row that differs in its amounts alone; gives that row's position.
    pub(super) fn add_to_open(&mut self, tenant: &TenantId, entry: &Entry, fold_after: Seq) -> Option<Seq> {
        if !can_be_added(entry) {
            return None;
        }
        let index = *self.merge.open.get(&shape_hash(tenant, entry))?;
        let seq = self.first + index as Seq;
        let closed = self.merge.closed_before.get(tenant).is_some_and(|before| index < *before);
        if closed || seq <= fold_after {
            return None;
        }
        let row = &mut self.rows[index];
        let Body::Open(known) = &mut row.body else { return None };
        if row.tenant != *tenant || !same_shape(known, entry) || !add_amounts(known, entry) {
            return None;
        }
        known.at = known.at.max(entry.at);
        row.at_ms = known.at.ms();
        Some(seq)
    }

    /// Queues an entry as a row of its own, to which others may be added if it is of that kind.
    pub(super) fn push_open(&mut self, tenant: &TenantId, entry: Entry) {
        let index = self.rows.len();
        if can_be_added(&entry) {
            self.merge.open.insert(shape_hash(tenant, &entry), index);
        } else {
            self.merge.no_more_for(tenant, index);
        }
        self.rows.push(Row { tenant: tenant.clone(), at_ms: entry.at.ms(), body: Body::Open(Box::new(entry)) });
    }
}

/// Only use that adds up, and nobody's idempotency key.
fn can_be_added(entry: &Entry) -> bool {
    entry.binding.is_none()
        && entry.note.is_none()
        && !entry.effects.is_empty()
        && entry.effects.iter().all(|effect| matches!(effect, Effect::Use { amount, .. } if *amount > 0))
}

fn shape_hash(tenant: &TenantId, entry: &Entry) -> u64 {
    let mut hasher = FxHasher::default();
    tenant.hash(&mut hasher);
    entry.user.hash(&mut hasher);
    entry.catalog.hash(&mut hasher);
    entry.cause.hash(&mut hasher);
    entry.dimensions.hash(&mut hasher);
    for effect in &entry.effects {
        if let Effect::Use { meter, open, .. } = effect {
            (meter, open).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn same_shape(known: &Entry, entry: &Entry) -> bool {
    let same_effect = |pair: (&Effect, &Effect)| match pair {
        (
            Effect::Use { meter, open, closed, .. },
            Effect::Use { meter: other_meter, open: other_open, closed: other_closed, .. },
        ) => meter == other_meter && open == other_open && closed == other_closed,
        _ => false,
    };
    known.user == entry.user
        && known.catalog == entry.catalog
        && known.cause == entry.cause
        && known.dimensions == entry.dimensions
        && known.effects.len() == entry.effects.len()
        && known.effects.iter().zip(&entry.effects).all(same_effect)
}

/// Adds all amounts, or none where a sum does not fit.
fn add_amounts(known: &mut Entry, entry: &Entry) -> bool {
    let amount_of = |effect: &Effect| match effect {
        Effect::Use { amount, .. } => *amount,
        _ => 0,
    };
    let sums: Option<Vec<i64>> = known
        .effects
        .iter()
        .zip(&entry.effects)
        .map(|(known, more)| amount_of(known).checked_add(amount_of(more)))
        .collect();
    let Some(sums) = sums else { return false };
    for (effect, sum) in known.effects.iter_mut().zip(sums) {
        if let Effect::Use { amount, .. } = effect {
            *amount = sum;
        }
    }
    true
}
