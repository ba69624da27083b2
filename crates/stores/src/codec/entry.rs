//! Entries. The instant stands in a column of the row, not in the bytes.

use super::{
    Decoded, Malformed, Reader,
    grants::{self, put_grant},
    in_flight::{self, put_end, put_hold, put_session},
    put_closed, put_i64, put_instant, put_option, put_text, put_u64, put_window,
    shares::{put_shares, shares},
    warnings::{put_warning, warning},
};
use domain::{
    catalog::{Enforce, LimitWindow, Mode, Scope},
    decision::Code,
    entry::{Binding, Cause, DenialKey, DenialRun, Effect, Entry, KindSet, Override, Profile, Status},
    grant::{Draw, GrantId},
    hold::HoldId,
    id::{DimensionKey, FeatureKey, MeterKey, PlanKey, UserId},
    lease::{Lease, Slice},
    time::{Instant, WindowKind, Zone},
};

const VERSION: u8 = 1;

const HAS_BINDING: u8 = 1;
const HAS_USER: u8 = 2;
const HAS_DIMENSIONS: u8 = 4;
const HAS_NOTE: u8 = 8;
/// Redundant, so that opening a ledger need not read every effect.
const HAS_DENIALS: u8 = 16;

/// Set in the byte of the status: the version of a catalog stands at the end, and after it shares.
const IS_PINNED: u8 = 0x80;
const HAS_SHARES: u8 = 0x40;

const STATUSES: [Status; 2] = [Status::Active, Status::Suspended];
const ENFORCES: [Enforce; 2] = [Enforce::Observe, Enforce::On];
pub(super) const SCOPES: [Scope; 2] = [Scope::Tenant, Scope::User];
const MODES: [Mode; 3] = [Mode::Hard, Mode::Soft, Mode::Shadow];

/// The position of a value in its list; part of the format.
pub(super) fn position<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|known| known == value).unwrap_or(all.len()) as u8
}

pub(crate) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    out.push(VERSION);
    out.push(
        flag(entry.binding.is_some(), HAS_BINDING)
            | flag(entry.user.is_some(), HAS_USER)
            | flag(!entry.dimensions.is_empty(), HAS_DIMENSIONS)
            | flag(entry.note.is_some(), HAS_NOTE)
            | flag(entry.effects.iter().any(|effect| matches!(effect, Effect::Denials(_))), HAS_DENIALS),
    );
    if let Some(binding) = &entry.binding {
        out.extend_from_slice(&binding.id.to_be_bytes());
        out.extend_from_slice(&binding.fingerprint.to_be_bytes());
    }
    put_u64(out, u64::from(entry.catalog));
    out.push(position(&Cause::ALL, &entry.cause));
    if let Some(user) = &entry.user {
        put_text(out, user.as_str());
    }
    if !entry.dimensions.is_empty() {
        put_u64(out, entry.dimensions.len() as u64);
        for (key, value) in &entry.dimensions {
            put_text(out, key.as_str());
            put_text(out, value);
        }
    }
    if let Some(note) = &entry.note {
        put_text(out, note);
    }
    put_u64(out, entry.effects.len() as u64);
    for effect in &entry.effects {
        put_effect(out, effect);
    }
}

/// The idempotency key of an encoded entry, without reading the rest.
pub(crate) fn decode_binding(bytes: &[u8]) -> Decoded<Option<Binding>> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let flags = reader.byte()?;
    binding(&mut reader, flags)
}

/// Whether an encoded entry holds denials.
pub(crate) fn has_denials(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|flags| flags & HAS_DENIALS != 0)
}

fn binding(reader: &mut Reader<'_>, flags: u8) -> Decoded<Option<Binding>> {
    if flags & HAS_BINDING == 0 {
        return Ok(None);
    }
    let id = u128::from_be_bytes(reader.array()?);
    Ok(Some(Binding { id, fingerprint: u64::from_be_bytes(reader.array()?) }))
}

/// [`decode_entry`] as the engine asks for it.
pub(crate) fn read_entry(at: Instant, bytes: &[u8]) -> Result<Entry, &'static str> {
    decode_entry(at, bytes).map_err(|why| why.0)
}

