//! The gateway: rules made ready, and the way of one request through it.

use crate::{
    GatewayError,
    admit::{self, Admitted},
    ahead::{Ahead, PeekBudget},
    answer,
    body::ResponseBody,
    client_io::ClientState,
    dial::Dialer,
    forward::{self, Outbound},
    identity::{Found, Identifier, Identity, jwks::Fetch},
    observe::{GatewayObserver, Report, Unobserved},
    path,
    routes::RouteTable,
    rules::{self, BodySize},
    scrub::{REQUEST_ID, Scrub},
    server::Phase,
    session::Keeper,
    settle::Settler,
    upstream::Upstream,
};
use arc_swap::ArcSwap;
use engine::Engine;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header, uri::Scheme};
use http_body::Body as _;
use hyper::body::Incoming;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, watch};
use wire::{
    catalog::{GatewayRules, IdentitySource, JwtKeys, Unmatched},
    cors::CorsOrigins,
    problem::Problem,
    rescue,
};

/// The longest request id taken over from outside, in bytes.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// Bounds of the gateway.
#[derive(Clone)]
pub struct GatewayOptions {
    /// How many connections (and tunnels) may be open at once; more wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take over a request's head, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// The largest request head, in bytes. Larger ones are answered with 431.
    pub head_max_bytes: usize,
    /// How many bytes of request bodies may be held back at once to be looked at, all requests together. Those of one tenant
    /// may take a quarter of it.
    pub peek_bytes_max: usize,
    /// How long requests in flight may take after the shutdown began.
    pub drain_max: Duration,
    /// The pause between two fetches of an issuer's keys for the sake of an unknown one.
    pub jwks_pause: Duration,
    /// Which web pages may call from a browser: told in answers of the gateway's own.
    pub cors_origins: CorsOrigins,
    /// Told of every request.
    pub observer: Arc<dyn GatewayObserver>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_timeout: Duration::from_secs(30),
            head_max_bytes: 64 * 1024,
            peek_bytes_max: 64 * 1024 * 1024,
            drain_max: Duration::from_secs(30),
            jwks_pause: Duration::from_secs(60),
            cors_origins: CorsOrigins::default(),
            observer: Arc::new(Unobserved),
        }
    }
}

/// The gateway.
pub struct Gateway {
    pub(crate) options: GatewayOptions,
    running: ArcSwap<Running>,
    settler: Settler,
    keeper: Arc<Keeper>,
    /// How far it is.
    pub(crate) phase: watch::Sender<Phase>,
    request_ids: AtomicU64,
    request_id_prefix: u64,
}

/// Rules made ready by [`Gateway::prepare_rules`].
pub struct PreparedRules(Arc<Running>);

/// The rules in force, ready for use.
pub(crate) struct Running {
    rules: GatewayRules,
    table: RouteTable,
    identifier: Identifier,
    pub(crate) scrub: Scrub,
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    pub(crate) settler: Settler,
    pub(crate) keeper: Arc<Keeper>,
    cors_origins: CorsOrigins,
    pub(crate) observer: Arc<dyn GatewayObserver>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// How much of bodies may be looked at, all requests together, and those of one tenant.
    pub(crate) peeks: PeekBudget,
}

/// A client's connection.
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// For HTTP/1.
    pub(crate) client: Option<Arc<ClientState>>,
    /// Its place among the connections.
    pub(crate) _place: OwnedSemaphorePermit,
}

type Answer = Response<ResponseBody>;

impl Gateway {
    /// A gateway. Must be made on the runtime that it shall run on.
    ///
    /// # Errors
    /// [`GatewayError`] where the rules name secrets, keys or upstreams that can't be used.
    pub fn new(engine: Arc<Engine>, rules: GatewayRules, options: GatewayOptions) -> Result<Self, GatewayError> {
        let settler = Settler::new(engine, options.observer.clone()).ok_or(GatewayError::NoRuntime)?;
        let phase = watch::Sender::new(Phase::Serving);
        let keeper = Keeper::start(&settler);
        let running = Running::new(rules, (&settler, &keeper), &options, phase.subscribe(), None)?;
        let random = RandomState::new().hash_one(Instant::now());
        Ok(Self {
            options,
            running: ArcSwap::from_pointee(running),
            settler,
            keeper,
            phase,
            request_ids: AtomicU64::new(0),
            request_id_prefix: random,
        })
    }

