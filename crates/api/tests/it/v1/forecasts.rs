//! `/api/v1/usage-forecast`.

use crate::world::{Setup, World};
use axum::body::Body;
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{ForecastDates, LatestForecast, Ledger, MeterGrowth, Snapshot, SnapshotSource, Taken};
use http::{Request, header};
use serde_json::{Value, json};
use std::sync::Arc;

const BAKERY: &str = include_str!("../../../../../examples/bakery/tidegate.toml");

/// A level that was told from outside at the end of a day.
fn told(tenant: &str, meter: &str, day: Day, value: i64) -> Snapshot {
    let observed_at = Instant::from_ms(i64::from(day.number() + 1) * 86_400_000);
    let taken = Taken { day, value, after_reset: None, observed_at, source: SnapshotSource::Pushed };
    Snapshot { tenant: TenantId::new(tenant).unwrap(), meter: MeterKey::new(meter).unwrap(), taken }
}

/// The first seed's example: 35 of 50 products, one more every other day, asked on 2025-01-19.
async fn bakery() -> World {
    let world = World::with(Setup { catalog: Some(BAKERY), ..Setup::default() }).await;
    world.time.set("2025-01-19T10:00:00Z");
    world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "starter" })).await;
    let today = Day::parse("2025-01-19").unwrap();
    let rows = (1..=60).map(|back| told("acme", "products", today + -back, 35 - (i64::from(back) - 1) / 2)).collect();
    world.ledger.snapshots().put(rows).await.unwrap();
    world
}

fn metric<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["metrics"].as_array().unwrap().iter().find(|metric| metric["metric"] == name).unwrap()
}

#[tokio::test]
async fn the_first_seeds_own_question_has_its_answer() {
    let world = bakery().await;
    let answer = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["tenant_id"], "acme");
    assert_eq!(answer.body["metrics"].as_array().unwrap().len(), 9);
    let products = metric(&answer.body, "products");
    assert_eq!(products["trend_data"].as_array().unwrap().len(), 30);
    // What the seed shows, member by member.
    for (member, value) in
        [("current", json!(35)), ("limit", json!(50)), ("usage_percentage", json!(70.0)), ("status", json!("safe"))]
    {
        assert_eq!(products[member], value, "{member}");
    }
    let rate = products["daily_growth_rate"].as_f64().unwrap();
    let days = products["days_until_breach"].as_i64().unwrap();
    assert!((rate - 0.5).abs() < 0.1, "{rate}");
    assert!((26..=38).contains(&days), "{days}");
    insta::assert_json_snapshot!(products);
}

