//! Retention: entries past their time are folded into sealed openings and cut, denials and totals of
//! closed windows past theirs are dropped. (Ids go
//! by whole runs: see [`ids`](super::ids).)
//!
//! An entry is cut when it is older than the journal and the dedupe window reach, everything through it is in folds and in
//! history, and no tenant's billing period that is still open began before it. Each slice moves openings, seal and cut forward
//! together, in one transaction.

use super::{
    buckets::BUCKETS_THROUGH,
    checkpoint::{COMPLETE_THROUGH, read_tenant_row},
    errors::{OrDamaged, damaged_row},
    history::DropHistory,
    openings::Openings,
    queue::Work,
    reads::{seq_and_body, visit_journal},
    recover::CUT_THROUGH,
    running::Times,
    schema,
};
use domain::{
    id::TenantId,
    time::{DAY_MS, Instant, WindowKind},
};
use engine::ports::{LedgerError, Retention, Seq};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant as Moment,
};

/// Denials whose last is before this instant were dropped, in `meta`.
pub(super) const DENIALS_FROM_MS: &str = "denials_from_ms";

/// How long ids are kept, and as of when, in `meta`: what is older may be gone from the id index.
pub(super) const IDS_KEPT_MS: &str = "ids_kept_ms";
pub(super) const IDS_KEPT_AT_MS: &str = "ids_kept_at_ms";

/// How far behind [`IDS_KEPT_AT_MS`] may be, so that it is not written every second.
pub(super) const IDS_KEPT_SLACK_MS: i64 = 3_600_000;

/// Entries cut in one transaction, at most.
const CUT_ROWS: usize = 2_000;

/// After a cut, the next one waits this long, at most.
const PAUSE_MS: i64 = 3_600_000;

/// Rows read before the time is looked at.
const PAGE_ROWS: usize = 200;

/// What is to be dropped, and how far that has come.
pub(super) struct Retain {
    retention: Retention,
    now: Instant,
    stage: Stage,
    times: Arc<Times>,
}

enum Stage {
    /// Is there enough to be worth it?
    Look,
    /// Finding the oldest billing period that is open, tenant by tenant.
    Periods { after: String, oldest: Instant },
    /// Cutting entries before an instant, through a position.
    Cut { before: Instant, through: Seq },
    /// Dropping denials.
    Denials,
    /// Dropping totals of closed windows.
    History(DropHistory),
}

impl Retain {
    pub(super) fn new(retention: Retention, now: Instant, times: Arc<Times>) -> Self {
        Self { retention, now, stage: Stage::Look, times }
    }

    /// Entries from this instant on stay in any case.
    fn entries_from(&self) -> Instant {
        self.now.plus_ms(-self.retention.journal_ms.max(self.retention.dedupe_ms).max(0))
    }

    /// Cutting is put off until there is a day's worth of it (less, where little is kept).
    fn least_ms(&self) -> i64 {
        (self.retention.journal_ms / 16).clamp(0, DAY_MS)
    }

    fn note_ids_kept(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        let kept_ms = schema::number(conn, IDS_KEPT_MS)?;
        let at_ms = schema::number(conn, IDS_KEPT_AT_MS)?;
        if kept_ms == self.retention.dedupe_ms && self.now.ms() < at_ms.saturating_add(IDS_KEPT_SLACK_MS) {
            return Ok(());
        }
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::set_number(&transaction, IDS_KEPT_MS, self.retention.dedupe_ms)?;
        schema::set_number(&transaction, IDS_KEPT_AT_MS, at_ms.max(self.now.ms()))?;
        transaction.commit()
    }

    fn look(&self, conn: &mut Connection) -> Result<Stage, LedgerError> {
        self.note_ids_kept(conn).or_unwritable()?;
        if self.now.ms() < self.times.cut_not_before_ms.load(Ordering::Relaxed) {
            return Ok(Stage::Denials);
        }
        let oldest: Option<i64> = conn
            .prepare_cached("SELECT at_ms FROM journal ORDER BY seq LIMIT 1")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
            .or_damaged()?;
        let worth_it = oldest.is_some_and(|oldest| oldest.saturating_add(self.least_ms()) < self.entries_from().ms());
        Ok(match worth_it {
            true => Stage::Periods { after: String::new(), oldest: self.entries_from() },
            false => Stage::Denials,
        })
    }
}

