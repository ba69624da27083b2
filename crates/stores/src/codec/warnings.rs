//! Warnings, as entries and states keep them.

use super::{
    Decoded, Malformed, Reader,
    entry::{SCOPES, limit_window, position, put_limit_window},
    put_i64, put_instant, put_option, put_text, put_u64, put_window,
};
use domain::{id::MeterKey, warning::Warning};

pub(super) fn put_warning(out: &mut Vec<u8>, warning: &Warning) {
    put_text(out, &warning.limit);
    put_text(out, warning.meter.as_str());
    put_limit_window(out, warning.window);
    out.push(position(&SCOPES, &warning.scope));
    put_u64(out, u64::from(warning.percent));
    put_i64(out, warning.used);
    put_i64(out, warning.max);
    put_option(out, warning.during, put_window);
    put_instant(out, warning.at);
}

pub(super) fn warning(reader: &mut Reader<'_>) -> Decoded<Warning> {
    Ok(Warning {
        limit: reader.shared_text()?,
        meter: MeterKey::trusted(reader.text()?),
        window: limit_window(reader)?,
        scope: reader.one_of(&SCOPES)?,
        percent: reader.u64()?.try_into().map_err(|_| Malformed("a number is too large"))?,
        used: reader.i64()?,
        max: reader.i64()?,
        during: reader.option(Reader::window)?,
        at: reader.instant()?,
    })
}
