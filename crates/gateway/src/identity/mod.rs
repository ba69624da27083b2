//! Who a request is from. Sources are tried in the configured order, and the first that is *present* decides: a
//! credential that is there but not valid is refused, and never falls through to a weaker one.

pub(crate) mod jwks;
pub(crate) mod jwt;
mod tokens;

use crate::{GatewayError, scrub::Scrub};
use domain::id::{TenantId, UserId};
use engine::{Engine, ports::KeyScope};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jwt::Issuer;
use sha2::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc};
use wire::{
    catalog::{IdentitySource, Network},
    tokens::{self as tenant_tokens, TokenError},
};

/// The longest credential that is looked at, in bytes.
const CREDENTIAL_MAX_BYTES: usize = 16 * 1024;

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    pub(crate) user: Option<UserId>,
    /// The header that held a Tidegate key or tenant token, which the upstream has no use for.
    pub(crate) own_credential: Option<HeaderName>,
    /// What the verified token says of the claims that routes look at.
    pub(crate) claims: Claims,
}

/// Claims of a verified token. Empty for every other credential.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Claims(Option<Arc<[Claim]>>);

/// Its JSON pointer, and what it says.
type Claim = (Arc<str>, Box<str>);

impl Claims {
    /// What a claim says, if the token has it.
    pub(crate) fn get(&self, pointer: &str) -> Option<&str> {
        let (_, value) = self.0.as_deref()?.iter().find(|(known, _)| **known == *pointer)?;
        Some(value)
    }
}

/// What a look at a request's credentials found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No source is present.
    Nobody,
    /// Verified.
    Somebody(Identity),
    /// Present and not valid: for people, why.
    Invalid(&'static str),
    /// Present, but the keys to verify it with can't be had now.
    Unverifiable,
}

/// The configured sources, ready for use.
#[derive(Debug)]
pub(crate) struct Identifier {
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    /// Every configured issuer of tokens.
    Tokens(Vec<Issuer>),
    ApiKey(Option<HeaderName>),
    Trusted {
        tenant: HeaderName,
        user: Option<HeaderName>,
        from: Vec<Network>,
    },
}

impl Identifier {
    /// Reads secrets and keys from where the catalog says they are. `wanted` are the claims that routes look at.
    pub(crate) fn new(
        sources: &[IdentitySource],
        wanted: &Arc<[Arc<str>]>,
        fetch: &jwks::Fetch,
    ) -> Result<Self, GatewayError> {
        let mut ready: Vec<Source> = Vec::with_capacity(sources.len());
        for source in sources {
            match source {
                IdentitySource::Jwt(rules) => {
                    let issuer = Issuer::new(rules, wanted, fetch)?;
                    // Which issuer a token is from is read from the token: all of them stand where the first stood.
                    let known = ready.iter_mut().find_map(|source| match source {
                        Source::Tokens(issuers) => Some(issuers),
                        Source::ApiKey(_) | Source::Trusted { .. } => None,
                    });
                    match known {
                        Some(issuers) => issuers.push(issuer),
                        None => ready.push(Source::Tokens(vec![issuer])),
                    }
                }
                IdentitySource::ApiKey { header } => ready.push(Source::ApiKey(header.clone())),
                IdentitySource::TrustedHeader { tenant, user, from } => {
                    ready.push(Source::Trusted { tenant: tenant.clone(), user: user.clone(), from: from.clone() });
                }
            }
        }
        Ok(Self { sources: ready })
    }

    /// What no request may carry to the upstream, and whose word counts.
    pub(crate) fn scrub(&self) -> Scrub {
        let mut scrub = Scrub::default();
        for source in &self.sources {
            if let Source::Trusted { tenant, user, from } = source {
                scrub.identity_headers.push(tenant.clone());
                scrub.identity_headers.extend(user.clone());
                scrub.trusted.extend(from.iter().copied());
            }
        }
        scrub
    }

    /// What to answer in `WWW-Authenticate`.
    pub(crate) fn challenge(&self, invalid: bool) -> HeaderValue {
        HeaderValue::from_static(match invalid {
            true => r#"Bearer realm="tidegate", error="invalid_token""#,
            false => r#"Bearer realm="tidegate""#,
        })
    }

    /// Who the request is from.
    pub(crate) async fn identify(&self, headers: &HeaderMap, peer: IpAddr, engine: &Engine) -> Found {
        for source in &self.sources {
            let found = match source {
                Source::Tokens(issuers) => self.by_token(issuers, headers).await,
                Source::ApiKey(header) => self.by_key(header.as_ref(), headers, engine),
                Source::Trusted { tenant, user, from } => by_header(tenant, user.as_ref(), from, headers, peer),
            };
            if found != Found::Nobody {
                return found;
            }
        }
        // A bearer credential that no source claimed is a credential all the same.
        match bearer(headers) {
            Bearer::Absent => Found::Nobody,
            Bearer::One(_) if self.takes_bearer() => {
                Found::Invalid("this kind of bearer credential is not accepted here")
            }
            Bearer::Malformed if self.takes_bearer() => Found::Invalid("the Authorization header can't be read"),
            Bearer::One(_) | Bearer::Malformed => Found::Nobody,
        }
    }