pub(crate) fn decode_entry(at: Instant, bytes: &[u8]) -> Decoded<Entry> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let flags = reader.byte()?;
    if flags & !(HAS_BINDING | HAS_USER | HAS_DIMENSIONS | HAS_NOTE | HAS_DENIALS) != 0 {
        return Err(Malformed("an unknown flag"));
    }
    let entry = Entry {
        at,
        binding: binding(&mut reader, flags)?,
        catalog: reader.u32()?,
        cause: reader.one_of(&Cause::ALL)?,
        user: if flags & HAS_USER != 0 { Some(UserId::trusted(reader.text()?)) } else { None },
        dimensions: if flags & HAS_DIMENSIONS != 0 {
            reader.list(|reader| Ok((DimensionKey::trusted(reader.text()?), reader.shared_text()?)))?
        } else {
            Vec::new()
        },
        note: if flags & HAS_NOTE != 0 { Some(reader.shared_text()?) } else { None },
        effects: reader.list(effect)?,
    };
    reader.end()?;
    Ok(entry)
}

fn put_effect(out: &mut Vec<u8>, effect: &Effect) {
    match effect {
        Effect::Use { meter, amount, open, closed } => {
            out.push(0);
            put_counted(out, meter, *amount, *open, closed);
        }
        Effect::Denied { meter, amount, open, closed } => {
            out.push(1);
            put_counted(out, meter, *amount, *open, closed);
        }
        Effect::Level { meter, tenant_delta, user_delta, set_at } => {
            out.push(2);
            put_text(out, meter.as_str());
            put_i64(out, *tenant_delta);
            put_i64(out, *user_delta);
            put_option(out, *set_at, put_instant);
        }
        Effect::Turn { kind, window } => {
            out.push(3);
            out.push(kind.index() as u8);
            put_window(out, *window);
        }
        Effect::Profile(profile) => {
            out.push(4);
            put_profile(out, profile);
        }
        Effect::Denials(run) => {
            out.push(5);
            put_run(out, run);
        }
        Effect::Leases(leases) => {
            out.push(6);
            put_leases(out, leases);
        }
        Effect::Under { epoch } => {
            out.push(7);
            put_u64(out, *epoch);
        }
        Effect::Hold(hold) => {
            out.push(8);
            put_hold(out, hold);
        }
        Effect::HoldSettled { id } => {
            out.push(9);
            out.extend_from_slice(&id.0.to_be_bytes());
        }
        Effect::Session(session) => {
            out.push(10);
            put_session(out, session);
        }
        Effect::SessionClosed(end) => {
            out.push(11);
            put_end(out, end);
        }
        Effect::Grant(grant) => {
            out.push(12);
            put_grant(out, grant);
        }
        Effect::GrantRevoked { id } => {
            out.push(13);
            out.extend_from_slice(&id.0.to_be_bytes());
        }
        Effect::Draw(draw) => {
            out.push(14);
            out.extend_from_slice(&draw.grant.0.to_be_bytes());
            put_counted(out, &draw.meter, draw.amount, draw.open, &draw.closed);
        }
        Effect::Warned(warning) => {
            out.push(15);
            put_warning(out, warning);
        }
    }
}

pub(super) fn put_leases(out: &mut Vec<u8>, leases: &[Lease]) {
    put_u64(out, leases.len() as u64);
    for lease in leases {
        put_u64(out, lease.epoch);
        put_u64(out, lease.entries);
        put_u64(out, u64::from(lease.catalog));
        put_instant(out, lease.granted_at);
        put_u64(out, lease.slices.len() as u64);
        for slice in &lease.slices {
            put_text(out, slice.meter.as_str());
            out.push(slice.kind.index() as u8);
            put_i64(out, slice.size);
            put_i64(out, slice.left);
        }
    }
}

pub(super) fn leases(reader: &mut Reader<'_>) -> Decoded<Vec<Lease>> {
    reader.list(|reader| {
        Ok(Lease {
            epoch: reader.u64()?,
            entries: reader.u64()?,
            catalog: reader.u32()?,
            granted_at: reader.instant()?,
            slices: reader.list(|reader| {
                Ok(Slice {
                    meter: MeterKey::trusted(reader.text()?),
                    kind: reader.one_of(&WindowKind::ALL)?,
                    size: reader.i64()?,
                    left: reader.i64()?,
                })
            })?,
        })
    })
}

