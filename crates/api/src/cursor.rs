//! Pages: a `limit`, and an opaque `cursor` that says where the next page begins.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use wire::{problem::Problem, rescue};

/// Rows of a page where nothing is said.
const LIMIT_DEFAULT: usize = 50;
/// Rows of a page at most.
const LIMIT_MAX: usize = 500;

/// How many rows a page may have.
pub(crate) fn page_limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(rescue::INVALID_REQUEST.problem(format!("\"limit\" must be 1 to {LIMIT_MAX}."))),
    }
}

/// A place as a cursor.
pub(crate) fn encode(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// The place in a cursor, if `read` can make sense of it.
pub(crate) fn decode<T>(cursor: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let place = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match place.and_then(|place| read(&place)) {
        Some(place) => Ok(Some(place)),
        None => {
            Err(rescue::INVALID_REQUEST
                .problem("\"cursor\" must be the \"next_cursor\" of the page before, unchanged."))
        }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; null on the last one.
    pub(crate) next_cursor: Option<String>,
}