    /// Follows other rules from the next request on. Secrets and keys are read anew.
    ///
    /// # Errors
    /// [`GatewayError`]; then the old rules stay in force.
    pub fn replace_rules(&self, rules: GatewayRules) -> Result<(), GatewayError> {
        self.install_rules(self.prepare_rules(rules)?);
        Ok(())
    }

    /// Makes other rules ready without following them yet, so that a reload can fail before anything has changed.
    ///
    /// # Errors
    /// As [`Gateway::replace_rules`].
    pub fn prepare_rules(&self, rules: GatewayRules) -> Result<PreparedRules, GatewayError> {
        let old = self.running.load_full();
        let founded = (&self.settler, &self.keeper);
        let running = Running::new(rules, founded, &self.options, self.phase.subscribe(), Some(&old))?;
        Ok(PreparedRules(Arc::new(running)))
    }

    /// Follows rules that were made ready, from the next request on.
    pub fn install_rules(&self, rules: PreparedRules) {
        self.running.store(rules.0);
    }

    /// Closes upstream connections that nobody needed for a while.
    pub(crate) fn sweep(&self) {
        for upstream in self.running.load().upstreams.values() {
            upstream.sweep();
        }
    }

    /// Waits until every charge given back or measured afterwards is recorded.
    pub(crate) async fn settled(&self) {
        self.settler.settled().await;
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let running = self.running.load_full();
        let request_id = self.request_id(request.headers());
        let has_body = !request.body().is_end_stream();
        let mut route = None;
        let origin = self.options.cors_origins.allowed(request.headers());
        let mut response = match running.admission(peer, request, &request_id, has_body, &mut route).await {
            Ok(admitted) => forward::forward(&running, peer, admitted).await,
            Err(refusal) => {
                if has_body {
                    forward::unread(peer.client.as_ref());
                }
                *refusal
            }
        };
        if answer::is_own(&response) {
            self.options.cors_origins.finish(origin, response.headers_mut());
        }
        response.headers_mut().entry(REQUEST_ID).or_insert(request_id);
        let status = response.status().as_u16();
        let observer = self.options.observer.clone();
        response.body_mut().report(Report { observer, route, status, started, response_bytes: 0 });
        response
    }

    /// The client's own request id where it is sensible, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let sensible = |value: &&HeaderValue| {
            let bytes = value.as_bytes();
            !bytes.is_empty() && bytes.len() <= REQUEST_ID_MAX_BYTES && bytes.iter().all(u8::is_ascii_graphic)
        };
        if let Some(own) = headers.get(REQUEST_ID).filter(sensible) {
            return own.clone();
        }
        let number = self.request_ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}{number:016x}", self.request_id_prefix);
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

impl Running {
    fn new(
        rules: GatewayRules,
        (settler, keeper): (&Settler, &Arc<Keeper>),
        options: &GatewayOptions,
        phase: watch::Receiver<Phase>,
        old: Option<&Running>,
    ) -> Result<Self, GatewayError> {
        let dialer = Dialer::new(needs_tls(&rules)).map_err(GatewayError::Roots)?;
        let pause_without_keys = options.jwks_pause.min(Duration::from_secs(5));
        let fetch = Fetch { dialer: dialer.clone(), pause: options.jwks_pause, pause_without_keys };
        let identifier = Identifier::new(&rules.identity, &rules.claims().into(), &fetch)?;
        let mut upstreams = BTreeMap::new();
        for (name, upstream) in &rules.upstreams {
            // What stays as it was keeps its connections; what is said in a file may have changed.
            let same = |kept: &&Arc<Upstream>| kept.rules == *upstream && upstream.ca_file.is_none();
            let kept = old.and_then(|old| old.upstreams.get(name)).filter(same).cloned();
            let ready = match kept {
                Some(kept) => kept,
                None => Arc::new(
                    Upstream::new(upstream, &dialer)
                        .map_err(|what| GatewayError::Upstream { name: name.clone(), what: what.into() })?,
                ),
            };
            upstreams.insert(name.clone(), ready);
        }
        for name in rules.routes.iter().filter_map(|route| route.upstream.as_ref()).chain(&rules.default_upstream) {
            if !upstreams.contains_key(name) {
                return Err(GatewayError::Upstream { name: name.clone(), what: "it is not declared".into() });
            }
        }
        Ok(Self {
            table: RouteTable::new(&rules.routes),
            scrub: identifier.scrub(),
            identifier,
            upstreams,
            rules,
            settler: settler.clone(),
            keeper: keeper.clone(),
            cors_origins: options.cors_origins.clone(),
            observer: options.observer.clone(),
            phase,
            peeks: old.map_or_else(|| PeekBudget::new(options.peek_bytes_max), |old| old.peeks.clone()),
        })
    }

