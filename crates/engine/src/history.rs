//! What was used when: folding the journal into history, and reading it with what is not folded yet.

mod points;

pub use points::{HistoryAsked, HistoryPoint, HistoryPoints};

use crate::{
    engine::Engine,
    ports::{HistoryLedger, HistoryPage, HistoryQuery, LedgerError, Seq},
    requests::EngineError,
};
use domain::{
    history::{Amounts, KeptFrom, Place, Resolution, Rows, fold},
    id::TenantId,
    time::{DAY_MS, Instant},
};
use std::{collections::BTreeMap, sync::Arc};

/// Entries read in one go.
const PAGE_ENTRIES: usize = 1_000;
/// Rows of one addition, about: what a ledger writes between two commits without keeping them waiting.
const ROWS_MAX: usize = 1_000;
/// Entries folded into one addition at most.
const ENTRIES_MAX: u64 = 50_000;
/// Entries that are not in history yet and are read for an answer, at most. With more the answer says when it ends.
const TAIL_MAX: usize = 10_000;

/// Entries of several nodes may be in the journal in another order than that of their instants, by at most as much.
const ORDER_SLACK_MS: i64 = 10_000;

/// What is past its time is dropped this often, about.
const DROP_EVERY_MS: i64 = 600_000;

/// How long history is kept, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryKept {
    /// Minutes.
    pub minutes_ms: i64,
    /// Quarters of an hour, of which hours are made, and days and months of other zones than UTC.
    pub quarters_ms: i64,
    /// Days in UTC.
    pub days_ms: i64,
}

impl Default for HistoryKept {
    fn default() -> Self {
        Self { minutes_ms: 2 * DAY_MS, quarters_ms: 95 * DAY_MS, days_ms: 400 * DAY_MS }
    }
}

impl HistoryKept {
    /// From when on rows are kept.
    pub fn from(&self, now: Instant) -> KeptFrom {
        KeptFrom([self.minutes_ms, self.quarters_ms, self.days_ms].map(|ms| now.plus_ms(-ms.max(0))))
    }
}

/// What one round of folding did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryFolded {
    /// Entries that are in history now and were not before.
    pub entries: u64,
    /// Whether there are more.
    pub more: bool,
}

/// Entries that are not in history yet, as rows of one tenant.
struct Tail {
    /// After what.
    through: Seq,
    /// When they were read.
    at: Instant,
    rows: Rows,
    /// Whether these are all of them.
    is_whole: bool,
}

/// Reads history of one tenant, page by page, with what is not folded yet.
pub struct HistoryReader {
    engine: Arc<Engine>,
    tenant: TenantId,
    tail: Option<Tail>,
}

/// Rows in order of place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryRows {
    /// The rows.
    pub rows: Vec<(Place, Amounts)>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// Everything that was recorded before this instant is in them.
    pub complete_until: Instant,
}

impl Engine {
    pub(crate) fn history_ledger(&self) -> Result<&dyn HistoryLedger, EngineError> {
        let none = || LedgerError::Unwritable("this ledger keeps no history".into());
        Ok(self.ledger.history().ok_or_else(none)?)
    }

    /// Drops what is past its time, and folds some entries into history. Call it until there are no more, now and then; where other nodes write as well, on one
    /// of them: on two at once both do the work, and one of them in vain.
    ///
    /// # Errors
    /// A failing ledger; the next call tries again.
    pub async fn fold_history(&self, kept: HistoryKept) -> Result<HistoryFolded, EngineError> {
        let Some(history) = self.ledger.history() else { return Ok(HistoryFolded::default()) };
        let mut state = history.state().await?;
        let from = kept.from(self.now());
        let is_due = |resolution| from.of(resolution).ms() - state.kept.of(resolution).ms() >= DROP_EVERY_MS;
        if Resolution::ALL.into_iter().any(is_due) {
            history.drop_before(from).await?;
            state = history.state().await?;
        }
        // Only what is said to be dropped is left out: of what is there, nothing may be missing.
        let kept = state.kept;
        let mut rows = Rows::new();
        let (mut through, mut at, mut entries) = (state.through, state.at, 0_u64);
        let mut more = true;
        while more && rows.len() < ROWS_MAX && entries < ENTRIES_MAX {
            let lines = self.ledger.journal(through, PAGE_ENTRIES).await?;
            more = lines.len() == PAGE_ENTRIES;
            for (place, tenant, entry) in &lines {
                if rows.len() >= ROWS_MAX {
                    more = true;
                    break;
                }
                fold(&mut rows, tenant, entry, &kept);
                (through, at, entries) = (*place, at.max(entry.at), entries + 1);
            }
        }
        if entries == 0 {
            return Ok(HistoryFolded::default());
        }
        let is_added = history.add(state.through, through, at, rows).await?;
        // Where another was first, there may be more after what that one folded.
        Ok(HistoryFolded { entries: if is_added { entries } else { 0 }, more: more || !is_added })
    }

