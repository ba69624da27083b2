//! What a simulated customer asks for: drawn from a seed.

use crate::{
    catalog::{Draft, each_user, feature, in_mode, limit, meter, plan},
    random::Random,
    world::{charge, op_id, tenant, user},
};
use domain::{
    catalog::{Catalog, Enforce, Limit, LimitWindow, MeterKind, Mode, Scope},
    entry::{Cause, Override, Status},
    grant::{Grant, GrantId, GrantSource},
    hold::Excess,
    id::UserId,
    op::{Adjustment, Charge, Fact, Movement, ProfileChange},
    share::{Share, ShareMode},
    time::{Instant, WindowKind, Zone},
};
use engine::{
    EngineOptions,
    requests::{Check, Event, HoldAsk},
    session::SessionAsk,
};
use std::sync::Arc;

const METERS: [(&str, MeterKind); 4] = [
    ("requests", MeterKind::Counter),
    ("tokens", MeterKind::Counter),
    ("minutes", MeterKind::Duration),
    ("seats", MeterKind::Gauge),
];

/// What sessions feed, and nothing else.
pub const TALK: &str = "talk";

/// What holds and checks charge, and is used if nobody settles it; nobody corrects or grants it.
pub const WORK: &str = "work";

/// Zones whose clocks never change, and how far they are ahead of UTC.
pub const ZONES: [(&str, i64); 3] = [("UTC", 0), ("Asia/Tokyo", 9 * 3_600_000), ("Asia/Kolkata", 19_800_000)];

/// A catalog with limits of every kind, some larger and some smaller than the last.
pub fn catalog(random: &mut Random) -> Catalog {
    let mut draft = Draft::default().feature("analytics");
    for (key, kind) in METERS {
        draft = draft.meter(key, kind);
    }
    draft = draft.meter(TALK, MeterKind::Duration).meter(WORK, MeterKind::Counter).charged_unsettled(WORK);
    for (factor, key) in [(1, "free"), (4, "pro"), (20, "team")] {
        let mut max = |base: i64| factor * random.between(base / 2, base * 2);
        let limits = vec![
            limit("requests", WindowKind::Minute, max(6)),
            limit("requests", WindowKind::Day, max(20)),
            limit("requests", WindowKind::Month, max(60)),
            each_user(limit("requests", WindowKind::Hour, max(8))),
            limit("tokens", WindowKind::Period, max(200)),
            in_mode(limit("tokens", WindowKind::Day, max(20)), Mode::Soft),
            in_mode(each_user(limit("tokens", WindowKind::Day, max(10))), Mode::Shadow),
            limit("minutes", WindowKind::Hour, max(30)),
            limit("seats", None, max(6)),
            each_user(limit("seats", None, max(3))),
            limit(TALK, WindowKind::Hour, max(200_000)),
            each_user(limit(TALK, WindowKind::Day, max(200_000))),
            Limit { window: LimitWindow::Concurrent, ..limit(TALK, None, max(2)) },
            Limit { window: LimitWindow::Session, ..limit(TALK, None, max(300_000)) },
            limit(WORK, WindowKind::Day, max(20)),
            each_user(limit(WORK, WindowKind::Hour, max(8))),
        ];
        let features: &[&str] = if factor > 1 { &["analytics"] } else { &[] };
        draft = draft.plan(key, features, limits);
        if random.percent(50) {
            draft = draft.finishing(key, random.between(1_000, 200_000));
        }
    }
    draft.done()
}

/// Bounds on memory that make the engine work, and pacing of all sorts.
pub fn options(random: &mut Random) -> EngineOptions {
    EngineOptions {
        tenants_max: random.below(3),
        users_max: random.below(4),
        checkpoint_every_ms: *random.pick(&[0, 500, 60_000]),
        tail_max: *random.pick(&[1, 20, 1_000_000]),
        flush_denials_every_ms: *random.pick(&[0, 10_000, 600_000]),
        fold_max: *random.pick(&[0, 1, 3, 20_000]),
        recent_ms: 200,
        ..EngineOptions::default()
    }
}

/// Nobody, or one of three users.
pub fn who(random: &mut Random) -> Option<UserId> {
    random.percent(65).then(|| user(random.pick::<&str>(&["al", "bo", "cy"])))
}

fn amount(random: &mut Random, kind: MeterKind) -> i64 {
    if kind == MeterKind::Gauge { random.between(-3, 4) } else { random.between(1, 7) }
}

fn charges(random: &mut Random) -> Vec<Charge> {
    let first = random.below(4) as usize;
    let count = if random.percent(30) { 2 } else { 1 };
    (0..count).map(|i| METERS[(first + i) % 4]).map(|(key, kind)| charge(key, amount(random, kind))).collect()
}

/// A check of a tenant: dry, consumed, with or without an id, through the API or the gateway.
pub fn check(random: &mut Random, name: &str, id: &str, gateway: bool) -> Check {
    let is_gateway = gateway && random.percent(40);
    let is_work = !is_gateway && random.percent(8);
    Check {
        hold: None,
        sent: None,
        tenant: tenant(name),
        user: who(random),
        charges: if is_work { vec![charge(WORK, random.between(1, 5))] } else { charges(random) },
        features: if random.percent(10) { vec![feature("analytics")] } else { Vec::new() },
        consume: random.percent(90),
        enforce: random.percent(5).then_some(Enforce::Observe),
        dimensions: Vec::new(),
        id: (!is_gateway && random.percent(50)).then(|| op_id("", id)),
        cause: if is_gateway { Cause::Gateway } else { Cause::Check },
    }
}

