#![allow(clippy::unwrap_used)]

use super::*;

const TEAPOT: Kind = Kind { code: "teapot", status: 418, title: "A teapot" };

#[test]
fn a_problem_carries_type_code_sentence_and_extension_members() {
    let problem = TEAPOT.problem("Use a kettle.").with("details", serde_json::json!({ "cups": 2 })).retry_after(7);
    let json: Value = serde_json::from_slice(&problem.to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "type": "urn:problem-type:tidegate:teapot", "title": "A teapot", "status": 418, "code": "teapot",
            "detail": "Use a kettle.", "retry_after_s": 7, "details": { "cups": 2 },
        })
    );
}

#[test]
fn the_answer_is_never_cached_and_says_when_to_retry() {
    let response = TEAPOT.problem("Wait.").retry_after(3).to_response();
    assert_eq!(response.status().as_u16(), 418);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    assert!(!TEAPOT.problem("").to_response().headers().contains_key(header::RETRY_AFTER));
}
