//! JSON Web Tokens of one issuer. Algorithms come from the catalog, never from the token; issuer, audience and expiry
//! are required. Validity is judged by the machine's own clock, since tokens are issued in the real world's time.

use super::{
    Claims, Found, Identity,
    jwks::{Fetch, Jwks, Key},
};
use crate::GatewayError;
use domain::id::{TenantId, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header, get_current_timestamp};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::{fmt, path::Path, sync::Arc};
use wire::catalog::{COST_VALUE_MAX_CHARS, JwtIdentity, JwtKeys};

/// How many verified tokens are remembered, how long at most, and how long one may be.
const REMEMBERED_MAX: usize = 4096;
const REMEMBERED_MAX_S: u64 = 60;
const REMEMBERED_MAX_BYTES: usize = 2048;
/// How much of a claim is kept, in characters: more than anything that has a price may have.
const CLAIM_MAX_CHARS: usize = COST_VALUE_MAX_CHARS + 1;
/// The shortest shared secret (RFC 7518, 3.2: as long as the hash).
const SECRET_MIN_BYTES: usize = 32;

/// An issuer of tokens.
pub(crate) struct Issuer {
    name: Arc<str>,
    keys: Keys,
    /// For each accepted algorithm, what a token must fulfil.
    validations: Vec<(Algorithm, Validation)>,
    tenant_claim: Arc<str>,
    user_claim: Option<Arc<str>>,
    /// The claims that routes look at.
    wanted: Arc<[Arc<str>]>,
    /// Tokens that were verified, until when. Only what was verified gets in.
    remembered: Mutex<FxHashMap<Box<str>, (u64, Identity)>>,
}

enum Keys {
    Fixed(DecodingKey),
    Fetched(Arc<Jwks>),
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issuer {
    pub(crate) fn new(rules: &JwtIdentity, wanted: &Arc<[Arc<str>]>, fetch: &Fetch) -> Result<Self, GatewayError> {
        let algorithms = rules
            .algorithms
            .iter()
            .map(|word| algorithm(word).ok_or_else(|| config(rules, &format!("the algorithm {word} is not offered"))))
            .collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() || rules.audience.is_empty() || rules.issuer.is_empty() {
            return Err(config(rules, "issuer, audience and algorithms must be given"));
        }
        let symmetric = |algorithm: &Algorithm| *algorithm == Algorithm::HS256;
        let shared = matches!(rules.keys, JwtKeys::SecretEnv(_) | JwtKeys::SecretFile(_));
        // The one mistake that makes a public key a secret: an algorithm of the other family beside it.
        if algorithms.iter().any(|algorithm| symmetric(algorithm) != shared) {
            return Err(config(rules, "HS256 goes with a shared secret, RS256 and ES256 with public keys"));
        }
        let validations = algorithms.iter().map(|algorithm| (*algorithm, validation(rules, *algorithm))).collect();
        Ok(Self {
            name: rules.issuer.clone(),
            keys: keys(rules, &algorithms, fetch)?,
            validations,
            tenant_claim: rules.tenant_claim.clone(),
            user_claim: rules.user_claim.clone(),
            wanted: wanted.clone(),
            remembered: Mutex::default(),
        })
    }

    /// Its `iss`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Who a token says its bearer is.
    pub(crate) async fn verify(&self, token: &str) -> Found {
        let now_s = get_current_timestamp();
        if let Some((until_s, identity)) = self.remembered.lock().get(token)
            && now_s < *until_s
        {
            return Found::Somebody(identity.clone());
        }
        let Ok(header) = decode_header(token) else { return Found::Invalid("the token can't be read") };
        if header.crit.is_some() {
            return Found::Invalid("the token asks for extensions that are not understood");
        }
        let Some((_, validation)) = self.validations.iter().find(|(algorithm, _)| *algorithm == header.alg) else {
            return Found::Invalid("the token is signed with an algorithm that is not accepted");
        };
        let claims = match &self.keys {
            Keys::Fixed(key) => decode::<Value>(token, key, validation),
            Keys::Fetched(keys) => match self.key(keys, &header).await {
                Ok(key) => decode::<Value>(token, &key.key, validation),
                Err(found) => return found,
            },
        };
        match claims {
            Ok(token_data) => self.identity(token, &token_data.claims, now_s),
            Err(error) => Found::Invalid(reason(&error)),
        }
    }

    async fn key(&self, keys: &Arc<Jwks>, header: &Header) -> Result<Arc<Key>, Found> {
        match keys.find(header.kid.as_deref(), header.alg).await {
            Some(key) => Ok(key),
            None if keys.is_empty() => Err(Found::Unverifiable),
            None => Err(Found::Invalid("the token is signed with a key that its issuer does not publish")),
        }
    }

    fn identity(&self, token: &str, claims: &Value, now_s: u64) -> Found {
        let Some(tenant) = name_at(claims, &self.tenant_claim).and_then(|name| TenantId::new(&name).ok()) else {
            return Found::Invalid("the token's claims name no tenant");
        };
        let user = match self.user_claim.as_deref().filter(|pointer| claims.pointer(pointer).is_some()) {
            None => None,
            Some(pointer) => match name_at(claims, pointer).and_then(|name| UserId::new(&name).ok()) {
                Some(user) => Some(user),
                None => return Found::Invalid("the token's claims name a user that can't be read"),
            },
        };
        let identity = Identity { tenant, user, own_credential: None, claims: self.claims(claims) };
        self.remember(token, claims, &identity, now_s);
        Found::Somebody(identity)
    }

    fn claims(&self, claims: &Value) -> Claims {
        if self.wanted.is_empty() {
            return Claims::default();
        }
        let said = |pointer: &Arc<str>| Some((pointer.clone(), word(claims.pointer(pointer)?)?));
        Claims(Some(self.wanted.iter().filter_map(said).collect()))
    }

    fn remember(&self, token: &str, claims: &Value, identity: &Identity, now_s: u64) {
        let Some(expires_s) = claims.get("exp").and_then(Value::as_u64) else { return };
        let until_s = expires_s.min(now_s + REMEMBERED_MAX_S);
        if token.len() > REMEMBERED_MAX_BYTES || until_s <= now_s {
            return;
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (until_s, _)| now_s < *until_s);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(token.into(), (until_s, identity.clone()));
        }
    }
}

