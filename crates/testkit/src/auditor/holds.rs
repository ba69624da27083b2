//! What a tenant holds of its limits, as the auditor knows it.

use super::{Asked, Book, Who, accounts};
use domain::{
    catalog::{Catalog, MeterKind, Mode, Scope},
    decision::Code,
    hold::{Excess, HoldId},
    id::MeterKey,
    op::Charge,
    time::{DAY_MS, WindowKind},
};

/// How long after it lapsed what a hold took may still be told.
const LATE_MS: i64 = DAY_MS;

/// An amount that is held.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldBook {
    who: Who,
    charges: Vec<Charge>,
    windows: [(i64, i64); 5],
    expires_ms: i64,
    excess: Excess,
}

/// What a settlement comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settles {
    /// The hold is settled.
    Yes,
    /// There is none to settle.
    Unknown,
    /// More was taken than may be.
    Exceeded,
}

impl Book {
    /// What is held of a meter in the open window of a kind, or of a gauge's level.
    pub fn held(&self, who: &Who, meter: &MeterKey, kind: Option<WindowKind>) -> i64 {
        let open = self.holds.values().filter(|hold| hold.expires_ms > self.now_ms);
        let of = open.filter(|hold| who.is_none() || hold.who == *who);
        let its = of.filter(|hold| kind.is_none_or(|kind| self.is_in_open(hold, kind)));
        let charges = its.flat_map(|hold| &hold.charges).filter(|charge| charge.meter == *meter);
        let held: i64 = charges.map(|charge| charge.amount).sum();
        held + kind.map_or(0, |kind| self.held_ahead(who, meter, kind.index()))
    }

    fn is_in_open(&self, hold: &HeldBook, kind: WindowKind) -> bool {
        hold.windows[kind.index()].0 == self.windows[kind.index()].0
    }

    /// Holds what is asked for, if a charge of it would pass; whoever is refused is counted alike. The name of the hold
    /// follows with the answer.
    pub fn hold(&mut self, asked: &Asked<'_>, now_ms: i64, catalog: &Catalog) -> Code {
        let refused = self.verdict(&Asked { consume: true, ..asked.clone() }, now_ms, catalog);
        if refused != Code::Allowed && !self.observes(None, catalog) {
            return self.spend(asked, now_ms, catalog, None).0;
        }
        Code::Allowed
    }

    /// The hold was taken under this name.
    pub fn held_as(&mut self, id: HoldId, asked: &Asked<'_>, now_ms: i64, (ttl_ms, excess): (i64, Excess)) {
        let hold = HeldBook {
            who: asked.who.clone(),
            charges: asked.charges.to_vec(),
            windows: self.windows,
            expires_ms: now_ms + ttl_ms,
            excess,
        };
        self.holds.insert(id, hold);
    }

    /// Settles a hold: `took` of its first part, and of the others what was held; nothing of any if it is released.
    pub fn settle(&mut self, id: HoldId, took: Option<i64>, now_ms: i64, catalog: &Catalog) -> Settles {
        self.turn(now_ms);
        let Some(hold) = self.holds.get(&id).cloned() else { return Settles::Unknown };
        let first = &hold.charges[0];
        if took.is_some_and(|took| took > first.amount && !self.may_exceed(&hold, first, took, catalog)) {
            return Settles::Exceeded;
        }
        self.holds.remove(&id);
        for (place, charge) in hold.charges.iter().enumerate().filter(|_| took.is_some()) {
            let amount = took.filter(|_| place == 0).unwrap_or(charge.amount);
            if catalog.meters[&charge.meter].kind == MeterKind::Gauge {
                for account in accounts(&hold.who) {
                    self.move_level(&account, &charge.meter, amount);
                }
            } else {
                self.add(&hold.who, &charge.meter, amount, hold.windows);
            }
        }
        Settles::Yes
    }

    /// A window that has closed since bounds nothing; what has lapsed holds nothing any more.
    fn may_exceed(&self, hold: &HeldBook, part: &Charge, took: i64, catalog: &Catalog) -> bool {
        let more = if hold.expires_ms > self.now_ms { took - part.amount } else { took };
        let limits = self.limits(&hold.who, &part.meter, self.now_ms, catalog);
        let mut bounds = limits.iter().filter(|limit| {
            limit.mode == Mode::Hard && limit.window.kind().is_none_or(|kind| self.is_in_open(hold, kind))
        });
        match hold.excess {
            Excess::Overage => true,
            Excess::Refuse => false,
            Excess::Room => bounds.all(|limit| {
                let account = if limit.scope == Scope::Tenant { &None } else { &hold.who };
                let kind = limit.window.kind();
                let taken = self.used(account, &part.meter, kind) + self.held(account, &part.meter, kind);
                limit.max.is_none_or(|max| taken + more <= max)
            }),
        }
    }

    /// Forgets what nothing is accepted for any more.
    pub(super) fn forget_holds(&mut self) {
        let now_ms = self.now_ms;
        self.holds.retain(|_, hold| hold.expires_ms + LATE_MS >= now_ms);
    }
}
