//! Acceptance: the official OpenAI clients for Python and JavaScript, pointed at the gateway, get what they get from the
//! model itself, streamed or not, and the tokens charged are the tokens that the model reported. `.ci/openai` installs
//! the clients; `./test.sh` runs it.

use crate::harness::{PATIENCE, Place, Upstream, run_command};
use axum::{Json, Router, body::Body, http::HeaderMap, response::IntoResponse, response::Response, routing::post};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

const EXPECTED: i64 = 1000;
const CATALOG: &str = r#"
default_plan = "free"
[meters.requests]
kind = "counter"
[meters.tokens]
kind = "counter"
[plans.free]
rank = 0
limits = [{ meter = "tokens", max = "unlimited" }]
[[routes]]
match = "POST /v1/chat/completions"
charge = [{ meter = "requests" }, { meter = "tokens", from = "usage", expect = 1000 }]
include_usage = true
[[routes]]
match = "POST /packed/v1/chat/completions"
charge = [{ meter = "requests" }, { meter = "tokens", from = "usage", expect = 1000 }]
identity_encoding = false
[[routes]]
match = "POST /v1/responses"
charge = [{ meter = "requests" }, { meter = "tokens", from = "usage", expect = 1000 }]
[[identity]]
type = "api_key"
"#;

/// What the model told, and how often it told nothing.
#[derive(Default)]
struct Model {
    reported: AtomicI64,
    silent: AtomicI64,
}

impl Model {
    fn reports(&self, tokens: Option<i64>) {
        match tokens {
            Some(tokens) => self.reported.fetch_add(tokens, Ordering::SeqCst),
            None => self.silent.fetch_add(1, Ordering::SeqCst),
        };
    }
}

/// Bytes as a framing cuts them.
fn framed(framing: &str, events: &str) -> Vec<Bytes> {
    let events = match framing {
        "crlf" => events.replace('\n', "\r\n"),
        "pings" => events.replace("data:", ": ping\ndata:").replace("\n\n", "\n\n: ping\n\n"),
        _ => events.to_owned(),
    };
    let size = match framing {
        "bytes" | "crlf" => 1,
        "odd" => 37,
        _ => usize::MAX,
    };
    events.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect()
}

fn streamed(chunks: Vec<Bytes>) -> Response {
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        for chunk in chunks {
            if sender.send_data(chunk).await.is_err() {
                return;
            }
        }
    });
    ([("content-type", "text/event-stream")], Body::new(body)).into_response()
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

async fn chat(model: Arc<Model>, ask: Value) -> Response {
    let framing = ask["messages"][0]["content"].as_str().unwrap().to_owned();
    let total = 30 + framing.len() as i64;
    let usage = json!({"prompt_tokens": 10, "completion_tokens": total - 10, "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": 3}});
    let is_silent = framing == "silent";
    let object = |kind: &str, choice: Value| json!({"id": "c1", "object": kind, "created": 1, "model": "m", "choices": [choice]});
    if ask["stream"] != true {
        let message = json!({"role": "assistant", "content": "Grüße 🌊"});
        let mut answer = object("chat.completion", json!({"index": 0, "message": message, "finish_reason": "stop"}));
        model.reports((!is_silent).then_some(total));
        if !is_silent {
            answer["usage"] = usage;
        }
        return Json(answer).into_response();
    }
    let is_asked = ask["stream_options"]["include_usage"] == true;
    let mut events = String::new();
    for (text, finish) in [("Grü", Value::Null), ("ße 🌊 \"usage\"", Value::Null), ("", "stop".into())] {
        let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": finish});
        let mut chunk = object("chat.completion.chunk", choice);
        if is_asked {
            chunk["usage"] = Value::Null;
        }
        events.push_str(&event(&chunk));
    }
    let tells = is_asked && !is_silent;
    model.reports(tells.then_some(total));
    if tells {
        let mut last = object("chat.completion.chunk", Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage;
        events.push_str(&event(&last));
    }
    streamed(framed(&framing, &(events + "data: [DONE]\n\n")))
}

async fn respond(model: Arc<Model>, ask: Value) -> Response {
    let framing = ask["input"].as_str().unwrap().to_owned();
    let total = 50 + framing.len() as i64;
    let usage = json!({"input_tokens": 20, "output_tokens": total - 20, "total_tokens": total,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}});
    let content = json!([{"type": "output_text", "text": "Grüße 🌊", "annotations": []}]);
    let output =
        json!([{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content}]);
    let response = |status: &str, output: Value, usage: Value| {
        json!({"id": "r1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": output,
            "usage": usage, "parallel_tool_calls": false, "tool_choice": "auto", "tools": []})
    };
    model.reports(Some(total));
    let completed = response("completed", output, usage);
    if ask["stream"] != true {
        return Json(completed).into_response();
    }
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "m1", "output_index": 0,
        "content_index": 0, "delta": "Grüße 🌊", "logprobs": []});
    let created = response("in_progress", json!([]), Value::Null);
    let events: String = [
        json!({"type": "response.created", "sequence_number": 0, "response": created}),
        delta,
        json!({"type": "response.completed", "sequence_number": 2, "response": completed}),
    ]
    .iter()
    .map(|data| format!("event: {}\n{}", data["type"].as_str().unwrap(), event(data)))
    .collect();
    streamed(framed(&framing, &events))
}

