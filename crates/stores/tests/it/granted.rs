//! What the world does to grants and shares: it gives, draws and takes back, and shares otherwise than before.

use crate::world::Random;
use domain::{
    entry::{Effect, Entry, KindSet, Profile},
    grant::{Draw, Grant, GrantId, GrantSource},
    id::{MeterKey, UserId},
    share::{Share, ShareMode},
    tenant::Tenant,
};
use std::sync::Arc;

/// One effect on the grants of a tenant.
pub fn effect(random: &mut Random, tenant: &Tenant, entry: &Entry) -> Option<Effect> {
    let grants: Vec<&Grant> = tenant.grants.iter().collect();
    let one = (!grants.is_empty()).then(|| grants[random.below(grants.len() as u64) as usize]);
    Some(match random.below(6) {
        0 | 1 => Effect::Grant(Box::new(given(random, entry))),
        2 => Effect::GrantRevoked { id: one?.id },
        _ => {
            let grant = one?;
            // Something may be given back that was drawn.
            let amount = random.below(60) as i64 - 10;
            let open = if random.one_in(4) { KindSet::NONE } else { KindSet::ALL };
            Effect::Draw(Box::new(Draw { grant: grant.id, meter: grant.meter.clone(), amount, open, closed: vec![] }))
        }
    })
}

fn given(random: &mut Random, entry: &Entry) -> Grant {
    let amount = 1 + random.below(500) as i64;
    let ends = random.one_in(2);
    Grant {
        id: GrantId(u128::from(random.next()) << 64 | u128::from(random.next())),
        meter: MeterKey::new("messages").unwrap(),
        amount,
        left: amount,
        priority: random.below(3) as i64 - 1,
        granted_at: entry.at,
        expires_at: ends.then(|| entry.at.plus_ms(1 + random.below(900_000_000) as i64)),
        source: if random.one_in(3) { GrantSource::Rollover } else { GrantSource::Given },
        reason: "key_1: by hand".into(),
    }
}

/// The tenant shared otherwise.
pub fn shared(random: &mut Random, tenant: &Tenant) -> Effect {
    let mode = match random.below(3) {
        0 => ShareMode::Pooled,
        1 => ShareMode::Equal { seats: 1 + random.below(9) as i64 },
        _ => {
            let count = random.below(3);
            let users = (0..count).map(|number| UserId::new(&format!("user-{number}")).unwrap());
            let users = users.map(|user| (user, random.below(99) as i64)).collect();
            ShareMode::Custom { users: Arc::new(users), default: random.one_in(2).then_some(7) }
        }
    };
    let shares = vec![Share { meter: MeterKey::new("messages").unwrap(), mode }];
    Effect::Profile(Box::new(Profile { shares, ..tenant.profile.clone() }))
}
