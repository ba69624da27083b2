//! Every endpoint, and who may use it: the one table that the router's guard, the OpenAPI document and the test of all
//! credentials are derived from. What is not in it is refused to everyone.

use domain::id::TenantId;
use engine::ports::KeyScope;

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone, without credentials.
    Public,
    /// Admin keys.
    Admin,
    /// Admin and ingest keys.
    Ingest,
    /// Admin and ingest keys; a tenant's for itself, without charging.
    Check,
    /// Admin and read keys.
    Read,
    /// Admin and read keys; a tenant's where `{id}` in the path is itself.
    OwnPath,
    /// Admin and read keys; a tenant's, who is shown its own rows alone.
    OwnRows,
    /// Admin and read keys, or everyone where the configuration opens it.
    Figures,
}

impl Access {
    /// Whether credentials of this scope may use the endpoint at all.
    pub fn allows(self, scope: &KeyScope) -> bool {
        match (self, scope) {
            (Access::Public, _) | (_, KeyScope::Admin) => true,
            (Access::Admin, _) => false,
            (Access::Ingest, scope) => *scope == KeyScope::Ingest,
            (Access::Check, scope) => matches!(scope, KeyScope::Ingest | KeyScope::Tenant(_)),
            (Access::Read | Access::Figures, scope) => *scope == KeyScope::Read,
            (Access::OwnPath | Access::OwnRows, scope) => matches!(scope, KeyScope::Read | KeyScope::Tenant(_)),
        }
    }

    /// The words for the scopes that may, for documents and refusals.
    pub fn words(self) -> &'static str {
        match self {
            Access::Public => "nobody's key",
            Access::Admin => "an admin key",
            Access::Ingest => "an admin or ingest key",
            Access::Check => "an admin or ingest key, or the tenant's own for a check that charges and holds nothing",
            Access::Read | Access::Figures => "an admin or read key",
            Access::OwnPath | Access::OwnRows => "an admin or read key, or the tenant's own",
        }
    }
}

/// An endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// `GET`, `POST`...
    pub method: &'static str,
    /// The path, as the router and the OpenAPI document have it.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

const fn endpoint(method: &'static str, path: &'static str, access: Access) -> Endpoint {
    Endpoint { method, path, access }
}

/// Where checks are asked.
pub const CHECK_PATH: &str = "/api/v1/check";
/// Where events are sent.
pub const EVENTS_PATH: &str = "/api/v1/events";

/// Every endpoint.
pub const ENDPOINTS: &[Endpoint] = &[
    endpoint("POST", EVENTS_PATH, Access::Ingest),
    endpoint("POST", CHECK_PATH, Access::Check),
    endpoint("POST", "/api/v1/holds/{id}/commit", Access::Ingest),
    endpoint("POST", "/api/v1/holds/{id}/release", Access::Ingest),
    endpoint("POST", "/api/v1/sessions", Access::Ingest),
    endpoint("POST", "/api/v1/sessions/{id}/touch", Access::Ingest),
    endpoint("POST", "/api/v1/sessions/{id}/close", Access::Ingest),
    endpoint("GET", "/api/v1/tenants/{id}/sessions", Access::OwnPath),
    endpoint("GET", "/api/v1/tenants", Access::Read),
    endpoint("GET", "/api/v1/tenants/{id}", Access::OwnPath),
    endpoint("PUT", "/api/v1/tenants/{id}", Access::Admin),
    endpoint("GET", "/api/v1/tenants/{id}/overrides", Access::OwnPath),
    endpoint("PUT", "/api/v1/tenants/{id}/overrides", Access::Admin),
    endpoint("DELETE", "/api/v1/tenants/{id}/overrides", Access::Admin),
    endpoint("POST", "/api/v1/tenants/{id}/adjustments", Access::Admin),
    endpoint("GET", "/api/v1/tenants/{id}/grants", Access::OwnPath),
    endpoint("POST", "/api/v1/tenants/{id}/grants", Access::Admin),
    endpoint("DELETE", "/api/v1/tenants/{id}/grants/{grant}", Access::Admin),
    endpoint("GET", "/api/v1/tenants/{id}/usage", Access::OwnPath),
    endpoint("GET", "/api/v1/tenants/{id}/warnings", Access::OwnPath),
    endpoint("GET", "/api/v1/usage-forecast", Access::OwnRows),
    endpoint("GET", "/api/v1/usage-forecast/fleet", Access::Read),
    endpoint("GET", "/api/v1/usage-forecast/backtest", Access::OwnRows),
    endpoint("GET", "/api/v1/tenants/{id}/history", Access::OwnPath),
    endpoint("GET", "/api/organizations/{id}/usage", Access::OwnPath),
    endpoint("GET", "/api/subscription-tiers", Access::Public),
    endpoint("GET", "/api/v1/plans", Access::Public),
    endpoint("GET", "/api/v1/catalogs", Access::Read),
    endpoint("POST", "/api/v1/catalogs", Access::Admin),
    endpoint("GET", "/api/v1/catalogs/{version}", Access::Read),
    endpoint("GET", "/api/v1/snapshots", Access::Read),
    endpoint("GET", "/api/v1/denials", Access::OwnRows),
    endpoint("GET", "/api/v1/denials/{id}", Access::OwnRows),
    endpoint("GET", "/api/v1/entries", Access::Read),
    endpoint("POST", "/api/v1/snapshots", Access::Admin),
    endpoint("POST", "/api/v1/snapshots/counted", Access::Admin),
    endpoint("POST", "/api/v1/usage-forecast/track-usage", Access::Ingest),
    endpoint("GET", "/api/v1/keys", Access::Admin),
    endpoint("POST", "/api/v1/keys", Access::Admin),
    endpoint("DELETE", "/api/v1/keys/{id}", Access::Admin),
    endpoint("POST", "/api/v1/tokens", Access::Admin),
    endpoint("POST", "/api/v1/test/clock", Access::Admin),
    endpoint("GET", "/healthz", Access::Public),
    endpoint("GET", "/readyz", Access::Public),
    endpoint("GET", "/metrics", Access::Figures),
    endpoint("GET", "/openapi.json", Access::Public),
];

/// The access of a route; `None` where it stands in no table, and so is nobody's. `HEAD` is a `GET` without a body.
pub fn access_of(method: &str, path: &str) -> Option<Access> {
    let method = if method == "HEAD" { "GET" } else { method };
    ENDPOINTS.iter().find(|endpoint| endpoint.method == method && endpoint.path == path).map(|found| found.access)
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the credentials may do.
    pub scope: KeyScope,
    /// Who it is, for the audit: a key's id, `bootstrap` or `token`.
    pub actor: std::sync::Arc<str>,
}

impl Caller {
    /// The only tenant that the caller may see; `None` where it may see all.
    pub fn only_tenant(&self) -> Option<&TenantId> {
        match &self.scope {
            KeyScope::Tenant(tenant) => Some(tenant),
            KeyScope::Admin | KeyScope::Ingest | KeyScope::Read => None,
        }
    }
    /// Whether the caller may see this tenant.
    pub fn may_see(&self, tenant: &TenantId) -> bool {
        self.only_tenant().is_none_or(|own| own == tenant)
    }
}
