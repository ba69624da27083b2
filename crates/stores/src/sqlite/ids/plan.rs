//! Which runs to drop, which to merge. Rules only: no disk, no memory.

use super::runs::Run;

const DAY_MS: i64 = 86_400_000;

/// Into how many periods the window is cut. A period's runs end up as one and are dropped as one, so ids may stay for
/// one period longer than they must. More periods mean more filters to ask about every id.
const PERIODS: i64 = 8;

/// How many runs of about one size are merged.
const FAN_IN: usize = 4;

/// What the rules go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) now_ms: i64,
    pub(super) dedupe_ms: i64,
    /// How many ids the smallest runs have.
    pub(super) seal_ids: u64,
    /// No merge makes a run of more ids.
    pub(super) max_run_ids: u64,
}

impl Rules {
    /// The period an instant is in: whole days, an eighth of the window.
    pub(super) fn period(&self, at_ms: i64) -> i64 {
        let length_ms = (self.dedupe_ms / PERIODS).saturating_add(DAY_MS - 1) / DAY_MS * DAY_MS;
        at_ms.div_euclid(length_ms.max(DAY_MS))
    }

    /// Runs past the window.
    pub(super) fn expired(&self, runs: &[Run]) -> Vec<u32> {
        let past = |run: &&Run| run.row.last_ms.saturating_add(self.dedupe_ms) < self.now_ms;
        runs.iter().filter(past).map(|run| run.row.run).collect()
    }

    /// The runs to make one of next, newest first.
    pub(super) fn merge(&self, runs: &[Run]) -> Option<Vec<u32>> {
        let sound: Vec<&Run> = runs.iter().filter(|run| !run.page_damaged).collect();
        if let Some(run) = sound.iter().find(|run| run.filter_damaged) {
            return Some(vec![run.row.run]);
        }
        let mut periods: Vec<i64> = sound.iter().map(|run| self.period(run.row.last_ms)).collect();
        periods.dedup();
        periods.into_iter().find_map(|period| {
            let of_period: Vec<&Run> =
                sound.iter().copied().filter(|run| self.period(run.row.last_ms) == period).collect();
            if period < self.period(self.now_ms) { self.all_that_fit(&of_period) } else { self.alike(&of_period) }
        })
    }

    /// In a period that is over: as many as one run may have.
    fn all_that_fit(&self, runs: &[&Run]) -> Option<Vec<u32>> {
        let mut by_size = runs.to_vec();
        by_size.sort_by_key(|run| run.row.ids);
        let mut ids = 0;
        by_size.retain(|run| {
            ids += run.row.ids;
            ids <= self.max_run_ids
        });
        let chosen: Vec<u32> = by_size.iter().map(|run| run.row.run).collect();
        let newest_first = runs.iter().map(|run| run.row.run).filter(|run| chosen.contains(run)).collect();
        (chosen.len() > 1).then_some(newest_first)
    }

    /// In the period that still grows: runs of about one size, once there are enough of them.
    fn alike(&self, runs: &[&Run]) -> Option<Vec<u32>> {
        let level = |run: &Run| (run.row.ids / self.seal_ids.max(1)).max(1).ilog(FAN_IN as u64);
        let growing: Vec<&Run> = runs.iter().copied().filter(|run| run.row.ids <= self.max_run_ids / 2).collect();
        let levels = growing.iter().map(|run| level(run)).max()?;
        (0..=levels).find_map(|wanted| {
            let same: Vec<&Run> = growing.iter().copied().filter(|run| level(run) == wanted).collect();
            if same.len() >= FAN_IN { self.all_that_fit(&same) } else { None }
        })
    }
}