fn put_counted(
    out: &mut Vec<u8>,
    meter: &MeterKey,
    amount: i64,
    open: KindSet,
    closed: &[domain::entry::ClosedWindow],
) {
    put_text(out, meter.as_str());
    put_i64(out, amount);
    out.push(open.0);
    put_u64(out, closed.len() as u64);
    for window in closed {
        put_closed(out, window);
    }
}

fn effect(reader: &mut Reader<'_>) -> Decoded<Effect> {
    let tag = reader.byte()?;
    Ok(match tag {
        0 | 1 => {
            let meter = MeterKey::trusted(reader.text()?);
            let amount = reader.i64()?;
            let open = KindSet(reader.byte()?);
            check_kinds(open)?;
            let closed = reader.list(Reader::closed)?;
            if tag == 0 {
                Effect::Use { meter, amount, open, closed }
            } else {
                Effect::Denied { meter, amount, open, closed }
            }
        }
        2 => Effect::Level {
            meter: MeterKey::trusted(reader.text()?),
            tenant_delta: reader.i64()?,
            user_delta: reader.i64()?,
            set_at: reader.option(Reader::instant)?,
        },
        3 => Effect::Turn { kind: reader.one_of(&WindowKind::ALL)?, window: reader.window()? },
        4 => Effect::Profile(Box::new(profile(reader)?)),
        5 => Effect::Denials(Box::new(run(reader)?)),
        6 => Effect::Leases(leases(reader)?),
        7 => Effect::Under { epoch: reader.u64()? },
        8 => Effect::Hold(Box::new(in_flight::hold(reader)?)),
        9 => Effect::HoldSettled { id: HoldId(u128::from_be_bytes(reader.array()?)) },
        10 => Effect::Session(Box::new(in_flight::session(reader)?)),
        11 => Effect::SessionClosed(Box::new(in_flight::end(reader)?)),
        12 => Effect::Grant(Box::new(grants::grant(reader)?)),
        13 => Effect::GrantRevoked { id: GrantId(u128::from_be_bytes(reader.array()?)) },
        14 => Effect::Draw(Box::new(draw(reader)?)),
        15 => Effect::Warned(Box::new(warning(reader)?)),
        _ => return Err(Malformed("an unknown effect")),
    })
}

fn draw(reader: &mut Reader<'_>) -> Decoded<Draw> {
    let draw = Draw {
        grant: GrantId(u128::from_be_bytes(reader.array()?)),
        meter: MeterKey::trusted(reader.text()?),
        amount: reader.i64()?,
        open: KindSet(reader.byte()?),
        closed: reader.list(Reader::closed)?,
    };
    check_kinds(draw.open)?;
    Ok(draw)
}

fn check_kinds(kinds: KindSet) -> Decoded<()> {
    if kinds.0 & !KindSet::ALL.0 == 0 { Ok(()) } else { Err(Malformed("an unknown window")) }
}

/// A level is nothing; all else stands in the order of the kinds of windows, followed by what bounds sessions.
pub(super) fn put_limit_window(out: &mut Vec<u8>, window: LimitWindow) {
    let place = position(&LimitWindow::ALL, &window);
    put_option(out, place.checked_sub(1), |out, place| out.push(place));
}

pub(super) fn limit_window(reader: &mut Reader<'_>) -> Decoded<LimitWindow> {
    let place = reader.option(|reader| reader.byte())?;
    let window = LimitWindow::ALL.get(place.map_or(0, |place| usize::from(place) + 1));
    window.copied().ok_or(Malformed("an unknown window"))
}

