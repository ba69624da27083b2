#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    catalog::{Enforce, LimitWindow, Mode, Scope},
    decision::Code,
    demand::PendingDenials,
    entry::{Binding, Cause, ClosedWindow, DenialKey, DenialRun, Effect, Entry, KindSet, Override, Profile, Status},
    grant::{Draw, Grant, GrantId, GrantSource, Grants},
    hold::HoldId,
    id::{DimensionKey, FeatureKey, MeterKey, PlanKey, TenantId, UserId},
    share::{Share, ShareMode},
    tenant::{Account, Accounts, Slot, Tenant, User, Windows},
    time::Zone,
    warning::{Warning, Warnings},
};
use in_flight::{hold, in_flight, lease, session, session_end};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

#[path = "in_flight_tests.rs"]
mod in_flight;

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_]{1,12}"
}

fn instant() -> impl Strategy<Value = Instant> {
    prop_oneof![Just(0), 0..100_i64, 1_700_000_000_000..1_900_000_000_000_i64].prop_map(Instant::from_ms)
}

fn window() -> impl Strategy<Value = Window> {
    (instant(), instant()).prop_map(|(start, end)| Window { start, end })
}

fn windows() -> impl Strategy<Value = Windows> {
    prop::array::uniform5(window())
}

fn closed() -> impl Strategy<Value = ClosedWindow> {
    (select(&WindowKind::ALL[..]), window()).prop_map(|(kind, window)| ClosedWindow { kind, window })
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,20}".prop_map(Arc::from)
}

fn meter() -> impl Strategy<Value = MeterKey> {
    name().prop_map(|name| MeterKey::trusted(&name))
}

fn own_limit() -> impl Strategy<Value = Override> {
    (
        meter(),
        select(&LimitWindow::ALL[..]),
        select(vec![Scope::Tenant, Scope::User]),
        option::of(any::<i64>()),
        select(vec![Mode::Hard, Mode::Soft, Mode::Shadow]),
        option::of(instant()),
        option::of(text()),
    )
        .prop_map(|(meter, window, scope, max, mode, until, reason)| Override {
            meter,
            window,
            scope,
            max,
            mode,
            until,
            reason,
        })
}

fn share() -> impl Strategy<Value = Share> {
    let custom =
        (btree_map(name().prop_map(|user| UserId::trusted(&user)), any::<i64>(), 0..4), option::of(any::<i64>()));
    let mode = prop_oneof![
        Just(ShareMode::Pooled),
        any::<i64>().prop_map(|seats| ShareMode::Equal { seats }),
        custom.prop_map(|(users, default)| ShareMode::Custom { users: users.into(), default }),
    ];
    (meter(), mode).prop_map(|(meter, mode)| Share { meter, mode })
}

fn profile() -> impl Strategy<Value = Profile> {
    (
        name(),
        select(vec![Status::Active, Status::Suspended]),
        option::of(select(vec![Enforce::On, Enforce::Observe])),
        select(vec!["UTC", "Europe/Madrid", "America/St_Johns"]),
        instant(),
        instant(),
        vec(own_limit(), 0..4),
        option::of(any::<u32>()),
        vec(share(), 0..3),
    )
        .prop_map(|(plan, status, enforce, zone, anchor, created_at, overrides, catalog_pin, shares)| Profile {
            plan: PlanKey::trusted(&plan),
            status,
            enforce,
            zone: Zone::named(zone).unwrap(),
            anchor,
            created_at,
            overrides,
            catalog_pin,
            shares,
        })
}

