//! Key sets fetched from an issuer. Cached; fetched anew when they grow old and when a token names an unknown key, at
//! most once a minute; an old set is kept while a new one can't be had.

use crate::dial::{self, Dialer};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// The largest key set read, in bytes.
const SET_MAX_BYTES: usize = 256 * 1024;
/// How many keys of a set are used.
const KEYS_MAX: usize = 100;
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// However short `Cache-Control` says, a set is kept so long; however long, it is renewed after that.
const AGE_MIN: Duration = Duration::from_secs(300);
const AGE_MAX: Duration = Duration::from_secs(86_400);

/// How key sets are fetched.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) dialer: Dialer,
    /// The time between two fetches of one set: one minute.
    pub(crate) pause: Duration,
    /// The time between two fetches while there is no set at all.
    pub(crate) pause_without_keys: Duration,
}

/// A key that verifies tokens with one algorithm.
pub(crate) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

struct KeySet {
    keys: Vec<Arc<Key>>,
    old_at: Instant,
}

/// The key set of one issuer.
pub(crate) struct Jwks {
    url: Uri,
    algorithms: Vec<Algorithm>,
    fetch: Fetch,
    keys: ArcSwap<KeySet>,
    /// When the last fetch began; held by whoever decides whether another may begin.
    last_fetch: Mutex<Option<Instant>>,
    /// One fetch at a time; the others wait for its result.
    fetching: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Jwks {
    pub(crate) fn new(url: Uri, algorithms: Vec<Algorithm>, fetch: Fetch) -> Arc<Self> {
        let none = KeySet { keys: Vec::new(), old_at: Instant::now() };
        Arc::new(Self {
            url,
            algorithms,
            fetch,
            keys: ArcSwap::from_pointee(none),
            last_fetch: Mutex::new(None),
            fetching: tokio::sync::Mutex::new(()),
        })
    }

    /// Whether no key was ever had.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load().keys.is_empty()
    }

    /// The key a token names. An old set is renewed in the background; an unknown key is waited for.
    pub(crate) async fn find(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let set = self.keys.load_full();
        if let Some(key) = set.find(kid, algorithm) {
            if set.old_at <= Instant::now() {
                self.renew();
            }
            return Some(key);
        }
        // Runs to its end even if the client that caused it goes away.
        let jwks = Arc::clone(self);
        let _ = tokio::spawn(async move { jwks.renewed().await }).await;
        self.keys.load().find(kid, algorithm)
    }

    fn renew(self: &Arc<Self>) {
        let jwks = Arc::clone(self);
        tokio::spawn(async move { jwks.renewed().await });
    }

    /// Fetches the set anew, unless that was tried a moment ago.
    async fn renewed(&self) {
        let _one_at_a_time = self.fetching.lock().await;
        if !self.may_fetch() {
            return;
        }
        match tokio::time::timeout(FETCH_TIMEOUT, self.fetched()).await {
            Ok(Ok(set)) if !set.keys.is_empty() => self.keys.store(Arc::new(set)),
            Ok(Ok(_)) => tracing::warn!(url = %self.url, "the key set holds no key that fits; the old one is kept"),
            Ok(Err(error)) => {
                tracing::warn!(url = %self.url, %error, "the key set can't be fetched; the old one is kept")
            }
            Err(_) => tracing::warn!(url = %self.url, "fetching the key set took too long; the old one is kept"),
        }
    }

    fn may_fetch(&self) -> bool {
        let pause = if self.is_empty() { self.fetch.pause_without_keys } else { self.fetch.pause };
        let mut last = self.last_fetch.lock();
        if last.is_some_and(|at| at.elapsed() < pause) {
            return false;
        }
        *last = Some(Instant::now());
        true
    }

    async fn fetched(&self) -> Result<KeySet, Box<dyn std::error::Error + Send + Sync>> {
        let stream = self.fetch.dialer.dial(&self.url, FETCH_TIMEOUT).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let driver = tokio::spawn(connection);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, dial::authority(&self.url))
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != 200 {
            return Err(format!("the issuer answered {}", response.status()).into());
        }
        let age = max_age(response.headers().get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()));
        let body = Limited::new(response.into_body(), SET_MAX_BYTES).collect().await?.to_bytes();
        driver.abort();
        Ok(KeySet { keys: usable_keys(&body, &self.algorithms)?, old_at: Instant::now() + age })
    }
}

impl KeySet {
    /// The key with this id. A token without one is served where only one key fits.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let mut fitting =
            self.keys.iter().filter(|key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid));
        let first = fitting.next()?;
        (kid.is_some() || fitting.next().is_none()).then(|| first.clone())
    }
}

/// The keys of a set that fit: of an accepted algorithm, for signatures. Others are no error; sets hold all kinds.
fn usable_keys(body: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Arc<Key>>, serde_json::Error> {
    /// One by one, so that a key of an unknown kind does not spoil the set.
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(body)?;
    let jwks = set.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
    let usable = jwks.filter_map(|jwk| {
        let algorithm = algorithm_of(&jwk).filter(|algorithm| algorithms.contains(algorithm))?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Arc::new(Key { kid: jwk.common.key_id, algorithm, key }))
    });
    Ok(usable.take(KEYS_MAX).collect())
}

/// The one algorithm a key verifies, from its type; `None` where type, `alg`, `use` or `key_ops` do not fit together.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let declared = matches!(
        (jwk.common.key_algorithm, algorithm),
        (None, _) | (Some(KeyAlgorithm::RS256), Algorithm::RS256) | (Some(KeyAlgorithm::ES256), Algorithm::ES256)
    );
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature);
    let verifies =
        jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    (declared && for_signatures && verifies).then_some(algorithm)
}

/// How long a set may be kept, from `Cache-Control`, within bounds.
fn max_age(cache_control: Option<&str>) -> Duration {
    let directive = |name: &str| {
        let mut directives = cache_control.unwrap_or_default().split(',').map(str::trim);
        directives.find_map(|directive| directive.strip_prefix(name).map(str::to_owned))
    };
    if directive("no-store").is_some() || directive("no-cache").is_some() {
        return AGE_MIN;
    }
    let seconds = directive("max-age=").and_then(|seconds| seconds.trim_matches('"').parse().ok()).unwrap_or(3600);
    Duration::from_secs(seconds).clamp(AGE_MIN, AGE_MAX)
}
