//! What was taken for an answer before it was known, settled with the true amounts.

use crate::settle::Settler;
use domain::{
    catalog::AMOUNT_MAX,
    hold::{HoldId, Settlement},
    id::{MeterKey, TenantId, UserId},
    op::{Charge, Dimensions},
};
use engine::requests::{Admission, Charged};

/// What was charged or held before it was known.
pub(crate) struct Reserve {
    settler: Settler,
    tenant: TenantId,
    user: Option<UserId>,
    dimensions: Dimensions,
    taken: Taken,
}

/// How it was taken.
enum Taken {
    /// Held: each meter once, none with nothing.
    Held(HoldId, Vec<Charge>),
    Charged(Charged),
    /// Charged in an outage: what passed then is not given back in part.
    Passed,
}

/// One charge, when its amount is known.
pub(crate) struct Settled {
    pub(crate) meter: MeterKey,
    /// How much was taken before.
    pub(crate) taken: i64,
    /// How much it is; `None` where nobody said, and what was taken stays.
    pub(crate) amount: Option<i64>,
}

impl Reserve {
    /// What an admission took for `charges`. To be made before the pledge takes what was charged.
    pub(crate) fn new(settler: &Settler, admission: &Admission, charges: &[Charge]) -> Self {
        let taken = match (admission.hold, &admission.charged) {
            (Some(hold), _) => Taken::Held(hold.id, summed(charges)),
            (None, Some(charged)) if !admission.outage => Taken::Charged(charged.clone()),
            (None, _) => Taken::Passed,
        };
        Self {
            settler: settler.clone(),
            tenant: admission.tenant.clone(),
            user: admission.user.clone(),
            dimensions: admission.dimensions.clone(),
            taken,
        }
    }

    /// Charges what is missing, and gives back what was too much. All that was held is settled with it.
    pub(crate) fn settle(&mut self, settled: Vec<Settled>) {
        let difference = |settled: Settled| {
            let amount = settled.amount? - settled.taken;
            (amount != 0).then_some(Charge { meter: settled.meter, amount })
        };
        let differences: Vec<Charge> = settled.into_iter().filter_map(difference).collect();
        let missing = match std::mem::replace(&mut self.taken, Taken::Passed) {
            Taken::Held(id, held) => self.commit(id, held, differences),
            Taken::Charged(charged) => self.correct(charged, differences),
            Taken::Passed => differences.into_iter().filter(|charge| charge.amount > 0).collect(),
        };
        if !missing.is_empty() {
            let dimensions = std::mem::take(&mut self.dimensions);
            self.settler.measured(&self.tenant, self.user.as_ref(), missing, dimensions);
        }
    }

    /// Commits what was held with what it came to. Gives what nothing was held of.
    fn commit(&self, id: HoldId, mut held: Vec<Charge>, differences: Vec<Charge>) -> Vec<Charge> {
        let mut missing = Vec::new();
        for difference in differences {
            match held.iter_mut().find(|part| part.meter == difference.meter) {
                Some(part) => part.amount = part.amount.saturating_add(difference.amount).clamp(0, AMOUNT_MAX),
                None => missing.push(difference),
            }
        }
        drop(self.settler.settle_hold(&self.tenant, id, Settlement::Commit(held)));
        missing
    }

    /// Gives back what was charged too much. Gives what is missing.
    fn correct(&self, mut charged: Charged, differences: Vec<Charge>) -> Vec<Charge> {
        let (too_much, missing): (Vec<Charge>, Vec<Charge>) =
            differences.into_iter().partition(|charge| charge.amount < 0);
        let is_counted = |charge: &Charge| charged.receipt.uses.iter().any(|used| used.meter == charge.meter);
        let too_much: Vec<Charge> =
            too_much.into_iter().filter(is_counted).map(|charge| Charge { amount: -charge.amount, ..charge }).collect();
        if !too_much.is_empty() {
            charged.receipt = Box::new(charged.receipt.part(too_much));
            drop(self.settler.give_back(&self.tenant, self.user.as_ref(), charged));
        }
        missing
    }
}

/// What is held of each meter.
fn summed(charges: &[Charge]) -> Vec<Charge> {
    let mut summed: Vec<Charge> = Vec::with_capacity(charges.len());
    for charge in charges.iter().filter(|charge| charge.amount > 0) {
        match summed.iter_mut().find(|known| known.meter == charge.meter) {
            Some(known) => known.amount = known.amount.saturating_add(charge.amount),
            None => summed.push(charge.clone()),
        }
    }
    summed
}