/// The same answer, packed where the client takes that.
async fn packed(headers: HeaderMap, answer: Response) -> Response {
    if !headers.get("accept-encoding").is_some_and(|value| value.to_str().unwrap().contains("gzip")) {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let plain = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    head.headers.remove("content-length");
    head.headers.insert("content-encoding", "gzip".parse().unwrap());
    let gzip = stored_gzip(&plain);
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        for chunk in gzip.chunks(50) {
            let _ = sender.send_data(Bytes::copy_from_slice(chunk)).await;
        }
    });
    Response::from_parts(head, Body::new(body))
}

/// The gzip format around bytes as they are (RFC 1951, 3.2.4; RFC 1952).
fn stored_gzip(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).unwrap();
    let crc = plain.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    let head = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF, 1];
    let (length, tail) = ([length.to_le_bytes(), (!length).to_le_bytes()].concat(), u32::from(length).to_le_bytes());
    [&head[..], &length, plain, &(!crc).to_le_bytes(), &tail].concat()
}

async fn start_model(model: &Arc<Model>) -> Upstream {
    let (for_chats, for_packed, for_responses) = (model.clone(), model.clone(), model.clone());
    let router = Router::new()
        .route("/v1/chat/completions", post(move |Json(ask): Json<Value>| chat(for_chats, ask)))
        .route(
            "/packed/v1/chat/completions",
            post(move |headers: HeaderMap, Json(ask): Json<Value>| async move {
                packed(headers, chat(for_packed, ask).await).await
            }),
        )
        .route("/v1/responses", post(move |Json(ask): Json<Value>| respond(for_responses, ask)));
    Upstream::with(router).await
}

/// Where `.ci/openai` puts the clients.
fn clients() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(target).join("openai");
    let place = place.canonicalize().unwrap_or(place);
    let is_there = ["python.version", "node.version"].iter().all(|file| place.join(file).exists());
    assert!(is_there, "the OpenAI clients are missing in {}. .ci/openai installs them", place.display());
    place
}

/// What a client prints, asking at this address.
async fn printed(mut command: Command, url: &str, key: &str) -> String {
    command.args([url, key]);
    let running = tokio::task::spawn_blocking(move || run_command(&mut command));
    let (status, out, log) = tokio::time::timeout(2 * PATIENCE, running).await.unwrap().unwrap();
    assert!(status.success(), "{status} after {} answers\n{log}", out.lines().count());
    out
}

/// Runs a client at the model itself and through the gateway.
async fn compare(client: impl Fn() -> Command) {
    let model = Arc::new(Model::default());
    let upstream = start_model(&model).await;
    let direct = printed(client(), &upstream.url, "any").await;
    assert!(direct.lines().count() > 40 && direct.contains("Gr"), "{direct}");
    model.reported.store(0, Ordering::SeqCst);
    model.silent.store(0, Ordering::SeqCst);
    let before = upstream.reached();

    let node = Place::new(CATALOG);
    let node = node.start(Some(&upstream.url));
    node.put_tenant("acme", json!({"plan": "free"})).await;
    let key = node.tenant_key("acme").await;
    let through = printed(client(), node.gateway(), &key).await;
    for (number, (direct, through)) in direct.lines().zip(through.lines()).enumerate() {
        assert_eq!(through, direct, "line {number}");
    }
    assert_eq!(through.lines().count(), direct.lines().count());

    let (reported, silent) = (model.reported.load(Ordering::SeqCst), model.silent.load(Ordering::SeqCst));
    let tokens = reported + EXPECTED * silent;
    let begun = Instant::now();
    while node.used_and_denied("acme", "tokens").await.0 != tokens && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.used_and_denied("acme", "tokens").await, (tokens, 0), "{reported} reported, {silent} silent");
    let requests = i64::try_from(upstream.reached() - before).unwrap();
    assert_eq!(node.used_and_denied("acme", "requests").await.0, requests);
    // Silent: of every chat that is, and of packed streams that nobody asked for their usage.
    assert_eq!(silent, 2 * 3 + 5);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_gets_what_the_model_sends_and_its_tokens_are_charged() {
    let place = clients();
    compare(|| {
        let mut python = Command::new(place.join("venv/bin/python"));
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openai/client.py"));
        python
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_gets_what_the_model_sends_and_its_tokens_are_charged() {
    let place = clients();
    compare(|| {
        let mut node = Command::new("node");
        node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openai/client.mjs")).arg(&place);
        node
    })
    .await;
}