/// Thirty days of half a product a day can be told in whole ones alone. Whether the last day is one on which one came moves the likely
/// day by a few: what stands three days back counts most. The seed's own day lies within the interval.
#[tokio::test]
async fn the_seeds_example_is_told_day_by_day_through_the_door() {
    for (late, likely) in [(0, 33), (1, 36)] {
        let world = World::with(Setup { catalog: Some(BAKERY), ..Setup::default() }).await;
        world.time.set("2025-01-19T10:00:00Z");
        world.admin("PUT", "/api/v1/tenants/acme", json!({ "plan": "starter" })).await;
        let today = Day::parse("2025-01-19").unwrap();
        for back in (1..=31_i32).rev() {
            let date = (today + -back).to_string();
            let body = json!({ "tenant_id": "acme", "date": date, "metrics": { "products": 35 - (back - late) / 2 } });
            let answer = world.admin("POST", "/api/v1/usage-forecast/track-usage", body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let answer = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
        let products = metric(&answer.body, "products");
        assert_eq!(
            (&products["current"], &products["limit"], &products["status"]),
            (&json!(35), &json!(50), &json!("safe"))
        );
        let days = products["days_until_breach"].as_i64().unwrap();
        assert!((days - likely).abs() <= 2, "{products}");
        let (earliest, latest) = (products["earliest"].as_str().unwrap(), products["latest"].as_str().unwrap());
        assert!(earliest < "2025-02-17" && "2025-02-17" < latest, "{products}");
    }
}

#[tokio::test]
async fn a_tenant_asks_for_itself_and_others_name_it() {
    let world = bakery().await;
    let key = world.key("tenant", Some("acme")).await;
    let own = world.with_key(&key, "GET", "/api/v1/usage-forecast", Value::Null).await;
    assert_eq!((own.status, &own.body["tenant_id"]), (200, &json!("acme")));
    assert_eq!(world.get("/api/v1/usage-forecast").await.problem(), (400, "invalid_request"));
    assert_eq!(world.get("/api/v1/usage-forecast?tenant_id=nobody").await.problem(), (404, "unknown_tenant"));
    assert_eq!(world.get("/api/v1/usage-forecast?tenant=acme").await.problem(), (400, "invalid_request"));
}

#[tokio::test]
async fn a_history_is_read_once_until_a_row_of_it_is_another() {
    let world = bakery().await;
    let days = async || {
        let answer = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
        metric(&answer.body, "products")["days_until_breach"].as_i64().unwrap()
    };
    let before = days().await;
    assert_eq!(days().await, before);
    let today = Day::parse("2025-01-19").unwrap();
    world.ledger.snapshots().put(vec![told("globex", "products", today + -1, 1)]).await.unwrap();
    days().await;
    world.ledger.snapshots().put(vec![told("acme", "products", today + -1, 45)]).await.unwrap();
    assert!(days().await < before);
    assert_eq!(*world.told.1.lock(), [false, true, true, false]);
    // Live numbers are never held.
    let add = json!({ "id": "e", "subject": "acme", "type": "products", "data": { "op": "set", "value": 50 } });
    assert_eq!(world.events("application/json", add).await.status, 204);
    let answer = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
    assert_eq!(metric(&answer.body, "products")["status"], "breached");
    assert_eq!(metric(&answer.body, "products")["days_until_breach"], 0);
    // Another day looks back on other days.
    world.time.set("2025-01-20T13:00:00Z");
    days().await;
    assert_eq!(world.told.1.lock()[4..], [true, false]);
}

#[tokio::test]
async fn what_is_known_is_not_said_again() {
    let world = bakery().await;
    let ask = async |known: Option<&str>| {
        let mut request = Request::get("/api/v1/usage-forecast?tenant_id=acme")
            .header(header::AUTHORIZATION, format!("Bearer {}", crate::world::ADMIN));
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let first = ask(None).await;
    let etag = first.headers[header::ETAG].to_str().unwrap().to_owned();
    world.time.set("2025-01-19T10:05:00Z");
    for known in [etag.clone(), format!("\"x\", {etag}"), "*".to_owned(), etag.trim_start_matches("W/").to_owned()] {
        let again = ask(Some(&known)).await;
        assert_eq!((again.status, &again.body), (304, &Value::Null), "{known}");
        assert_eq!(again.headers[header::ETAG], *etag);
    }
    assert_eq!(ask(Some("W/\"other\"")).await.status, 200);
    world.ledger.snapshots().put(vec![told("acme", "products", Day::parse("2025-01-18").unwrap(), 36)]).await.unwrap();
    let after = ask(Some(&etag)).await;
    assert_eq!(after.status, 200);
    assert_ne!(after.headers[header::ETAG], *etag);
}

#[tokio::test]
async fn what_was_learnt_stands_beside_the_forecast() {
    let world = bakery().await;
    let book = world.ledger.forecasts().unwrap();
    let meter = MeterKey::new("products").unwrap();
    let growth = MeterGrowth { meter, tenants: 1_000, growth_millionths: 1_000 * 9_000 };
    let before = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
    assert_eq!(metric(&before.body, "products")["score"], Value::Null);
    book.put_growth(vec![growth]).await.unwrap();
    world.time.set("2025-01-19T11:00:00Z");
    let after = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
    let days = |answer: &Value| metric(answer, "products")["days_until_breach"].as_i64().unwrap();
    assert!(days(&after.body) < days(&before.body), "a meter that grows faster elsewhere is expected to do so here");
}

#[tokio::test]
async fn a_tenants_own_past_is_asked() {
    let world = bakery().await;
    let answer = world.get("/api/v1/usage-forecast/backtest?tenant_id=acme").await;
    let products = metric(&answer.body, "products");
    assert_eq!((&products["limit_name"], &products["history_days"]), (&json!("products"), &json!(60)));
    assert_eq!(products["score"]["count"], 0, "60 days don't tell what comes in 90");
    let today = Day::parse("2025-01-19").unwrap();
    let rows =
        (1..=200).map(|back| told("acme", "products", today + -back, (150 - i64::from(back)).max(0) / 3)).collect();
    world.ledger.snapshots().put(rows).await.unwrap();
    let answer = world.get("/api/v1/usage-forecast/backtest?tenant_id=acme").await;
    let score = &metric(&answer.body, "products")["score"];
    assert!(score["count"].as_u64().unwrap() > 50, "{score}");
}

fn row(tenant: &str, likely: Option<i32>, status: &str, plan: &str) -> LatestForecast {
    let day = |days: i32| Day::parse("2026-03-10").unwrap() + days;
    LatestForecast {
        tenant: TenantId::new(tenant).unwrap(),
        meter: MeterKey::new("documents").unwrap(),
        plan: PlanKey::new(plan).unwrap(),
        limit: Some("documents".into()),
        status: Arc::from(status),
        used: 4,
        max: Some(5),
        dates: ForecastDates { earliest: likely.map(|days| day(days - 1)), likely: likely.map(day), latest: None },
        growth_per_day_thousandths: 250,
        made_at: Instant::parse("2026-03-10T02:00:00Z").unwrap(),
    }
}

#[tokio::test]
async fn the_fleet_is_listed_by_days_until_the_breach() {
    let world = World::new().await;
    let rows = vec![
        row("later", Some(20), "safe", "free"),
        row("never.1", None, "safe", "basic"),
        row("soon", Some(3), "critical", "free"),
    ];
    world.ledger.forecasts().unwrap().put_latest(rows).await.unwrap();
    let page = world.get("/api/v1/usage-forecast/fleet?limit=2").await;
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|row| row["tenant_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page.body), ["soon", "later"]);
    insta::assert_json_snapshot!(page.body["items"][0]);
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let rest = world.get(&format!("/api/v1/usage-forecast/fleet?limit=2&cursor={cursor}")).await;
    assert_eq!((names(&rest.body), &rest.body["next_cursor"]), (vec!["never.1".to_owned()], &Value::Null));
    for (filter, found) in [
        ("status=critical", vec!["soon"]),
        ("plan=basic", vec!["never.1"]),
        ("meter=documents&plan=free", vec!["soon", "later"]),
        ("meter=messages", vec![]),
    ] {
        assert_eq!(names(&world.get(&format!("/api/v1/usage-forecast/fleet?{filter}")).await.body), found, "{filter}");
    }
    for wrong in ["status=bad", "cursor=x", "limit=0", "color=red"] {
        let answer = world.get(&format!("/api/v1/usage-forecast/fleet?{wrong}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{wrong}");
    }
}

#[tokio::test]
async fn daily_history_is_read_in_pages_of_tenants() {
    let world = bakery().await;
    world.admin("PUT", "/api/v1/tenants/globex", json!({ "plan": "starter" })).await;
    let answer = world.get("/api/v1/snapshots?days=2&limit=1").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!((answer.body["from"].as_str(), answer.body["to"].as_str()), (Some("2025-01-17"), Some("2025-01-18")));
    let days = &answer.body["items"][0]["meters"][0]["days"];
    let shown: Vec<_> = days.as_array().unwrap().iter().map(|day| (day["day"].clone(), day["value"].clone())).collect();
    assert_eq!(shown, [(json!("2025-01-17"), json!(35)), (json!("2025-01-18"), json!(35))]);
    assert_eq!(days[0]["source"], "pushed");
    let cursor = answer.body["next_cursor"].as_str().unwrap().to_owned();
    let next = world.get(&format!("/api/v1/snapshots?days=2&limit=1&cursor={cursor}")).await;
    assert_eq!((next.status, &next.body["items"]), (200, &json!([])), "globex has none");
    let one = world.get("/api/v1/snapshots?tenant_id=acme&days=60").await;
    assert_eq!(one.body["items"][0]["meters"][0]["days"].as_array().unwrap().len(), 60);
    for (path, status) in [
        ("/api/v1/snapshots?days=0", 400),
        ("/api/v1/snapshots?days=3654", 400),
        ("/api/v1/snapshots?tenant_id=nobody", 404),
        ("/api/v1/snapshots?cursor=what", 400),
    ] {
        assert_eq!(world.get(path).await.status, status, "{path}");
    }
}
