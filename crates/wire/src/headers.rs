//! Response fields about limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) and the
//! warning field of our own. All are RFC 9651 Lists of Strings, serialised by `sfv`.
//!
//! Only hard limits on meters that count requests are advertised in the first two: those fields mean requests where no
//! registered unit is given, and neither tokens nor seats nor seconds of talk have one.

use domain::{
    catalog::{Catalog, Mode},
    decision::{Decision, LimitState},
    time::Instant,
};
use http::{HeaderName, HeaderValue};
use sfv::{KeyRef, ListSerializer, StringRef};

/// `RateLimit`.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// `RateLimit-Policy`.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Limits that are nearly used up: `"messages_day";percent=84`.
pub const WARNING: HeaderName = HeaderName::from_static("x-tidegate-warning");
/// The code of a refusal that was only observed.
pub const SHADOW: HeaderName = HeaderName::from_static("x-tidegate-shadow");
/// Says that the request was decided on what the node knew while the ledger could not be written: `open`.
pub const OUTAGE: HeaderName = HeaderName::from_static("x-tidegate-outage");
/// `false` where a client should not try again by itself, although the status would suggest it.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// About as long as a field with a few limits is.
const FIELD_BYTES: usize = 128;

/// The largest integer a structured field can carry.
const SFV_INTEGER_MAX: i64 = 999_999_999_999_999;

/// The `RateLimit` and `RateLimit-Policy` of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateLimitFields {
    /// What remains, and for how long.
    pub remaining: Option<HeaderValue>,
    /// What is allowed.
    pub policy: Option<HeaderValue>,
}

/// The `RateLimit` and `RateLimit-Policy` of a decision. On a refusal, limits that reset later than `Retry-After` are
/// left out of `RateLimit`: the draft wants no `t` beyond it.
pub fn rate_limit(decision: &Decision, catalog: &Catalog) -> RateLimitFields {
    let counts_requests = |limit: &&LimitState| {
        limit.mode == Mode::Hard
            && limit.window.kind().is_some()
            && catalog.meters.get(&limit.meter).is_some_and(|meter| meter.counts_requests)
    };
    let mut advertised = decision.limits.iter().filter(counts_requests).filter(|limit| limit.max.is_some()).peekable();
    if advertised.peek().is_none() {
        return RateLimitFields::default();
    }
    let retry_after_s = decision.retry_after_s();
    // One allocation each: on the path of every request.
    let (mut remaining, mut policy) = (String::with_capacity(FIELD_BYTES), String::with_capacity(FIELD_BYTES));
    let (mut remaining, mut policy) =
        (ListSerializer::with_buffer(&mut remaining), ListSerializer::with_buffer(&mut policy));
    for limit in advertised {
        let (Ok(name), Some(max)) = (StringRef::from_str(&limit.name), limit.max) else { continue };
        let window_s = limit.window.kind().and_then(|kind| kind.fixed_seconds());
        let item = policy.bare_item(name).parameter(key("q"), integer(max));
        if let Some(window_s) = window_s {
            let _ = item.parameter(key("w"), integer(window_s as i64));
        }
        let reset_s = limit.resets_at.map(|at| seconds_until(decision.at, at));
        if retry_after_s.zip(reset_s).is_some_and(|(retry_s, reset_s)| reset_s > retry_s) {
            continue;
        }
        let item = remaining.bare_item(name).parameter(key("r"), integer(limit.remaining().unwrap_or(0)));
        if let Some(reset_s) = reset_s {
            let _ = item.parameter(key("t"), integer(reset_s as i64));
        }
    }
    RateLimitFields { remaining: value(remaining), policy: value(policy) }
}

/// Limits at or past `percent` of their use, with their percentage. `None` if there are none.
pub fn warning(decision: &Decision, percent: u8) -> Option<HeaderValue> {
    let mut warnings = decision.warnings(i64::from(percent)).peekable();
    warnings.peek()?;
    let mut list = String::with_capacity(FIELD_BYTES);
    let mut list = ListSerializer::with_buffer(&mut list);
    for limit in warnings {
        let Ok(name) = StringRef::from_str(&limit.name) else { continue };
        let _ = list.bare_item(name).parameter(key("percent"), integer(limit.percent().unwrap_or(100)));
    }
    value(list)
}

/// Whole seconds from one instant to a later one, rounded up, at least one.
pub fn seconds_until(from: Instant, to: Instant) -> u64 {
    ((to.ms() - from.ms()).max(1) as u64).div_ceil(1000)
}

fn value(list: ListSerializer<&mut String>) -> Option<HeaderValue> {
    HeaderValue::try_from(std::mem::take(list.finish()?)).ok()
}

fn key(name: &'static str) -> &'static KeyRef {
    KeyRef::constant(name)
}

fn integer(number: i64) -> sfv::Integer {
    sfv::Integer::try_from(number.clamp(0, SFV_INTEGER_MAX)).unwrap_or(sfv::Integer::MAX)
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
