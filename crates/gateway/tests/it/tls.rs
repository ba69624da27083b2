//! Upstreams behind TLS. The certificates in `certificates/` are for these tests alone: `server.pem` is for the name
//! `localhost`, signed by `authority.pem`; `stranger.pem` signed nothing. They last until 2126.

use crate::{
    upstream::Upstream,
    world::{BY_HEADER, World, catalog_text},
};
use gateway::{Gateway, GatewayError, GatewayOptions};
use http::Method;
use std::sync::Arc;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

const ROUTE: &str = "[[routes]]\nmatch = \"/api/*\"\ncharge = [{ meter = \"calls\" }]\n";

fn file(name: &str) -> String {
    format!("{}/tests/it/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    TlsAcceptor::from(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

fn text(upstream: &Upstream, host: &str, ca_file: &str) -> String {
    let plain = catalog_text(upstream.address, &format!("{BY_HEADER}\n{ROUTE}"));
    let url = format!("https://{host}:{}", upstream.address.port());
    plain.replace(&format!("http://{}", upstream.address), &url) + &format!("ca_file = {:?}\n", file(ca_file))
}

/// A world whose upstream is asked for by this name, and trusted by this authority.
async fn world(host: &str, ca_file: &str) -> World {
    let upstream = Upstream::start_with_tls(acceptor()).await;
    World::of(&text(&upstream, host, ca_file), upstream, GatewayOptions::default()).await
}

#[tokio::test]
async fn an_upstream_behind_tls_is_reached_and_its_connection_kept() {
    let world = world("localhost", "authority.pem").await;
    for _ in 0..3 {
        let answer = world.post("/api/x?y=1", &[("x-org", "acme")], "a body").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["uri"], "/api/x?y=1");
    }
    let echoed = world.send(Method::POST, "/echo", &[], vec![7; 300_000].into()).await;
    assert_eq!(echoed.body, vec![7; 300_000]);
    assert_eq!(world.upstream.seen.connections_ever.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(world.usage("acme", "calls").await, (3, 0));
}

/// A 502 that says why, with nothing sent and the charge given back.
async fn is_refused(world: &World) {
    for path in ["/api/x", "/elsewhere"] {
        let answer = world.get(path, &[("x-org", "acme")]).await;
        assert_eq!(answer.status, 502);
        let problem = answer.json();
        assert_eq!(problem["code"], "upstream_unreachable");
        assert!(problem["detail"].as_str().unwrap().contains("certificate is not trusted"), "{problem}");
    }
    assert_eq!(world.upstream.requests(), 0);
    world.until_used("acme", "calls", 0).await;
}

#[tokio::test]
async fn an_upstream_with_a_certificate_for_another_name_is_refused() {
    is_refused(&world("127.0.0.1", "authority.pem").await).await;
}

#[tokio::test]
async fn an_upstream_that_an_unknown_authority_speaks_for_is_refused() {
    is_refused(&world("localhost", "stranger.pem").await).await;
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_not_reached() {
    let upstream = Upstream::start().await;
    let world = World::of(&text(&upstream, "localhost", "authority.pem"), upstream, GatewayOptions::default()).await;
    let answer = world.get("/api/x", &[("x-org", "acme")]).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &"upstream_unreachable".into()));
    world.until_used("acme", "calls", 0).await;
}

#[tokio::test]
async fn a_file_without_certificates_is_told_before_anything_is_served() {
    let world = World::new("").await;
    for (ca_file, why) in [("nowhere.pem", "can't be read"), ("server.key", "holds no certificates")] {
        let text = text(&world.upstream, "localhost", ca_file);
        let rules = wire::catalog::load(&text, "test.toml").unwrap().gateway;
        let Err(error) = Gateway::new(world.engine.clone(), rules, GatewayOptions::default()) else { panic!("{why}") };
        assert!(matches!(&error, GatewayError::Upstream { what, .. } if what.contains(why)), "{error}");
    }
}
