//! The OpenAPI document, generated from the routes. Security and the common errors are filled in from the access table,
//! so that no handler can forget them.

use crate::{
    access::{Access, access_of},
    routes::described,
};
use serde_json::{Value, json};
use utoipa::OpenApi;
use wire::problem::ProblemSchema;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        version = "1",
        description = "Meters what tenants use, decides what their plans allow, and keeps the account.\n\nErrors are \
                       `application/problem+json` with a stable `code`. Amounts are integers in the meter's smallest \
                       unit, at most 2^53 - 1. Lists are pages: `limit`, and `cursor` from `next_cursor`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemSchema)),
    tags(
        (name = "decisions", description = "May they?"),
        (name = "sessions", description = "How long may they?"),
        (name = "events", description = "They did."),
        (name = "tenants", description = "Who they are, what they bought, and corrections."),
        (name = "usage", description = "What they used."),
        (name = "foresight", description = "Day by day, and what comes."),
        (name = "denials", description = "What they were refused."),
        (name = "plans", description = "What is on offer."),
        (name = "keys", description = "Credentials."),
        (name = "operation", description = "How the server is."),
        (name = "compatibility", description = "Shapes of systems that came before."),
    ),
)]
struct Frame;

/// What stands around the paths.
pub(crate) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The whole document as JSON text.
pub fn document() -> String {
    let api = described().into_openapi();
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    document["components"]["securitySchemes"] = json!({
        "key": { "type": "http", "scheme": "bearer", "description": "An API key, or a tenant's token." },
    });
    let paths = document["paths"].as_object_mut();
    for (path, methods) in paths.into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete(path, &method.to_ascii_uppercase(), operation);
        }
    }
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn complete(path: &str, method: &str, operation: &mut Value) {
    // What stands in no table is nobody's; the access test finds it.
    let access = access_of(method, path).unwrap_or(Access::Admin);
    if access == Access::Public {
        operation["security"] = json!([]);
    } else {
        operation["security"] = json!([{ "key": [] }]);
        let description = operation["description"].as_str().unwrap_or_default().trim_end().to_owned();
        operation["description"] = format!("{description}\n\nNeeds {}.", access.words()).trim_start().into();
    }
    operation["responses"]["default"] = json!({
        "description": "What went wrong, and what to do.",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
}
