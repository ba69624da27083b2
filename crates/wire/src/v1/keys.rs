//! API keys and tenant tokens.

use super::{check::bad_name, limit::Time};
use crate::{problem::Problem, rescue};
use domain::id::TenantId;
use engine::ports::{ApiKey, KeyScope};
use serde::{Deserialize, Serialize};

/// A key to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRequest)]
pub struct KeyRequest {
    /// For people.
    #[schema(example = "billing service")]
    pub name: String,
    /// `admin`, `ingest`, `read` or `tenant`.
    #[schema(example = "ingest")]
    pub scope: String,
    /// The tenant, for the scope `tenant`.
    pub tenant_id: Option<String>,
}

/// Longest name of a key, in bytes.
pub const KEY_NAME_MAX_BYTES: usize = 100;

impl KeyRequest {
    /// The scope that is asked for.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn scope(&self) -> Result<KeyScope, Problem> {
        let name_fits = !self.name.trim().is_empty() && self.name.len() <= KEY_NAME_MAX_BYTES;
        if !name_fits || self.name.chars().any(char::is_control) {
            return Err(rescue::INVALID_BODY.problem("\"name\" must be a line of at most 100 bytes."));
        }
        match (self.scope.as_str(), &self.tenant_id) {
            ("admin", None) => Ok(KeyScope::Admin),
            ("ingest", None) => Ok(KeyScope::Ingest),
            ("read", None) => Ok(KeyScope::Read),
            ("tenant", Some(tenant)) => {
                TenantId::new(tenant).map(KeyScope::Tenant).map_err(|error| bad_name("tenant_id", &error))
            }
            ("tenant", None) => Err(rescue::INVALID_BODY.problem("The scope \"tenant\" needs \"tenant_id\".")),
            ("admin" | "ingest" | "read", Some(_)) => {
                Err(rescue::INVALID_BODY.problem("\"tenant_id\" belongs to the scope \"tenant\" alone."))
            }
            _ => Err(rescue::INVALID_BODY.problem("\"scope\" must be admin, ingest, read or tenant.")),
        }
    }
}

/// The word of a scope.
pub fn scope_word(scope: &KeyScope) -> &'static str {
    match scope {
        KeyScope::Admin => "admin",
        KeyScope::Ingest => "ingest",
        KeyScope::Read => "read",
        KeyScope::Tenant(_) => "tenant",
    }
}

/// A key, without the key itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Key)]
pub struct KeyAnswer<'a> {
    /// Its public id.
    #[schema(example = "key_1f2e3d4c5b6a7988")]
    pub key_id: &'a str,
    /// For people.
    pub name: &'a str,
    /// `admin`, `ingest`, `read` or `tenant`.
    pub scope: &'static str,
    /// The tenant, for the scope `tenant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<&'a str>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// Who made it.
    pub created_by: &'a str,
    /// When it was revoked; null while it is live.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Time>,
    /// The key itself: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
}

impl<'a> KeyAnswer<'a> {
    /// The shape of a key.
    pub fn of(key: &'a ApiKey) -> Self {
        let tenant_id = match &key.scope {
            KeyScope::Tenant(tenant) => Some(tenant.as_str()),
            KeyScope::Admin | KeyScope::Ingest | KeyScope::Read => None,
        };
        Self {
            key_id: &key.id,
            name: &key.name,
            scope: scope_word(&key.scope),
            tenant_id,
            created_at: Time(key.created_at),
            created_by: &key.created_by,
            revoked_at: key.revoked_at.map(Time),
            key: None,
        }
    }
}

/// A short-lived token for one tenant.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenRequest)]
pub struct TokenRequest {
    /// Whose.
    pub tenant_id: String,
    /// How long it lives: `15m` where it is not given, at most `24h`.
    #[schema(example = "15m")]
    pub ttl: Option<String>,
}

/// A token, shown once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Token)]
pub struct TokenAnswer {
    /// To be sent as `Authorization: Bearer`.
    pub token: String,
    /// Whose.
    pub tenant_id: String,
    /// When it stops being accepted.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Time,
}
