//! Acceptance 4: `kill -9` under load, again and again. Every acknowledged event is there once, no unacknowledged one
//! half, and `tidegate verify` agrees each time.
//!
//! Goal: find an order of events in which an answer is believed and the ledger does not hold it.
//! Method: each round starts the node on the same file, posts batches from several clients, kills the process after a
//! time drawn from the seed, verifies the file, starts again and compares:
//! - two meters read the same events, so half an event shows as a difference between them, or between a tenant and the
//!   sum of its users;
//! - use lies between what was acknowledged and what was sent;
//! - everything that was sent is sent again: what was acknowledged must be called a duplicate, and afterwards use is
//!   exactly what was sent. So nothing was lost, nothing counted twice, and nothing called a duplicate that was not there.
//!
//! `TIDEGATE_CRASH_ROUNDS` (default 6) and `TIDEGATE_CRASH_SEED` (default 1) choose the run; `.ci/crash` runs 200.

use crate::harness::{ADMIN_KEY, Node, Place, run};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

const CATALOG: &str = r#"
default_plan = "free"
[meters.calls]
kind = "counter"
event_type = "call"
[meters.tokens]
kind = "counter"
event_type = "call"
value = "/tokens"
[meters.credits]
kind = "counter"
[plans.free]
rank = 0
limits = [
  { meter = "calls", max = 10, per = "day", mode = "soft" },
  { meter = "credits", max = 1_000_000, per = "month" },
]
"#;

const TENANTS: u64 = 5;
const USERS: u64 = 3;
const CLIENTS: u64 = 6;

/// SplitMix64: the same numbers for the same seed, everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Something that was sent, and whether it was answered.
#[derive(Clone)]
struct Sent {
    body: Value,
    acknowledged: bool,
}

/// Everything one client sent in one round.
#[derive(Default)]
struct Record {
    batches: Vec<Sent>,
    checks: Vec<Sent>,
}

fn batch(random: &mut Random, name: &str) -> Value {
    let size = 1 + random.below(40);
    let mut event = |number: u64| {
        let tenant = format!("t{}", random.below(TENANTS));
        let user = format!("u{}", random.below(USERS));
        let tokens = 1 + random.below(100);
        json!({
            "specversion": "1.0", "source": "crash", "id": format!("{name}-{number}"), "type": "call", "subject": tenant,
            "data": {"value": 1, "tokens": tokens, "user_id": user},
        })
    };
    (0..size).map(&mut event).collect()
}

/// Posts until the node is gone.
async fn client(node: Arc<Node>, mut random: Random, name: String, record: Arc<Mutex<Record>>) {
    for number in 0.. {
        let events = random.below(4) > 0;
        let name = format!("{name}-{number}");
        let (path, body) = if events {
            ("/api/v1/events", batch(&mut random, &name))
        } else {
            let tenant = format!("t{}", random.below(TENANTS));
            let amount = 1 + random.below(9);
            let body = json!({"tenant_id": tenant, "meter": "credits", "amount": amount, "consume": true, "id": name});
            ("/api/v1/check", body)
        };
        let place = {
            let mut record = record.lock().unwrap();
            let list = if events { &mut record.batches } else { &mut record.checks };
            list.push(Sent { body: body.clone(), acknowledged: false });
            list.len() - 1
        };
        let Ok(answer) = node.api_as(ADMIN_KEY, Method::POST, path, Some(body)).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut record = record.lock().unwrap();
        let list = if events { &mut record.batches } else { &mut record.checks };
        list[place].acknowledged = true;
    }
}

/// What all that was sent (or only what was acknowledged) adds up to, by tenant: calls, tokens, credits.
fn totals(records: &[Arc<Mutex<Record>>], acknowledged_only: bool) -> BTreeMap<String, [i64; 3]> {
    let mut totals: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for record in records {
        let record = record.lock().unwrap();
        let wanted = |sent: &&Sent| sent.acknowledged || !acknowledged_only;
        for event in record.batches.iter().filter(wanted).flat_map(|sent| sent.body.as_array().unwrap()) {
            let total = totals.entry(event["subject"].as_str().unwrap().to_owned()).or_default();
            total[0] += 1;
            total[1] += event["data"]["tokens"].as_i64().unwrap();
        }
        for check in record.checks.iter().filter(wanted) {
            let total = totals.entry(check.body["tenant_id"].as_str().unwrap().to_owned()).or_default();
            total[2] += check.body["amount"].as_i64().unwrap();
        }
    }
    totals
}

