//! What the gateway is told by the catalog: upstreams, routes, identity. Validated whole; secrets are only named here.

use domain::{
    catalog::Enforce,
    id::{CostKey, DimensionKey, FeatureKey, MeterKey},
};
use http::{HeaderName, Method, Uri};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Everything the gateway follows.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayRules {
    /// Where requests go, by name.
    pub upstreams: BTreeMap<Arc<str>, Upstream>,
    /// The upstream of routes that name none, and of unmatched requests. The binary may set it from
    /// `TIDEGATE_GATEWAY_UPSTREAM`; `None` leaves such requests unanswered (502).
    pub default_upstream: Option<Arc<str>>,
    /// Routes; no two overlap without one being more specific.
    pub routes: Vec<Arc<Route>>,
    /// Where identity comes from, tried in order; the first source that is present decides.
    pub identity: Vec<IdentitySource>,
    /// What happens to a request that matches no route.
    pub unmatched: Unmatched,
}

impl RouteCharge {
    /// Where the properties come from that its price list looks at; none where it has no price list.
    pub fn properties(&self) -> &[(Arc<str>, PropertySource)] {
        match &self.amount {
            AmountSource::Cost { properties, .. } | AmountSource::CostOfUsage { properties, .. } => properties,
            _ => &[],
        }
    }
}

impl GatewayRules {
    /// The claims of tokens that routes look at, as JSON pointers, each once.
    pub fn claims(&self) -> Vec<Arc<str>> {
        let charges = self.routes.iter().flat_map(|route| &route.charges);
        let mut claims: Vec<Arc<str>> = charges
            .flat_map(RouteCharge::properties)
            .filter_map(|(_, source)| match source {
                PropertySource::Claim(pointer) => Some(pointer.clone()),
                _ => None,
            })
            .collect();
        claims.sort();
        claims.dedup();
        claims
    }
}

/// A server behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name.
    pub name: Arc<str>,
    /// `http://` or `https://`, host, optional port and optional path prefix.
    pub url: Uri,
    /// How long a connection may take to be made.
    pub connect_timeout_ms: u64,
    /// How long the response head may take after the request was sent; `None` waits as long as the client does.
    pub response_timeout_ms: Option<u64>,
    /// A file of PEM certificates that are trusted instead of the system's, for `https://`.
    pub ca_file: Option<Arc<str>>,
}

/// What happens to a request that matches no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Forwarded unmetered.
    #[default]
    Forward,
    /// Refused with 404.
    Refuse,
}

/// A route: which requests, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The text it was written as, which is also its name: `POST /v1/chat/completions`.
    pub name: Arc<str>,
    /// The method; `None` is any.
    pub method: Option<Method>,
    /// The path.
    pub pattern: Vec<Segment>,
    /// Where it goes; `None` is the default upstream.
    pub upstream: Option<Arc<str>>,
    /// Whether it is forwarded without identity and unmetered.
    pub public: bool,
    /// What the plan must have.
    pub features: Vec<FeatureKey>,
    /// What it costs.
    pub charges: Vec<RouteCharge>,
    /// When it is charged.
    pub charge_when: ChargeWhen,
    /// Whether the charge must be durable before the request is forwarded.
    pub commit_first: bool,
    /// Whether this route refuses; `None` follows tenant and catalog.
    pub enforce: Option<Enforce>,
    /// Declared dimensions, and where their values come from.
    pub dimensions: Vec<(DimensionKey, ValueSource)>,
    /// How its responses are read.
    pub reading: Reading,
    /// The session that its requests run in.
    pub session: Option<RouteSession>,
}

/// The session that the requests of a route run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSession {
    /// The meter of time that it feeds.
    pub meter: MeterKey,
    /// What makes several requests one session.
    pub key: SessionKey,
}

/// Where the key of a session comes from. A request without one runs in a session of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionKey {
    /// Each request runs in a session of its own, which ends with it.
    Stream,
    /// A header of the request.
    Header(HeaderName),
    /// A cookie.
    Cookie(Arc<str>),
    /// A capture of the path.
    Capture(Arc<str>),
    /// A field of the JSON body: a JSON pointer (RFC 6901).
    Body(Arc<str>),
}

/// How the responses of a route are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whether streamed OpenAI-style requests are made to ask for `usage`, and what only that brought is taken out of
    /// the stream again.
    pub include_usage: bool,
    /// Whether the upstream is asked not to encode its answers.
    pub identity_encoding: bool,
    /// How much of a request body may be looked at before it goes on, in bytes. A larger one passes as it is.
    pub body_peek_max_bytes: usize,
}

/// A part of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text, after percent-decoding.
    Literal(Arc<str>),
    /// `{tenant}`: must be the tenant that the caller's identity owns.
    Tenant,
    /// `{user}`: must be the user of the caller's identity.
    User,
    /// `{anything-else}`: one segment, whatever it is.
    Capture(Arc<str>),
    /// `*`, last only: the rest, which may be empty.
    Rest,
}

/// One charge of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCharge {
    /// Which meter.
    pub meter: MeterKey,
    /// How much.
    pub amount: AmountSource,
}

