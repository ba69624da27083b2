//! Rows that wait, and gateway traffic that is added to them.

use domain::{
    entry::{Effect, Entry},
    id::TenantId,
};
use engine::ports::Seq;

pub(super) struct Row {
    pub(super) seq: Seq,
    pub(super) tenant: TenantId,
    pub(super) entry: Entry,
    /// Whether more may be added.
    pub(super) open: bool,
}

/// Whether an entry is use alone.
pub(super) fn is_open_shape(entry: &Entry) -> bool {
    entry.binding.is_none()
        && !entry.effects.is_empty()
        && entry.effects.iter().all(|effect| matches!(effect, Effect::Use { amount, .. } if *amount > 0))
}

/// Adds to the newest row that differs in its amounts alone, if nothing of another kind came in between.
pub(super) fn add_to_open(rows: &mut [Row], tenant: &TenantId, entry: &Entry, after: Seq) -> Option<Seq> {
    for row in rows.iter_mut().rev().filter(|row| row.tenant == *tenant) {
        if !row.open || row.seq <= after {
            return None;
        }
        if without_amounts(&row.entry) != without_amounts(entry) {
            continue;
        }
        for (known, more) in row.entry.effects.iter_mut().zip(&entry.effects) {
            if let (Effect::Use { amount, .. }, Effect::Use { amount: more, .. }) = (known, more) {
                *amount += more;
            }
        }
        row.entry.at = row.entry.at.max(entry.at);
        return Some(row.seq);
    }
    None
}

fn without_amounts(entry: &Entry) -> Entry {
    let mut bare = Entry { at: Default::default(), ..entry.clone() };
    for effect in &mut bare.effects {
        if let Effect::Use { amount, .. } = effect {
            *amount = 0;
        }
    }
    bare
}
