//! `POST /api/v1/events`: what became of a batch.

use crate::{problem::Problem, rescue};
use engine::requests::EventOutcome;
use serde::Serialize;
use std::borrow::Cow;

/// What became of the events of a batch.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = BatchAnswer)]
pub struct BatchAnswer {
    /// How many were recorded now.
    pub accepted: usize,
    /// How many were recorded before; they changed nothing.
    pub duplicates: usize,
    /// The ids of the duplicates, in the order of the batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicate_ids: Vec<String>,
    /// Those that were not recorded, in the order of the batch.
    pub rejected: Vec<RejectedEvent>,
}

/// An event that was not recorded.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RejectedEvent)]
pub struct RejectedEvent {
    /// Its position in the batch, from 0.
    pub index: usize,
    /// Its id; null where it had none that could be read.
    pub id: Option<String>,
    /// The stable word.
    #[schema(value_type = String, example = "unknown_event_type")]
    pub code: Cow<'static, str>,
    /// What is wrong with it, and what to do.
    pub detail: String,
}

impl BatchAnswer {
    /// Notes an event that could not be read.
    pub fn reject(&mut self, index: usize, id: Option<&str>, problem: Problem) {
        let id = id.map(str::to_owned);
        self.rejected.push(RejectedEvent { index, id, code: problem.code, detail: problem.detail });
    }

    /// Notes what became of an event that could be read.
    pub fn note(&mut self, index: usize, id: &str, outcome: EventOutcome) {
        match outcome {
            EventOutcome::Accepted => self.accepted += 1,
            EventOutcome::Duplicate => {
                self.duplicates += 1;
                self.duplicate_ids.push(id.to_owned());
            }
            EventOutcome::Rejected(error) => self.reject(index, Some(id), rescue::problem_of(&error)),
        }
    }

    /// Puts the rejected ones in the order of the batch.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.rejected.sort_by_key(|rejected| rejected.index);
        self
    }
}