/// A check that holds what it asks for, for a while.
pub fn hold(random: &mut Random, name: &str, number: u64) -> Check {
    let mut charges = if random.percent(25) { vec![charge(WORK, random.between(1, 9))] } else { charges(random) };
    charges.iter_mut().for_each(|charge| charge.amount = charge.amount.abs().max(1));
    let ttl_ms = *random.pick(&[1, 1_000, 60_000, 3_600_000, 86_400_000]);
    let terms = HoldAsk { ttl_ms, excess: *random.pick(&Excess::ALL), fresh: u128::from(number) };
    Check {
        charges,
        features: Vec::new(),
        consume: true,
        enforce: None,
        hold: Some(terms),
        ..check(random, name, &format!("h{number}"), false)
    }
}

/// An event: mostly of now, sometimes late, sometimes a little early.
pub fn event(random: &mut Random, name: &str, id: &str, now: Instant) -> Event {
    let (key, kind) = *random.pick(&METERS);
    let movement = match kind {
        MeterKind::Gauge if random.percent(50) => Movement::Set(random.between(0, 9)),
        kind => Movement::Add(amount(random, kind)),
    };
    let time = match random.below(10) {
        0..6 => None,
        6 => Some(now.plus_ms(random.between(0, 200_000))),
        7 => Some(now.plus_ms(-random.between(0, 120_000))),
        8 => Some(now.plus_ms(-random.between(0, 90_000_000))),
        _ => Some(now.plus_ms(-random.between(0, 33 * 86_400_000))),
    };
    let fact = Fact { movements: vec![(meter(key), movement)], time, dimensions: Vec::new(), binding: None };
    Event { tenant: tenant(name), user: who(random), id: op_id("shop", id), fact }
}

/// A change of what a tenant is; the second is how far its clocks are ahead then.
pub fn change(random: &mut Random, now: Instant) -> (ProfileChange, Option<i64>) {
    let mut change = ProfileChange::default();
    let mut offset_ms = None;
    match random.below(9) {
        7 | 8 => change.shares = Some(shares(random)),
        0 | 1 => change.plan = Some(plan(random.pick::<&str>(&["free", "pro", "team"]))),
        2 => change.status = Some(if random.percent(40) { Status::Suspended } else { Status::Active }),
        3 => change.enforce = Some(*random.pick(&[None, Some(Enforce::On), Some(Enforce::Observe)])),
        4 => {
            let (name, ahead_ms) = *random.pick(&ZONES);
            change.zone = Zone::named(name);
            offset_ms = Some(ahead_ms);
        }
        5 => change.anchor = Some(now.plus_ms(-random.between(0, 60 * 86_400_000))),
        _ => {
            let own = Override {
                meter: meter("requests"),
                window: Some(*random.pick(&[WindowKind::Day, WindowKind::Period])).into(),
                scope: *random.pick(&[Scope::Tenant, Scope::User]),
                max: Some(random.between(5, 200)),
                mode: Mode::Hard,
                until: random.percent(50).then(|| now.plus_ms(random.between(1, 200_000_000))),
                reason: None,
            };
            if random.percent(70) { change.put_overrides.push(own) } else { change.remove_overrides.push(own) }
        }
    }
    (change, offset_ms)
}

/// How meters are shared among users: some, none, or another one than before.
fn shares(random: &mut Random) -> Vec<Share> {
    let mut shares = Vec::new();
    for key in ["requests", "tokens", WORK] {
        let mode = match random.below(4) {
            0 => continue,
            1 => ShareMode::Pooled,
            2 => ShareMode::Equal { seats: random.between(1, 4) },
            _ => {
                let users = ["al", "bo"].map(|name| (user(name), random.between(0, 40)));
                ShareMode::Custom { users: Arc::new(users.into()), default: random.percent(60).then_some(9) }
            }
        };
        shares.push(Share { meter: meter(key), mode });
    }
    shares
}

/// An amount on top of the plan, under a number that nobody has drawn before.
pub fn grant(random: &mut Random, now: Instant, number: u128) -> Grant {
    let for_ms = *random.pick(&[None, Some(2_000), Some(90_000), Some(90_000_000), Some(3_000_000_000)]);
    let amount = random.between(1, 40);
    Grant {
        id: GrantId(number),
        meter: meter(random.pick::<&str>(&["requests", "tokens"])),
        amount,
        left: amount,
        priority: random.between(-1, 1),
        granted_at: now,
        expires_at: for_ms.map(|ms| now.plus_ms(ms)),
        source: GrantSource::Given,
        reason: "because".into(),
    }
}

/// A session to be opened, or gone on with, under one of a few names; or one of its own, under an id.
pub fn session(random: &mut Random, name: &str, number: u64) -> SessionAsk {
    let id = random.percent(25).then(|| op_id("", &format!("s{number}")));
    let key = *random.pick(&["one", "two", "three"]);
    SessionAsk {
        tenant: tenant(name),
        user: who(random),
        meter: meter(TALK),
        key: id.is_none().then(|| key.into()),
        id,
        fresh: u128::from(number) << 32 | 1,
        enforce: None,
        dimensions: Vec::new(),
    }
}

/// A correction.
pub fn adjustment(random: &mut Random) -> Adjustment {
    let (key, _) = *random.pick(&METERS);
    let movement =
        if random.percent(40) { Movement::Set(random.between(0, 30)) } else { Movement::Add(random.between(-9, 9)) };
    Adjustment { meter: meter(key), movement, window: None, on: None, binding: None }
}

/// How far the clock moves before the next operation.
pub fn pause_ms(random: &mut Random) -> i64 {
    match random.below(100) {
        0..40 => 0,
        40..75 => random.between(1, 5_000),
        75..88 => random.between(5_000, 100_000),
        88..95 => random.between(100_000, 8_000_000),
        95..99 => random.between(8_000_000, 200_000_000),
        _ => random.between(200_000_000, 6_000_000_000),
    }
}
