//! `POST /api/v1/events`.

use crate::{
    body::{EVENTS_MAX_BYTES, read},
    known::{by_catalog, is_missing},
    reply::{Answer, no_content, ok, replayed},
    state::ApiState,
};
use axum::extract::{Request, State};
use bytes::Bytes;
use domain::catalog::Catalog;
use engine::requests::{Event, EventOutcome};
use http::{HeaderMap, header};
use wire::{
    cloudevents::{Batch, Envelope, Form, Reader, Text, binary_envelope, read_batch, read_one},
    problem::Problem,
    rescue,
    v1::events::BatchAnswer,
};

/// Records what happened: one event, or a batch of at most 10,000 events and 8 MiB. When it answers, what was accepted
/// is on disk. An event is known by `source` and `id`, per tenant; sending it again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/events", tag = "events", operation_id = "recordEvents",
    request_body(
        description = "CloudEvents 1.0: structured, batch or binary, or the same attributes as plain JSON. `subject` is \
                       the tenant, `type` selects the meters.",
        content(
            (serde_json::Value = "application/cloudevents+json"),
            (serde_json::Value = "application/cloudevents-batch+json"),
            (serde_json::Value = "application/json"),
        ),
    ),
    responses(
        (status = 200, description = "What became of each event of a batch.", body = BatchAnswer),
        (status = 204, description = "The one event was recorded, now or before."),
    ),
)]
pub(crate) async fn record(State(state): State<ApiState>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    accept(&state, &parts.headers, body).await
}

/// The road of events behind their door.
pub(crate) async fn accept<B>(state: &ApiState, headers: &HeaderMap, body: B) -> Answer
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let form = Form::of(content_type, headers.contains_key("ce-specversion"))?;
    let body = read(headers, body, EVENTS_MAX_BYTES).await?;
    match form {
        Form::Structured => one(state, &read_one(&body)?, false).await,
        Form::Binary => one(state, &binary_envelope(headers, &body)?, false).await,
        Form::Plain => match read_batch(&body, true)? {
            Batch::One(envelope) => one(state, &envelope, true).await,
            Batch::Many(envelopes) => many(state, &envelopes, true).await,
        },
        Form::Batch => match read_batch(&body, false)? {
            Batch::One(envelope) => one(state, &envelope, false).await,
            Batch::Many(envelopes) => many(state, &envelopes, false).await,
        },
    }
}

async fn one(state: &ApiState, envelope: &Envelope<'_>, plain: bool) -> Answer {
    let (event, _) = by_catalog(state.engine(), |catalog| Reader::new(catalog).event(envelope, plain)).await?;
    let outcomes = state.engine().record(vec![event]).await?;
    match outcomes.into_iter().next() {
        Some(EventOutcome::Accepted) => Ok(no_content()),
        Some(EventOutcome::Duplicate) => Ok(replayed(no_content())),
        Some(EventOutcome::Rejected(error)) => Err(error.into()),
        None => Err(lost().into()),
    }
}

async fn many(state: &ApiState, envelopes: &[Envelope<'_>], plain: bool) -> Answer {
    let catalog = state.engine().catalog();
    let mut sorted = Sorted::by(&catalog, envelopes, plain);
    if sorted.is_missing && state.engine().catch_up(catalog.version).await? {
        sorted = Sorted::by(&state.engine().catalog(), envelopes, plain);
    }
    let Sorted { mut answer, events, places, .. } = sorted;
    if !events.is_empty() {
        let outcomes = state.engine().record(events).await?;
        if outcomes.len() != places.len() {
            return Err(lost().into());
        }
        for (index, outcome) in places.into_iter().zip(outcomes) {
            answer.note(index, id_of(&envelopes[index]).unwrap_or_default(), outcome);
        }
    }
    ok(&answer.in_order())
}

/// A batch, read.
struct Sorted {
    answer: BatchAnswer,
    events: Vec<Event>,
    /// Where each of them is in the batch.
    places: Vec<usize>,
    /// Whether a newer catalog might read more.
    is_missing: bool,
}

impl Sorted {
    fn by(catalog: &Catalog, envelopes: &[Envelope<'_>], plain: bool) -> Self {
        let (events, places) = (Vec::with_capacity(envelopes.len()), Vec::with_capacity(envelopes.len()));
        let mut sorted = Self { answer: BatchAnswer::default(), events, places, is_missing: false };
        let mut reader = Reader::new(catalog);
        for (index, envelope) in envelopes.iter().enumerate() {
            match reader.event(envelope, plain) {
                Ok(event) => {
                    sorted.events.push(event);
                    sorted.places.push(index);
                }
                Err(problem) => {
                    sorted.is_missing |= is_missing(&problem);
                    sorted.answer.reject(index, id_of(envelope), problem);
                }
            }
        }
        sorted
    }
}

fn id_of<'e>(envelope: &'e Envelope<'_>) -> Option<&'e str> {
    match &envelope.id {
        Text::Given(id) => Some(id),
        Text::Absent | Text::Wrong => None,
    }
}

fn lost() -> Problem {
    rescue::INTERNAL
        .problem("The outcome of the events was lost; send them again, what was recorded is known by its id.")
}
