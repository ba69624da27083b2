//! `POST /api/v1/snapshots/counted`: days that were brought along are known to forecasts at once. The clock shows 2026-03-10, 12:00.

use crate::world::{World, event};
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
};
use engine::{
    HistoryKept,
    ports::{Days, Snapshot, SnapshotSource, Taken},
};
use serde_json::{Value, json};

const COUNTED: &str = "/api/v1/snapshots/counted";

async fn import(world: &World, id: &str, on: &str, add: i64, user: Option<&str>) {
    let mut body = json!({ "meter": "messages", "add": add, "on": on, "reason": "imported history", "id": id });
    if let Some(user) = user {
        body["user_id"] = user.into();
    }
    let answer = world.admin("POST", "/api/v1/tenants/acme/adjustments", body).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
}

fn asked(first: &str, last: &str) -> Value {
    json!({ "tenant_id": "acme", "meters": [{ "meter": "messages", "first": first, "last": last }] })
}

/// `day value`, one each.
async fn kept(world: &World) -> Vec<String> {
    let acme = TenantId::new("acme").unwrap();
    let kept = world.engine.snapshots(&acme, Days::ALL).await.unwrap();
    let messages = kept.into_iter().find(|meter| meter.meter.as_str() == "messages");
    let days = messages.map_or_else(Vec::new, |meter| meter.days);
    days.iter().map(|taken| format!("{} {} {:?}", taken.day, taken.value, taken.source)).collect()
}

#[tokio::test]
async fn days_that_were_brought_along_are_rows_and_again_the_same() {
    let world = World::with_tenants().await;
    import(&world, "a", "2026-03-05", 7, Some("ann")).await;
    import(&world, "b", "2026-03-05", 2, None).await;
    import(&world, "c", "2026-03-08", 5, None).await;
    // Today is not over: its own night closes it, with what is counted until then.
    import(&world, "d", "2026-03-10", 1, None).await;
    let days = ["2026-03-05 9 Ledger", "2026-03-06 0 Ledger", "2026-03-07 0 Ledger", "2026-03-08 5 Ledger"];
    for _ in 0..2 {
        let answer = world.admin("POST", COUNTED, asked("2026-03-05", "2026-03-08")).await;
        let bounds = ("2025-12-11", "2026-03-09");
        assert_eq!(answer.body, json!({ "tenant_id": "acme", "first": bounds.0, "last": bounds.1, "values": 4 }));
        assert_eq!(kept(&world).await, days);
    }
    // Folded or not, and with what another file brought later.
    while world.engine.fold_history(HistoryKept::default()).await.unwrap().more {}
    import(&world, "e", "2026-03-05", 1, Some("bob")).await;
    let answer = world.admin("POST", COUNTED, asked("2020-01-01", "2026-03-10")).await;
    assert_eq!(answer.body["values"], 89);
    let all = kept(&world).await;
    assert_eq!((all.len(), &*all[all.len() - 5], &*all[88]), (89, "2026-03-05 10 Ledger", "2026-03-09 0 Ledger"));
    let forecast = world.get("/api/v1/usage-forecast?tenant_id=acme").await;
    let metrics = forecast.body["metrics"].as_array().unwrap();
    let messages = metrics.iter().find(|metric| metric["metric"] == "messages").unwrap();
    assert_ne!(messages["status"], "insufficient_data");
    assert_eq!(messages["trend_data"].as_array().unwrap().len(), 29, "{messages}");
}

#[tokio::test]
async fn what_others_told_stays_and_what_the_ledger_counted_is_counted_anew() {
    let world = World::with_tenants().await;
    let row = |text: &str, value, source| {
        let day = Day::parse(text).unwrap();
        let taken = Taken { day, value, after_reset: None, observed_at: world.engine.now(), source };
        Snapshot { tenant: TenantId::new("acme").unwrap(), meter: MeterKey::new("messages").unwrap(), taken }
    };
    // How the new value would be split at a reset is not known.
    let mut split = row("2026-03-06", 2, SnapshotSource::Ledger);
    split.taken.after_reset = Some(2);
    let rows =
        vec![row("2026-03-05", 40, SnapshotSource::Collector), split, row("2026-03-07", 30, SnapshotSource::Pushed)];
    world.engine.put_snapshots(rows).await.unwrap();
    import(&world, "a", "2026-03-05", 7, None).await;
    import(&world, "b", "2026-03-06", 8, None).await;
    import(&world, "c", "2026-03-07", 3, None).await;
    assert_eq!(world.admin("POST", COUNTED, asked("2026-03-05", "2026-03-07")).await.status, 200);
    assert_eq!(kept(&world).await, ["2026-03-05 40 Collector", "2026-03-06 8 Ledger", "2026-03-07 30 Pushed"]);
    let acme = TenantId::new("acme").unwrap();
    let kept = world.engine.snapshots(&acme, Days::ALL).await.unwrap();
    assert!(kept.iter().flat_map(|meter| &meter.days).all(|taken| taken.after_reset.is_none()), "{kept:?}");
}

