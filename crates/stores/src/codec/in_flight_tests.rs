//! Random holds, sessions and leases, and what must not be read as one.

use super::*;
use domain::{
    catalog::Unsettled,
    hold::{Excess, HeldCharge, Hold, HoldId},
    in_flight::InFlight,
    lease::{Lease, Slice},
    session::{CloseReason, Session, SessionEnd, SessionId},
};

const AMOUNT_MAX: i64 = domain::catalog::AMOUNT_MAX;

pub(super) fn hold() -> impl Strategy<Value = Hold> {
    let part = (meter(), 0..=AMOUNT_MAX, any::<bool>(), select(vec![Unsettled::Release, Unsettled::Charge]))
        .prop_map(|(meter, amount, is_level, unsettled)| HeldCharge { meter, amount, is_level, unsettled });
    let times = (instant(), instant(), windows());
    let how = (select(&Excess::ALL[..]), any::<bool>(), dimensions());
    (any::<u128>(), option::of(name()), vec(part, 0..4), times, how).prop_map(
        |(id, user, charges, (taken_at, expires_at, windows), (excess, lapsed, dimensions))| Hold {
            id: HoldId(id),
            user: user.map(|user| UserId::trusted(&user)),
            charges,
            windows,
            taken_at,
            expires_at,
            excess,
            dimensions,
            lapsed,
        },
    )
}

pub(super) fn session() -> impl Strategy<Value = Session> {
    let named = (any::<u128>(), text(), meter(), option::of(name()));
    let times = (instant(), instant(), windows());
    let amounts = (0..=AMOUNT_MAX, 0..=AMOUNT_MAX, 0..=AMOUNT_MAX, 0..=AMOUNT_MAX);
    (named, times, amounts, any::<bool>(), dimensions()).prop_map(
        |((id, key, meter, user), (opened_at, touched_at, windows), amounts, is_finishing, dimensions)| Session {
            id: SessionId(id),
            key,
            meter,
            user: user.map(|user| UserId::trusted(&user)),
            opened_at,
            touched_at,
            idle_timeout_ms: amounts.0,
            accrued_ms: amounts.1,
            overage_ms: amounts.2,
            held_ms: amounts.3,
            windows,
            is_finishing,
            dimensions,
        },
    )
}

pub(super) fn session_end() -> impl Strategy<Value = SessionEnd> {
    let named = (any::<u128>(), text(), meter(), select(&CloseReason::ALL[..]));
    (named, instant(), instant(), any::<i64>(), any::<i64>()).prop_map(
        |((id, key, meter, reason), opened_at, ended_at, accrued_ms, overage_ms)| SessionEnd {
            id: SessionId(id),
            key,
            meter,
            opened_at,
            ended_at,
            accrued_ms,
            overage_ms,
            reason,
        },
    )
}

pub(super) fn lease() -> impl Strategy<Value = Lease> {
    let slice = (meter(), select(&WindowKind::ALL[..]), any::<i64>(), any::<i64>())
        .prop_map(|(meter, kind, size, left)| Slice { meter, kind, size, left });
    (any::<u64>(), any::<u64>(), any::<u32>(), instant(), vec(slice, 0..3))
        .prop_map(|(epoch, entries, catalog, granted_at, slices)| Lease { epoch, entries, catalog, granted_at, slices })
}

/// Most tenants have none, and say so in no byte.
pub(super) fn in_flight() -> impl Strategy<Value = InFlight> {
    let some = (vec(hold(), 0..4), vec(session(), 0..4)).prop_map(|(holds, sessions)| {
        let mut in_flight = InFlight::default();
        holds.into_iter().for_each(|hold| in_flight.restore_hold(hold));
        sessions.into_iter().for_each(|session| in_flight.put_session(session));
        in_flight
    });
    prop_oneof![1 => Just(InFlight::default()), 2 => some]
}

fn encoded(tenant: &Tenant) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_tenant(tenant, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn states_cut_short_are_malformed(tenant in tenant(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&tenant);
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(decode_tenant(tenant.id.clone(), &bytes).is_err());
    }

    /// What is an index of holds and sessions is made anew of what was read.
    #[test]
    fn what_is_held_comes_back(tenant in tenant(), meter in meter(), at in instant()) {
        let read = decode_tenant(tenant.id.clone(), &encoded(&tenant)).unwrap();
        let held = |of: &Tenant, user: Option<&UserId>| {
            let windows = of.in_flight.holds().map(|hold| hold.windows).chain(of.in_flight.sessions().map(|one| one.windows));
            let kinds = windows.flat_map(|windows| WindowKind::ALL.map(|kind| (kind, windows[kind.index()])));
            let held: Vec<i64> = kinds.map(|(kind, window)| of.in_flight.held(&meter, user, kind, &window, at)).collect();
            (held, of.in_flight.held_level(&meter, user, at), of.in_flight.open_sessions(&meter, user, at))
        };
        let users = tenant.in_flight.holds().filter_map(|hold| hold.user.as_ref()).map(Some).chain([None]);
        for user in users {
            prop_assert_eq!(held(&read, user), held(&tenant, user));
        }
        prop_assert!(read.in_flight.lapsed(at).eq(tenant.in_flight.lapsed(at)));
        prop_assert_eq!(read.in_flight.lapses_next(), tenant.in_flight.lapses_next());
    }
}

