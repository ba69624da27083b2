//! Totals of closed windows that are past their time, dropped account by account.

use super::{queue::in_steps, schema};
use domain::time::{DAY_MS, Instant};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Instant as Moment;

/// Totals of windows that ended before this instant were dropped (or are about to be), in `meta`.
pub(super) const HISTORY_FROM_MS: &str = "history_from_ms";

/// Rows of an account dropped before the time is looked at, about.
const ROWS: i64 = 500;

/// One pass over all accounts.
pub(super) struct DropHistory {
    from: Instant,
    /// The account that was dealt with last.
    tenant: String,
    user: String,
}

impl DropHistory {
    /// A pass, if there is enough to be worth it: a day's worth, or less where little is kept.
    pub(super) fn due(conn: &Connection, now: Instant, history_ms: i64) -> rusqlite::Result<Option<Self>> {
        let from = now.plus_ms(-history_ms.max(0));
        let known = schema::number(conn, HISTORY_FROM_MS)?;
        let least_ms = (history_ms / 16).clamp(1, DAY_MS);
        let is_due = from.ms() >= known.saturating_add(least_ms);
        Ok(is_due.then(|| Self { from, tenant: String::new(), user: String::new() }))
    }

    /// Drops some, in a transaction of its own; true if there may be more.
    pub(super) fn slice(&mut self, conn: &mut Connection, until: Moment) -> rusqlite::Result<bool> {
        let mut is_noted = false;
        in_steps(conn, until, |conn| {
            if !std::mem::replace(&mut is_noted, true) {
                let known = schema::number(conn, HISTORY_FROM_MS)?;
                schema::set_number(conn, HISTORY_FROM_MS, known.max(self.from.ms()))?;
            }
            self.step(conn)
        })
    }

    fn step(&mut self, conn: &Connection) -> rusqlite::Result<bool> {
        let account: Option<(String, String)> = conn
            .prepare_cached(
                "SELECT tenant, user FROM closed WHERE (tenant, user) > (?1, ?2) ORDER BY tenant, user LIMIT 1",
            )?
            .query_row([&self.tenant, &self.user], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((tenant, user)) = account else { return Ok(false) };
        let from_ms = self.from.ms();
        let last_start_ms: Option<i64> = conn
            .prepare_cached(
                "SELECT start_ms FROM closed WHERE tenant = ?1 AND user = ?2 AND start_ms < ?3
                 ORDER BY start_ms LIMIT 1 OFFSET ?4",
            )?
            .query_row(params![tenant, user, from_ms, ROWS], |row| row.get(0))
            .optional()?;
        let dropped = conn
            .prepare_cached("DELETE FROM closed WHERE tenant = ?1 AND user = ?2 AND start_ms <= ?3 AND end_ms < ?4")?
            .execute(params![tenant, user, last_start_ms.unwrap_or(from_ms), from_ms])?;
        // Otherwise the same account once more.
        if last_start_ms.is_none() || dropped == 0 {
            (self.tenant, self.user) = (tenant, user);
        }
        Ok(true)
    }
}
