//! A server to stand behind the gateway: what an AI chat product or a bakery's back office would answer, made up on the
//! spot. It runs inside the demo's process and knows nothing of Tidegate.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

/// The largest chat request it reads.
const CHAT_MAX_BYTES: usize = 1024 * 1024;
/// How long the stream pauses between words.
const WORD_PAUSE: Duration = Duration::from_millis(40);
/// How long it pauses between the words of a conversation.
const TALK_PAUSE: Duration = Duration::from_millis(250);
/// The longest conversation, seconds.
const TALK_MAX_S: u64 = 300;
/// What the model says, whatever it is asked.
const REPLY: &str = "A tide gate lets the water through until the level is reached. Yours is not reached yet.";

/// Everything it answers.
pub fn router() -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/conversations", post(converse))
        .route("/tenants/{tenant}/analytics/{*report}", get(analytics))
        .fallback(anything)
}

/// `POST /v1/chat/completions`, whole or as a stream of server-sent events.
async fn chat(request: Request) -> Response {
    let Ok(body) = axum::body::to_bytes(request.into_body(), CHAT_MAX_BYTES).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, Json(json!({"error": "at most 1 MiB"}))).into_response();
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or("sample").to_owned();
    if asked["stream"] == json!(true) {
        return stream(model, WORD_PAUSE, REPLY.split_inclusive(' ').count());
    }
    let words = REPLY.split(' ').count();
    Json(json!({
        "id": "chatcmpl-sample",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}],
        "usage": {"prompt_tokens": body.len() / 4, "completion_tokens": words, "total_tokens": body.len() / 4 + words},
    }))
    .into_response()
}

/// `POST /v1/conversations`: talks for as many `seconds` as it is asked to.
async fn converse(request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), CHAT_MAX_BYTES).await.unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let seconds = asked["seconds"].as_u64().unwrap_or(10).min(TALK_MAX_S);
    let words = seconds * 1_000 / TALK_PAUSE.as_millis() as u64;
    stream("sample".to_owned(), TALK_PAUSE, words as usize)
}

/// So many words, one at a time.
fn stream(model: String, pause: Duration, words: usize) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        for word in REPLY.split_inclusive(' ').cycle().take(words) {
            let choice = json!({"index": 0, "delta": {"content": word}});
            let chunk = json!({"object": "chat.completion.chunk", "model": model, "choices": [choice]});
            // Fails when the client went away: then nobody listens.
            if sender.send(format!("data: {chunk}\n\n").into()).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        let _ = sender.send(Bytes::from_static(b"data: [DONE]\n\n")).await;
    });
    let events = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (events, Body::new(Chunks(receiver))).into_response()
}

/// A body whose chunks come as they are sent.
struct Chunks(mpsc::Receiver<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// `GET /tenants/{tenant}/analytics/...`
async fn analytics(Path((tenant, report)): Path<(String, String)>) -> Json<Value> {
    let series = [12, 18, 9, 31, 27, 44, 40];
    Json(json!({"tenant": tenant, "report": report, "conversations_per_day": series}))
}

/// Everything else: reads the body to its end without keeping it, and says what arrived.
async fn anything(request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let mut received_bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        received_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    let identity = identity_headers(&head.headers);
    Json(json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "received_bytes": received_bytes,
        "identity_from_the_gateway": identity,
    }))
    .into_response()
}

/// What the gateway says about the caller.
fn identity_headers(headers: &HeaderMap) -> Value {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-tidegate-"));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    ours.map(|(name, value)| (name.to_string(), Value::String(text(value)))).collect::<serde_json::Map<_, _>>().into()
}