fn plain_hold(amount: i64) -> Hold {
    let meter = MeterKey::trusted("messages");
    Hold {
        id: HoldId(7),
        user: Some(UserId::trusted("ann")),
        charges: vec![HeldCharge { meter, amount, is_level: false, unsettled: Unsettled::Charge }],
        windows: Windows::default(),
        taken_at: Instant::from_ms(1_790_000_000_000),
        expires_at: Instant::from_ms(1_790_000_060_000),
        excess: Excess::Room,
        dimensions: vec![(DimensionKey::trusted("model"), "large".into())],
        lapsed: false,
    }
}

fn plain_session(held_ms: i64) -> Session {
    Session {
        id: SessionId(9),
        key: "talk".into(),
        meter: MeterKey::trusted("time"),
        user: None,
        opened_at: Instant::from_ms(1_790_000_000_000),
        touched_at: Instant::from_ms(1_790_000_030_000),
        idle_timeout_ms: 60_000,
        accrued_ms: 30_000,
        overage_ms: 0,
        held_ms,
        windows: Windows::default(),
        is_finishing: false,
        dimensions: Vec::new(),
    }
}

fn plain_tenant() -> Tenant {
    let profile = Profile {
        plan: PlanKey::trusted("free"),
        status: Status::Active,
        enforce: None,
        zone: Zone::named("UTC").unwrap(),
        anchor: Instant::from_ms(1000),
        created_at: Instant::from_ms(2000),
        overrides: Vec::new(),
        catalog_pin: None,
        shares: Vec::new(),
    };
    Tenant { last: Instant::from_ms(3000), ..Tenant::unborn(TenantId::trusted("acme"), profile) }
}

fn plain_lease() -> Lease {
    let slices = vec![Slice { meter: MeterKey::trusted("messages"), kind: WindowKind::Day, size: 10, left: 4 }];
    Lease { epoch: 5, entries: 6, catalog: 1, granted_at: Instant::from_ms(2500), slices }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// States of every version that was ever written are read, and are written as they were.
#[test]
fn states_of_old_versions_are_read() {
    let of_first = plain_tenant();
    let with_leases = Tenant { leases: vec![plain_lease()], ..plain_tenant() };
    let mut in_flight = InFlight::default();
    in_flight.restore_hold(plain_hold(300));
    in_flight.put_session(plain_session(15_000));
    let with_holds = Tenant { in_flight, ..with_leases.clone() };
    let common = "0466726565000003555443d00fa01f00f02e000000000000000000000000000000000000000000";
    let lease = "01050601882701086d65737361676573021408";
    let holds = "010100000000000000000000000000000007000103616e6e01086d65737361676573d804000100000000000000000000\
        80b083c59868c0d98ac598680101056d6f64656c056c61726765";
    let sessions = "020100000000000000000000000000000009000474616c6b0474696d650080b083c59868e08487c59868c0a907e0d403\
        00b0ea010000000000000000000000";
    let sections = format!("0300{lease}{holds}{sessions}");
    for (version, state, rest) in [(1_u8, of_first, ""), (2, with_leases, lease), (3, with_holds, sections.as_str())] {
        let written = format!("{version:02x}{common}{rest}");
        assert_eq!(hex(&encoded(&state)), written);
        let bytes: Vec<u8> =
            (0..written.len()).step_by(2).map(|at| u8::from_str_radix(&written[at..at + 2], 16).unwrap()).collect();
        assert_eq!(decode_tenant(state.id.clone(), &bytes), Ok(state));
    }
}

/// Sums of what is held can't wrap, whatever stands on the disk, and nothing is counted twice.
#[test]
fn what_no_rule_would_write_is_refused() {
    let with = |holds: Vec<Hold>, sessions: Vec<Session>| {
        let mut bytes = encoded(&plain_tenant());
        bytes[0] = 3;
        bytes.push(2);
        bytes.push(1);
        put_u64(&mut bytes, holds.len() as u64);
        holds.iter().for_each(|hold| super::super::in_flight::put_hold(&mut bytes, hold));
        bytes.push(2);
        put_u64(&mut bytes, sessions.len() as u64);
        sessions.iter().for_each(|session| super::super::in_flight::put_session(&mut bytes, session));
        decode_tenant(TenantId::trusted("acme"), &bytes).map(|tenant| tenant.in_flight.holds_count())
    };
    assert_eq!(with(vec![plain_hold(1)], vec![plain_session(1)]), Ok(1));
    for amount in [-1, i64::MIN, AMOUNT_MAX + 1, i64::MAX] {
        assert_eq!(with(vec![plain_hold(amount)], vec![]), Err(Malformed("not an amount")));
        assert_eq!(with(vec![], vec![plain_session(amount)]), Err(Malformed("not an amount")));
    }
    assert_eq!(with(vec![plain_hold(1), plain_hold(2)], vec![]), Err(Malformed("out of order")));
    assert_eq!(with(vec![], vec![plain_session(1), plain_session(2)]), Err(Malformed("out of order")));
}
