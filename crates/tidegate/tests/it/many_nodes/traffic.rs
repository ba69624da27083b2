//! Clients that spend under ids on any of several nodes, repeat what was not answered, and keep books.

use super::cluster::{World, until};
use crate::{
    crash::Random,
    harness::{ADMIN_KEY, Answer, Node, http_client, send},
};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

/// A tenant may make this many calls.
pub const LIMIT: usize = 1500;

pub const CATALOG: &str = r#"
default_plan = "free"
[meters.calls]
kind = "counter"
[plans.free]
rank = 0
limits = [{ meter = "calls", max = 1500, per = "month" }]
"#;

/// How long a client waits for an answer before it asks another node.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
const CLIENTS: u64 = 64;

/// What the clients know.
#[derive(Default)]
pub struct Books {
    /// Ids that were answered with yes.
    allowed: Mutex<BTreeSet<String>>,
    refused: Mutex<u64>,
    /// Answers that said to come back later, and whether one of them did not say when.
    unavailable: Mutex<(u64, bool)>,
    /// Clients that wait until more may pass, with everything answered that they sent.
    idle: AtomicU64,
}

impl Books {
    pub fn allowed(&self) -> usize {
        self.allowed.lock().unwrap().len()
    }
    pub fn unavailable(&self) -> u64 {
        let (count, without_retry_after) = *self.unavailable.lock().unwrap();
        assert!(!without_retry_after, "a 503 did not say when to come back");
        count
    }
}

/// Clients at work.
pub struct Traffic {
    pub books: Arc<Books>,
    most: watch::Sender<usize>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// Sends to these APIs; no new ids while as many as `most` have passed.
    pub fn start(apis: Vec<String>, seed: u64, most: usize) -> Self {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let (books, most) = (Arc::new(Books::default()), watch::Sender::new(most));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (books, apis, most) = (books.clone(), apis.clone(), most.subscribe());
            let random = Random::new(random.next());
            clients.spawn(client(number, apis, random, books, most));
        }
        Self { books, most, clients }
    }

    /// Waits until so many have passed.
    pub async fn passed(&self, count: usize) {
        until(&format!("{count} requests pass"), || async { self.books.allowed() >= count }).await;
    }

    /// Goes on until the limit is reached and nothing is unanswered.
    pub async fn exhaust(self) -> Arc<Books> {
        let idle = || async { self.books.idle.load(Ordering::SeqCst) == CLIENTS };
        until("everything is answered", idle).await;
        self.most.send_replace(usize::MAX);
        self.passed(LIMIT).await;
        let refused = *self.books.refused.lock().unwrap();
        until("others are refused", || async { *self.books.refused.lock().unwrap() >= refused + CLIENTS }).await;
        self.most.send_replace(0);
        self.clients.join_all().await;
        self.books
    }
}

async fn client(
    number: u64,
    apis: Vec<String>,
    mut random: Random,
    books: Arc<Books>,
    mut most: watch::Receiver<usize>,
) {
    let http = http_client();
    for round in 0.. {
        while books.allowed() >= *most.borrow_and_update() {
            if *most.borrow() == 0 {
                return;
            }
            books.idle.fetch_add(1, Ordering::SeqCst);
            most.changed().await.unwrap();
            books.idle.fetch_sub(1, Ordering::SeqCst);
        }
        let id = format!("c{number}-{round}");
        let body = Bytes::from(spend(&id).to_string());
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < 2 * crate::harness::PATIENCE, "{id} was never answered");
            let api = &apis[random.below(apis.len() as u64) as usize];
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!("{api}/api/v1/check"))
                .header("authorization", format!("Bearer {ADMIN_KEY}"))
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))
                .unwrap();
            match tokio::time::timeout(ANSWER_WITHIN, send(&http, request)).await {
                Ok(Ok(answer)) if note(&books, &id, &answer) => break,
                // Not answered, or told to come back: the same id again, wherever.
                _ => tokio::time::sleep(Duration::from_millis(5 + random.below(20))).await,
            }
        }
    }
}

/// A request for one call.
fn spend(id: &str) -> Value {
    json!({"tenant_id": "acme", "meter": "calls", "consume": true, "id": id})
}

/// Whether it is a decision.
fn note(books: &Books, id: &str, answer: &Answer) -> bool {
    match (answer.status.as_u16(), &answer.json()["allowed"]) {
        (200, Value::Bool(true)) => assert!(books.allowed.lock().unwrap().insert(id.to_owned()), "{id} twice"),
        (200, Value::Bool(false)) => *books.refused.lock().unwrap() += 1,
        (503, _) => {
            let mut unavailable = books.unavailable.lock().unwrap();
            unavailable.0 += 1;
            unavailable.1 |= !answer.headers.contains_key("retry-after");
            return false;
        }
        _ => panic!("{answer:?}"),
    }
    true
}

/// Every node and the tables say what the clients say: the limit was used, each id once.
pub async fn compare(world: &World, nodes: &[&Node], books: &Books) {
    assert_eq!(books.allowed(), LIMIT);
    for node in nodes {
        until("a node knows what was used", || async {
            let (used, _) = node.used_and_denied("acme", "calls").await;
            assert!(used <= LIMIT as i64, "{used} were used");
            used == LIMIT as i64
        })
        .await;
    }
    assert_eq!(world.bound_ids("acme").await, (LIMIT as i64, LIMIT as i64));
    assert_eq!(listed(nodes[0]).await, LIMIT as i64);
    // An id that was acknowledged is bound: asked again, on whichever node, it passes and costs nothing, though the limit
    // is reached.
    let some: Vec<String> = books.allowed.lock().unwrap().iter().step_by(17).cloned().collect();
    for id in &some {
        let answer = nodes[0].api_as(ADMIN_KEY, Method::POST, "/api/v1/check", Some(spend(id))).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json()["allowed"]), (200, &json!(true)), "{id}: {answer:?}");
    }
    assert_eq!(nodes[0].used_and_denied("acme", "calls").await.0, LIMIT as i64);
}

/// What the journal adds up to.
async fn listed(node: &Node) -> i64 {
    effects(node, "use").await.iter().map(|effect| effect["amount"].as_i64().unwrap()).sum()
}

/// All effects of a kind in the journal.
pub async fn effects(node: &Node, kind: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/entries?limit=500{after}");
        let page = node.api(Method::GET, &path, None).await.json();
        let entries = page["items"].as_array().unwrap().iter().filter(|entry| entry["tenant_id"] == "acme");
        let all = entries.flat_map(|entry| entry["effects"].as_array().unwrap());
        found.extend(all.filter(|effect| effect["effect"] == kind).cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => after = format!("&cursor={cursor}"),
            None => return found,
        }
    }
}