    /// Reads history of a tenant.
    pub fn history(self: &Arc<Self>, tenant: TenantId) -> HistoryReader {
        HistoryReader { engine: self.clone(), tenant, tail: None }
    }

    /// What whole tenants used in one bucket, in order of tenant and meter, as far as it is folded: what was recorded before
    /// [`HistoryPage::state`]'s `at`. (A day that is over is whole once [`Engine::fold_history`] has nothing more to do.)
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn history_of_all(
        &self,
        resolution: Resolution,
        start: Instant,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<HistoryPage, EngineError> {
        Ok(self.history_ledger()?.bucket(resolution, start, after, limit).await?)
    }
}

impl HistoryReader {
    /// Some rows. The query is of the reader's tenant.
    ///
    /// # Errors
    /// A failing ledger.
    pub async fn rows(&mut self, query: &HistoryQuery) -> Result<HistoryRows, EngineError> {
        let page = self.engine.history_ledger()?.page(query).await?;
        let tail = match self.tail.take().filter(|tail| tail.through == page.state.through) {
            Some(tail) => tail,
            None => self.read_tail(&page).await?,
        };
        let more = page.rows.len() >= query.limit;
        let mut rows: BTreeMap<Place, Amounts> = page.rows.into_iter().collect();
        let last = rows.last_key_value().map(|(place, _)| place.clone()).filter(|_| more);
        let of_page = |place: &Place| {
            query.resolution.start_of(query.window.start) <= place.start
                && place.start < query.window.end
                && place.series.is_whole() != query.parts
                && (query.user.is_none() || place.series.user == query.user)
                && query.after.as_ref().is_none_or(|after| place > after)
                && last.as_ref().is_none_or(|last| place <= last)
        };
        for ((resolution, place), amounts) in &tail.rows {
            if *resolution == query.resolution && of_page(place) {
                rows.entry(place.clone()).or_default().add(amounts);
            }
        }
        let complete_until = if tail.is_whole { tail.at } else { page.state.at.plus_ms(-ORDER_SLACK_MS) };
        self.tail = Some(tail);
        Ok(HistoryRows { rows: rows.into_iter().collect(), more, complete_until })
    }

    async fn read_tail(&self, page: &HistoryPage) -> Result<Tail, EngineError> {
        let (through, at) = (page.state.through, self.engine.now());
        let mut tail = Tail { through, at, rows: Rows::new(), is_whole: false };
        let (mut after, mut read) = (through, 0);
        loop {
            let lines = self.engine.ledger.journal(after, PAGE_ENTRIES).await?;
            let Some((last, ..)) = lines.last() else { break };
            (after, read) = (*last, read + lines.len());
            for (_, tenant, entry) in lines.iter().filter(|(_, tenant, _)| *tenant == self.tenant) {
                fold(&mut tail.rows, tenant, entry, &page.state.kept);
            }
            if lines.len() < PAGE_ENTRIES {
                break;
            }
            if read >= TAIL_MAX {
                // Rows that are complete up to one instant are better than some that are complete up to another.
                return Ok(Tail { rows: Rows::new(), ..tail });
            }
        }
        Ok(Tail { is_whole: true, ..tail })
    }
}