/// What a claim says, as one word; `None` where it says nothing. It is kept only as far as anything with a price is long.
fn word(claim: &Value) -> Option<Box<str>> {
    let word = match claim {
        Value::Null => return None,
        Value::String(word) => word.clone(),
        other => other.to_string(),
    };
    Some(word.chars().take(CLAIM_MAX_CHARS).collect())
}

/// A name inside claims: a string, or an integer, as many issuers write ids.
fn name_at(claims: &Value, pointer: &str) -> Option<String> {
    match claims.pointer(pointer)? {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn validation(rules: &JwtIdentity, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&rules.audience);
    validation.leeway = rules.leeway_s;
    validation.validate_nbf = true;
    validation
}

pub(super) fn algorithm(word: &str) -> Option<Algorithm> {
    match word {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        _ => None,
    }
}

fn keys(rules: &JwtIdentity, algorithms: &[Algorithm], fetch: &Fetch) -> Result<Keys, GatewayError> {
    let read = |path: &str| {
        std::fs::read(Path::new(path)).map_err(|error| config(rules, &format!("{path} can't be read: {error}")))
    };
    let secret = |bytes: &[u8]| match bytes.len() >= SECRET_MIN_BYTES {
        true => Ok(Keys::Fixed(DecodingKey::from_secret(bytes))),
        false => Err(config(rules, &format!("the shared secret must have at least {SECRET_MIN_BYTES} bytes"))),
    };
    match &rules.keys {
        JwtKeys::SecretEnv(name) => match std::env::var(&**name) {
            Ok(value) => secret(value.trim_end_matches(['\r', '\n']).as_bytes()),
            Err(_) => Err(config(rules, &format!("the environment variable {name} is not set"))),
        },
        JwtKeys::SecretFile(path) => {
            let bytes = read(path)?;
            let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
            secret(&bytes[..end])
        }
        JwtKeys::PublicKeyFile(path) => {
            let pem = read(path)?;
            let key = match algorithms {
                [Algorithm::RS256] => DecodingKey::from_rsa_pem(&pem),
                [Algorithm::ES256] => DecodingKey::from_ec_pem(&pem),
                _ => return Err(config(rules, "one public key goes with one algorithm, RS256 or ES256")),
            };
            let wrong = |error| config(rules, &format!("{path} holds no public key of this kind: {error}"));
            Ok(Keys::Fixed(key.map_err(wrong)?))
        }
        JwtKeys::JwksUrl(url) => Ok(Keys::Fetched(Jwks::new(url.clone(), algorithms.to_vec(), fetch.clone()))),
    }
}

fn config(rules: &JwtIdentity, what: &str) -> GatewayError {
    GatewayError::Identity { issuer: rules.issuer.clone(), what: what.into() }
}

/// Why a token is refused, without telling more than its bearer knows.
fn reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, iss and aud",
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        _ => "the token is not valid",
    }
}