    /// From a request to the proof that it may go on, or the answer that it may not.
    async fn admission(
        &self,
        peer: &Arc<Peer>,
        mut request: Request<Incoming>,
        request_id: &HeaderValue,
        has_body: bool,
        route_name: &mut Option<Arc<str>>,
    ) -> Result<Admitted<Outbound>, Box<Answer>> {
        let host = self.clear(peer, &request, has_body)?;
        // A second handle on the same bytes: the request moves on while its path is still looked at.
        let uri = request.uri().clone();
        let segments = path::segments(uri.path())
            .map_err(|error| answer::of(rescue::AMBIGUOUS_PATH, &rescue::sentence(&error.to_string())))?;
        if let Some(answer) = self.preflight(&request, &segments) {
            return Err(Box::new(answer));
        }
        let matched = self.table.find(request.method(), &segments);
        *route_name = matched.as_ref().map(|matched| matched.route.name.clone());

        let upstream = matched.as_ref().and_then(|matched| matched.route.upstream.as_ref());
        let outbound = |request, ahead| -> Result<Outbound, Box<Answer>> {
            let upstream = upstream.or(self.rules.default_upstream.as_ref()).and_then(|name| self.upstreams.get(name));
            let upstream = upstream.cloned().ok_or_else(no_upstream)?;
            Ok(Outbound { request, upstream, request_id: request_id.clone(), host, ahead })
        };
        let Some(matched) = matched else { return self.unmatched(peer, outbound(request, Ahead::default())?).await };
        if matched.route.public {
            return Ok(Admitted::unmetered(outbound(request, Ahead::default())?, None));
        }
        let identity = self.identity(peer, request.headers()).await?;
        let body = match (has_body, request.body().size_hint().exact()) {
            (false, _) => BodySize::Known(0),
            (true, Some(bytes)) => BodySize::Known(bytes),
            (true, None) => BodySize::Unknown,
        };
        let catalog = self.settler.engine.catalog();
        let prices = match rules::needs_prices(matched.route) {
            true => Some(self.settler.engine.prices_for(&identity.tenant).await.map_err(|e| admit::failure(self, &e))?),
            false => None,
        };
        let known = rules::Known { catalog: &catalog, prices: prices.as_deref().unwrap_or(&catalog) };
        let ahead = match rules::needs_body(matched.route) {
            true => {
                // Nobody's body is held back for what its head refuses.
                rules::judge_head(&matched, request.headers(), &identity, &known).map_err(refused)?;
                let max_bytes = matched.route.reading.body_peek_max_bytes;
                Ahead::peek(&mut request, max_bytes, &self.peeks, &identity.tenant).await?
            }
            false => Ahead::default(),
        };
        // What it says is unfolded for no longer than it is looked at.
        let demand = rules::demand(&matched, request.headers(), (body, ahead.json().as_ref()), &identity, &known);
        match demand.map_err(refused)? {
            None => Ok(Admitted::unmetered(outbound(request, ahead)?, Some(identity))),
            Some(demand) => admit::admit(self, outbound(request, ahead)?, identity, demand, catalog).await,
        }
    }

    /// A request that no route is for: forwarded as it is, with the identity if there is a valid one. What is wrong
    /// with its credentials is the upstream's to judge.
    async fn unmatched(&self, peer: &Peer, outbound: Outbound) -> Result<Admitted<Outbound>, Box<Answer>> {
        if self.rules.unmatched == Unmatched::Refuse {
            return Err(Box::new(answer::of(rescue::NOT_FOUND, "No route is for this method and path.")));
        }
        let found = self.identifier.identify(outbound.request.headers(), peer.ip, &self.settler.engine).await;
        let identity = match found {
            Found::Somebody(identity) => Some(identity),
            Found::Nobody | Found::Invalid(_) | Found::Unverifiable => None,
        };
        Ok(Admitted::unmetered(outbound, identity))
    }

