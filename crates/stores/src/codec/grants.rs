//! Grants, as entries and states keep them.

use super::{Decoded, Reader, entry::position, put_i64, put_instant, put_option, put_text};
use domain::{
    grant::{Grant, GrantId, GrantSource},
    id::MeterKey,
};

const SOURCES: [GrantSource; 2] = [GrantSource::Given, GrantSource::Rollover];

pub(super) fn put_grant(out: &mut Vec<u8>, grant: &Grant) {
    out.extend_from_slice(&grant.id.0.to_be_bytes());
    put_text(out, grant.meter.as_str());
    put_i64(out, grant.amount);
    put_i64(out, grant.left);
    put_i64(out, grant.priority);
    put_instant(out, grant.granted_at);
    put_option(out, grant.expires_at, put_instant);
    out.push(position(&SOURCES, &grant.source));
    put_text(out, &grant.reason);
}

pub(super) fn grant(reader: &mut Reader<'_>) -> Decoded<Grant> {
    Ok(Grant {
        id: GrantId(u128::from_be_bytes(reader.array()?)),
        meter: MeterKey::trusted(reader.text()?),
        amount: reader.i64()?,
        left: reader.i64()?,
        priority: reader.i64()?,
        granted_at: reader.instant()?,
        expires_at: reader.option(Reader::instant)?,
        source: reader.one_of(&SOURCES)?,
        reason: reader.shared_text()?,
    })
}
