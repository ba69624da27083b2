//! Holds and sessions, as entries and states keep them.

use super::{Decoded, Malformed, Reader, put_i64, put_instant, put_option, put_text, put_u64, put_window};
use domain::{
    catalog::{AMOUNT_MAX, Unsettled},
    hold::{Excess, HeldCharge, Hold, HoldId},
    id::{DimensionKey, MeterKey, UserId},
    op::Dimensions,
    session::{CloseReason, Session, SessionEnd, SessionId},
    tenant::Windows,
};

const UNSETTLED: [Unsettled; 2] = [Unsettled::Release, Unsettled::Charge];

const IS_LAPSED: u8 = 1;
const IS_FINISHING: u8 = 1;

pub(super) fn put_hold(out: &mut Vec<u8>, hold: &Hold) {
    out.extend_from_slice(&hold.id.0.to_be_bytes());
    out.push(if hold.lapsed { IS_LAPSED } else { 0 });
    put_option(out, hold.user.as_ref(), |out, user| put_text(out, user.as_str()));
    put_u64(out, hold.charges.len() as u64);
    for part in &hold.charges {
        put_text(out, part.meter.as_str());
        put_i64(out, part.amount);
        out.push(u8::from(part.is_level));
        out.push(super::entry::position(&UNSETTLED, &part.unsettled));
    }
    put_windows(out, &hold.windows);
    put_instant(out, hold.taken_at);
    put_instant(out, hold.expires_at);
    out.push(super::entry::position(&Excess::ALL, &hold.excess));
    put_dimensions(out, &hold.dimensions);
}

pub(super) fn hold(reader: &mut Reader<'_>) -> Decoded<Hold> {
    let id = HoldId(u128::from_be_bytes(reader.array()?));
    let lapsed = reader.flag()?;
    Ok(Hold {
        id,
        lapsed,
        user: reader.option(Reader::text)?.map(UserId::trusted),
        charges: reader.list(|reader| {
            Ok(HeldCharge {
                meter: MeterKey::trusted(reader.text()?),
                amount: amount(reader)?,
                is_level: reader.flag()?,
                unsettled: reader.one_of(&UNSETTLED)?,
            })
        })?,
        windows: windows(reader)?,
        taken_at: reader.instant()?,
        expires_at: reader.instant()?,
        excess: reader.one_of(&Excess::ALL)?,
        dimensions: dimensions(reader)?,
    })
}

pub(super) fn put_session(out: &mut Vec<u8>, session: &Session) {
    out.extend_from_slice(&session.id.0.to_be_bytes());
    out.push(if session.is_finishing { IS_FINISHING } else { 0 });
    put_text(out, &session.key);
    put_text(out, session.meter.as_str());
    put_option(out, session.user.as_ref(), |out, user| put_text(out, user.as_str()));
    put_instant(out, session.opened_at);
    put_instant(out, session.touched_at);
    for ms in [session.idle_timeout_ms, session.accrued_ms, session.overage_ms, session.held_ms] {
        put_i64(out, ms);
    }
    put_windows(out, &session.windows);
    put_dimensions(out, &session.dimensions);
}

pub(super) fn session(reader: &mut Reader<'_>) -> Decoded<Session> {
    let id = SessionId(u128::from_be_bytes(reader.array()?));
    let is_finishing = reader.flag()?;
    Ok(Session {
        id,
        is_finishing,
        key: reader.shared_text()?,
        meter: MeterKey::trusted(reader.text()?),
        user: reader.option(Reader::text)?.map(UserId::trusted),
        opened_at: reader.instant()?,
        touched_at: reader.instant()?,
        idle_timeout_ms: amount(reader)?,
        accrued_ms: reader.i64()?,
        overage_ms: reader.i64()?,
        held_ms: amount(reader)?,
        windows: windows(reader)?,
        dimensions: dimensions(reader)?,
    })
}

pub(super) fn put_end(out: &mut Vec<u8>, end: &SessionEnd) {
    out.extend_from_slice(&end.id.0.to_be_bytes());
    put_text(out, &end.key);
    put_text(out, end.meter.as_str());
    put_instant(out, end.opened_at);
    put_instant(out, end.ended_at);
    put_i64(out, end.accrued_ms);
    put_i64(out, end.overage_ms);
    out.push(super::entry::position(&CloseReason::ALL, &end.reason));
}

pub(super) fn end(reader: &mut Reader<'_>) -> Decoded<SessionEnd> {
    Ok(SessionEnd {
        id: SessionId(u128::from_be_bytes(reader.array()?)),
        key: reader.shared_text()?,
        meter: MeterKey::trusted(reader.text()?),
        opened_at: reader.instant()?,
        ended_at: reader.instant()?,
        accrued_ms: reader.i64()?,
        overage_ms: reader.i64()?,
        reason: reader.one_of(&CloseReason::ALL)?,
    })
}

/// What is held, or a stretch of time. (What is not one would make sums of them wrap.)
fn amount(reader: &mut Reader<'_>) -> Decoded<i64> {
    let amount = reader.i64()?;
    if (0..=AMOUNT_MAX).contains(&amount) { Ok(amount) } else { Err(Malformed("not an amount")) }
}

fn put_windows(out: &mut Vec<u8>, windows: &Windows) {
    windows.iter().for_each(|window| put_window(out, *window));
}

fn windows(reader: &mut Reader<'_>) -> Decoded<Windows> {
    let mut windows = Windows::default();
    for window in &mut windows {
        *window = reader.window()?;
    }
    Ok(windows)
}

fn put_dimensions(out: &mut Vec<u8>, dimensions: &Dimensions) {
    put_u64(out, dimensions.len() as u64);
    for (key, value) in dimensions {
        put_text(out, key.as_str());
        put_text(out, value);
    }
}

fn dimensions(reader: &mut Reader<'_>) -> Decoded<Dimensions> {
    reader.list(|reader| Ok((DimensionKey::trusted(reader.text()?), reader.shared_text()?)))
}
