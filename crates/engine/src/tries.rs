//! What is decided on something that has changed meanwhile is decided again, a bounded number of times.

use crate::{open::TRIES_MAX, ports::LedgerError, requests::EngineError};

/// Tries until something comes of it; `None` is to be tried again.
///
/// # Errors
/// [`LedgerError::Overloaded`] after [`TRIES_MAX`] times: the caller is told to come again.
pub(crate) async fn until_done<T, F>(mut once: impl FnMut() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<Option<T>, EngineError>>,
{
    for _ in 0..TRIES_MAX {
        if let Some(done) = once().await? {
            return Ok(done);
        }
    }
    Err(LedgerError::Overloaded { waiting: 0 }.into())
}

#[cfg(test)]
#[path = "tries_tests.rs"]
mod tests;