    fn takes_bearer(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Tokens(_) | Source::ApiKey(_)))
    }

    async fn by_token(&self, issuers: &[Issuer], headers: &HeaderMap) -> Found {
        match bearer(headers) {
            Bearer::One(token) if tokens::is_jwt(token) => match issuers {
                [only] => only.verify(token).await,
                several => match tokens::unverified_issuer(token)
                    .and_then(|name| several.iter().find(|issuer| issuer.name() == name))
                {
                    Some(issuer) => issuer.verify(token).await,
                    None => Found::Invalid("the token's issuer is not known here"),
                },
            },
            Bearer::One(_) | Bearer::Absent | Bearer::Malformed => Found::Nobody,
        }
    }

    fn by_key(&self, header: Option<&HeaderName>, headers: &HeaderMap, engine: &Engine) -> Found {
        if let Some(name) = header.filter(|name| headers.contains_key(*name)) {
            let mut values = headers.get_all(name).iter();
            return match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
                (Some(key), None) => by_own_credential(key, name, engine),
                _ => Found::Invalid("the API key must be sent once, as plain text"),
            };
        }
        match bearer(headers) {
            Bearer::One(key) if !tokens::is_jwt(key) => by_own_credential(key, &header::AUTHORIZATION, engine),
            Bearer::One(_) | Bearer::Absent | Bearer::Malformed => Found::Nobody,
        }
    }
}

/// A credential that Tidegate gave out itself: a tenant token, or else an API key.
fn by_own_credential(credential: &str, sent_in: &HeaderName, engine: &Engine) -> Found {
    if credential.len() > CREDENTIAL_MAX_BYTES {
        return Found::Invalid("the API key is too long");
    }
    if !credential.starts_with(tenant_tokens::PREFIX) {
        return known_key(credential, sent_in, engine);
    }
    match tenant_tokens::verify(&engine.secret(), credential, engine.now()) {
        Ok(tenant) => Found::Somebody(Identity {
            tenant,
            user: None,
            own_credential: Some(sent_in.clone()),
            claims: Claims::default(),
        }),
        Err(TokenError::Expired) => Found::Invalid("the token has expired"),
        Err(TokenError::Forged) => Found::Invalid("the token is not one of this server's"),
    }
}

/// A Tidegate API key. Only keys of one tenant say who somebody is.
fn known_key(key: &str, sent_in: &HeaderName, engine: &Engine) -> Found {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    match engine.key_by_hash(&hash).as_deref().map(|key| &key.scope) {
        Some(KeyScope::Tenant(tenant)) => Found::Somebody(Identity {
            tenant: tenant.clone(),
            user: None,
            own_credential: Some(sent_in.clone()),
            claims: Claims::default(),
        }),
        Some(KeyScope::Admin | KeyScope::Ingest | KeyScope::Read) => {
            Found::Invalid("this API key belongs to no tenant, so it can't be used here")
        }
        None => Found::Invalid("the API key is unknown or was revoked"),
    }
}

/// A header set by a proxy in front. From anywhere else it is not there at all.
fn by_header(
    tenant: &HeaderName,
    user: Option<&HeaderName>,
    from: &[Network],
    headers: &HeaderMap,
    peer: IpAddr,
) -> Found {
    if !from.iter().any(|network| network.contains(peer)) || !headers.contains_key(tenant) {
        return Found::Nobody;
    }
    let Some(tenant) = only_text(headers, tenant).and_then(|name| TenantId::new(name).ok()) else {
        return Found::Invalid("the header that names the tenant can't be read");
    };
    let user = match user.filter(|name| headers.contains_key(*name)) {
        None => None,
        Some(name) => match only_text(headers, name).and_then(|name| UserId::new(name).ok()) {
            Some(user) => Some(user),
            None => return Found::Invalid("the header that names the user can't be read"),
        },
    };
    Found::Somebody(Identity { tenant, user, own_credential: None, claims: Claims::default() })
}

/// The value of a header that was sent exactly once.
fn only_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

enum Bearer<'a> {
    Absent,
    One(&'a str),
    Malformed,
}

/// The bearer credential of a request. Another scheme (`Basic`) is the upstream's business, and none of ours.
fn bearer(headers: &HeaderMap) -> Bearer<'_> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Bearer::Absent;
    }
    let Some(value) = only_text(headers, &header::AUTHORIZATION) else { return Bearer::Malformed };
    let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
    let credential = credential.trim();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Bearer::Absent;
    }
    match credential.is_empty() || credential.len() > CREDENTIAL_MAX_BYTES || credential.contains([' ', ',']) {
        true => Bearer::Malformed,
        false => Bearer::One(credential),
    }
}
