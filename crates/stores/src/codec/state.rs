//! The state of tenants and users, without totals that wait for history and without pending denials.
//!
//! Accounts of one tenant mostly share their windows, so each slot says "as the account before" in one byte.

use super::{
    Decoded, Malformed, Reader,
    entry::{leases, profile, put_leases, put_profile},
    grants::{grant, put_grant},
    in_flight::{hold, put_hold, put_session, session},
    put_i64, put_instant, put_text, put_u64, put_window,
    warnings::{put_warning, warning},
};
use domain::{
    grant::Grants,
    id::{MeterKey, TenantId, UserId},
    tenant::{Account, Accounts, Slot, Tenant, User, Windows},
    time::WindowKind,
    warning::Warnings,
};

const VERSION: u8 = 1;
/// Of a tenant with leases, which stand last.
const VERSION_LEASES: u8 = 2;
/// Of a tenant with more than accounts: sections stand last, their number before them, each after its tag.
const VERSION_SECTIONS: u8 = 3;

const SECTION_LEASES: u8 = 0;
const SECTION_HOLDS: u8 = 1;
const SECTION_SESSIONS: u8 = 2;
const SECTION_GRANTS: u8 = 3;
const SECTION_WARNINGS: u8 = 4;

/// Of a user who was warned of something, which stands last.
const VERSION_WARNED_USER: u8 = 2;

const SLOT_UNUSED: u8 = 0;
const SLOT_OF_SAME_WINDOW: u8 = 1;
const SLOT_OF_OWN_WINDOW: u8 = 2;

pub(crate) fn encode_tenant(tenant: &Tenant, out: &mut Vec<u8>) {
    let has_leases = !tenant.leases.is_empty();
    let has_sections = !tenant.in_flight.is_empty() || !tenant.grants.is_empty() || !tenant.warnings.is_empty();
    out.push(match (has_sections, has_leases) {
        (true, _) => VERSION_SECTIONS,
        (false, true) => VERSION_LEASES,
        (false, false) => VERSION,
    });
    put_profile(out, &tenant.profile);
    put_instant(out, tenant.last);
    for window in tenant.windows.iter().chain(&tenant.previous) {
        put_window(out, *window);
    }
    put_accounts(out, &tenant.accounts, tenant.windows);
    if has_sections {
        put_sections(out, tenant);
    } else if has_leases {
        put_leases(out, &tenant.leases);
    }
}

fn put_sections(out: &mut Vec<u8>, tenant: &Tenant) {
    let in_flight = &tenant.in_flight;
    let (holds, sessions) = (in_flight.holds_count(), in_flight.sessions_count());
    let warned = !tenant.warnings.is_empty();
    let sections = [!tenant.leases.is_empty(), holds > 0, sessions > 0, !tenant.grants.is_empty(), warned];
    out.push(sections.iter().map(|has| u8::from(*has)).sum());
    if !tenant.leases.is_empty() {
        out.push(SECTION_LEASES);
        put_leases(out, &tenant.leases);
    }
    if holds > 0 {
        out.push(SECTION_HOLDS);
        put_u64(out, holds as u64);
        in_flight.holds().for_each(|hold| put_hold(out, hold));
    }
    if sessions > 0 {
        out.push(SECTION_SESSIONS);
        put_u64(out, sessions as u64);
        in_flight.sessions().for_each(|session| put_session(out, session));
    }
    if !tenant.grants.is_empty() {
        out.push(SECTION_GRANTS);
        put_u64(out, tenant.grants.iter().count() as u64);
        tenant.grants.iter().for_each(|grant| put_grant(out, grant));
        let drawn = tenant.grants.drawn().cloned().unwrap_or_default();
        put_accounts(out, &drawn, tenant.windows);
    }
    if warned {
        out.push(SECTION_WARNINGS);
        put_warnings(out, &tenant.warnings);
    }
}

fn put_warnings(out: &mut Vec<u8>, warnings: &Warnings) {
    put_u64(out, warnings.iter().count() as u64);
    warnings.iter().for_each(|warning| put_warning(out, warning));
}

fn read_sections(reader: &mut Reader<'_>, tenant: &mut Tenant) -> Decoded<()> {
    for _ in 0..reader.byte()? {
        match reader.byte()? {
            SECTION_LEASES => tenant.leases = leases(reader)?,
            SECTION_HOLDS => {
                let holds = each_once(reader.list(hold)?, |hold| hold.id)?;
                holds.into_iter().for_each(|hold| tenant.in_flight.restore_hold(hold));
            }
            SECTION_SESSIONS => {
                let sessions = each_once(reader.list(session)?, |session| session.id)?;
                sessions.into_iter().for_each(|session| tenant.in_flight.put_session(session));
            }
            SECTION_GRANTS => {
                let list = reader.list(grant)?;
                tenant.grants = Grants::restore(list, read_accounts(reader, tenant.windows)?);
            }
            SECTION_WARNINGS => tenant.warnings = Warnings::restore(reader.list(warning)?),
            _ => return Err(Malformed("an unknown section")),
        }
    }
    Ok(())
}