fn run() -> impl Strategy<Value = DenialRun> {
    let key = (instant(), any::<bool>(), select(&Code::ALL[..]), option::of(name()), text());
    let named = (option::of(meter()), option::of(name()), name());
    let numbers = (any::<i64>(), any::<i64>(), any::<i64>(), option::of(any::<i64>()));
    (key, named, numbers, option::of(instant()), instant(), instant()).prop_map(
        |(key, named, numbers, resets_at, first_at, last_at)| {
            let (minute, shadow, code, user, subject) = key;
            let (meter, feature, plan) = named;
            let (count, amount, used, max) = numbers;
            let user = user.map(|user| UserId::trusted(&user));
            DenialRun {
                key: DenialKey { minute, shadow, code, user, subject },
                count,
                amount,
                meter,
                feature: feature.map(|feature| FeatureKey::trusted(&feature)),
                plan: PlanKey::trusted(&plan),
                used,
                max,
                resets_at,
                first_at,
                last_at,
            }
        },
    )
}

fn effect() -> impl Strategy<Value = Effect> {
    let open = (0..=KindSet::ALL.0).prop_map(KindSet);
    prop_oneof![
        (meter(), any::<i64>(), open.clone(), vec(closed(), 0..3))
            .prop_map(|(meter, amount, open, closed)| { Effect::Use { meter, amount, open, closed } }),
        (meter(), any::<i64>(), open, vec(closed(), 0..3))
            .prop_map(|(meter, amount, open, closed)| { Effect::Denied { meter, amount, open, closed } }),
        (meter(), any::<i64>(), any::<i64>(), option::of(instant())).prop_map(
            |(meter, tenant_delta, user_delta, set_at)| Effect::Level { meter, tenant_delta, user_delta, set_at }
        ),
        closed().prop_map(|closed| Effect::Turn { kind: closed.kind, window: closed.window }),
        profile().prop_map(|profile| Effect::Profile(Box::new(profile))),
        run().prop_map(|run| Effect::Denials(Box::new(run))),
        vec(lease(), 0..3).prop_map(Effect::Leases),
        hold().prop_map(|hold| Effect::Hold(Box::new(hold))),
        any::<u128>().prop_map(|id| Effect::HoldSettled { id: HoldId(id) }),
        session().prop_map(|session| Effect::Session(Box::new(session))),
        session_end().prop_map(|end| Effect::SessionClosed(Box::new(end))),
        grant().prop_map(|grant| Effect::Grant(Box::new(grant))),
        any::<u128>().prop_map(|id| Effect::GrantRevoked { id: GrantId(id) }),
        (any::<u128>(), any::<i64>()).prop_map(|(id, amount)| {
            let (meter, open, closed) = (MeterKey::trusted("credits"), KindSet::ALL, Vec::new());
            Effect::Draw(Box::new(Draw { grant: GrantId(id), meter, amount, open, closed }))
        }),
        warning().prop_map(|warning| Effect::Warned(Box::new(warning))),
    ]
}

fn dimensions() -> impl Strategy<Value = Vec<(DimensionKey, Arc<str>)>> {
    vec((name(), text()).prop_map(|(key, value)| (DimensionKey::trusted(&key), value)), 0..3)
}

fn entry() -> impl Strategy<Value = Entry> {
    let binding = (any::<u128>(), any::<u64>()).prop_map(|(id, fingerprint)| Binding { id, fingerprint });
    (
        instant(),
        any::<u32>(),
        select(&Cause::ALL[..]),
        option::of(binding),
        option::of(name()),
        dimensions(),
        option::of(text()),
        vec(effect(), 0..5),
    )
        .prop_map(|(at, catalog, cause, binding, user, dimensions, note, effects)| Entry {
            at,
            catalog,
            cause,
            binding,
            user: user.map(|user| UserId::trusted(&user)),
            dimensions,
            note,
            effects,
        })
}

