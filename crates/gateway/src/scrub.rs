//! Headers on their way through: what belongs to one connection is taken out, what a client could forge is taken out,
//! what the upstream may believe is put in.

use crate::identity::Identity;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{self, Entry},
};
use std::net::IpAddr;
use wire::catalog::Network;

/// The tenant that was verified.
pub const TENANT: HeaderName = HeaderName::from_static("x-tidegate-tenant");
/// The user that was verified.
pub const USER: HeaderName = HeaderName::from_static("x-tidegate-user");
/// The plan that was decided on.
pub const PLAN: HeaderName = HeaderName::from_static("x-tidegate-plan");
/// Names the request in every log it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const OWN_PREFIX: &[u8] = b"x-tidegate-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What belongs to one connection alone (RFC 9110, 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("http2-settings"),
];

/// What is stripped from every request, and whose word on `X-Forwarded-*` counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrub {
    /// Headers that name an identity when they come from a trusted network.
    pub(crate) identity_headers: Vec<HeaderName>,
    /// Networks whose `X-Forwarded-*` are kept and added to.
    pub(crate) trusted: Vec<Network>,
}

impl Scrub {
    /// Whether a header could be mistaken for one of ours by an upstream: also one written with underscores, which
    /// CGI-like servers fold into hyphens.
    fn is_forgeable(&self, name: &[u8]) -> bool {
        let folded = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
        let same = |a: &[u8], b: &[u8]| a.len() == b.len() && a.iter().map(folded).eq(b.iter().map(folded));
        (name.len() >= OWN_PREFIX.len() && same(&name[..OWN_PREFIX.len()], OWN_PREFIX))
            || self.identity_headers.iter().any(|own| same(name, own.as_str().as_bytes()))
    }

    /// Takes out what belongs to one connection and what could be forged.
    pub(crate) fn request(&self, headers: &mut HeaderMap) {
        let keeps_trailers = lists(headers, &header::TE, "trailers");
        take_hop_by_hop(headers);
        headers.remove(header::TE);
        if keeps_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let forgeable: Vec<HeaderName> =
            headers.keys().filter(|name| self.is_forgeable(name.as_str().as_bytes())).cloned().collect();
        for name in forgeable {
            headers.remove(name);
        }
    }

    /// Says where the request came from: added to what a trusted proxy said, in place of what anybody else did.
    pub(crate) fn forwarded(&self, headers: &mut HeaderMap, peer: IpAddr, host: Option<HeaderValue>) {
        let peer = peer.to_canonical();
        let trusted = self.trusted.iter().any(|network| network.contains(peer));
        if !trusted {
            for name in [&FORWARDED_FOR, &FORWARDED_HOST, &FORWARDED_PROTO, &REAL_IP, &header::FORWARDED] {
                headers.remove(name);
            }
        }
        let mut chain = String::with_capacity(40);
        for earlier in headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
            chain.push_str(earlier);
            chain.push_str(", ");
        }
        use std::fmt::Write as _;
        let _ = write!(chain, "{peer}");
        if let Ok(chain) = HeaderValue::try_from(chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
        if let (Entry::Vacant(slot), Some(host)) = (headers.entry(FORWARDED_HOST), host) {
            slot.insert(host);
        }
        if let Entry::Vacant(slot) = headers.entry(FORWARDED_PROTO) {
            slot.insert(HeaderValue::from_static("http"));
        }
    }
}

/// Puts in who was verified. A Tidegate key is ours: it goes no further.
pub(crate) fn add_identity(headers: &mut HeaderMap, identity: &Identity) {
    if let Some(credential) = &identity.own_credential {
        headers.remove(credential);
    }
    // Names are printable ASCII: they always fit.
    if let Ok(tenant) = HeaderValue::from_str(identity.tenant.as_str()) {
        headers.insert(TENANT, tenant);
    }
    if let Some(user) = identity.user.as_ref().and_then(|user| HeaderValue::from_str(user.as_str()).ok()) {
        headers.insert(USER, user);
    }
}

/// Takes what belongs to the upstream's connection out of its answer, and what only we may say.
pub(crate) fn response(headers: &mut HeaderMap) {
    take_hop_by_hop(headers);
    headers.remove(wire::headers::WARNING);
    headers.remove(wire::headers::SHADOW);
    headers.remove(wire::headers::OUTAGE);
}

fn take_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether a header is a list that holds this token.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.split(';').next().is_some_and(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// Whether the request asks for a WebSocket. No other protocol is switched to: `h2c` would let requests through that
/// nobody looked at.
pub(crate) fn asks_for_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && method == Method::GET
        && headers.contains_key(header::UPGRADE)
        && lists(headers, &header::CONNECTION, "upgrade")
        && headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Asks for a WebSocket again, on the next connection.
pub(crate) fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
#[path = "scrub_tests.rs"]
mod tests;