#[tokio::test]
async fn the_day_is_part_of_what_an_id_is_bound_to() {
    let world = World::with_tenants().await;
    let add = |on: &str| json!({ "id": "x", "meter": "messages", "add": 5, "reason": "brought along", "on": on });
    let path = "/api/v1/tenants/acme/adjustments";
    assert!(world.admin("POST", path, add("2026-03-05")).await.status < 300);
    assert_eq!(world.admin("POST", path, add("2026-03-06")).await.status, 409);
    assert!(world.admin("POST", path, add("2026-03-05")).await.status < 300);
}

#[tokio::test]
async fn days_of_every_zone_are_those_of_the_calendar() {
    for zone in ["Europe/Madrid", "Pacific/Auckland", "Pacific/Honolulu", "Pacific/Kiritimati", "Etc/GMT+12"] {
        let world = World::with_tenants().await;
        let put = json!({ "timezone": zone });
        assert_eq!(world.admin("PUT", "/api/v1/tenants/acme", put).await.status, 200);
        import(&world, "a", "2026-03-05", 7, None).await;
        assert_eq!(world.admin("POST", COUNTED, asked("2026-03-04", "2026-03-06")).await.status, 200);
        let days = ["2026-03-04 0 Ledger", "2026-03-05 7 Ledger", "2026-03-06 0 Ledger"];
        assert_eq!(kept(&world).await, days, "{zone}");
        for cut in ["UTC", zone] {
            let path = format!(
                "/api/v1/tenants/acme/history?meter=messages&from=2026-03-05&to=2026-03-06&timezone={}",
                cut.replace('+', "%2B")
            );
            let day = world.get(&path).await;
            assert_eq!((day.status, &day.body["items"][0]["used"]), (200, &json!(7)), "{zone} by {cut}: {}", day.body);
        }
        // It is over: nothing that is open has it.
        assert_eq!(world.used("acme", "messages").await.0, 0, "{zone}");
    }
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_needs_no_tenant() {
    let world = World::with_tenants().await;
    for tenant in ["acme", "nobody"] {
        let mut body = asked("2026-03-05", "2026-03-20");
        (body["tenant_id"], body["dry_run"]) = (tenant.into(), true.into());
        let answer = world.admin("POST", COUNTED, body).await;
        assert_eq!((answer.status, &answer.body["values"]), (200, &json!(5)), "{}", answer.body);
    }
    assert!(kept(&world).await.is_empty());
}

#[tokio::test]
async fn what_has_no_meaning_is_refused() {
    let world = World::with_tenants().await;
    let changed = |key: &str, value: Value| {
        let mut body = asked("2026-03-05", "2026-03-06");
        match key {
            "tenant_id" | "meters" => body[key] = value,
            _ => body["meters"][0][key] = value,
        }
        body
    };
    for (body, refused) in [
        (changed("tenant_id", json!("nobody")), (404, "unknown_tenant")),
        (changed("tenant_id", json!("a b")), (422, "invalid_body")),
        (changed("meter", json!("nothing")), (422, "unknown_meter")),
        (changed("meter", json!("documents")), (422, "gauge_has_no_window")),
        (changed("first", json!("2026-02-30")), (422, "invalid_body")),
        (changed("meters", json!(vec![json!({ "meter": "m", "first": "", "last": "" }); 257])), (422, "invalid_body")),
    ] {
        assert_eq!(world.admin("POST", COUNTED, body.clone()).await.problem(), refused, "{body}");
    }
    let level = |meter: &str| json!({ "tenant_id": "acme", "date": "2026-03-05", "levels": { meter: 3 } });
    let track = "/api/v1/usage-forecast/track-usage";
    assert_eq!(world.admin("POST", track, level("messages")).await.problem(), (422, "not_a_gauge"));
    assert_eq!(world.admin("POST", track, level("documents")).await.body["recorded"], 1);
}

#[tokio::test]
async fn while_history_is_behind_nothing_is_written() {
    let world = World::with_tenants().await;
    import(&world, "a", "2026-03-05", 7, None).await;
    for batch in 0..11 {
        let events = (0..1_000).map(|number| event(&format!("{batch}-{number}"), "messages", json!({ "value": 1 })));
        let answer = world.events("application/cloudevents-batch+json", events.collect()).await;
        assert_eq!(answer.body["accepted"], 1_000, "{}", answer.body);
    }
    let behind = world.admin("POST", COUNTED, asked("2026-03-05", "2026-03-06")).await;
    assert_eq!(behind.problem(), (503, "history_behind"));
    assert!(kept(&world).await.is_empty());
    while world.engine.fold_history(HistoryKept::default()).await.unwrap().more {}
    assert_eq!(world.admin("POST", COUNTED, asked("2026-03-05", "2026-03-06")).await.status, 200);
    assert_eq!(kept(&world).await, ["2026-03-05 7 Ledger", "2026-03-06 0 Ledger"]);
}
