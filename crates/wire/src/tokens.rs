//! Tenant tokens for browsers: `tgt_`, the claims in base64url, a dot, and their HMAC-SHA256 under the ledger's secret.
//! Short-lived and not stored, so they can't be revoked one by one. Time is an argument.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{id::TenantId, time::Instant};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::borrow::Cow;

/// What every token begins with.
pub const PREFIX: &str = "tgt_";
/// How long a token lives where nothing is said.
pub const TTL_DEFAULT_MS: i64 = 15 * 60 * 1000;
/// How long a token may live.
pub const TTL_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest token that is looked at, bytes.
const TOKEN_MAX_BYTES: usize = 1024;
/// Keeps these signatures apart from others under the same secret.
const DOMAIN: &[u8] = b"tidegate tenant token 1\0";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims<'a> {
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    /// Milliseconds since 1970.
    expires_ms: i64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It was not made by this ledger, or was changed.
    Forged,
    /// It was good once.
    Expired,
}

/// A token for `tenant` that is accepted until `expires_at`.
pub fn sign(secret: &[u8; 32], tenant: &TenantId, expires_at: Instant) -> String {
    let claims = Claims { tenant: Cow::Borrowed(tenant.as_str()), expires_ms: expires_at.ms() };
    // A string and a number: this can't fail.
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
    let tag = URL_SAFE_NO_PAD.encode(mac(secret, &claims).finalize().into_bytes());
    format!("{PREFIX}{claims}.{tag}")
}

/// The tenant that a token speaks for at `now`.
///
/// # Errors
/// [`TokenError`] where it speaks for none.
pub fn verify(secret: &[u8; 32], token: &str, now: Instant) -> Result<TenantId, TokenError> {
    let parts = token.strip_prefix(PREFIX).filter(|_| token.len() <= TOKEN_MAX_BYTES);
    let (claims, tag) = parts.and_then(|parts| parts.split_once('.')).ok_or(TokenError::Forged)?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| TokenError::Forged)?;
    mac(secret, claims).verify_slice(&tag).map_err(|_| TokenError::Forged)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Forged)?;
    let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| TokenError::Forged)?;
    if now.ms() >= claims.expires_ms || claims.expires_ms - now.ms() > TTL_MAX_MS {
        return Err(TokenError::Expired);
    }
    TenantId::new(&claims.tenant).map_err(|_| TokenError::Forged)
}

fn mac(secret: &[u8; 32], claims: &str) -> Hmac<Sha256> {
    // HMAC pads a key with zeros to the hash's block itself.
    let mut block = [0; 64];
    block[..32].copy_from_slice(secret);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(DOMAIN);
    mac.update(claims.as_bytes());
    mac
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
