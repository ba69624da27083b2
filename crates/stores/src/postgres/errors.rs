//! What PostgreSQL's errors mean for the ledger.

use crate::codec::Malformed;
use engine::ports::LedgerError;
use std::sync::Arc;
use tokio_postgres::error::{DbError, SqlState};

/// Why a statement failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The connection is gone, or can't be had: nobody knows what became of the statement.
    Lost(Arc<str>),
    /// Nothing was done, and another try may succeed at once: two transactions were in each other's way.
    Again(Arc<str>),
    /// Nothing was done, because of the values that were sent.
    Unfit(Arc<str>),
    /// Nothing was done: the server is not in a state to do it.
    Refused(Arc<str>),
    /// What was read is not what was written.
    Ledger(LedgerError),
}

pub(super) type Done<T> = Result<T, Failure>;

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(why) | Failure::Again(why) | Failure::Unfit(why) | Failure::Refused(why) => {
                LedgerError::Unwritable(why)
            }
            Failure::Ledger(error) => error,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Failure::Ledger(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => refusal(refused),
            None => Failure::Lost(format!("PostgreSQL: {}", with_causes(&error)).into()),
        }
    }
}

/// An error and what is behind it. (The driver names no password in either.)
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(because) = cause {
        let because_text = because.to_string();
        if !text.contains(&because_text) {
            text.push_str(": ");
            text.push_str(&because_text);
        }
        cause = because.source();
    }
    text
}

fn refusal(error: &DbError) -> Failure {
    let code = error.code();
    let why: Arc<str> = format!("PostgreSQL: {} (SQLSTATE {})", error.message(), code.code()).into();
    let ends_session = matches!(error.severity(), "FATAL" | "PANIC");
    match code {
        &SqlState::T_R_SERIALIZATION_FAILURE
        | &SqlState::T_R_DEADLOCK_DETECTED
        | &SqlState::LOCK_NOT_AVAILABLE
        | &SqlState::QUERY_CANCELED => Failure::Again(why),
        // Two transactions bound an id at once. The next try sees who was first.
        &SqlState::UNIQUE_VIOLATION if error.constraint() == Some("ids_pkey") => Failure::Again(why),
        // The session ends; what it was doing may be committed.
        _ if ends_session || code.code().starts_with("08") || code.code().starts_with("57P") => Failure::Lost(why),
        _ => match &code.code()[..2] {
            "21" | "22" | "23" | "54" => Failure::Unfit(why),
            _ => Failure::Refused(why),
        },
    }
}

/// A row whose bytes are not what was written.
pub(super) fn damaged_row(what: impl std::fmt::Display, why: Malformed) -> Failure {
    Failure::Ledger(LedgerError::Damaged(format!("{what} can't be read: {}", why.0).into()))
}

/// A ledger that can't be opened.
pub(super) fn unopenable(why: impl std::fmt::Display) -> LedgerError {
    LedgerError::Unopenable(why.to_string().into())
}
