//! Hashes under which operations and denials are known. All inputs are length-prefixed, so that no two different ones
//! read the same.

use crate::{ports::DenialId, requests::OpId, session::SessionAsk};
use domain::{
    entry::{Binding, DenialKey},
    grant::Grant,
    hold::{HoldId, Settlement},
    id::{TenantId, UserId},
    op::{Charge, Fact, Movement},
    session::SessionId,
};
use siphasher::{sip::SipHasher13, sip128};
use std::hash::Hasher;

/// Keys for the hashes of one ledger, so that nobody outside can aim for a collision.
#[derive(Clone, Copy)]
pub(crate) struct IdKeys {
    id: [u8; 16],
    fingerprint: [u8; 16],
}

impl IdKeys {
    /// From the ledger's secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut keys = Self { id: [0; 16], fingerprint: [0; 16] };
        keys.id.copy_from_slice(&secret[..16]);
        keys.fingerprint.copy_from_slice(&secret[16..]);
        keys
    }

    /// What an event is bound to: everything but its time, so that a repeat may carry another.
    pub(crate) fn of_fact(&self, tenant: &TenantId, user: Option<&UserId>, id: &OpId, fact: &Fact) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(1);
        write_user(&mut payload, user);
        for (meter, movement) in &fact.movements {
            write_text(&mut payload, meter.as_str());
            let (tag, amount) = match movement {
                Movement::Add(amount) => (0, *amount),
                Movement::Set(value) => (1, *value),
            };
            payload.write_u8(tag);
            payload.write_i64(amount);
        }
        write_dimensions(&mut payload, &fact.dimensions);
        Binding { id: self.id(tenant, id), fingerprint: payload.finish() }
    }

    /// What a consumed check is bound to.
    pub(crate) fn of_check(&self, check: &crate::requests::Check, id: &OpId) -> Binding {
        self.of_check_as(check, self.id(&check.tenant, id))
    }

    /// What a consumed check is bound to under an id that was made for it.
    pub(crate) fn of_check_as(&self, check: &crate::requests::Check, id: u128) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(2);
        write_user(&mut payload, check.user.as_ref());
        write_charges(&mut payload, &check.charges, check.sent.as_deref());
        payload.write_u8(0xff);
        if let Some(hold) = &check.hold {
            payload.write_u8(0xfd);
            payload.write_i64(hold.ttl_ms);
            write_text(&mut payload, hold.excess.word());
        }
        check.features.iter().for_each(|feature| write_text(&mut payload, feature.as_str()));
        write_dimensions(&mut payload, &check.dimensions);
        Binding { id, fingerprint: payload.finish() }
    }

    /// What an adjustment is bound to.
    pub(crate) fn of_adjustment(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        id: &OpId,
        adjustment: &domain::op::Adjustment,
    ) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(3);
        write_user(&mut payload, user);
        write_text(&mut payload, adjustment.meter.as_str());
        let (tag, amount) = match adjustment.movement {
            Movement::Add(amount) => (0, amount),
            Movement::Set(value) => (1, value),
        };
        payload.write_u8(tag);
        payload.write_i64(amount);
        payload.write_u8(adjustment.window.map_or(0xff, |kind| kind.index() as u8));
        if let Some(day) = adjustment.on {
            payload.write_u8(0xfe);
            payload.write_i32(day.number());
        }
        Binding { id: self.id(tenant, id), fingerprint: payload.finish() }
    }

    /// What a grant is bound to.
    pub(crate) fn of_grant(&self, tenant: &TenantId, id: &OpId, grant: &Grant) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(7);
        write_text(&mut payload, grant.meter.as_str());
        payload.write_i64(grant.amount);
        payload.write_i64(grant.priority);
        payload.write_i64(grant.expires_at.map_or(-1, |end| end.ms()));
        Binding { id: self.id(tenant, id), fingerprint: payload.finish() }
    }

    /// What the settlement of a hold is bound to: there is one. `sent` stands for its first charge.
    pub(crate) fn of_settlement(&self, tenant: &TenantId, id: HoldId, how: &Settlement, sent: Option<&str>) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(4);
        if let Settlement::Commit(charges) = how {
            payload.write_u8(1);
            write_charges(&mut payload, charges, sent);
        }
        let id = OpId { source: "tidegate:settle".into(), id: format!("{:032x}", id.0).into() };
        Binding { id: self.id(tenant, &id), fingerprint: payload.finish() }
    }

    /// What opening a session is bound to.
    pub(crate) fn of_session(&self, ask: &SessionAsk, id: &OpId) -> Binding {
        let mut payload = SipHasher13::new_with_key(&self.fingerprint);
        payload.write_u8(5);
        write_user(&mut payload, ask.user.as_ref());
        write_text(&mut payload, ask.meter.as_str());
        write_text(&mut payload, ask.key.as_deref().unwrap_or(""));
        write_dimensions(&mut payload, &ask.dimensions);
        Binding { id: self.id(&ask.tenant, id), fingerprint: payload.finish() }
    }

    /// What the end of a session is bound to: there is one, whatever the reason.
    pub(crate) fn of_session_end(&self, tenant: &TenantId, id: SessionId) -> Binding {
        let id = OpId { source: "tidegate:session-end".into(), id: format!("{:032x}", id.0).into() };
        Binding { id: self.id(tenant, &id), fingerprint: 6 }
    }

    fn id(&self, tenant: &TenantId, id: &OpId) -> u128 {
        let mut hasher = sip128::SipHasher13::new_with_key(&self.id);
        write_text(&mut hasher, tenant.as_str());
        write_text(&mut hasher, &id.source);
        write_text(&mut hasher, &id.id);
        sip128::Hasher128::finish128(&hasher).as_u128()
    }
}

/// The id that identical denials of a tenant share.
pub fn denial_id(tenant: &TenantId, key: &DenialKey) -> DenialId {
    let mut hasher = sip128::SipHasher24::new_with_key(b"tidegate denials");
    write_text(&mut hasher, tenant.as_str());
    hasher.write_i64(key.minute.ms());
    hasher.write_u8(u8::from(key.shadow));
    write_text(&mut hasher, key.code.word());
    write_user(&mut hasher, key.user.as_ref());
    write_text(&mut hasher, &key.subject);
    DenialId(sip128::Hasher128::finish128(&hasher).as_u128())
}

fn write_text(hasher: &mut impl Hasher, text: &str) {
    hasher.write_u32(text.len() as u32);
    hasher.write(text.as_bytes());
}

fn write_user(hasher: &mut impl Hasher, user: Option<&UserId>) {
    hasher.write_u8(u8::from(user.is_some()));
    write_text(hasher, user.map_or("", |user| user.as_str()));
}

/// What was sent in the place of the first charge stands for it.
fn write_charges(hasher: &mut impl Hasher, charges: &[Charge], sent: Option<&str>) {
    if let Some(sent) = sent {
        hasher.write_u8(0xfc);
        write_text(hasher, sent);
    }
    for Charge { meter, amount } in charges.iter().skip(usize::from(sent.is_some())) {
        write_text(hasher, meter.as_str());
        hasher.write_i64(*amount);
    }
}

fn write_dimensions(hasher: &mut impl Hasher, dimensions: &domain::op::Dimensions) {
    hasher.write_u8(0xfe);
    for (key, value) in dimensions {
        write_text(hasher, key.as_str());
        write_text(hasher, value);
    }
}
