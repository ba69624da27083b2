//! `GET /api/v1/tenants/{id}/history`: what was used when, streamed.

use crate::{
    body::{Params, TenantPath},
    reply::{Answer, Failure},
    state::ApiState,
};
use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use domain::{
    catalog::Catalog,
    day::Day,
    id::{DimensionKey, TenantId, UserId},
    time::{DAY_MS, Frame, Instant, Window, WindowKind, Zone},
};
use engine::{HistoryAsked, HistoryPoints, requests::EngineError};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use std::{io, sync::Arc};
use utoipa::IntoParams;
use wire::{
    problem::Problem,
    rescue,
    v1::{
        check::bad_name,
        history::{HistoryAnswer, HistoryFormat, HistoryWriter, PER, meters},
    },
};

/// Buckets of an answer at most.
const BUCKETS_MAX: i64 = 5_000;
/// By whom use is told apart.
const BY_USER: &str = "user";
/// Says up to when a CSV is complete, which has no place for it.
const COMPLETE_UNTIL: HeaderName = HeaderName::from_static("complete-until");

/// Which history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// `minute`, `hour`, `day` or `month`; `day` where it is not given.
    per: Option<String>,
    /// From when on: an instant (RFC 3339), or a date of the time zone. An hour, two days, 30 days or a year back, where
    /// it is not given; or since history is kept, where that is later.
    from: Option<String>,
    /// Until when, likewise; now where it is not given. The bucket it lies in is answered whole.
    to: Option<String>,
    /// In which time zone hours, days and months are cut, e.g. `Europe/Madrid`; the tenant's where it is not given.
    timezone: Option<String>,
    /// Only these meters, separated by commas.
    meter: Option<String>,
    /// One user's alone.
    user_id: Option<String>,
    /// One value of a dimension alone, e.g. `model:large`.
    dimension: Option<String>,
    /// What use is told apart by: `user` and declared dimensions, separated by commas. Gauges have one level, and are left
    /// out then.
    group_by: Option<String>,
    /// `json`, `ndjson` or `csv`, instead of what `Accept` asks for.
    format: Option<String>,
}

/// What a tenant used, by minute, hour, day or month. Counters add up; a gauge is shown with its level at the end of each
/// bucket. Late events count in the bucket of their own time.
#[utoipa::path(
    get, path = "/api/v1/tenants/{id}/history", tag = "usage", operation_id = "getHistory",
    params(("id" = String, Path, description = "The tenant."), HistoryParams),
    responses((status = 200, description = "What was used when. Streamed, also as `text/csv` and `application/x-ndjson`.",
               body = HistoryAnswer)),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    Params(params): Params<HistoryParams>,
) -> Answer {
    let engine = &state.parts.engine;
    let card = engine.tenant(&tenant).await?;
    let format = params.format(&headers)?;
    let mut asked = params.asked(tenant, card.profile.zone, engine.now(), &engine.catalog())?;
    let mut points = match HistoryPoints::begin(engine, asked.clone()).await {
        // Nobody named a beginning: the first bucket that is kept whole is meant.
        Err(EngineError::HistoryNotKept { since }) if params.from.is_none() && since < asked.window.end => {
            let frame = Frame { anchor: Instant::EPOCH, zone: asked.zone.clone() };
            asked.window.start = frame.boundary_at_or_after(asked.per, since);
            HistoryPoints::begin(engine, asked.clone()).await?
        }
        begun => begun?,
    };
    let mut writer = HistoryWriter::new(format, &asked);
    // What can go wrong mostly does at once, and can still be a problem then.
    let mut first = writer.head(&asked, points.window());
    if let Some(more) = points.next().await? {
        first.extend(writer.points(&more));
    }
    let complete_until = points.complete_until();
    let begun = Streamed { first: Some(first), points, writer: Some(writer) };
    let body = stream::unfold(begun, |mut streamed| async move { Some((streamed.next().await?, streamed)) });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(value) = HeaderValue::from_str(&complete_until.rfc3339()) {
        response.headers_mut().insert(COMPLETE_UNTIL, value);
    }
    Ok(response)
}

/// An answer on its way out.
struct Streamed {
    first: Option<Vec<u8>>,
    points: HistoryPoints,
    /// Until the end is written.
    writer: Option<HistoryWriter>,
}

impl Streamed {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first.into()));
        }
        let writer = self.writer.as_mut()?;
        let written = match self.points.next().await {
            Ok(Some(points)) => writer.points(&points),
            Ok(None) => {
                let tail = writer.tail(self.points.complete_until());
                self.writer = None;
                tail
            }
            // The head is out: whoever reads must see that the answer is not whole.
            Err(error) => {
                tracing::warn!(%error, "an answer of history was broken off");
                self.writer = None;
                return Some(Err(io::Error::other(error.to_string())));
            }
        };
        Some(Ok(written.into()))
    }
}

