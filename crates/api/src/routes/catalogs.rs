//! `/api/v1/catalogs`: what is in force, what was, and what shall be.

use crate::{
    body::{IdPath, read},
    reply::{Answer, Failure, ok},
    state::{ApiState, CatalogRefused},
};
use axum::{
    body::Body,
    extract::{FromRequest, Request, State},
};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use wire::{
    problem::Problem,
    rescue,
    v1::catalogs::{AppliedAnswer, CatalogAnswer, CatalogText},
};

/// The largest catalog.
const CATALOG_MAX_BYTES: usize = 1024 * 1024;

/// Every catalog.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Catalogs {
    /// Newest first.
    items: Vec<CatalogAnswer>,
}

/// A catalog's text.
pub(crate) struct Text(String);

impl FromRequest<ApiState> for Text {
    type Rejection = Failure;
    async fn from_request(request: Request<Body>, _: &ApiState) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !["application/toml", "text/plain"].iter().any(|known| media_type.eq_ignore_ascii_case(known)) {
            return Err(rescue::UNSUPPORTED_MEDIA_TYPE
                .problem("Send the text of tidegate.toml, with Content-Type: application/toml.")
                .into());
        }
        let bytes = read(&parts.headers, body, CATALOG_MAX_BYTES).await?;
        match String::from_utf8(bytes.into()) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(rescue::INVALID_REQUEST.problem("The catalog is not valid UTF-8.").into()),
        }
    }
}

/// Every catalog that was put in force, newest first, without their texts.
#[utoipa::path(
    get, path = "/api/v1/catalogs", tag = "catalogs", operation_id = "listCatalogs",
    responses((status = 200, description = "All versions.", body = Catalogs)),
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Answer {
    let in_force = state.engine().catalog().version;
    let all = state.engine().catalogs().await?;
    ok(&Catalogs { items: all.iter().rev().map(|stored| CatalogAnswer::of(stored, in_force)).collect() })
}

/// One catalog with its text.
#[utoipa::path(
    get, path = "/api/v1/catalogs/{version}", tag = "catalogs", operation_id = "getCatalog",
    params(("version" = u32, Path, description = "Its version.")),
    responses((status = 200, description = "The catalog.", body = CatalogText)),
)]
pub(crate) async fn get(State(state): State<ApiState>, IdPath(version): IdPath) -> Answer {
    let in_force = state.engine().catalog().version;
    let all = state.engine().catalogs().await?;
    match all.iter().find(|stored| version.parse() == Ok(stored.version)) {
        Some(stored) => ok(&CatalogText::of(stored, in_force)),
        None => Err(rescue::NOT_FOUND
            .problem("There is no catalog of this version; GET /api/v1/catalogs lists them.")
            .into()),
    }
}

/// Puts a catalog in force, whole, on every node; or refuses it and says everything that is wrong with it.
#[utoipa::path(
    post, path = "/api/v1/catalogs", tag = "catalogs", operation_id = "applyCatalog",
    request_body(content = String, content_type = "application/toml", description = "The text of tidegate.toml."),
    responses((status = 200, description = "It is in force.", body = AppliedAnswer)),
)]
pub(crate) async fn apply(State(state): State<ApiState>, Text(text): Text) -> Answer {
    match state.parts.catalogs.apply(text).await {
        Ok(version) => ok(&AppliedAnswer { version }),
        Err(CatalogRefused::Engine(error)) => Err(error.into()),
        Err(CatalogRefused::Invalid(problems)) => Err(invalid(&problems).into()),
        Err(CatalogRefused::Gateway(why)) => Err(rescue::INVALID_CATALOG.problem(rescue::sentence(&why)).into()),
    }
}

fn invalid(problems: &[wire::catalog::Problem]) -> Problem {
    debug_assert_eq!(rescue::INVALID_CATALOG.status, StatusCode::UNPROCESSABLE_ENTITY.as_u16());
    let count = match problems.len() {
        1 => "one problem".to_owned(),
        many => format!("{many} problems"),
    };
    rescue::INVALID_CATALOG
        .problem(format!("The catalog has {count}; the one in force stays. Mend them and send it again."))
        .with("problems", wire::v1::catalogs::problems(problems))
}
