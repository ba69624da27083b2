//! Parts of a batch, and their columns.

use super::{queued::Queued, values::Bits};
use crate::{codec, denials::Runs};
use domain::id::TenantId;
use engine::ports::{Seq, leased_entries};
use std::sync::Arc;

/// What one tenant has in a batch: appends without a gap between them.
pub(super) struct Part {
    pub(super) tenant: TenantId,
    pub(super) appends: Vec<Queued>,
    /// Says whose the entries are, once the part was sent; 0 before.
    pub(super) token: i64,
    /// Whether it was sent and never answered.
    pub(super) uncertain: bool,
    /// Whether it must be in a batch of its own.
    pub(super) alone: bool,
}

impl Part {
    pub(super) fn new(queued: Queued) -> Self {
        let tenant = queued.tenant.clone();
        Self { tenant, appends: vec![queued], token: 0, uncertain: false, alone: false }
    }

    /// Parts made of appends of one tenant, in their order.
    pub(super) fn all_of(appends: Vec<Queued>) -> Vec<Self> {
        let mut parts: Vec<Part> = Vec::new();
        for queued in appends {
            match parts.last_mut() {
                Some(part) if part.is_followed_by(&queued) => part.appends.push(queued),
                _ => parts.push(Part::new(queued)),
            }
        }
        parts
    }

    pub(super) fn follows(&self) -> Seq {
        self.appends.first().map_or(0, |first| first.follows)
    }

    /// The lease that it was made under.
    pub(super) fn under(&self) -> Option<u64> {
        self.appends.first().and_then(|first| first.under)
    }

    pub(super) fn last(&self) -> Seq {
        self.appends.last().map_or(0, Queued::last)
    }

    fn catalog(&self) -> u32 {
        self.appends.first().map_or(0, |first| first.catalog)
    }

    /// Whether an append belongs to the same part. A position alone does not say so: what was decided on another basis
    /// may stand behind the same one.
    pub(super) fn is_followed_by(&self, queued: &Queued) -> bool {
        let same_basis = self.appends.last().is_some_and(|last| Arc::ptr_eq(&last.basis, &queued.basis));
        same_basis && queued.under == self.under() && queued.follows == self.last() && queued.catalog == self.catalog()
    }
}

/// A batch as arrays. A part is named by its place, from 1 on.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) tenants: Vec<&'a str>,
    pub(super) follows: Vec<i64>,
    pub(super) lasts: Vec<i64>,
    pub(super) catalogs: Vec<i32>,
    pub(super) plans: Vec<Option<&'a str>>,
    pub(super) tokens: Vec<i64>,
    pub(super) entry_parts: Vec<i64>,
    pub(super) entry_seqs: Vec<i64>,
    pub(super) entry_at_ms: Vec<i64>,
    pub(super) entry_bodies: Vec<&'a [u8]>,
    pub(super) id_parts: Vec<i64>,
    pub(super) ids: Vec<Bits>,
    pub(super) id_seqs: Vec<i64>,
    pub(super) id_hours: Vec<i32>,
    pub(super) denials: DenialColumns<'a>,
    pub(super) lease_epochs: Vec<Option<&'a str>>,
    pub(super) lease_entries: Vec<Option<&'a str>>,
}

/// A batch of what was made under leases as arrays. Entries and ids are numbered within their part.
#[derive(Default)]
pub(super) struct LeasedColumns<'a> {
    pub(super) tenants: Vec<&'a str>,
    pub(super) epochs: Vec<i64>,
    pub(super) follows: Vec<i64>,
    pub(super) counts: Vec<i64>,
    pub(super) catalogs: Vec<i32>,
    pub(super) tokens: Vec<i64>,
    pub(super) entry_parts: Vec<i64>,
    pub(super) entry_numbers: Vec<i64>,
    pub(super) entry_at_ms: Vec<i64>,
    pub(super) entry_bodies: Vec<&'a [u8]>,
    pub(super) id_parts: Vec<i64>,
    pub(super) ids: Vec<Bits>,
    pub(super) id_numbers: Vec<i64>,
    pub(super) id_hours: Vec<i32>,
}