impl HistoryParams {
    fn format(&self, headers: &HeaderMap) -> Result<HistoryFormat, Problem> {
        if let Some(word) = &self.format {
            return HistoryFormat::from_word(word)
                .ok_or_else(|| rescue::INVALID_REQUEST.problem("\"format\" must be json, ndjson or csv."));
        }
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        Ok(accept.and_then(HistoryFormat::from_accept).unwrap_or(HistoryFormat::Json))
    }

    fn asked(&self, tenant: TenantId, own: Zone, now: Instant, catalog: &Catalog) -> Result<HistoryAsked, Failure> {
        let per = self.per.as_deref().map_or(Some(WindowKind::Day), WindowKind::from_word);
        let per = per
            .filter(|kind| PER.contains(kind))
            .ok_or_else(|| rescue::INVALID_REQUEST.problem("\"per\" must be minute, hour, day or month."))?;
        let unknown_zone = |name: &str| {
            rescue::INVALID_REQUEST.problem(format!(
                "\"timezone\" is {name:?}, which is not in the time-zone table; write a name such as Europe/Madrid."
            ))
        };
        let zone = match &self.timezone {
            Some(name) => Zone::named(name).ok_or_else(|| unknown_zone(name))?,
            None => own,
        };
        let window = self.window(per, &zone, now)?;
        let mut asked = HistoryAsked {
            tenant,
            per,
            zone,
            window,
            // Meters of older catalogs are in old history: any name that could be one may be asked for.
            meters: match &self.meter {
                Some(text) => meters(text).map_err(|error| bad_name("meter", &error))?,
                None => Vec::new(),
            },
            user: self.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?,
            dimension: None,
            by_user: false,
            by: Vec::new(),
        };
        if let Some(text) = &self.dimension {
            let (key, value) = text.split_once(':').ok_or_else(|| {
                rescue::INVALID_REQUEST.problem("\"dimension\" must be a dimension and its value, such as model:large.")
            })?;
            asked.dimension = Some((declared(catalog, key)?, Arc::from(value)));
        }
        for name in self.group_by.iter().flat_map(|text| text.split(',')).map(str::trim) {
            match name {
                BY_USER => asked.by_user = true,
                key => asked.by.push(declared(catalog, key)?),
            }
        }
        asked.by.sort();
        asked.by.dedup();
        Ok(asked)
    }

    fn window(&self, per: WindowKind, zone: &Zone, now: Instant) -> Result<Window, Problem> {
        let end = self.to.as_deref().map(|text| instant("to", text, zone)).transpose()?.unwrap_or(now).min(now);
        let (back_ms, bucket_ms) = match per {
            WindowKind::Minute => (3_600_000, 60_000),
            WindowKind::Hour => (2 * DAY_MS, 3_600_000),
            WindowKind::Month => (365 * DAY_MS, 28 * DAY_MS),
            _ => (30 * DAY_MS, DAY_MS),
        };
        let start = self.from.as_deref().map(|text| instant("from", text, zone)).transpose()?;
        let start = start.unwrap_or_else(|| end.plus_ms(-back_ms));
        if start >= end && self.from.is_some() {
            return Err(rescue::INVALID_REQUEST.problem("\"from\" must be before \"to\", and before now."));
        }
        if (end.ms() - start.ms()) / bucket_ms > BUCKETS_MAX {
            return Err(rescue::HISTORY_TOO_WIDE.problem(format!(
                "These would be more than {BUCKETS_MAX} buckets. Ask for less time at once, or by longer ones."
            )));
        }
        Ok(Window { start, end })
    }
}

/// A dimension of the catalog.
fn declared(catalog: &Catalog, name: &str) -> Result<DimensionKey, Problem> {
    let known = catalog.dimensions.iter().map(|dimension| &dimension.key);
    known.clone().find(|key| key.as_str() == name).cloned().ok_or_else(|| {
        let known: Vec<&str> = known.map(DimensionKey::as_str).collect();
        rescue::INVALID_DIMENSION.problem(format!(
            "The catalog declares no dimension {name:?}; it declares {}.",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))
    })
}

/// An instant, or the start of a date where clocks show the time of this zone.
fn instant(field: &str, text: &str, zone: &Zone) -> Result<Instant, Problem> {
    let date = Day::parse(text).map(|day| zone.start_of(day));
    date.or_else(|| Instant::parse(text)).ok_or_else(|| {
        rescue::INVALID_REQUEST.problem(format!(
            "\"{field}\" is {text:?}; write an instant such as 2026-03-01T10:00:00Z, or a date such as 2026-03-01."
        ))
    })
}
