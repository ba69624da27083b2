//! Values as PostgreSQL takes them.

use super::errors::{Done, Failure};
use engine::ports::LedgerError;
use std::error::Error;
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked},
};

/// Parameters with their types.
pub(super) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A `uuid` column that holds 128 bits of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits(pub(super) u128);

impl ToSql for Bits {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Bits {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }
    accepts!(UUID);
}

/// A column of a row.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Done<T> {
    row.try_get(column).map_err(|error| {
        Failure::Ledger(LedgerError::Damaged(format!("a row is not as this program writes them: {error}").into()))
    })
}

/// The first column of the first row, if there is one.
pub(super) fn first<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Done<Option<T>> {
    rows.first().map(|row| get(row, 0)).transpose()
}
