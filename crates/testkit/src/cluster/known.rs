//! What clients know of what they have under way: charges that may be given back, holds, sessions, grants.

use super::{
    attempts::{Answer, Attempt},
    script::{Ask, beginning},
};
use domain::{
    grant::GrantId,
    hold::{HoldId, Settlement},
    id::{TenantId, UserId},
    op::Charge,
    session::SessionId,
    time::Instant,
};
use engine::requests::Charged;

/// A charge that may be given back, and the attempt that made it.
struct Receipt {
    user: Option<UserId>,
    charged: Charged,
    attempt: u64,
}

/// All of it, each with its tenant.
#[derive(Default)]
pub(super) struct Known {
    receipts: Vec<(TenantId, Receipt)>,
    holds: Vec<(TenantId, (HoldId, Vec<Charge>))>,
    sessions: Vec<(TenantId, SessionId)>,
    grants: Vec<(TenantId, GrantId)>,
}

/// One of the last that are known of a tenant.
fn lately<T: Clone>(known: &[(TenantId, T)], tenant: &TenantId, which: u64) -> Option<T> {
    let its: Vec<&T> = known.iter().rev().filter(|(whose, _)| whose == tenant).map(|(_, one)| one).take(4).collect();
    let place = which as usize % its.len().max(1);
    its.get(place).map(|one| (*one).clone())
}

impl Known {
    /// What is asked at `now_ms`, once it is known of what. Nothing if there is none.
    pub(super) fn resolved(&mut self, ask: Ask, now_ms: i64) -> Option<Ask> {
        // The script gives times as of the beginning.
        let since = |time: Instant| time.plus_ms(now_ms - beginning().ms());
        Some(match ask {
            Ask::RefundOldest(tenant) => {
                let place = self.receipts.iter().position(|(whose, _)| *whose == tenant)?;
                let (tenant, receipt) = self.receipts.remove(place);
                Ask::Refund(tenant, receipt.user, receipt.charged, receipt.attempt)
            }
            Ask::SettleAny(tenant, which, more) => {
                let (id, charges) = lately(&self.holds, &tenant, which)?;
                let first = |more: i64| Charge { amount: (charges[0].amount + more).max(0), ..charges[0].clone() };
                let how = more.map_or(Settlement::Release, |more| Settlement::Commit(vec![first(more)]));
                Ask::Settle(tenant, id, how)
            }
            Ask::TouchAny(tenant, which, close) => {
                let id = lately(&self.sessions, &tenant, which)?;
                Ask::Touch(tenant, id, close)
            }
            Ask::RevokeAny(tenant, which) => {
                let id = lately(&self.grants, &tenant, which)?;
                Ask::Revoke(tenant, id)
            }
            Ask::Grant(tenant, mut grant, id) => {
                grant.expires_at = grant.expires_at.map(since);
                Ask::Grant(tenant, grant, id)
            }
            Ask::Events(mut events) => {
                events.iter_mut().for_each(|event| event.fact.time = event.fact.time.map(since));
                Ask::Events(events)
            }
            other => other,
        })
    }

    /// What a client was told.
    pub(super) fn remember(&mut self, attempt: &Attempt) {
        match (&attempt.ask, attempt.answer()) {
            (Ask::Check(check), Some(Answer::Admission(admission))) => {
                let tenant = &check.tenant;
                let taken = admission.hold.map(|hold| (tenant.clone(), (hold.id, check.charges.clone())));
                self.holds.extend(taken);
                if let Some(charged) = admission.charged.as_ref().filter(|charged| !charged.is_nothing()) {
                    let (user, charged, attempt) = (check.user.clone(), charged.clone(), attempt.number);
                    self.receipts.push((tenant.clone(), Receipt { user, charged, attempt }));
                }
            }
            (Ask::Open(ask), Some(Answer::Session(answer))) => {
                let opened = answer.state.as_ref().map(|state| (ask.tenant.clone(), state.session.id));
                self.sessions.extend(opened);
            }
            (Ask::Grant(tenant, ..), Some(Answer::Granted(id, _))) => self.grants.push((tenant.clone(), *id)),
            _ => {}
        }
    }
}
