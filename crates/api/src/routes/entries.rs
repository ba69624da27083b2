//! `GET /api/v1/entries`: the journal.

use crate::{
    access::Caller,
    body::{Params, visible_tenant},
    cursor::{self, Page, page_limit},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::{Extension, extract::State};
use engine::ports::{Line, Seq};
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{rescue, v1::journal::EntryShape};

/// Lines looked at for one page: a tenant with few lines must not cost a read of the whole journal.
const LOOKED_AT_MAX: usize = 20_000;
/// Lines read at a time.
const READ_LINES: usize = 2_000;

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntryParams {
    /// Only this tenant's.
    tenant_id: Option<String>,
    /// Only lines after this position; instead of a cursor.
    #[param(value_type = Option<u64>)]
    after: Option<Seq>,
    /// Rows of a page, 1 to 500; 50 where it is not given.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The ledger, line by line, oldest first. A page may hold fewer lines than asked for and still have a next one.
#[utoipa::path(
    get, path = "/api/v1/entries", tag = "usage", operation_id = "listEntries", params(EntryParams),
    responses((status = 200, description = "A page of entries.", body = Page<EntryShape>)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<EntryParams>,
) -> Answer {
    let limit = page_limit(params.limit)?;
    let tenant = params.tenant_id.map(|tenant| visible_tenant(&caller, "tenant_id", &tenant)).transpose()?;
    let mut after = match (cursor::decode(params.cursor.as_deref(), |seq| seq.parse().ok())?, params.after) {
        (Some(_), Some(_)) => {
            return Err(rescue::INVALID_REQUEST.problem("Give either \"cursor\" or \"after\".").into());
        }
        (cursor, after) => cursor.or(after).unwrap_or(0),
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut looked_at = 0;
    let mut more = true;
    while more && lines.len() < limit && looked_at < LOOKED_AT_MAX {
        let count = if tenant.is_some() { READ_LINES } else { limit - lines.len() };
        let read = state.engine().journal(after, count).await?;
        more = read.len() == count;
        looked_at += read.len();
        for line in read {
            if lines.len() == limit {
                more = true;
                break;
            }
            after = line.0;
            if tenant.as_ref().is_none_or(|tenant| line.1 == *tenant) {
                lines.push(line);
            }
        }
    }
    let next_cursor = more.then(|| cursor::encode(&after.to_string()));
    ok(&Page { items: lines.iter().map(EntryShape::of).collect(), next_cursor })
}
