//! The daily history: closing a day, and telling of one from outside.

use crate::{
    body::{Input, OptionalJson, parse},
    known::by_catalog,
    reply::{Answer, Failure, ok},
    state::ApiState,
};
use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use domain::day::Day;
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc::Receiver;
use wire::{
    rescue,
    v1::snapshots::{SnapshotLine, SnapshotRequest, TrackUsageAnswer, TrackUsageRequest},
};

/// Closes a day: writes what every meter of every tenant stood at, or used. Again: the same rows. Answers line by line.
#[utoipa::path(
    post, path = "/api/v1/snapshots", tag = "foresight", operation_id = "closeDay",
    request_body = Option<SnapshotRequest>,
    responses((
        status = 200, content_type = "application/x-ndjson", body = SnapshotLine,
        description = "One JSON object a line, as it goes on; the last has the event `ended` or `failed`.",
    )),
)]
pub(crate) async fn close(State(state): State<ApiState>, OptionalJson(body): OptionalJson) -> Answer {
    let request: SnapshotRequest = body.map_or_else(|| Ok(SnapshotRequest::default()), |body| parse(&body))?;
    let asked = request.into_asked(state.engine().now())?;
    let keep_days = state.parts.snapshots.keep_days().await.map_err(Failure::from)?;
    let first = Day::of(state.engine().now()) + -keep_days;
    if asked.day < first {
        let detail = format!("\"day\" is {}: history is kept from {first} on.", asked.day);
        return Err(rescue::INVALID_REQUEST.problem(detail).into());
    }
    if let Some(tenant) = &asked.tenant {
        // Said now, and not in the last line.
        state.engine().tenant(tenant).await?;
    }
    let Some(lines) = state.parts.snapshots.begin(asked) else {
        return Err(rescue::SNAPSHOT_RUNNING
            .problem("This node is closing a day: ask again when it is through.")
            .into());
    };
    let mut response = Response::new(Body::new(Lines(lines)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// Lines as they come.
struct Lines(Receiver<SnapshotLine>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| {
            let mut bytes = serde_json::to_vec(&line?).unwrap_or_default();
            bytes.push(b'\n');
            Some(Ok(Frame::data(bytes.into())))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Records a day of a tenant from outside: values that Tidegate neither counts nor asks for. Again: over what was there.
#[utoipa::path(
    post, path = "/api/v1/usage-forecast/track-usage", tag = "foresight", operation_id = "trackUsage",
    request_body = TrackUsageRequest,
    responses((status = 200, description = "It is on disk.", body = TrackUsageAnswer)),
)]
pub(crate) async fn track(State(state): State<ApiState>, Input(request): Input<TrackUsageRequest>) -> Answer {
    let engine = state.engine();
    let now = engine.now();
    let keep_days = state.parts.snapshots.keep_days().await.map_err(Failure::from)?;
    let ((tenant, date, rows), _) =
        by_catalog(engine, |catalog| request.clone().into_rows(catalog, now, keep_days)).await?;
    engine.tenant(&tenant).await?;
    let recorded = rows.len();
    engine.put_snapshots(rows).await?;
    ok(&TrackUsageAnswer { tenant_id: tenant.as_str().to_owned(), date: date.to_string(), recorded })
}
