//! `GET /api/v1/plans`.

use crate::world::World;

#[tokio::test]
async fn the_public_comparison() {
    let world = World::new().await;
    insta::assert_json_snapshot!(world.get("/api/v1/plans").await.body);
}