pub(super) fn put_profile(out: &mut Vec<u8>, profile: &Profile) {
    put_text(out, profile.plan.as_str());
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    let flags = flag(profile.catalog_pin.is_some(), IS_PINNED) | flag(!profile.shares.is_empty(), HAS_SHARES);
    out.push(position(&STATUSES, &profile.status) | flags);
    put_option(out, profile.enforce, |out, enforce| out.push(position(&ENFORCES, &enforce)));
    put_text(out, profile.zone.name());
    put_instant(out, profile.anchor);
    put_instant(out, profile.created_at);
    put_u64(out, profile.overrides.len() as u64);
    for own in &profile.overrides {
        put_text(out, own.meter.as_str());
        put_limit_window(out, own.window);
        out.push(position(&SCOPES, &own.scope));
        put_option(out, own.max, put_i64);
        out.push(position(&MODES, &own.mode));
        put_option(out, own.until, put_instant);
        put_option(out, own.reason.as_deref(), put_text);
    }
    if let Some(version) = profile.catalog_pin {
        put_u64(out, u64::from(version));
    }
    if !profile.shares.is_empty() {
        put_shares(out, &profile.shares);
    }
}

pub(super) fn profile(reader: &mut Reader<'_>) -> Decoded<Profile> {
    let plan = PlanKey::trusted(reader.text()?);
    let status = reader.byte()?;
    Ok(Profile {
        plan,
        status: *STATUSES.get(usize::from(status & !(IS_PINNED | HAS_SHARES))).ok_or(Malformed("an unknown status"))?,
        enforce: reader.option(|reader| reader.one_of(&ENFORCES))?,
        zone: Zone::named(reader.text()?).ok_or(Malformed("an unknown time zone"))?,
        anchor: reader.instant()?,
        created_at: reader.instant()?,
        overrides: reader.list(|reader| {
            Ok(Override {
                meter: MeterKey::trusted(reader.text()?),
                window: limit_window(reader)?,
                scope: reader.one_of(&SCOPES)?,
                max: reader.option(Reader::i64)?,
                mode: reader.one_of(&MODES)?,
                until: reader.option(Reader::instant)?,
                reason: reader.option(Reader::shared_text)?,
            })
        })?,
        catalog_pin: if status & IS_PINNED == 0 { None } else { Some(reader.u32()?) },
        shares: if status & HAS_SHARES == 0 { Vec::new() } else { shares(reader)? },
    })
}

fn put_run(out: &mut Vec<u8>, run: &DenialRun) {
    put_instant(out, run.key.minute);
    out.push(u8::from(run.key.shadow));
    out.push(position(&Code::ALL, &run.key.code));
    put_option(out, run.key.user.as_ref(), |out, user| put_text(out, user.as_str()));
    put_text(out, &run.key.subject);
    put_i64(out, run.count);
    put_i64(out, run.amount);
    put_option(out, run.meter.as_ref(), |out, meter| put_text(out, meter.as_str()));
    put_option(out, run.feature.as_ref(), |out, feature| put_text(out, feature.as_str()));
    put_text(out, run.plan.as_str());
    put_i64(out, run.used);
    put_option(out, run.max, put_i64);
    put_option(out, run.resets_at, put_instant);
    put_instant(out, run.first_at);
    put_instant(out, run.last_at);
}

fn run(reader: &mut Reader<'_>) -> Decoded<DenialRun> {
    Ok(DenialRun {
        key: DenialKey {
            minute: reader.instant()?,
            shadow: reader.flag()?,
            code: reader.one_of(&Code::ALL)?,
            user: reader.option(Reader::text)?.map(UserId::trusted),
            subject: reader.shared_text()?,
        },
        count: reader.i64()?,
        amount: reader.i64()?,
        meter: reader.option(Reader::text)?.map(MeterKey::trusted),
        feature: reader.option(Reader::text)?.map(FeatureKey::trusted),
        plan: PlanKey::trusted(reader.text()?),
        used: reader.i64()?,
        max: reader.option(Reader::i64)?,
        resets_at: reader.option(Reader::instant)?,
        first_at: reader.instant()?,
        last_at: reader.instant()?,
    })
}

/// A run of denials, as its own row.
pub(crate) fn encode_run(run: &DenialRun, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_run(out, run);
}

pub(crate) fn decode_run(bytes: &[u8]) -> Decoded<DenialRun> {
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let run = run(&mut reader)?;
    reader.end()?;
    Ok(run)
}
