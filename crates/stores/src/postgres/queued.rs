//! An append as it waits for its commit: encoded, with its positions.

use super::queue::{Lane, Waiter};
use crate::{
    codec,
    denials::{self, Runs},
    rows::listed_plan,
};
use domain::{
    entry::{Effect, Entry},
    id::{PlanKey, TenantId},
    lease::Lease,
};
use engine::ports::{Append, Basis, Seq};
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;

/// An encoded entry.
pub(super) struct Row {
    pub(super) at_ms: i64,
    pub(super) body: Vec<u8>,
}

/// An id that is bound by the entry at a position.
pub(super) struct Bound {
    pub(super) id: u128,
    pub(super) seq: Seq,
    pub(super) hour: i32,
}

/// Leases as arrays, in PostgreSQL's own writing.
#[derive(Clone)]
pub(super) struct Leases {
    pub(super) epochs: String,
    pub(super) entries: String,
}

impl Leases {
    fn new(leases: &[Lease]) -> Self {
        let array = |number: fn(&Lease) -> u64| {
            let numbers: Vec<String> = leases.iter().map(|lease| number(lease).to_string()).collect();
            format!("{{{}}}", numbers.join(","))
        };
        Self { epochs: array(|lease| lease.epoch), entries: array(|lease| lease.entries) }
    }
}

/// An append, encoded.
pub(super) struct Queued {
    pub(super) tenant: TenantId,
    pub(super) follows: Seq,
    /// The lease it was made under; positions are places under it then.
    pub(super) under: Option<u64>,
    pub(super) rows: Vec<Row>,
    pub(super) ids: Vec<Bound>,
    pub(super) denials: Runs,
    pub(super) plan: Option<PlanKey>,
    /// The leases there are from here on, if that has changed: their epochs, and how many entries are under each.
    pub(super) leases: Option<Leases>,
    /// The catalog that was in force when they were decided: of several, the oldest.
    pub(super) catalog: u32,
    pub(super) basis: Arc<Basis>,
    pub(super) waiter: Option<Waiter>,
}

impl Queued {
    pub(super) fn new(append: Append) -> Self {
        let Append { tenant, entries, follows, under, basis, in_force, .. } = append;
        let mut queued = Self {
            follows,
            under,
            leases: None,
            rows: Vec::with_capacity(entries.len()),
            ids: Vec::new(),
            denials: Runs::default(),
            plan: None,
            catalog: u32::MAX,
            basis,
            waiter: None,
            tenant,
        };
        for (seq, entry) in (follows + 1..).zip(&entries) {
            queued.take(seq, entry);
        }
        queued.catalog = in_force.unwrap_or(queued.catalog);
        queued
    }

    fn take(&mut self, seq: Seq, entry: &Entry) {
        let at_ms = entry.at.ms();
        self.catalog = self.catalog.min(entry.catalog);
        if let Some(binding) = entry.binding {
            self.ids.push(Bound { id: binding.id, seq, hour: hour_of(at_ms) });
        }
        for effect in &entry.effects {
            match effect {
                Effect::Profile(profile) => self.plan = Some(listed_plan(profile)),
                Effect::Leases(leases) => self.leases = Some(Leases::new(leases)),
                _ => {}
            }
        }
        denials::note_entry(&mut self.denials, seq, &self.tenant, entry);
        let mut body = Vec::with_capacity(96);
        codec::encode_entry(entry, &mut body);
        // Where it will stand is not known under a lease.
        let place = [seq as i64, at_ms];
        let place = if self.under.is_some() { &place[1..] } else { &place[..] };
        codec::seal(&[self.tenant.as_str()], place, &mut body);
        self.rows.push(Row { at_ms, body });
    }

    pub(super) fn lane(&self) -> Lane {
        if self.under.is_some() { Lane::Leased } else { Lane::Main }
    }

    /// The queue it stands in.
    pub(super) fn line(&self) -> (TenantId, bool) {
        (self.tenant.clone(), self.under.is_some())
    }

    pub(super) fn last(&self) -> Seq {
        self.follows + self.rows.len() as Seq
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.body.len() + 64).sum()
    }
}

/// The hour an instant is in.
pub(super) fn hour_of(at_ms: i64) -> i32 {
    i32::try_from(at_ms.div_euclid(HOUR_MS)).unwrap_or(if at_ms < 0 { i32::MIN } else { i32::MAX })
}
