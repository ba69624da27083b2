//! Who a request is from: tokens, keys, key sets, and everything that is refused.

use crate::world::{Answer, World};
use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair},
};
use bytes::Bytes;
use domain::id::TenantId;
use engine::ports::{ApiKey, KeyScope};
use gateway::GatewayOptions;
use http::{Response, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use wire::tokens::{TTL_MAX_MS, sign};

const ROUTE: &str = "[[routes]]\nmatch = \"/api/*\"\ncharge = [{ meter = \"calls\" }]\n";
const SECRET: &[u8] = b"a shared secret of more than thirty-two bytes";

/// An HS256 issuer whose secret is in a file.
pub struct Shared {
    _file: tempfile::NamedTempFile,
    pub gates: String,
}

pub fn shared() -> Shared {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SECRET).unwrap();
    let gates = format!(
        "[[identity]]\ntype = \"jwt\"\nissuer = \"https://login.example/\"\naudience = [\"https://api.example\"]\n\
         secret_file = {:?}\ntenant_claim = \"/org/id\"\nuser_claim = \"/sub\"\nleeway = \"1s\"\n",
        file.path()
    );
    Shared { _file: file, gates }
}

pub fn claims() -> Value {
    json!({
        "iss": "https://login.example/", "aud": "https://api.example", "sub": "ada", "org": {"id": "acme"},
        "exp": get_current_timestamp() + 60,
    })
}

pub fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