impl<'a> LeasedColumns<'a> {
    pub(super) fn new(parts: &'a [Part]) -> Self {
        let mut columns = Self::default();
        for (ord, part) in (1_i64..).zip(parts) {
            let follows = part.follows();
            columns.tenants.push(part.tenant.as_str());
            columns.epochs.push(part.under().unwrap_or(0) as i64);
            columns.follows.push(leased_entries(follows).unwrap_or(0) as i64);
            columns.counts.push((part.last() - follows) as i64);
            columns.catalogs.push(i32::try_from(part.catalog()).unwrap_or(i32::MAX));
            columns.tokens.push(part.token);
            for queued in &part.appends {
                for (seq, row) in (queued.follows + 1..).zip(&queued.rows) {
                    columns.entry_parts.push(ord);
                    columns.entry_numbers.push((seq - follows) as i64);
                    columns.entry_at_ms.push(row.at_ms);
                    columns.entry_bodies.push(&row.body);
                }
                for bound in &queued.ids {
                    columns.id_parts.push(ord);
                    columns.ids.push(Bits(bound.id));
                    columns.id_numbers.push((bound.seq - follows) as i64);
                    columns.id_hours.push(bound.hour);
                }
            }
        }
        columns
    }
}

/// Denials as arrays.
#[derive(Default)]
pub(super) struct DenialColumns<'a> {
    pub(super) parts: Vec<i64>,
    pub(super) ids: Vec<Bits>,
    pub(super) users: Vec<Option<&'a str>>,
    pub(super) codes: Vec<&'a str>,
    pub(super) shadows: Vec<bool>,
    pub(super) meters: Vec<Option<&'a str>>,
    pub(super) counts: Vec<i64>,
    pub(super) amounts: Vec<i64>,
    pub(super) first_at_ms: Vec<i64>,
    pub(super) last_at_ms: Vec<i64>,
    pub(super) bodies: Vec<Vec<u8>>,
}

/// The denials of each part: one run for each id, as one statement may change a row but once.
pub(super) fn runs_of(parts: &[Part]) -> Vec<Runs> {
    let of_part = |part: &Part| {
        let mut runs = Runs::default();
        for (id, fold) in part.appends.iter().flat_map(|queued| &queued.denials) {
            crate::denials::add_to(&mut runs, *id, fold.clone());
        }
        runs
    };
    parts.iter().map(of_part).collect()
}

impl<'a> Columns<'a> {
    pub(super) fn new(parts: &'a [Part], runs: &'a [Runs]) -> Self {
        let mut columns = Self::default();
        for (ord, part) in (1_i64..).zip(parts) {
            columns.tenants.push(part.tenant.as_str());
            columns.follows.push(part.follows() as i64);
            columns.lasts.push(part.last() as i64);
            columns.catalogs.push(i32::try_from(part.catalog()).unwrap_or(i32::MAX));
            columns
                .plans
                .push(part.appends.iter().rev().find_map(|queued| queued.plan.as_ref().map(|plan| plan.as_str())));
            columns.tokens.push(part.token);
            let leases = part.appends.iter().rev().find_map(|queued| queued.leases.as_ref());
            columns.lease_epochs.push(leases.map(|leases| leases.epochs.as_str()));
            columns.lease_entries.push(leases.map(|leases| leases.entries.as_str()));
            for queued in &part.appends {
                columns.take(ord, queued);
            }
        }
        for (ord, runs) in (1_i64..).zip(runs) {
            columns.denials.take(ord, runs);
        }
        columns
    }

    fn take(&mut self, ord: i64, queued: &'a Queued) {
        for (seq, row) in (queued.follows + 1..).zip(&queued.rows) {
            self.entry_parts.push(ord);
            self.entry_seqs.push(seq as i64);
            self.entry_at_ms.push(row.at_ms);
            self.entry_bodies.push(&row.body);
        }
        for bound in &queued.ids {
            self.id_parts.push(ord);
            self.ids.push(Bits(bound.id));
            self.id_seqs.push(bound.seq as i64);
            self.id_hours.push(bound.hour);
        }
    }
}

impl<'a> DenialColumns<'a> {
    pub(super) fn take(&mut self, ord: i64, runs: &'a Runs) {
        let mut sorted: Vec<_> = runs.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        for (id, fold) in sorted {
            let run = &fold.run;
            self.parts.push(ord);
            self.ids.push(Bits(id.0));
            self.users.push(run.key.user.as_ref().map(|user| user.as_str()));
            self.codes.push(run.key.code.word());
            self.shadows.push(run.key.shadow);
            self.meters.push(run.meter.as_ref().map(|meter| meter.as_str()));
            self.counts.push(run.count);
            self.amounts.push(run.amount);
            self.first_at_ms.push(run.first_at.ms());
            self.last_at_ms.push(run.last_at.ms());
            let mut body = Vec::with_capacity(96);
            codec::encode_run(run, &mut body);
            codec::seal(&[fold.tenant.as_str(), &id.to_string()], &[], &mut body);
            self.bodies.push(body);
        }
    }
}