/// The oldest open period among a page of tenants after `after`; `None` behind the last tenant.
fn oldest_period(
    conn: &Connection,
    after: &str,
    now: Instant,
    mut oldest: Instant,
) -> Result<Option<(String, Instant)>, LedgerError> {
    let sql = "SELECT tenant, seq, body FROM tenants WHERE tenant > ?1 ORDER BY tenant LIMIT ?2";
    let mut statement = conn.prepare_cached(sql).or_damaged()?;
    let mut rows = statement.query(params![after, PAGE_ROWS as i64]).or_damaged()?;
    let mut last = None;
    while let Some(row) = rows.next().or_damaged()? {
        let id = TenantId::trusted(&row.get::<_, String>(0).or_damaged()?);
        let (seq, body) = seq_and_body(row, 1)?;
        let tenant =
            read_tenant_row(&id, seq, body).map_err(|why| damaged_row(format_args!("tenant {id:?}"), why.0))?;
        let period = tenant.state.windows[WindowKind::Period.index()];
        if now < period.end {
            oldest = oldest.min(period.start);
        }
        last = Some(id.as_str().to_owned());
    }
    Ok(last.map(|last| (last, oldest)))
}

/// Cuts a stretch; true if there may be more.
fn cut(conn: &mut Connection, before: Instant, through: Seq, now: Instant, until: Moment) -> Result<bool, LedgerError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).or_unwritable()?;
    let begin = schema::number(&transaction, CUT_THROUGH).or_damaged()? as Seq;
    let mut openings = Openings::new(&transaction)?;
    let (mut last, mut more) = (begin, true);
    while more && last - begin < CUT_ROWS as Seq {
        let room = usize::try_from(through.saturating_sub(last)).unwrap_or(usize::MAX).min(PAGE_ROWS);
        let page_began = last;
        let mut old = true;
        visit_journal(&transaction, last, room, |row| {
            old &= row.at < before;
            if old {
                openings.fold(row)?;
                last = row.seq;
            }
            Ok(())
        })?;
        more = room > 0 && last - page_began == room as Seq;
        // What is held has yet to be written, which takes about as long as folding it.
        if Moment::now() + std::time::Duration::from_micros(openings.len() as u64 * 10) >= until {
            break;
        }
    }
    if last == begin {
        return Ok(false);
    }
    openings.seal(last, now.ms()).or_unwritable()?;
    transaction
        .prepare_cached("DELETE FROM journal WHERE seq <= ?1")
        .and_then(|mut statement| statement.execute([last as i64]))
        .or_unwritable()?;
    transaction.commit().or_unwritable()?;
    Ok(more)
}

/// Drops some denials; true if there may be more.
fn drop_denials(conn: &mut Connection, from: Instant) -> rusqlite::Result<bool> {
    const ROWS: i64 = 500;
    let oldest: Option<i64> =
        conn.prepare_cached("SELECT min(last_at_ms) FROM denials")?.query_row([], |row| row.get(0))?;
    if oldest.is_none_or(|oldest| oldest >= from.ms()) {
        return Ok(false);
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let dropped = transaction
        .prepare_cached(
            "DELETE FROM denials WHERE id IN
             (SELECT id FROM denials INDEXED BY denials_by_age WHERE last_at_ms < ?1 ORDER BY last_at_ms LIMIT ?2)",
        )?
        .execute([from.ms(), ROWS])?;
    let known = schema::number(&transaction, DENIALS_FROM_MS)?;
    schema::set_number(&transaction, DENIALS_FROM_MS, known.max(from.ms()))?;
    transaction.commit()?;
    Ok(dropped as i64 == ROWS)
}

impl Work for Retain {
    fn slice(&mut self, conn: &mut Connection, until: Moment) -> Result<bool, LedgerError> {
        loop {
            match &mut self.stage {
                Stage::Look => self.stage = self.look(conn)?,
                Stage::Periods { after, oldest } => match oldest_period(conn, after, self.now, *oldest)? {
                    Some((last, found)) => (*after, *oldest) = (last, found),
                    None => {
                        let in_folds = schema::number(conn, COMPLETE_THROUGH).or_damaged()?;
                        let through = in_folds.min(schema::number(conn, BUCKETS_THROUGH).or_damaged()?) as Seq;
                        self.stage = Stage::Cut { before: *oldest, through };
                    }
                },
                Stage::Cut { before, through } => {
                    if !cut(conn, *before, *through, self.now, until)? {
                        // What is left may be held back by a period that is open for weeks.
                        let pause_ms = self.least_ms().min(PAUSE_MS);
                        self.times.cut_not_before_ms.store(self.now.plus_ms(pause_ms).ms(), Ordering::Relaxed);
                        self.stage = Stage::Denials;
                    }
                }
                Stage::Denials => {
                    let from = self.now.plus_ms(-self.retention.denials_ms.max(0));
                    if !drop_denials(conn, from).or_unwritable()? {
                        match DropHistory::due(conn, self.now, self.retention.history_ms).or_damaged()? {
                            Some(pass) => self.stage = Stage::History(pass),
                            None => return Ok(true),
                        }
                    }
                }
                Stage::History(pass) => {
                    if !pass.slice(conn, until).or_unwritable()? {
                        return Ok(true);
                    }
                }
            }
            if Moment::now() >= until {
                return Ok(false);
            }
        }
    }
}
