//! Who calls: `Authorization: Bearer KEY`, and nothing else. Never a query parameter, which ends up in logs.

use crate::{
    access::{Access, Caller},
    secrets,
    state::ApiState,
};
use domain::id::TenantId;
use engine::ports::KeyScope;
use http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use wire::{
    problem::Problem,
    rescue,
    tokens::{self, TokenError},
};

/// The longest credentials that are looked at, bytes.
const CREDENTIALS_MAX_BYTES: usize = 1024;

/// Lets a caller through to an endpoint, or says why not. `Ok(None)` is everyone, at a public endpoint.
pub(crate) fn admit(state: &ApiState, access: Access, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    if access == Access::Public || access == Access::Figures && state.parts.metrics_open {
        return Ok(None);
    }
    let caller = caller(state, headers)?;
    if access.allows(&caller.scope) {
        return Ok(Some(caller));
    }
    Err(rescue::FORBIDDEN.problem(format!("This needs {}.", access.words())))
}

/// Refuses a tenant's credentials for another tenant in the answer that an unknown tenant gets.
pub(crate) fn own(caller: &Caller, tenant: &TenantId) -> Result<(), Problem> {
    if caller.may_see(tenant) { Ok(()) } else { Err(not_yours()) }
}

/// The answer to a tenant that asks about another one: the same whether that one exists or not.
pub(crate) fn not_yours() -> Problem {
    rescue::UNKNOWN_TENANT.problem("These credentials know no such tenant.")
}

fn caller(state: &ApiState, headers: &HeaderMap) -> Result<Caller, Problem> {
    let credentials = bearer(headers)?;
    if credentials.starts_with(tokens::PREFIX) {
        return match tokens::verify(&state.secret, credentials, state.engine().now()) {
            Ok(tenant) => Ok(Caller { scope: KeyScope::Tenant(tenant), actor: "token".into() }),
            Err(TokenError::Expired) => Err(unauthenticated("The token has expired; ask for a new one.")),
            Err(TokenError::Forged) => Err(unauthenticated("The token is not one of this server's.")),
        };
    }
    let hash = secrets::key_hash(credentials);
    if let Some(key) = state.engine().key_by_hash(&hash) {
        return Ok(Caller { scope: key.scope.clone(), actor: key.id.clone() });
    }
    if state.parts.admin_key_hash.is_some_and(|bootstrap| bool::from(bootstrap.ct_eq(&hash))) {
        return Ok(Caller { scope: KeyScope::Admin, actor: "bootstrap".into() });
    }
    if secrets::is_broken_key(credentials) {
        return Err(unauthenticated("The key was cut short or mistyped: its checksum does not fit."));
    }
    Err(unauthenticated("The key is unknown or was revoked."))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let missing = || unauthenticated("Send an API key as \"Authorization: Bearer KEY\".");
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(unauthenticated("Send one Authorization header, not several."));
    }
    let (scheme, credentials) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    let credentials = credentials.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || credentials.is_empty() {
        return Err(missing());
    }
    if credentials.len() > CREDENTIALS_MAX_BYTES {
        return Err(unauthenticated("The credentials are too long to be a key."));
    }
    Ok(credentials)
}

fn unauthenticated(detail: &str) -> Problem {
    rescue::UNAUTHENTICATED.problem(detail)
}
