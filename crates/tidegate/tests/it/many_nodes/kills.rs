//! One node is killed, another stands still for longer than anything it may hold: the third goes on, and clients that
//! repeat what was not answered lose nothing and pay nothing twice.

use super::{
    cluster::World,
    traffic::{CATALOG, LIMIT, Traffic, compare},
};
use std::time::Duration;

/// Longer than a stopped node may keep a tenant's row from others (two seconds), by which time it was taken from it.
const STANDS_STILL: Duration = Duration::from_millis(3500);

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_stopped_nodes_lose_nothing_and_repeat_nothing() {
    let world = World::new(CATALOG).await;
    let [killed, stopped, third] = <[_; 3]>::try_from(world.start(3)).ok().unwrap();
    let apis = [&killed, &stopped, &third].map(|node| node.api.clone());

    let traffic = Traffic::start(apis.to_vec(), 31, LIMIT * 2 / 3);
    traffic.passed(LIMIT / 6).await;
    killed.kill();
    traffic.passed(LIMIT / 3).await;
    stopped.signal("STOP");
    tokio::time::sleep(STANDS_STILL).await;
    // The third has gone on meanwhile.
    traffic.passed(LIMIT * 2 / 3).await;
    stopped.signal("CONT");
    let books = traffic.exhaust().await;

    compare(&world, &[&third, &stopped], &books).await;
    third.stop();
    stopped.stop();
}