/// Slots mostly share the windows of their tenant, as in life.
fn accounts(of: Windows) -> impl Strategy<Value = Accounts> {
    let slot = move |kind: usize| {
        let shared =
            (any::<i64>(), any::<i64>()).prop_map(move |(used, denied)| Slot { window: of[kind], used, denied });
        let own =
            (window(), any::<i64>(), any::<i64>()).prop_map(|(window, used, denied)| Slot { window, used, denied });
        prop_oneof![2 => shared, 1 => own, 1 => Just(Slot::default())]
    };
    let slots = (slot(0), slot(1), slot(2), slot(3), slot(4)).prop_map(|(a, b, c, d, e)| [a, b, c, d, e]);
    let account = (meter(), slots, any::<i64>(), instant())
        .prop_map(|(meter, slots, level, level_set_at)| (meter, Account { slots, level, level_set_at }));
    vec(account, 0..5).prop_map(|list| {
        let mut accounts = Accounts::default();
        list.into_iter().for_each(|(meter, account)| accounts.restore(meter, &account));
        accounts
    })
}

fn grant() -> impl Strategy<Value = Grant> {
    let given = prop_oneof![Just(GrantSource::Given), Just(GrantSource::Rollover)];
    (any::<u128>(), 0..1000_i64, 0..1000_i64, any::<i8>(), instant(), prop::option::of(instant()), given).prop_map(
        |(id, amount, left, priority, granted_at, expires_at, source)| Grant {
            id: GrantId(id),
            meter: MeterKey::trusted("credits"),
            amount,
            left,
            priority: priority.into(),
            granted_at,
            expires_at,
            source,
            reason: "bought".into(),
        },
    )
}

fn warning() -> impl Strategy<Value = Warning> {
    let limit = (text(), meter(), select(&LimitWindow::ALL[..]), select(vec![Scope::Tenant, Scope::User]));
    (limit, any::<u16>(), any::<i64>(), any::<i64>(), option::of(window()), instant()).prop_map(
        |((limit, meter, window, scope), percent, used, max, during, at)| Warning {
            limit,
            meter,
            window,
            scope,
            percent,
            used,
            max,
            during,
            at,
        },
    )
}

fn warnings() -> impl Strategy<Value = Warnings> {
    vec(warning(), 0..3).prop_map(Warnings::restore)
}

fn grants(of: Windows) -> impl Strategy<Value = Grants> {
    (vec(grant(), 0..4), accounts(of)).prop_map(|(list, drawn)| Grants::restore(list, drawn))
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (profile(), instant(), windows(), windows())
        .prop_flat_map(|(profile, last, windows, previous)| {
            (
                Just((profile, last, windows, previous)),
                accounts(windows),
                vec(lease(), 0..3),
                in_flight(),
                (grants(windows), warnings()),
            )
        })
        .prop_map(|((profile, last, windows, previous), accounts, leases, in_flight, (grants, warnings))| Tenant {
            in_flight,
            grants,
            warnings,
            id: TenantId::trusted("acme"),
            profile,
            last,
            windows,
            previous,
            accounts,
            leases,
            pending: PendingDenials::default(),
        })
}

