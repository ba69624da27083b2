//! What a stream is told about its session, as events.

use bytes::Bytes;
use domain::{
    catalog::Catalog,
    decision::Decision,
    id::{TenantId, UserId},
    session::{SessionEnd, SessionState},
};
use engine::{ports::Commit, requests::Admission, session::SessionAnswer};
use serde_json::{Value, json};
use wire::{denial, rescue};

/// The name of an event that says that the time is nearly over. To clients of chat models it is a chunk without choices.
const WARNING: &str = "tidegate.warning";

fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// An event that says why nothing follows: the problem, and an `error` as clients of chat models look for it.
fn problem(mut data: Value) -> Bytes {
    let said = |key: &str| data.get(key).cloned().unwrap_or(Value::Null);
    let message = if data.get("detail").is_some() { said("detail") } else { said("message") };
    let error = json!({ "message": message, "type": said("error_type"), "code": said("code"), "param": null });
    if let Value::Object(members) = &mut data {
        members.insert("error".to_owned(), error);
    }
    event("error", &data)
}

/// A limit was reached.
pub(super) fn refused(
    tenant: &TenantId,
    user: Option<&UserId>,
    answer: &SessionAnswer,
    decision: &Decision,
    catalog: &Catalog,
) -> Bytes {
    let admission = Admission {
        tenant: tenant.clone(),
        user: user.cloned(),
        decision: decision.clone(),
        denial_id: answer.denial_id,
        repeated: false,
        outage: false,
        hold: None,
        charged: None,
        dimensions: Vec::new(),
        leased: false,
        catalog_pin: answer.catalog_pin,
        commit: Commit::Done,
    };
    let conversation = answer.state.as_ref().and_then(|state| state.session.given_key());
    let body = denial::session_response(&admission, None, conversation, catalog);
    match body.and_then(|response| serde_json::from_slice(response.body()).ok()) {
        Some(data) => problem(data),
        None => lost(),
    }
}

/// It was ended elsewhere.
pub(super) fn ended(end: &SessionEnd) -> Bytes {
    let reason = end.reason.word();
    problem(json!({
        "title": "The session has ended",
        "status": rescue::SESSION_LIMIT_REACHED.status,
        "code": "session_closed",
        "detail": format!("The session ended ({reason}) at {}.", end.ended_at.rfc3339()),
        "reason": reason,
    }))
}

/// Nothing is known of it any more.
pub(super) fn lost() -> Bytes {
    problem(json!({
        "title": "The session has ended",
        "status": rescue::UNAVAILABLE.status,
        "code": "session_closed",
        "detail": "The session can't go on.",
    }))
}

/// The time is nearly over.
pub(super) fn warning(state: &SessionState, decision: &Decision) -> Bytes {
    let limit = state.limited_by.and_then(|place| decision.limits.get(place)).map(|limit| &*limit.name);
    let left_ms = state.may_run_ms.unwrap_or(0);
    let data = json!({
        "object": "chat.completion.chunk",
        "choices": [],
        "tidegate": {
            "code": "session_limit_near",
            "limit": limit,
            "may_run_s": left_ms / 1000,
            "may_run_ms": left_ms,
            "message": format!("The time is nearly used up: {} seconds are left.", left_ms / 1000),
        },
    });
    event(WARNING, &data)
}
