//! Our own JSON, version 1.

pub mod amount;
pub mod check;
pub mod limit;
pub mod text;

#[cfg(test)]
pub(crate) mod sample;
