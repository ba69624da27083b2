//! Mistakes that can be planted into the simulated ledger, to see that they are found.

use domain::{
    entry::{Effect, Entry},
    hold::HoldId,
    tenant::Tenant,
    warning::{Warning, Warnings},
};
use engine::ports::Seq;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A part that is sent again after a lost reply is written again.
    RetryCommitsTwice,
    /// A part is written whatever the version of the tenant.
    NotFenced,
    /// Ids are looked up in the memory of the node alone.
    OwnIdsOnly,
    /// A fold is written whatever fold it goes on from.
    FoldFromAnywhere,
    /// A row that is kept for a node is kept until that node writes.
    EndlessHold,
    /// A part is written whatever the catalog it was decided on.
    NoCatalogFence,
    /// What was decided on the same as something that failed is not failed, and more may be.
    BasisNotOutdated,
    /// A lease is over for a node when its own clock says so.
    LeaseByNodeClock,
    /// What was charged under a lease is written whether or not the lease lasts.
    LeaseNotFenced,
    /// A hold is settled as often as that is sent.
    HoldSettledTwice,
    /// A session that nobody touches keeps its slot, and what it holds.
    LapsedSessionKeepsSlot,
    /// Where there are leases, nobody sees what is held.
    LeaseBlindToHolds,
    /// What came out of a grant stays in it.
    GrantSpentTwice,
    /// A grant never ends.
    GrantNeverEnds,
    /// Whoever has a share has used nothing of it yet.
    ShareRefills,
    /// What a tenant was told is forgotten when it is loaded.
    WarnedAgain,
    /// Who was told of the first part of a limit is taken to be told of all.
    WarnedOfFirstAlone,
}

impl Bug {
    /// What a node makes of the entries that it loads, with this mistake.
    pub(super) fn misread_all(self, entries: &mut [(Seq, Entry)], has_leases: bool) {
        let shares = |effect: &Effect| matches!(effect, Effect::Profile(profile) if !profile.shares.is_empty());
        let shared = entries.iter().rposition(|(_, entry)| entry.effects.iter().any(shares)).unwrap_or(0);
        for (place, (_, entry)) in entries.iter_mut().enumerate() {
            if self == Bug::ShareRefills && place < shared {
                entry.user = None;
            }
            self.misread(entry, has_leases);
        }
    }

    fn misread(self, entry: &mut Entry, has_leases: bool) {
        match self {
            Bug::LeaseBlindToHolds if has_leases => {
                entry.effects.retain(|effect| !matches!(effect, Effect::Hold(_)));
            }
            Bug::GrantSpentTwice => entry.effects.retain(|effect| !matches!(effect, Effect::Draw(_))),
            Bug::WarnedAgain => entry.effects.retain(|effect| !matches!(effect, Effect::Warned(_))),
            Bug::WarnedOfFirstAlone => {
                let told: Vec<Warning> = entry.effects.iter().filter_map(warning_of).flat_map(with_the_last).collect();
                entry.effects.extend(told.into_iter().map(|warning| Effect::Warned(Box::new(warning))));
            }
            _ => {}
        }
        for effect in &mut entry.effects {
            match effect {
                Effect::Session(session) if self == Bug::LapsedSessionKeepsSlot => session.idle_timeout_ms *= 1_000,
                Effect::Grant(grant) if self == Bug::GrantNeverEnds => grant.expires_at = None,
                _ => {}
            }
        }
    }

    /// What a node makes of a tenant that it loads, with this mistake.
    pub(super) fn misremember(self, tenant: &mut Tenant) {
        match self {
            Bug::LeaseBlindToHolds if !tenant.leases.is_empty() => {
                let holds: Vec<HoldId> = tenant.in_flight.holds().map(|hold| hold.id).collect();
                holds.into_iter().for_each(|id| drop(tenant.in_flight.remove_hold(id)));
            }
            Bug::WarnedAgain => tenant.warnings = Warnings::default(),
            Bug::WarnedOfFirstAlone => {
                tenant.warnings = Warnings::restore(tenant.warnings.iter().flat_map(with_the_last).collect());
            }
            _ => {}
        }
    }

    /// Every one.
    pub const ALL: [Bug; 17] = [
        Bug::RetryCommitsTwice,
        Bug::NotFenced,
        Bug::OwnIdsOnly,
        Bug::FoldFromAnywhere,
        Bug::EndlessHold,
        Bug::NoCatalogFence,
        Bug::BasisNotOutdated,
        Bug::LeaseByNodeClock,
        Bug::LeaseNotFenced,
        Bug::HoldSettledTwice,
        Bug::LapsedSessionKeepsSlot,
        Bug::LeaseBlindToHolds,
        Bug::GrantSpentTwice,
        Bug::GrantNeverEnds,
        Bug::ShareRefills,
        Bug::WarnedAgain,
        Bug::WarnedOfFirstAlone,
    ];
}

fn warning_of(effect: &Effect) -> Option<&Warning> {
    match effect {
        Effect::Warned(warning) => Some(warning),
        _ => None,
    }
}

/// A warning of a part of a limit, and one of all of it.
fn with_the_last(warning: &Warning) -> [Warning; 2] {
    [warning.clone(), Warning { percent: 100, ..warning.clone() }]
}