    /// A browser asks whether a page may send a request that would have to say who it is from. Such a question carries
    /// no credentials, and is answered here. All others are requests like any other.
    fn preflight(&self, request: &Request<Incoming>, segments: &[Cow<'_, str>]) -> Option<Answer> {
        let answer = self.cors_origins.preflight(request.method(), request.headers())?;
        let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let asked = Method::from_bytes(asked.as_bytes()).ok()?;
        let matched = self.table.find(&asked, segments).filter(|matched| !matched.route.public);
        matched.map(|_| answer.map(|()| ResponseBody::empty()))
    }

    async fn identity(&self, peer: &Peer, headers: &HeaderMap) -> Result<Identity, Box<Answer>> {
        let identifier = &self.identifier;
        match identifier.identify(headers, peer.ip, &self.settler.engine).await {
            Found::Somebody(identity) => Ok(identity),
            Found::Nobody => Err(Box::new(answer::unauthenticated(
                identifier.challenge(false),
                "send credentials with this request",
            ))),
            Found::Invalid(why) => Err(Box::new(answer::unauthenticated(identifier.challenge(true), why))),
            Found::Unverifiable => {
                let problem = rescue::UNAVAILABLE.problem("The keys that verify your token can't be had now.");
                Err(Box::new(answer::problem(&problem.retry_after(5))))
            }
        }
    }

    /// Refuses what can be read in more than one way, and what is not for a gateway. Gives the host asked for.
    fn clear(
        &self,
        peer: &Peer,
        request: &Request<Incoming>,
        has_body: bool,
    ) -> Result<Option<HeaderValue>, Box<Answer>> {
        let headers = request.headers();
        let ambiguous = |detail| Box::new(answer::and_close(answer::of(rescue::AMBIGUOUS_MESSAGE, detail)));
        if headers.contains_key(header::TRANSFER_ENCODING) {
            if peer.client.as_ref().is_some_and(|client| client.is_framed_twice(request.method())) {
                return Err(ambiguous("A request must not have both Content-Length and Transfer-Encoding."));
            }
            let codings: Vec<&HeaderValue> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
            if codings.len() != 1 || !codings[0].as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(ambiguous("The only transfer coding that is understood is chunked."));
            }
        }
        if let Some(client) = &peer.client {
            client.request_seen(has_body);
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Box::new(answer::of(rescue::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not passed on.")));
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        match (authority, hosts.next(), hosts.next()) {
            (_, _, Some(_)) => Err(ambiguous("A request must have one Host.")),
            (None, None, None) if request.version() >= Version::HTTP_11 => {
                Err(ambiguous("A request must have a Host."))
            }
            (Some(authority), _, None) => Ok(Some(authority)),
            (None, host, None) => Ok(host.cloned()),
        }
    }
}

fn refused(problem: Problem) -> Box<Answer> {
    Box::new(answer::problem(&problem))
}

fn no_upstream() -> Box<Answer> {
    Box::new(answer::of(rescue::UPSTREAM_UNREACHABLE, "No upstream is configured for this request."))
}

fn needs_tls(rules: &GatewayRules) -> bool {
    let issuers = rules.identity.iter().filter_map(|source| match source {
        IdentitySource::Jwt(jwt) => match &jwt.keys {
            JwtKeys::JwksUrl(url) => Some(url),
            JwtKeys::SecretEnv(_) | JwtKeys::SecretFile(_) | JwtKeys::PublicKeyFile(_) => None,
        },
        IdentitySource::ApiKey { .. } | IdentitySource::TrustedHeader { .. } => None,
    });
    let upstreams = rules.upstreams.values().filter(|upstream| upstream.ca_file.is_none());
    let mut urls = upstreams.map(|upstream| &upstream.url).chain(issuers);
    urls.any(|url| url.scheme() == Some(&Scheme::HTTPS))
}