async fn used(node: &Node, tenant: &str, query: &str) -> [i64; 3] {
    let answer = node.api(Method::GET, &format!("/api/v1/tenants/{tenant}/usage{query}"), None).await;
    if answer.status == 404 {
        return [0; 3];
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let usage = answer.json();
    let of = |meter: &str| {
        let meters = usage["meters"].as_array().unwrap();
        meters.iter().find(|m| m["meter"] == meter).unwrap()["used"].as_i64().unwrap()
    };
    [of("calls"), of("tokens"), of("credits")]
}

/// Use lies between what was acknowledged and what was sent, and no event is half there.
async fn compare(node: &Node, records: &[Arc<Mutex<Record>>]) {
    let (least, most) = (totals(records, true), totals(records, false));
    for tenant in (0..TENANTS).map(|number| format!("t{number}")) {
        let used_now = used(node, &tenant, "").await;
        let least = least.get(&tenant).copied().unwrap_or_default();
        let most = most.get(&tenant).copied().unwrap_or_default();
        for meter in 0..3 {
            let expected = least[meter]..=most[meter];
            assert!(
                expected.contains(&used_now[meter]),
                "{tenant}, meter {meter}: {} not in {expected:?}",
                used_now[meter]
            );
        }
        let mut of_users = [0; 3];
        for user in 0..USERS {
            let of_user = used(node, &tenant, &format!("?user_id=u{user}")).await;
            of_users[0] += of_user[0];
            of_users[1] += of_user[1];
        }
        assert_eq!(of_users[..2], used_now[..2], "{tenant}: users and tenant disagree");
    }
}

/// Sends everything of the last round again; afterwards use is exactly what was sent.
async fn repeat(node: &Node, records: &[Arc<Mutex<Record>>], from: usize) {
    for record in &records[from..] {
        let (batches, checks) = {
            let record = record.lock().unwrap();
            (record.batches.clone(), record.checks.clone())
        };
        for sent in &batches {
            let answer = node.api(Method::POST, "/api/v1/events", Some(sent.body.clone())).await.json();
            assert_eq!(answer["rejected"], json!([]), "{answer}");
            if sent.acknowledged {
                assert_eq!(answer["accepted"], 0, "an acknowledged event was lost: {answer}");
            }
        }
        for sent in &checks {
            let answer = node.api(Method::POST, "/api/v1/check", Some(sent.body.clone())).await.json();
            assert_eq!(answer["allowed"], true, "{answer}");
        }
        let mut record = record.lock().unwrap();
        let Record { batches, checks } = &mut *record;
        batches.iter_mut().chain(checks).for_each(|sent| sent.acknowledged = true);
    }
    let all = totals(records, false);
    for (tenant, total) in all {
        assert_eq!(used(node, &tenant, "").await, total, "{tenant}: not exactly once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_what_it_acknowledged() {
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (rounds, seed) = (setting("TIDEGATE_CRASH_ROUNDS", 6), setting("TIDEGATE_CRASH_SEED", 1));
    println!("seed {seed}, {rounds} rounds");
    let place = Place::new(CATALOG);
    let mut random = Random::new(seed);
    let mut records: Vec<Arc<Mutex<Record>>> = Vec::new();
    for round in 0..rounds {
        let node = Arc::new(place.start(None));
        let from = records.len();
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS {
            let record = Arc::new(Mutex::new(Record::default()));
            records.push(record.clone());
            let random = Random::new(random.next());
            clients.spawn(client(node.clone(), random, format!("r{round}c{number}"), record));
        }
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        node.signal("KILL");
        clients.join_all().await;
        Arc::into_inner(node).unwrap().kill();

        let (status, shown, problem) = run(&["verify", place.ledger().to_str().unwrap()]);
        assert!(status.success(), "round {round}: {shown}{problem}");

        let node = place.start(None);
        compare(&node, &records).await;
        repeat(&node, &records, from).await;
        if random.below(2) == 0 { node.kill() } else { drop(node.stop()) }
    }
    let sent: usize = records.iter().map(|record| record.lock().unwrap().batches.len()).sum();
    assert!(sent as u64 >= rounds, "there was no load");
    println!("{sent} batches");
}
