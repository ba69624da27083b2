//! How what was decided is handed to the ledger.

use crate::{
    open::{Open, Wrote},
    ports::{Append, Appended},
    requests::EngineError,
};
use domain::{
    entry::{Effect, Entry},
    id::UserId,
};

impl Open<'_> {
    /// Queues entries that were just decided.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, fold: bool, wait: bool) -> Result<Appended, EngineError> {
        self.wrote = Wrote::AfterLast;
        self.engine.live.list_dirty(self.cell, self.book);
        let users = last_entries(&entries);
        let in_flight = entries.iter().any(is_in_flight);
        let count = entries.len();
        let foldable = fold && entries.iter().all(is_foldable);
        let fold_after = foldable.then_some(self.book.saved);
        let (tenant, follows, basis) = (self.cell.id.clone(), self.book.seq, self.book.basis.clone());
        let in_force = self.pinned_beside();
        let append = Append { tenant, entries, follows, under: None, basis, fold_after, in_force, wait };
        // What was applied and is not taken must not be believed.
        let appended = self.engine.ledger.append(append).inspect_err(|_| self.book.basis.outdate())?;
        self.note_lapses(in_flight);
        self.book.seq = self.book.seq.max(appended.last);
        for (user, index) in users {
            if let Some(live) = self.book.users.get_mut(&user) {
                // A user's place is that of its own last entry, not of the batch's. (What is folded comes alone.)
                live.seq = live.seq.max(appended.last - (count - 1 - index) as u64);
            }
        }
        Ok(appended)
    }
}

/// Whether an entry puts something in flight, or takes it out.
fn is_in_flight(entry: &Entry) -> bool {
    entry.effects.iter().any(|effect| matches!(effect, Effect::Hold(_) | Effect::Session(_)))
}

/// The users of these entries, and which entry is the last of each.
fn last_entries(entries: &[Entry]) -> Vec<(UserId, usize)> {
    let with_user = entries.iter().enumerate().filter_map(|(index, entry)| Some((entry.user.clone()?, index)));
    let mut users: Vec<(UserId, usize)> = with_user.collect();
    if users.len() > 1 {
        users.sort_by(|(a, at), (b, bt)| a.cmp(b).then(bt.cmp(at)));
        users.dedup_by(|(later, _), (first, _)| later == first);
    }
    users
}

/// Only charges that add up may be folded with others: nothing that opens a window or moves a level.
fn is_foldable(entry: &Entry) -> bool {
    entry.binding.is_none()
        && !entry.effects.is_empty()
        && entry
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Use { amount, closed, .. } if *amount > 0 && closed.is_empty()))
}