/// Where an amount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmountSource {
    /// Always this.
    Constant(i64),
    /// An integer in a request header; refused with 400 when it is missing or not one, unless there is a default.
    Header {
        /// The header.
        name: HeaderName,
        /// Used when the header is missing.
        default: Option<i64>,
    },
    /// What a cost table of the catalog that decides for the tenant says.
    Cost {
        /// The table.
        cost: CostKey,
        /// Where the properties it looks at come from. One that is not here is missing.
        properties: Vec<(Arc<str>, PropertySource)>,
    },
    /// What a cost table asks for the tokens that the response reports in its `usage`.
    CostOfUsage {
        /// The table.
        cost: CostKey,
        /// Where the property it looks at comes from.
        properties: Vec<(Arc<str>, PropertySource)>,
        /// What is charged before, and stays charged where nothing is reported.
        expect: i64,
    },
    /// The size of the request body: `Content-Length` where it is given, else what was counted when the body ended.
    RequestBytes,
    /// The size of the response body, counted when it ended: a measured-afterwards charge.
    ResponseBytes,
    /// What the response reports, known when it ended.
    Reported {
        /// What is charged.
        what: Reported,
        /// How much is charged before; it stands where nothing is reported. At least 0.
        expect: i64,
    },
}

/// What a response reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// The `usage` of an OpenAI-style answer, JSON or streamed.
    Usage(UsageField),
    /// An integer of at least 0 in a response header.
    Header(HeaderName),
    /// How long the exchange took, from its admission to the end of the response, in milliseconds.
    Duration,
}

/// Which tokens are charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageField {
    /// `total_tokens`, or the sum of both kinds where it is not reported.
    Total,
    /// `prompt_tokens`, or `input_tokens`.
    Prompt,
    /// `completion_tokens`, or `output_tokens`.
    Completion,
}

impl UsageField {
    /// The field with this name.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "total_tokens" => Some(UsageField::Total),
            "prompt_tokens" => Some(UsageField::Prompt),
            "completion_tokens" => Some(UsageField::Completion),
            _ => None,
        }
    }
}

/// Where a property that a cost table looks at comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertySource {
    /// It is always this.
    Constant(Arc<str>),
    /// A request header: the client's own word.
    Header(HeaderName),
    /// JSON pointer of a claim of the token that was verified. Missing where the caller has another credential.
    Claim(Arc<str>),
    /// A capture of the path.
    Capture(Arc<str>),
    /// JSON pointer into the body of the request, if that is small enough to be looked at: the client's own word.
    Body(Arc<str>),
}

/// When a request is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChargeWhen {
    /// When it reached the upstream.
    #[default]
    Reached,
    /// When the upstream answered below 400; otherwise the charge is given back.
    Success,
}

/// Where the value of a dimension comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// A request header.
    Header(HeaderName),
    /// The route's name.
    RouteName,
    /// A capture of the path.
    Capture(Arc<str>),
}

/// A source of identity.
#[derive(Debug, Clone, PartialEq)]
pub enum IdentitySource {
    /// `Authorization: Bearer <JWT>`.
    Jwt(JwtIdentity),
    /// A Tidegate API key of one tenant, in `Authorization: Bearer` or in this header.
    ApiKey {
        /// The header beside `Authorization`.
        header: Option<HeaderName>,
    },
    /// A header set by a proxy in front, believed from these networks only.
    TrustedHeader {
        /// Names the tenant.
        tenant: HeaderName,
        /// Names the user.
        user: Option<HeaderName>,
        /// Networks the peer must be in.
        from: Vec<Network>,
    },
}

/// How tokens of one issuer are verified. `iss`, `aud` and `exp` are required.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtIdentity {
    /// `iss` must be this.
    pub issuer: Arc<str>,
    /// `aud` must be (or hold) one of these.
    pub audience: Vec<Arc<str>>,
    /// Algorithms accepted, never taken from the token: `HS256`, `RS256`, `ES256`.
    pub algorithms: Vec<Arc<str>>,
    /// Where keys are.
    pub keys: JwtKeys,
    /// JSON pointer of the claim that names the tenant.
    pub tenant_claim: Arc<str>,
    /// JSON pointer of the claim that names the user.
    pub user_claim: Option<Arc<str>>,
    /// Clock skew allowed, in seconds.
    pub leeway_s: u64,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A shared secret in an environment variable (HS256).
    SecretEnv(Arc<str>),
    /// A shared secret in a file (HS256).
    SecretFile(Arc<str>),
    /// A public key in PEM in a file (RS256, ES256).
    PublicKeyFile(Arc<str>),
    /// A key set fetched from a URL (RS256, ES256).
    JwksUrl(Uri),
}

/// An IP network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix_bits: u8,
}

impl Network {
    /// Whether an address is inside. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((network, family), (candidate, other_family)) = (bits(self.address), bits(address));
        let shift = 128 - u32::from(self.prefix_bits);
        family == other_family && (shift >= 128 || network >> shift == candidate >> shift)
    }
}