proptest! {
    #[test]
    fn numbers_come_back(number in any::<i64>()) {
        let mut bytes = Vec::new();
        put_i64(&mut bytes, number);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.i64(), Ok(number));
        prop_assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn entries_come_back(entry in entry()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        prop_assert_eq!(decode_binding(&bytes), Ok(entry.binding));
        let denials = entry.effects.iter().any(|effect| matches!(effect, Effect::Denials(_)));
        prop_assert_eq!(has_denials(&bytes), denials);
        prop_assert_eq!(decode_entry(entry.at, &bytes), Ok(entry));
    }

    #[test]
    fn runs_come_back(run in run()) {
        let mut bytes = Vec::new();
        encode_run(&run, &mut bytes);
        prop_assert_eq!(decode_run(&bytes), Ok(run));
    }

    #[test]
    fn tenants_come_back(tenant in tenant()) {
        let mut bytes = Vec::new();
        encode_tenant(&tenant, &mut bytes);
        prop_assert_eq!(decode_tenant(tenant.id.clone(), &bytes), Ok(tenant));
    }

    #[test]
    fn users_come_back(accounts in windows().prop_flat_map(accounts), warnings in warnings()) {
        let user = User { id: UserId::trusted("ann"), accounts, warnings };
        let mut bytes = Vec::new();
        encode_user(&user, &mut bytes);
        prop_assert_eq!(decode_user(user.id.clone(), &bytes), Ok(user));
    }

    #[test]
    fn bytes_cut_short_are_malformed(entry in entry(), at in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(decode_entry(entry.at, &bytes).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..300),
        (entry, tenant) in (entry(), tenant()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut versioned = vec![1];
        versioned.extend_from_slice(&bytes);
        let (mut changed, mut changed_tenant) = (Vec::new(), Vec::new());
        encode_entry(&entry, &mut changed);
        encode_tenant(&tenant, &mut changed_tenant);
        for changed in [&mut changed, &mut changed_tenant] {
            let index = at.index(changed.len());
            changed[index] = byte;
        }
        for bytes in [&bytes, &versioned, &changed, &changed_tenant] {
            let _ = decode_entry(Instant::EPOCH, bytes);
            let _ = decode_binding(bytes);
            let _ = decode_run(bytes);
            let _ = decode_tenant(TenantId::trusted("acme"), bytes);
            let _ = decode_user(UserId::trusted("ann"), bytes);
        }
    }

    #[test]
    fn a_changed_bit_or_place_is_found(body in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut row = body.clone();
        seal(&["acme"], &[7, 8], &mut row);
        prop_assert_eq!(checked(&["acme"], &[7, 8], &row), Ok(&body[..]));
        prop_assert!(checked(&["acmf"], &[7, 8], &row).is_err());
        prop_assert!(checked(&["acme"], &[8, 8], &row).is_err());
        let index = at.index(row.len());
        row[index] ^= 1 << bit;
        prop_assert!(checked(&["acme"], &[7, 8], &row).is_err());
    }
}

/// What is on disk must be readable for ever: these bytes were written by the first release.
#[test]
fn the_format_stays() {
    let entry = Entry {
        at: Instant::from_ms(1_790_000_000_000),
        catalog: 3,
        cause: Cause::Event,
        binding: Some(Binding { id: 0x0102, fingerprint: 0x0304 }),
        user: Some(UserId::trusted("ann")),
        dimensions: vec![(DimensionKey::trusted("model"), "large".into())],
        note: None,
        effects: vec![Effect::Use {
            meter: MeterKey::trusted("messages"),
            amount: 300,
            open: KindSet::ALL,
            closed: vec![],
        }],
    };
    let mut bytes = Vec::new();
    encode_entry(&entry, &mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let written = "010700000000000000000000000000000102000000000000030403010361\
                   6e6e01056d6f64656c056c6172676501000\
                   86d65737361676573d8041f00";
    assert_eq!(hex, written);
    assert_eq!(decode_entry(entry.at, &bytes), Ok(entry));
}

/// Profiles as they were written before there were shares: they read as nothing shared, and are written so still.
#[test]
fn profiles_from_before_there_were_shares_stay_as_they_are() {
    for (written, status, catalog_pin) in [
        ("0466726565000003555443020400", Status::Active, None),
        ("046672656580000355544302040007", Status::Active, Some(7)),
        ("046672656581000355544302040007", Status::Suspended, Some(7)),
    ] {
        let bytes: Vec<u8> =
            (0..written.len()).step_by(2).map(|at| u8::from_str_radix(&written[at..at + 2], 16).unwrap()).collect();
        let mut reader = Reader::new(&bytes);
        let read = super::entry::profile(&mut reader).unwrap();
        reader.end().unwrap();
        let expected = Profile {
            plan: PlanKey::trusted("free"),
            status,
            enforce: None,
            zone: Zone::utc(),
            anchor: Instant::from_ms(1),
            created_at: Instant::from_ms(2),
            overrides: vec![],
            catalog_pin,
            shares: vec![],
        };
        assert_eq!(read, expected);
        let mut again = Vec::new();
        super::entry::put_profile(&mut again, &expected);
        assert_eq!(again, bytes);
    }
}