/// What stands in the order of its ids, as it was written.
fn each_once<T, Id: Ord>(list: Vec<T>, id: impl Fn(&T) -> Id) -> Decoded<Vec<T>> {
    if list.is_sorted_by(|one, next| id(one) < id(next)) { Ok(list) } else { Err(Malformed("out of order")) }
}

pub(crate) fn decode_tenant(id: TenantId, bytes: &[u8]) -> Decoded<Tenant> {
    let mut reader = Reader::new(bytes);
    let version = bytes.first().copied().filter(|version| (VERSION..=VERSION_SECTIONS).contains(version));
    let version = version.unwrap_or(VERSION);
    reader.version(version)?;
    let profile = profile(&mut reader)?;
    let last = reader.instant()?;
    let windows = read_windows(&mut reader)?;
    let previous = read_windows(&mut reader)?;
    let accounts = read_accounts(&mut reader, windows)?;
    let leases = if version == VERSION_LEASES { leases(&mut reader)? } else { Vec::new() };
    let mut tenant = Tenant { last, windows, previous, accounts, leases, ..Tenant::unborn(id, profile) };
    if version == VERSION_SECTIONS {
        read_sections(&mut reader, &mut tenant)?;
    }
    reader.end()?;
    Ok(tenant)
}

pub(crate) fn encode_user(user: &User, out: &mut Vec<u8>) {
    let warned = !user.warnings.is_empty();
    out.push(if warned { VERSION_WARNED_USER } else { VERSION });
    put_accounts(out, &user.accounts, Windows::default());
    if warned {
        put_warnings(out, &user.warnings);
    }
}

pub(crate) fn decode_user(id: UserId, bytes: &[u8]) -> Decoded<User> {
    let mut reader = Reader::new(bytes);
    let warned = bytes.first() == Some(&VERSION_WARNED_USER);
    reader.version(if warned { VERSION_WARNED_USER } else { VERSION })?;
    let accounts = read_accounts(&mut reader, Windows::default())?;
    let warnings = if warned { reader.list(warning)? } else { Vec::new() };
    reader.end()?;
    Ok(User { id, accounts, warnings: Warnings::restore(warnings) })
}

fn read_windows(reader: &mut Reader<'_>) -> Decoded<Windows> {
    let mut windows = Windows::default();
    for window in &mut windows {
        *window = reader.window()?;
    }
    Ok(windows)
}

fn put_accounts(out: &mut Vec<u8>, accounts: &Accounts, mut before: Windows) {
    put_u64(out, accounts.all().count() as u64);
    for (meter, account) in accounts.all() {
        put_text(out, meter.as_str());
        for kind in WindowKind::ALL {
            let (slot, before) = (&account.slots[kind.index()], &mut before[kind.index()]);
            if *slot == Slot::default() {
                out.push(SLOT_UNUSED);
                continue;
            }
            // Where totals are not kept as history, a slot knows its window by the start alone.
            if slot.window.start == before.start && (slot.window.end == before.end || !kind.is_kept()) {
                out.push(SLOT_OF_SAME_WINDOW);
            } else {
                out.push(SLOT_OF_OWN_WINDOW);
                put_window(out, slot.window);
                *before = slot.window;
            }
            put_i64(out, slot.used);
            put_i64(out, slot.denied);
        }
        put_i64(out, account.level);
        put_instant(out, account.level_set_at);
    }
}

fn read_accounts(reader: &mut Reader<'_>, mut before: Windows) -> Decoded<Accounts> {
    let mut accounts = Accounts::default();
    reader.list(|reader| {
        let meter = MeterKey::trusted(reader.text()?);
        let mut account = Account::default();
        for kind in WindowKind::ALL {
            match reader.byte()? {
                SLOT_UNUSED => continue,
                SLOT_OF_SAME_WINDOW => {}
                SLOT_OF_OWN_WINDOW => before[kind.index()] = reader.window()?,
                _ => return Err(Malformed("an unknown slot")),
            }
            let window = before[kind.index()];
            account.slots[kind.index()] = Slot { window, used: reader.i64()?, denied: reader.i64()? };
        }
        account.level = reader.i64()?;
        account.level_set_at = reader.instant()?;
        accounts.restore(meter, &account);
        Ok(())
    })?;
    Ok(accounts)
}
