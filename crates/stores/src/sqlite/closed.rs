//! History: totals of closed windows. Additive: each checkpoint adds what they gained.

use super::errors::{OrDamaged, damaged_row};
use crate::codec;
use domain::{
    entry::ClosedWindow,
    id::{MeterKey, TenantId, UserId},
    tenant::ClosedTotal,
    time::{Instant, Window, WindowKind},
};
use engine::ports::{ClosedRow, LedgerError};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Where totals stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// As of each tenant's (or user's) row.
    Live,
    /// As of the seal.
    Opening,
}

/// The name of a total within its tenant (or user).
pub(super) struct Place<'a> {
    pub(super) tenant: &'a str,
    /// Empty for the tenant itself: no user has an empty name.
    pub(super) user: &'a str,
    pub(super) meter: &'a str,
    pub(super) closed: ClosedWindow,
}

/// Totals that are written down already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    end: Instant,
    pub(super) used: i64,
    pub(super) denied: i64,
}

impl Known {
    /// The place with the end that was written: a window that was open when totals came late may have ended otherwise.
    pub(super) fn place<'a>(&self, place: &Place<'a>) -> Place<'a> {
        let window = Window { start: place.closed.window.start, end: self.end };
        let closed = ClosedWindow { window, ..place.closed };
        Place { closed, ..*place }
    }
}

impl Table {
    fn select_one(self) -> &'static str {
        match self {
            Table::Live => {
                "SELECT end_ms, used, denied FROM closed
                 WHERE tenant = ?1 AND user = ?2 AND start_ms = ?3 AND kind = ?4 AND meter = ?5"
            }
            Table::Opening => {
                "SELECT end_ms, used, denied FROM opening_closed
                 WHERE tenant = ?1 AND user = ?2 AND start_ms = ?3 AND kind = ?4 AND meter = ?5"
            }
        }
    }

    fn put_one(self) -> &'static str {
        match self {
            Table::Live => {
                "INSERT INTO closed(tenant, user, start_ms, kind, meter, end_ms, used, denied, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT(tenant, user, start_ms, kind, meter) DO UPDATE
                 SET end_ms = excluded.end_ms, used = excluded.used, denied = excluded.denied,
                     checksum = excluded.checksum"
            }
            Table::Opening => {
                "INSERT INTO opening_closed(tenant, user, start_ms, kind, meter, end_ms, used, denied, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT(tenant, user, start_ms, kind, meter) DO UPDATE
                 SET end_ms = excluded.end_ms, used = excluded.used, denied = excluded.denied,
                     checksum = excluded.checksum"
            }
        }
    }

    pub(super) fn select_of_account(self) -> &'static str {
        match self {
            Table::Live => {
                "SELECT start_ms, kind, meter, end_ms, used, denied, checksum FROM closed
                 WHERE tenant = ?1 AND user = ?2 ORDER BY start_ms, kind, meter"
            }
            Table::Opening => {
                "SELECT start_ms, kind, meter, end_ms, used, denied, checksum FROM opening_closed
                 WHERE tenant = ?1 AND user = ?2 ORDER BY start_ms, kind, meter"
            }
        }
    }
}

impl Place<'_> {
    fn start_ms(&self) -> i64 {
        self.closed.window.start.ms()
    }
    fn end_ms(&self) -> i64 {
        self.closed.window.end.ms()
    }
    fn kind(&self) -> i64 {
        self.closed.kind.index() as i64
    }
    /// Detects damage to the row with these totals.
    pub(super) fn checksum(&self, used: i64, denied: i64) -> [u8; codec::CHECKSUM_BYTES] {
        let numbers = [self.start_ms(), self.kind(), self.end_ms(), used, denied];
        codec::checksum(&[self.tenant, self.user, self.meter], &numbers, &[])
    }
}

/// Adds what closed windows gained.
pub(super) fn add(
    conn: &Connection,
    table: Table,
    tenant: &TenantId,
    user: Option<&UserId>,
    gained: &[ClosedTotal],
) -> rusqlite::Result<()> {
    for total in gained {
        let place = Place {
            tenant: tenant.as_str(),
            user: user.map_or("", UserId::as_str),
            meter: total.meter.as_str(),
            closed: total.closed,
        };
        let known = get(conn, table, &place)?;
        let (used, denied) = known.map_or((0, 0), |known| (known.used, known.denied));
        put(conn, table, &place, used.saturating_add(total.used), denied.saturating_add(total.denied))?;
    }
    Ok(())
}

/// The totals at a place.
pub(super) fn get(conn: &Connection, table: Table, place: &Place<'_>) -> rusqlite::Result<Option<Known>> {
    conn.prepare_cached(table.select_one())?
        .query_row(params![place.tenant, place.user, place.start_ms(), place.kind(), place.meter], |row| {
            Ok(Known { end: Instant::from_ms(row.get(0)?), used: row.get(1)?, denied: row.get(2)? })
        })
        .optional()
}

/// Writes the totals at a place.
pub(super) fn put(conn: &Connection, table: Table, place: &Place<'_>, used: i64, denied: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(table.put_one())?
        .execute(params![
            place.tenant,
            place.user,
            place.start_ms(),
            place.kind(),
            place.meter,
            place.end_ms(),
            used,
            denied,
            place.checksum(used, denied),
        ])
        .map(|_| ())
}

/// The totals of a tenant or user, oldest first.
pub(super) fn of_account(
    conn: &Connection,
    table: Table,
    tenant: &str,
    user: &str,
) -> Result<Vec<ClosedRow>, LedgerError> {
    let mut statement = conn.prepare_cached(table.select_of_account()).or_damaged()?;
    let mut rows = statement.query(params![tenant, user]).or_damaged()?;
    let mut list = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        list.push(read(tenant, user, row, 0)?);
    }
    Ok(list)
}

/// Reads and checks a row whose columns from `first` on are those of [`Table::select_of_account`].
pub(super) fn read(tenant: &str, user: &str, row: &Row<'_>, first: usize) -> Result<ClosedRow, LedgerError> {
    let number = |index: usize| row.get::<_, i64>(first + index).or_damaged();
    let (start_ms, kind, end_ms) = (number(0)?, number(1)?, number(3)?);
    let (used, denied) = (number(4)?, number(5)?);
    let meter: String = row.get(first + 2).or_damaged()?;
    let sum: Vec<u8> = row.get(first + 6).or_damaged()?;
    let kind = usize::try_from(kind).ok().and_then(|index| WindowKind::ALL.get(index).copied());
    let what = || format!("history of {tenant:?}");
    let kind = kind.ok_or_else(|| damaged_row(what(), "an unknown kind of window"))?;
    let window = Window { start: Instant::from_ms(start_ms), end: Instant::from_ms(end_ms) };
    let closed = ClosedWindow { kind, window };
    if sum != (Place { tenant, user, meter: &meter, closed }).checksum(used, denied) {
        return Err(damaged_row(what(), "the checksum does not match"));
    }
    Ok(ClosedRow { meter: MeterKey::trusted(&meter), closed, used, denied })
}
