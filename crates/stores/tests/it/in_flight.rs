//! What the world does to holds and sessions: it takes and touches, lapses and ends them, whatever a rule would say.

use crate::world::Random;
use domain::{
    catalog::Unsettled,
    entry::{Effect, Entry},
    hold::{Excess, HeldCharge, Hold, HoldId},
    id::MeterKey,
    session::{CloseReason, Session, SessionEnd, SessionId},
    tenant::{Tenant, Windows},
};

/// One effect on what a tenant has in flight.
pub fn effect(random: &mut Random, tenant: &Tenant, entry: &Entry, windows: Windows) -> Option<Effect> {
    let holds: Vec<&Hold> = tenant.in_flight.holds().collect();
    let sessions: Vec<&Session> = tenant.in_flight.sessions().collect();
    let hold = (!holds.is_empty()).then(|| holds[random.below(holds.len() as u64) as usize]);
    let session = (!sessions.is_empty()).then(|| sessions[random.below(sessions.len() as u64) as usize]);
    Some(match random.below(8) {
        0 | 1 => Effect::Hold(Box::new(taken(random, entry, windows))),
        2 => Effect::HoldSettled { id: hold?.id },
        3 => Effect::Hold(Box::new(Hold { lapsed: true, ..hold?.clone() })),
        4 | 5 => Effect::Session(Box::new(opened(random, entry, windows))),
        6 => {
            let held_ms = random.below(30_000) as i64;
            let session = Session { touched_at: entry.at, held_ms, windows, accrued_ms: 7, ..session?.clone() };
            Effect::Session(Box::new(session))
        }
        _ => Effect::SessionClosed(Box::new(ended(random, session?, entry))),
    })
}

fn new_id(random: &mut Random) -> u128 {
    u128::from(random.next()) << 64 | u128::from(random.next())
}

fn taken(random: &mut Random, entry: &Entry, windows: Windows) -> Hold {
    let parts = 1 + random.below(2) as usize;
    let charges = ["messages", "documents"].into_iter().take(parts).map(|meter| HeldCharge {
        meter: MeterKey::new(meter).unwrap(),
        amount: random.below(1000) as i64,
        is_level: meter == "documents",
        unsettled: if random.one_in(2) { Unsettled::Charge } else { Unsettled::Release },
    });
    let charges = charges.collect();
    Hold {
        id: HoldId(new_id(random)),
        user: entry.user.clone(),
        charges,
        windows,
        taken_at: entry.at,
        expires_at: entry.at.plus_ms(1 + random.below(120_000) as i64),
        excess: Excess::ALL[random.below(3) as usize],
        dimensions: entry.dimensions.clone(),
        lapsed: false,
    }
}

fn opened(random: &mut Random, entry: &Entry, windows: Windows) -> Session {
    let id = new_id(random);
    Session {
        id: SessionId(id),
        key: format!("talk {id}").into(),
        meter: MeterKey::new("time").unwrap(),
        user: entry.user.clone(),
        opened_at: entry.at,
        touched_at: entry.at,
        idle_timeout_ms: 60_000,
        accrued_ms: 0,
        overage_ms: 0,
        held_ms: random.below(15_000) as i64,
        windows,
        is_finishing: random.one_in(4),
        dimensions: entry.dimensions.clone(),
    }
}

fn ended(random: &mut Random, session: &Session, entry: &Entry) -> SessionEnd {
    SessionEnd {
        id: session.id,
        key: session.key.clone(),
        meter: session.meter.clone(),
        opened_at: session.opened_at,
        ended_at: entry.at,
        accrued_ms: session.accrued_ms,
        overage_ms: session.overage_ms,
        reason: CloseReason::ALL[random.below(4) as usize],
    }
}
