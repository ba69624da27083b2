//! Names of holds and sessions on the wire: `hold_<32 hex>_<hex of the tenant's name>`, and `ses_...` alike.
//!
//! To callers they are opaque. They carry their tenant, so that any node finds what they name without a table of its own.
//! They are no secrets: who may use one is decided by credentials.

use domain::{
    hold::HoldId,
    id::{NAME_MAX_BYTES, TenantId},
    session::SessionId,
};
use std::fmt::Write;

/// Hexadecimal digits of the number.
const NUMBER_DIGITS: usize = 32;

/// The name of a hold on the wire.
pub fn hold_text(tenant: &TenantId, id: HoldId) -> String {
    text("hold", tenant, id.0)
}

/// The tenant and the hold that a name is of; `None` where it is no name that was ever given out.
pub fn parse_hold(name: &str) -> Option<(TenantId, HoldId)> {
    parse("hold", name).map(|(tenant, number)| (tenant, HoldId(number)))
}

/// The name of a session on the wire.
pub fn session_text(tenant: &TenantId, id: SessionId) -> String {
    text("ses", tenant, id.0)
}

/// The tenant and the session that a name is of; `None` where it is no name that was ever given out.
pub fn parse_session(name: &str) -> Option<(TenantId, SessionId)> {
    parse("ses", name).map(|(tenant, number)| (tenant, SessionId(number)))
}

fn text(kind: &str, tenant: &TenantId, number: u128) -> String {
    let mut text = format!("{kind}_{number:032x}_");
    for byte in tenant.as_str().bytes() {
        // Writing into a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn parse(kind: &str, name: &str) -> Option<(TenantId, u128)> {
    let rest = name.strip_prefix(kind)?.strip_prefix('_')?;
    let (number, tenant) = rest.split_once('_')?;
    if number.len() != NUMBER_DIGITS || tenant.len() > 2 * NAME_MAX_BYTES || !tenant.len().is_multiple_of(2) {
        return None;
    }
    let is_ours = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_ours(number) || !is_ours(tenant) {
        return None;
    }
    let pairs = (0..tenant.len()).step_by(2).map(|at| u8::from_str_radix(&tenant[at..at + 2], 16).ok());
    let tenant = String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()?;
    Some((TenantId::new(&tenant).ok()?, u128::from_str_radix(number, 16).ok()?))
}

#[cfg(test)]
#[path = "in_flight_id_tests.rs"]
mod tests;
