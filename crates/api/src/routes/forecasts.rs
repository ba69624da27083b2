//! `/api/v1/usage-forecast`: when limits will be reached.

use crate::{
    access::Caller,
    body::{Params, visible_tenant},
    cursor::{self, Page, page_limit},
    reply::{Answer, Failure, json_bytes, ok},
    state::ApiState,
};
use axum::{Extension, extract::State, response::IntoResponse};
use domain::{
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{FleetPlace, FleetQuery, LatestForecast};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use wire::{
    rescue,
    v1::{
        check::bad_name,
        forecasts::{BacktestAnswer, FORECAST_WORDS, FleetShape, ForecastAnswer},
        limit::Time,
    },
};

/// Whose forecast.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForecastParams {
    /// The tenant; may be left out with a tenant's own key or token.
    tenant_id: Option<String>,
}

/// When a tenant's meters will reach their limits: the likely day and an 80 % interval of each, from the limits in force with
/// their live numbers and from the daily history. With `If-None-Match`: 304 where nothing is another.
#[utoipa::path(
    get, path = "/api/v1/usage-forecast", tag = "foresight", operation_id = "getUsageForecast", params(ForecastParams),
    responses(
        (status = 200, description = "The forecast of every meter.", body = ForecastAnswer,
         headers(("ETag" = String, description = "Names what is said, whenever it was said."))),
        (status = 304, description = "As it was under the `ETag` in `If-None-Match`."),
    ),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ForecastParams>,
    headers: HeaderMap,
) -> Answer {
    let tenant = asked_tenant(&caller, params.tenant_id.as_deref())?;
    let foreseen = state.foresee(&tenant).await?;
    let score = |meter: &forecast::MeterOutlook| foreseen.lessons.score(&meter.meter.key);
    let mut answer = ForecastAnswer::of(&tenant, &foreseen.outlook, &foreseen.catalog, score);
    let asked_at = std::mem::replace(&mut answer.forecasted_at, Time(Instant::EPOCH));
    let etag = etag(&written(&answer)?)?;
    answer.forecasted_at = asked_at;
    let mut response = if is_known(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json_bytes(StatusCode::OK, written(&answer)?)
    };
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// How a tenant's forecasts would have done: each of its own past days is asked, against the limits in force today, and judged
/// by what came after.
#[utoipa::path(
    get, path = "/api/v1/usage-forecast/backtest", tag = "foresight", operation_id = "backtestForecasts",
    params(ForecastParams),
    responses((status = 200, description = "The score of every meter with a limit.", body = BacktestAnswer)),
)]
pub(crate) async fn backtest(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ForecastParams>,
) -> Answer {
    let tenant = asked_tenant(&caller, params.tenant_id.as_deref())?;
    ok(&BacktestAnswer::of(&tenant, &state.backtests(&tenant).await?))
}

/// The tenant that is asked about, which the caller must be allowed to see; its own where none is named.
fn asked_tenant(caller: &Caller, named: Option<&str>) -> Result<TenantId, Failure> {
    match (named, caller.only_tenant()) {
        (Some(name), _) => Ok(visible_tenant(caller, "tenant_id", name)?),
        (None, Some(own)) => Ok(own.clone()),
        (None, None) => Err(rescue::INVALID_REQUEST.problem("Name the tenant: ?tenant_id=...").into()),
    }
}

fn written(answer: &ForecastAnswer<'_>) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(answer).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        rescue::INTERNAL.problem("The answer could not be written.").into()
    })
}

/// Weak: the same is said, though not at the same time.
fn etag(said: &[u8]) -> Result<HeaderValue, Failure> {
    let digest: String = Sha256::digest(said).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("W/\"{digest}\""))
        .map_err(|_| rescue::INTERNAL.problem("The answer could not be named.").into())
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let mut known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let own = etag.to_str().map(opaque).unwrap_or_default();
    known.any(|list| list.trim() == "*" || list.split(',').any(|tag| opaque(tag) == own))
}

/// Which forecasts, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FleetParams {
    /// Only of this meter.
    meter: Option<String>,
    /// Only of tenants that were on this plan.
    plan: Option<String>,
    /// Only with this status.
    status: Option<String>,
    /// Rows of a page, 1 to 500; 50 where it is not given.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The forecasts of all tenants as the last night made them, those that are reached first in front.
#[utoipa::path(
    get, path = "/api/v1/usage-forecast/fleet", tag = "foresight", operation_id = "listForecasts", params(FleetParams),
    responses((status = 200, description = "A page of forecasts.", body = Page<FleetShape>)),
)]
pub(crate) async fn fleet(State(state): State<ApiState>, Params(params): Params<FleetParams>) -> Answer {
    let limit = page_limit(params.limit)?;
    let query = FleetQuery {
        meter: params.meter.as_deref().map(MeterKey::new).transpose().map_err(|error| bad_name("meter", &error))?,
        plan: params.plan.as_deref().map(PlanKey::new).transpose().map_err(|error| bad_name("plan", &error))?,
        status: params.status.as_deref().map(status).transpose()?,
        after: cursor::decode(params.cursor.as_deref(), place)?,
        limit: limit + 1,
    };
    let mut rows: Vec<LatestForecast> = match state.engine().forecast_book() {
        Some(book) => book.fleet(&query).await?,
        None => Vec::new(),
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| {
        let FleetPlace { day, tenant, meter } = row.place();
        cursor::encode(&format!("{day}/{meter}/{tenant}"))
    });
    let catalog = state.engine().catalog();
    let now = state.engine().now();
    ok(&Page { items: rows.iter().map(|row| FleetShape::of(row, &catalog, now)).collect(), next_cursor })
}

fn status(word: &str) -> Result<std::sync::Arc<str>, wire::problem::Problem> {
    match FORECAST_WORDS.contains(&word) {
        true => Ok(word.into()),
        false => {
            let words = FORECAST_WORDS.join(", ");
            Err(rescue::INVALID_REQUEST.problem(format!("\"status\" must be one of {words}.")))
        }
    }
}

fn place(text: &str) -> Option<FleetPlace> {
    // No name holds a slash.
    let (day, rest) = text.split_once('/')?;
    let (meter, tenant) = rest.split_once('/')?;
    Some(FleetPlace { day: day.parse().ok()?, tenant: TenantId::new(tenant).ok()?, meter: MeterKey::new(meter).ok()? })
}
