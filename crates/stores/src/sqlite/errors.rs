//! What SQLite's errors mean for the ledger.

use engine::ports::LedgerError;
use rusqlite::{Error, ErrorCode};

/// A write that failed.
pub(crate) fn unwritable(error: &Error) -> LedgerError {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "the file has become read-only".to_owned(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => return damaged(error),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another process is writing to the file ({error})")
        }
        _ => error.to_string(),
    };
    LedgerError::Unwritable(why.into())
}

/// A read that failed.
pub(crate) fn damaged(error: &Error) -> LedgerError {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => {
            format!(
                "a page of the file is corrupt ({error}); restore a backup, or copy what can be read with `tidegate backup`"
            )
        }
        Some(ErrorCode::NotADatabase) => "the file is not an SQLite database".to_owned(),
        _ => error.to_string(),
    };
    LedgerError::Damaged(why.into())
}

/// A row whose bytes are not what was written.
pub(crate) fn damaged_row(what: impl std::fmt::Display, why: impl std::fmt::Display) -> LedgerError {
    LedgerError::Damaged(format!("{what} can't be read: {why}").into())
}

/// A ledger that can't be opened.
pub(crate) fn unopenable(why: impl std::fmt::Display) -> LedgerError {
    LedgerError::Unopenable(why.to_string().into())
}

/// Shortens `map_err` where reads fail.
pub(crate) trait OrDamaged<T> {
    /// The value, or [`LedgerError::Damaged`].
    fn or_damaged(self) -> Result<T, LedgerError>;
    /// The value, or [`LedgerError::Unwritable`].
    fn or_unwritable(self) -> Result<T, LedgerError>;
}

impl<T> OrDamaged<T> for rusqlite::Result<T> {
    fn or_damaged(self) -> Result<T, LedgerError> {
        self.map_err(|error| damaged(&error))
    }
    fn or_unwritable(self) -> Result<T, LedgerError> {
        self.map_err(|error| unwritable(&error))
    }
}
