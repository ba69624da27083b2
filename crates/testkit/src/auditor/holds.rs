//! What a tenant holds of its limits, as the auditor knows it.

use super::{Asked, Book, Who, accounts};
use domain::{
    catalog::{Catalog, MeterKind, Mode, Unsettled},
    decision::Code,
    hold::{Excess, HoldId, Settlement},
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
    /// The parts that are used if nobody settles them.
    charged: Vec<MeterKey>,
    has_lapsed: bool,
    /// Whether its lapse is known to be written down.
    is_written: bool,
}

impl HeldBook {
    fn is_charged(&self, part: &Charge) -> bool {
        self.charged.contains(&part.meter)
    }
}

/// What a part of a hold took.
fn told_of(how: &Settlement, part: &Charge) -> i64 {
    match how {
        Settlement::Release => 0,
        Settlement::Commit(told) => {
            let of_part = told.iter().find(|charge| charge.meter == part.meter);
            of_part.map_or(part.amount, |charge| charge.amount)
        }
    }
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
        let open = self.holds.values().filter(|hold| !hold.has_lapsed);
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
    pub fn held_as(&mut self, id: HoldId, asked: &Asked<'_>, (ttl_ms, excess): (i64, Excess), catalog: &Catalog) {
        let meters = asked.charges.iter().map(|charge| &catalog.meters[&charge.meter]);
        let charged = meters.filter(|meter| meter.unsettled == Unsettled::Charge).map(|meter| meter.key.clone());
        let hold = HeldBook {
            charged: charged.collect(),
            has_lapsed: false,
            is_written: false,
            who: asked.who.clone(),
            charges: asked.charges.to_vec(),
            windows: self.windows,
            expires_ms: self.now_ms + ttl_ms,
            excess,
        };
        self.holds.insert(id, hold);
    }

    /// Whose a hold is.
    pub fn who_holds(&self, id: HoldId) -> Option<&Who> {
        self.holds.get(&id).map(|hold| &hold.who)
    }

    /// What a hold is of; nothing if there is none.
    pub fn parts_of(&self, id: HoldId) -> Vec<Charge> {
        self.holds.get(&id).map(|hold| hold.charges.clone()).unwrap_or_default()
    }

    /// Settles a hold. What is not named took what was held.
    pub fn settle(&mut self, id: HoldId, how: &Settlement, now_ms: i64, catalog: &Catalog) -> Settles {
        self.turn(now_ms);
        let in_time = |hold: &&HeldBook| hold.expires_ms + LATE_MS >= now_ms;
        let Some(hold) = self.holds.get(&id).filter(in_time).cloned() else { return Settles::Unknown };
        let told: Vec<i64> = hold.charges.iter().map(|part| told_of(how, part)).collect();
        let exceeds =
            |(part, told): (&Charge, &i64)| *told > part.amount && !self.may_exceed(&hold, part, *told, catalog);
        if hold.charges.iter().zip(&told).any(exceeds) {
            return Settles::Exceeded;
        }
        self.holds.remove(&id);
        for (charge, told) in hold.charges.iter().zip(told) {
            let was_charged = hold.has_lapsed && hold.is_charged(charge);
            let amount = if was_charged { told - charge.amount } else { told };
            if was_charged && !hold.is_written {
                self.note_unwritten(&hold.who, charge, -1);
            }
            if catalog.meters[&charge.meter].kind == MeterKind::Gauge {
                for account in accounts(&hold.who) {
                    self.move_level(&account, &charge.meter, amount);
                }
            } else {
                self.use_up(&hold.who, &charge.meter, amount, hold.windows, catalog);
            }
        }
        Settles::Yes
    }

    /// A window that has closed since bounds nothing; what has lapsed holds nothing any more.
    fn may_exceed(&self, hold: &HeldBook, part: &Charge, took: i64, catalog: &Catalog) -> bool {
        let is_taken = !hold.has_lapsed || hold.is_charged(part);
        let more = if is_taken { took - part.amount } else { took };
        let limits = self.limits(&hold.who, &part.meter, self.now_ms, catalog);
        let mut bounds = limits.iter().filter(|limit| {
            limit.mode == Mode::Hard && limit.window.kind().is_none_or(|kind| self.is_in_open(hold, kind))
        });
        match hold.excess {
            Excess::Overage => true,
            Excess::Refuse => false,
            Excess::Room => bounds.all(|limit| self.past(&hold.who, limit, more).is_none_or(|past| past <= 0)),
        }
    }

    /// The lapse of a hold was written down; gives what was charged by it.
    ///
    /// # Errors
    /// Where it had not lapsed, or that was written down before.
    pub fn lapse_written(&mut self, id: HoldId) -> Result<Vec<Charge>, String> {
        let hold = self.holds.get_mut(&id).ok_or("a hold lapses that there is not")?;
        if !hold.has_lapsed || std::mem::replace(&mut hold.is_written, true) {
            return Err(format!("{hold:?} lapses now, or again"));
        }
        let hold = hold.clone();
        let charged: Vec<Charge> = hold.charges.iter().filter(|part| hold.is_charged(part)).cloned().collect();
        charged.iter().for_each(|part| self.note_unwritten(&hold.who, part, -1));
        Ok(charged)
    }

    /// What lapsed holds were charged that may not be written down yet: it is shown as held until then.
    pub fn unwritten(&self, who: &Who, meter: &MeterKey) -> i64 {
        self.unwritten.get(&(who.clone(), meter.clone())).copied().unwrap_or(0)
    }

    fn note_unwritten(&mut self, who: &Who, part: &Charge, sign: i64) {
        for account in accounts(who) {
            *self.unwritten.entry((account, part.meter.clone())).or_default() += sign * part.amount;
        }
    }

    /// What nobody settled in time returns, or was used. (Nothing is granted on
    /// meters whose holds are charged.)
    pub(super) fn lapse_holds(&mut self) {
        let now_ms = self.now_ms;
        let due = self.holds.values_mut().filter(|hold| !hold.has_lapsed && hold.expires_ms <= now_ms);
        let due: Vec<HeldBook> = due
            .map(|hold| {
                hold.has_lapsed = true;
                hold.clone()
            })
            .collect();
        for hold in due {
            for part in hold.charges.iter().filter(|part| hold.is_charged(part)) {
                self.add(&hold.who, &part.meter, part.amount, hold.windows);
                self.note_unwritten(&hold.who, part, 1);
            }
        }
        self.holds.retain(|_, hold| !hold.is_written || hold.expires_ms + LATE_MS >= now_ms);
    }
}
