//! What is charged, what is given back, and when the answer goes out.

use crate::{
    upstream::Upstream,
    world::{BY_HEADER, World, catalog_text, until},
};
use gateway::GatewayOptions;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use stores::memory::Commits;

const CALLS: &str = "[[routes]]\nmatch = \"/api/*\"\ncharge = [{ meter = \"calls\" }]\n";
const ACME: (&str, &str) = ("x-org", "acme");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_requests_pass_as_there_is_room_for() {
    let world = Arc::new(World::new(CALLS).await);
    let passed = Arc::new(AtomicUsize::new(0));
    let clients = (0..64).map(|_| {
        let (world, passed) = (world.clone(), passed.clone());
        tokio::spawn(async move {
            for _ in 0..40 {
                match world.get("/api/thing", &[ACME]).await.status.as_u16() {
                    200 => passed.fetch_add(1, Ordering::SeqCst),
                    429 => 0,
                    other => panic!("{other}"),
                };
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(passed.load(Ordering::SeqCst), 1000);
    assert_eq!(world.upstream.requests(), 1000);
    assert_eq!(world.usage("acme", "calls").await, (1000, 1560));
}

#[tokio::test]
async fn several_limits_hold_at_once() {
    let world = World::new(CALLS).await;
    let ada = [ACME, ("x-member", "ada")];
    for _ in 0..600 {
        assert_eq!(world.get("/api/x", &ada).await.status, 200);
    }
    let refused = world.get("/api/x", &ada).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["decision"]["denied_by"].clone()),
        (429, "calls_hour_user".into())
    );
    assert_eq!(world.get("/api/x", &[ACME, ("x-member", "bob")]).await.status, 200);
    assert_eq!(world.usage("acme", "calls").await, (601, 1));
    assert_eq!(world.usage_of("acme", Some("ada"), "calls").await, (600, 1));
}

#[tokio::test]
async fn allowed_answers_say_what_remains_and_warn_when_little_does() {
    let world = World::new(CALLS).await;
    let first = world.get("/api/x", &[ACME]).await;
    let period = first.header("ratelimit").unwrap();
    assert!(period.starts_with(r#""calls_period";r=999;t="#), "{period}");
    assert_eq!(first.header("ratelimit-policy"), Some(r#""calls_period";q=1000"#));
    assert_eq!(first.header("x-tidegate-warning"), None);
    for _ in 0..799 {
        world.get("/api/x", &[ACME]).await;
    }
    let nearly = world.get("/api/x", &[ACME, ("x-member", "ada")]).await;
    assert_eq!(nearly.header("x-tidegate-warning"), Some(r#""calls_period";percent=80"#));
    assert!(nearly.header("ratelimit").unwrap().contains(r#""calls_hour_user";r=599;t=3600"#));
    assert_eq!(nearly.header("ratelimit-policy"), Some(r#""calls_period";q=1000, "calls_hour_user";q=600;w=3600"#));
}

#[tokio::test]
async fn what_never_reached_the_upstream_is_given_back() {
    let upstream = Upstream::nowhere().await;
    let text = catalog_text(upstream.address, &format!("{BY_HEADER}{CALLS}"));
    let world = World::of(&text, upstream, GatewayOptions::default()).await;
    let answer = world.get("/api/x", &[ACME]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (502, "upstream_unreachable".into()));
    assert_eq!(world.usage("acme", "calls").await, (0, 0));
    let answer = world.post("/api/x", &[ACME], "body").await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.usage("acme", "calls").await, (0, 0));
}

#[tokio::test]
async fn charged_for_success_means_charged_for_nothing_else() {
    let world = World::new(
        "[[routes]]\nmatch = \"/status/*\"\ncharge = [{ meter = \"calls\" }]\ncharge_when = \"success\"\n\
         [[routes]]\nmatch = \"/hang\"\ncharge = [{ meter = \"calls\" }]\ncharge_when = \"success\"\n",
    )
    .await;
    for (status, used) in [("200", 1), ("404", 1), ("500", 1), ("302", 2), ("204", 3), ("400", 3)] {
        assert_eq!(world.get(&format!("/status/{status}"), &[ACME]).await.status.as_str(), status);
        assert_eq!(world.usage("acme", "calls").await.0, used, "after {status}");
    }
    // A client that goes away before the answer was never answered.
    let hanging = tokio::time::timeout(Duration::from_millis(200), world.get("/hang", &[ACME])).await;
    assert!(hanging.is_err());
    world.until_used("acme", "calls", 3).await;
}

#[tokio::test]
async fn charged_for_reaching_stands_whatever_the_upstream_says() {
    let world = World::new(&CALLS.replace("/api/*", "/status/*")).await;
    for status in ["200", "500"] {
        world.get(&format!("/status/{status}"), &[ACME]).await;
    }
    assert_eq!(world.usage("acme", "calls").await.0, 2);
}

#[tokio::test]
async fn the_head_of_the_answer_waits_for_the_commit_and_the_upstream_does_not() {
    let world = Arc::new(World::new(CALLS).await);
    world.get("/api/warm", &[ACME]).await;
    world.ledger.set_commits(Commits::Held);
    let asking = tokio::spawn({
        let world = world.clone();
        async move { world.get("/api/x", &[ACME]).await }
    });
    until("the upstream was asked", async || world.upstream.requests() == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asking.is_finished());
    world.ledger.set_commits(Commits::AtOnce);
    assert_eq!(asking.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_route_may_wait_for_the_commit_before_it_forwards() {
    let world = Arc::new(World::new(&format!("{CALLS}commit_first = true\n")).await);
    world.get("/api/warm", &[ACME]).await;
    world.ledger.set_commits(Commits::Held);
    let asking = tokio::spawn({
        let world = world.clone();
        async move { world.get("/api/x", &[ACME]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.upstream.requests(), 1);
    world.ledger.set_commits(Commits::AtOnce);
    assert_eq!(asking.await.unwrap().status, 200);
    assert_eq!(world.upstream.requests(), 2);
}

#[tokio::test]
async fn a_failed_commit_is_answered_with_503() {
    let world = Arc::new(World::new(CALLS).await);
    world.get("/api/warm", &[ACME]).await;
    world.ledger.set_commits(Commits::Failing);
    let asking = tokio::spawn({
        let world = world.clone();
        async move { world.get("/api/x", &[ACME]).await }
    });
    until("the commit failed", async || {
        world.ledger.release();
        asking.is_finished()
    })
    .await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (503, "ledger_unavailable".into()));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn sizes_are_charged_as_they_are_or_as_they_were_counted() {
    let world = World::new(
        "[[routes]]\nmatch = \"POST /sink\"\ncharge = [{ meter = \"traffic\", from = \"request_bytes\" }]\n\
         [[routes]]\nmatch = \"GET /big/*\"\ncharge = [{ meter = \"traffic\", from = \"response_bytes\" }]\n",
    )
    .await;
    assert_eq!(world.post("/sink", &[ACME], vec![b'x'; 1234]).await.status, 200);
    assert_eq!(world.usage("acme", "traffic").await.0, 1234);
    let chunked = "POST /sink HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    assert!(world.raw_answer(chunked).await.starts_with("HTTP/1.1 200"));
    world.until_used("acme", "traffic", 1241).await;
    world.get("/big/1", &[ACME]).await;
    world.until_used("acme", "traffic", 1241 + (1 << 20)).await;
}

#[tokio::test]
async fn a_full_limit_refuses_what_is_measured_afterwards_too() {
    let world = World::new(
        "[[routes]]\nmatch = \"POST /sink\"\ncharge = [{ meter = \"traffic\", from = \"request_bytes\" }]\n\
         [[routes]]\nmatch = \"POST /fill\"\ncharge = [{ meter = \"traffic\", header = \"x-bytes\" }]\n",
    )
    .await;
    assert_eq!(world.post("/fill", &[ACME, ("x-bytes", "100000000")], "").await.status, 200);
    let chunked =
        "POST /sink HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(world.raw_answer(chunked).await.starts_with("HTTP/1.1 429"));
    assert_eq!(world.usage("acme", "traffic").await, (100_000_000, 1));
    assert_eq!(world.upstream.requests(), 1);
}

#[tokio::test]
async fn header_amounts_must_be_readable() {
    let world =
        World::new("[[routes]]\nmatch = \"POST /x\"\ncharge = [{ meter = \"messages\", header = \"x-tokens\" }]\n")
            .await;
    for (headers, status) in [
        (vec![ACME, ("x-tokens", "7")], 200),
        (vec![ACME], 400),
        (vec![ACME, ("x-tokens", "seven")], 400),
        (vec![ACME, ("x-tokens", "1.5")], 400),
        (vec![ACME, ("x-tokens", "+5")], 400),
        (vec![ACME, ("x-tokens", "99999999999999999999999")], 400),
        (vec![ACME, ("x-tokens", "9007199254740992")], 422),
        (vec![ACME, ("x-tokens", "-5")], 422),
        (vec![ACME, ("x-tokens", "1"), ("x-tokens", "2")], 400),
        (vec![ACME, ("x-tokens", "44")], 402),
        (vec![ACME, ("x-tokens", "43")], 200),
    ] {
        let answer = world.post("/x", &headers, "").await;
        // 44 of 50 are more than remain, but a whole day's limit would hold them.
        let expected = if status == 402 { 429 } else { status };
        assert_eq!(answer.status.as_u16(), expected, "{headers:?}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(world.usage("acme", "messages").await, (50, 44));
}

#[tokio::test]
async fn a_plan_change_counts_from_the_next_request_on() {
    let world = World::new(&CALLS.replace("calls", "messages")).await;
    for _ in 0..50 {
        assert_eq!(world.get("/api/x", &[ACME]).await.status, 200);
    }
    assert_eq!(world.get("/api/x", &[ACME]).await.status, 429);
    world.put_on("acme", "professional").await;
    assert_eq!(world.get("/api/x", &[ACME]).await.status, 200);
    world.put_on("acme", "free").await;
    assert_eq!(world.get("/api/x", &[ACME]).await.status, 429);
    assert_eq!(world.usage("acme", "messages").await, (51, 2));
}