pub fn hs256(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

async fn with_bearer(world: &World, token: &str) -> Answer {
    world.get("/api/x", &[("authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test]
async fn a_good_token_says_who_somebody_is() {
    let shared = shared();
    let world = World::with(&format!("{}{ROUTE}", shared.gates), GatewayOptions::default()).await;
    let token = hs256(&claims());
    for _ in 0..3 {
        let answer = with_bearer(&world, &token).await;
        assert_eq!(answer.status, 200);
        let sent = answer.json()["headers"].to_string();
        assert!(
            sent.contains(r#"["x-tidegate-tenant","acme"]"#) && sent.contains(r#"["x-tidegate-user","ada"]"#),
            "{sent}"
        );
        // The token is the app's as well as ours.
        assert!(sent.contains("Bearer "), "{sent}");
    }
    assert_eq!(with_bearer(&world, &hs256(&with(json!({"aud": ["x", "https://api.example"]})))).await.status, 200);
    assert_eq!(with_bearer(&world, &hs256(&with(json!({"sub": null, "org": {"id": 42}})))).await.status, 200);
    assert_eq!(world.usage("acme", "calls").await.0, 4);
    assert_eq!(world.usage("42", "calls").await.0, 1);
}

#[tokio::test]
async fn bad_tokens_are_refused_and_cost_nothing() {
    let shared = shared();
    // A trusted header stands after the token: a bad token must not fall through to it.
    let gates = format!("{}{}{ROUTE}", shared.gates, crate::world::BY_HEADER);
    let world = World::with(&gates, GatewayOptions::default()).await;
    let now = get_current_timestamp();
    let other_secret = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    let good = hs256(&claims());
    let mut cut = good.clone();
    cut.truncate(good.len() - 4);
    let other_payload = {
        let parts: Vec<&str> = good.split('.').collect();
        let forged = unsigned(&json!({}), &with(json!({"org": {"id": "globex"}})), "");
        format!("{}.{}.{}", parts[0], forged.split('.').nth(1).unwrap(), parts[2])
    };
    let tokens = [
        ("expired", hs256(&with(json!({"exp": now - 30})))),
        ("no expiry", hs256(&with(json!({"exp": null})))),
        ("expiry as text", hs256(&with(json!({"exp": "tomorrow"})))),
        ("not yet", hs256(&with(json!({"nbf": now + 600})))),
        ("wrong audience", hs256(&with(json!({"aud": "https://other.example"})))),
        ("no audience", hs256(&with(json!({"aud": null})))),
        ("wrong issuer", hs256(&with(json!({"iss": "https://evil.example/"})))),
        ("no issuer", hs256(&with(json!({"iss": null})))),
        ("no tenant", hs256(&with(json!({"org": null})))),
        ("a tenant that is none", hs256(&with(json!({"org": {"id": "a/b"}})))),
        ("a tenant that is a list", hs256(&with(json!({"org": {"id": ["acme"]}})))),
        ("a user that is none", hs256(&with(json!({"sub": "a b"})))),
        ("another secret", encode(&Header::new(Algorithm::HS256), &claims(), &other_secret).unwrap()),
        (
            "another algorithm",
            encode(&Header::new(Algorithm::HS512), &claims(), &EncodingKey::from_secret(SECRET)).unwrap(),
        ),
        ("alg none", unsigned(&json!({"alg": "none", "typ": "JWT"}), &claims(), "")),
        ("alg None", unsigned(&json!({"alg": "None"}), &claims(), "")),
        ("no alg", unsigned(&json!({"typ": "JWT"}), &claims(), "")),
        ("no signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ("a cut signature", cut),
        ("another payload", other_payload),
        (
            "crit",
            encode(
                &Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) },
                &claims(),
                &EncodingKey::from_secret(SECRET),
            )
            .unwrap(),
        ),
        ("garbage", "a.b.c".into()),
        ("opaque", "not-a-token".into()),
        ("dots", "..".into()),
        ("too long", format!("{}.a.b", "x".repeat(20_000))),
    ];
    for (what, token) in tokens {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = match what {
            // Not of a token's form, so no source claims it; the header stands alone without these.
            "opaque" | "too long" => &[("authorization", &bearer)],
            _ => &[("authorization", &bearer), ("x-org", "acme")],
        };
        let answer = world.get("/api/x", headers).await;
        assert_eq!(answer.status, 401, "{what}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tidegate\", error=\"invalid_token\""));
        assert_eq!(answer.json()["code"], "unauthenticated");
    }
    assert_eq!(world.get("/api/x", &[]).await.header("www-authenticate"), Some("Bearer realm=\"tidegate\""));
    assert_eq!(world.upstream.requests(), 0);
    for tenant in ["acme", "globex"] {
        assert_eq!(world.usage(tenant, "calls").await, (0, 0));
    }
    // On a request that no route is for, what is wrong with it is the upstream's to judge.
    let passed = world.get("/elsewhere", &[("authorization", "Bearer a.b.c"), ("x-tidegate-tenant", "acme")]).await;
    assert_eq!(passed.status, 200);
    let sent = passed.json()["headers"].to_string();
    assert!(sent.contains("Bearer a.b.c") && !sent.contains("x-tidegate-tenant"), "{sent}");
}

#[tokio::test]
async fn keys_of_one_tenant_say_who_somebody_is_and_go_no_further() {
    let gates = format!("[[identity]]\ntype = \"api_key\"\nheader = \"x-api-key\"\n{ROUTE}");
    let world = World::with(&gates, GatewayOptions::default()).await;
    let key = |id: &str, text: &str, scope: KeyScope| ApiKey {
        id: id.into(),
        hash: Sha256::digest(text.as_bytes()).into(),
        name: id.into(),
        scope,
        created_at: world.engine.now(),
        created_by: "test".into(),
        revoked_at: None,
    };
    let acme = KeyScope::Tenant(domain::id::TenantId::trusted("acme"));
    world.engine.create_key(key("key_1", "tk_acme", acme)).await.unwrap();
    world.engine.create_key(key("key_2", "tk_admin", KeyScope::Admin)).await.unwrap();
    for headers in [[("authorization", "Bearer tk_acme")], [("x-api-key", "tk_acme")]] {
        let answer = world.get("/api/x", &headers).await;
        assert_eq!(answer.status, 200);
        let sent = answer.json()["headers"].to_string();
        assert!(sent.contains(r#"["x-tidegate-tenant","acme"]"#) && !sent.contains("tk_acme"), "{sent}");
    }
    for headers in [
        vec![("authorization", "Bearer tk_admin")],
        vec![("authorization", "Bearer tk_unknown")],
        vec![("x-api-key", "tk_unknown"), ("authorization", "Bearer tk_acme")],
        vec![("x-api-key", "tk_acme"), ("x-api-key", "tk_acme")],
        vec![("authorization", "Bearer tk_acme"), ("authorization", "Bearer tk_acme")],
        vec![("authorization", "Bearer")],
        vec![("authorization", "Basic dGtfYWNtZQ==")],
        vec![],
    ] {
        assert_eq!(world.get("/api/x", &headers).await.status, 401, "{headers:?}");
    }
    world.engine.revoke_key("key_1", "test").await.unwrap();
    assert_eq!(world.get("/api/x", &[("x-api-key", "tk_acme")]).await.status, 401);
    assert_eq!(world.usage("acme", "calls").await, (2, 0));
}

#[tokio::test]
async fn tenant_tokens_say_who_somebody_is_until_they_expire_and_go_no_further() {
    let gates = "[[identity]]\ntype = \"api_key\"\nheader = \"x-api-key\"\n\
                 [[routes]]\nmatch = \"/api/{tenant}/*\"\ncharge = [{ meter = \"calls\" }]\n";
    let world = World::with(gates, GatewayOptions::default()).await;
    let acme = TenantId::trusted("acme");
    let expiring = |ms: i64| sign(&world.engine.secret(), &acme, world.engine.now().plus_ms(ms));
    let token = expiring(60_000);
    for (name, value) in [("authorization", format!("Bearer {token}")), ("x-api-key", token.clone())] {
        let answer = world.get("/api/acme/x", &[(name, &value)]).await;
        assert_eq!(answer.status, 200);
        let sent = answer.json()["headers"].to_string();
        assert!(sent.contains(r#"["x-tidegate-tenant","acme"]"#) && !sent.contains("tgt_"), "{sent}");
    }
    // Another tenant's path is refused, and costs nobody anything.
    let foreign = world.get("/api/globex/x", &[("authorization", &format!("Bearer {token}"))]).await;
    assert_eq!((foreign.status.as_u16(), foreign.json()["code"].as_str()), (403, Some("tenant_mismatch")));
    let (claims, tag) = token["tgt_".len()..].split_once('.').unwrap();
    let globex = sign(&[9; 32], &TenantId::trusted("globex"), world.engine.now().plus_ms(60_000));
    for (what, token) in [
        ("expired", expiring(0)),
        ("longer than any may live", expiring(TTL_MAX_MS + 1)),
        ("another secret", globex.clone()),
        ("another tenant's claims", format!("{}.{tag}", globex.split_once('.').unwrap().0)),
        ("no tag", format!("tgt_{claims}.")),
        ("no claims", "tgt_".to_owned()),
        ("three parts", format!("{token}.x")),
        ("too long", format!("tgt_{}", "a".repeat(15_000))),
    ] {
        let answer = world.get("/api/acme/x", &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(answer.status, 401, "{what}");
    }
    assert_eq!(world.upstream.requests(), 2);
    assert_eq!(world.usage("acme", "calls").await, (2, 0));
    assert_eq!(world.usage("globex", "calls").await, (0, 0));
}

#[tokio::test]
async fn tenant_tokens_are_no_identity_where_the_catalog_does_not_name_keys() {
    let shared = shared();
    let world = World::with(&format!("{}{ROUTE}", shared.gates), GatewayOptions::default()).await;
    let token = sign(&world.engine.secret(), &TenantId::trusted("acme"), world.engine.now().plus_ms(60_000));
    assert_eq!(with_bearer(&world, &token).await.status, 401);
    assert_eq!(world.usage("acme", "calls").await, (0, 0));
}

/// An issuer that publishes keys.
struct Issuer {
    address: SocketAddr,
    set: Arc<Mutex<(u16, String)>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let set = Arc::new(Mutex::new((200, json!({"keys": []}).to_string())));
        let fetches = Arc::<AtomicUsize>::default();
        let shared = (set.clone(), fetches.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (set, fetches) = shared.clone();
                let service = service_fn(move |_| {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = set.lock().clone();
                    let response = Response::builder().status(status).header(header::CACHE_CONTROL, "max-age=600");
                    async move { Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap()) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, set, fetches }
    }

    fn publish(&self, keys: Vec<Value>) {
        *self.set.lock() = (200, json!({ "keys": keys }).to_string());
    }

    fn gates(&self, algorithms: &str) -> String {
        format!(
            "[[identity]]\ntype = \"jwt\"\nissuer = \"https://login.example/\"\naudience = \"https://api.example\"\n\
             jwks_url = \"http://{}/keys\"\nalgorithms = {algorithms}\ntenant_claim = \"/org/id\"\n{ROUTE}",
            self.address
        )
    }
}

struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    fn es256(kid: &str) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())
                .unwrap();
        Self { kid: kid.into(), algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(pkcs8.as_ref()) }
    }

    fn rs256(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der().unwrap();
        // What `from_rsa_der` wants is the PKCS#1 inside: the last OCTET STRING of the PKCS#8 wrapping (26 bytes).
        Self { kid: kid.into(), algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]) }
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }

    fn published(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

fn fast() -> GatewayOptions {
    GatewayOptions { jwks_pause: Duration::from_millis(300), ..GatewayOptions::default() }
}

#[tokio::test]
async fn published_keys_are_fetched_and_fetched_anew_for_an_unknown_one() {
    let issuer = Issuer::start().await;
    let (first, second, rsa) = (SigningKey::es256("one"), SigningKey::es256("two"), SigningKey::rs256("three"));
    issuer.publish(vec![json!({"kty": "future", "kid": "x"}), first.published()]);
    let world = World::with(&issuer.gates(r#"["ES256", "RS256"]"#), fast()).await;
    for _ in 0..5 {
        assert_eq!(with_bearer(&world, &first.token(&claims())).await.status, 200);
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);

    // A token of an unknown key may cost one fetch, a hundred of them no more.
    for _ in 0..20 {
        assert_eq!(with_bearer(&world, &second.token(&claims())).await.status, 401);
    }
    assert!(issuer.fetches.load(Ordering::SeqCst) <= 3);

    issuer.publish(vec![second.published(), rsa.published()]);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(with_bearer(&world, &second.token(&claims())).await.status, 200);
    assert_eq!(with_bearer(&world, &rsa.token(&claims())).await.status, 200);
    assert_eq!(with_bearer(&world, &first.token(&with(json!({"jti": "new"})))).await.status, 401);

    // While the issuer is ill, what is known stays known.
    *issuer.set.lock() = (500, String::new());
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(with_bearer(&world, &first.token(&with(json!({"jti": "newer"})))).await.status, 401);
    assert_eq!(with_bearer(&world, &second.token(&with(json!({"jti": "newest"})))).await.status, 200);
}

#[tokio::test]
async fn keys_that_do_not_fit_are_not_used() {
    let issuer = Issuer::start().await;
    let key = SigningKey::es256("one");
    let world = World::with(&issuer.gates(r#"["ES256"]"#), fast()).await;
    let unfit = [("use", "enc"), ("alg", "ES384"), ("alg", "HS256"), ("crv", "P-384")];
    for (member, value) in unfit {
        let mut published = key.published();
        published[member] = value.into();
        issuer.publish(vec![published, json!({"kty": "oct", "kid": "one", "k": "c2VjcmV0"})]);
        tokio::time::sleep(Duration::from_millis(310)).await;
        let answer = with_bearer(&world, &key.token(&claims())).await;
        // No fitting key was ever had: that is not the token's fault.
        assert_eq!(answer.status, 503, "{member} = {value}");
    }
    // A token signed with the public key as if it were a secret.
    issuer.publish(vec![key.published()]);
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(with_bearer(&world, &key.token(&claims())).await.status, 200);
    let public = key.published()["x"].as_str().unwrap().to_owned();
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    let confused = encode(&header, &claims(), &EncodingKey::from_secret(public.as_bytes())).unwrap();
    assert_eq!(with_bearer(&world, &confused).await.status, 401);
    let oversized = json!({"keys": [], "padding": "x".repeat(300_000)}).to_string();
    *issuer.set.lock() = (200, oversized);
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(with_bearer(&world, &SigningKey::es256("other").token(&claims())).await.status, 401);
    assert_eq!(with_bearer(&world, &key.token(&with(json!({"jti": "1"})))).await.status, 200);
}
