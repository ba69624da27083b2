//! A node that can't start says what stands in the way, and never the password.

use super::{cluster::World, traffic::CATALOG};
use crate::harness::Node;
use std::process::Command;

const WRONG: &str = "not-the-password";

/// What the node says when it ends at once.
fn refused(command: Command) -> String {
    let Err((status, log)) = Node::try_start(command) else { panic!("the node started") };
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_as_such_and_not_shown() {
    let world = World::new(CATALOG).await;
    let (user, rest) = world.url.split_once('@').unwrap();
    let (user, password) = user.rsplit_once(':').unwrap();
    let log = refused(world.serve_at(&format!("{user}:{WRONG}@{rest}")));
    assert!(log.contains("password authentication failed"), "{log}");
    assert!(!log.contains(WRONG) && !log.contains(password), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_as_such() {
    let world = World::new(CATALOG).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = refused(world.serve_at(&format!("postgres://tidegate:{WRONG}@{nobody}/tidegate")));
    assert!(log.contains("refused"), "{log}");
    assert!(!log.contains(WRONG), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named_as_such() {
    let world = World::new(CATALOG).await;
    let (server, _) = world.url.rsplit_once('/').unwrap();
    let (_, password) = server.split_once('@').unwrap().0.rsplit_once(':').unwrap();
    let log = refused(world.serve_at(&format!("{server}/nowhere")));
    assert!(log.contains("\"nowhere\" does not exist"), "{log}");
    assert!(!log.contains(password), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_cannot_be_read_is_not_shown() {
    let world = World::new(CATALOG).await;
    let log = refused(world.serve_at(&format!("postgres://tidegate:{WRONG}/@127.0.0.1:x/tidegate")));
    assert!(log.contains("postgres://user:password@host"), "{log}");
    assert!(!log.contains(WRONG), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_without_a_catalog_is_told_where_to_give_it() {
    let world = World::new(CATALOG).await;
    std::fs::remove_file(world.place.catalog()).unwrap();
    let log = refused(world.serve());
    assert!(log.contains("no catalog yet") && log.contains("--config"), "{log}");

    // With one node that has it, others need none.
    world.place.write_catalog(CATALOG);
    let first = Node::start(world.serve());
    std::fs::remove_file(world.place.catalog()).unwrap();
    let second = Node::start(world.serve());
    let plans = second.api(http::Method::GET, "/api/v1/plans", None).await;
    assert!(String::from_utf8_lossy(&plans.body).contains("\"free\""), "{plans:?}");
    first.stop();
    second.stop();
}
