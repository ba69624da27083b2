//! The tail of the journal after a start, until it is folded. It is read once. A tenant of it is folded
//! when somebody asks for it, or by upkeep: so the first answer does not wait for all of them.

use crate::{
    engine::Engine,
    lines::TailLines,
    live::{Book, Cell, Place},
    open::Whom,
    ports::{Ledger, LedgerError, Seq},
    requests::EngineError,
};
use domain::{
    entry::{Effect, Entry},
    id::{PlanKey, TenantId},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

/// How many tenants are folded before others may run.
const FOLDED_AT_ONCE: usize = 32;

/// What is not folded yet. A tenant leaves when its book is in its place, and never comes back but by a recovery.
#[derive(Default)]
pub(crate) struct Tail {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    lines: Arc<TailLines>,
    /// The last line of each tenant.
    last_of: FxHashMap<TenantId, u32>,
    /// Lines whose tenant is folded.
    folded: Vec<bool>,
    /// Every line before this one is folded.
    first: usize,
    /// Those that upkeep has not come to, the last first: in order of tenant, whose rows share pages then.
    order: Option<Vec<TenantId>>,
}

impl Tail {
    /// Takes the tail of the ledger, instead of what was there.
    pub(crate) fn read(&self, ledger: &dyn Ledger) -> Result<(), LedgerError> {
        let mut lines = ledger.tail()?;
        let last_of = std::mem::take(&mut lines.last_of);
        let folded = vec![false; lines.len()];
        *self.waiting.lock() = Waiting { lines: Arc::new(lines), last_of, folded, first: 0, order: None };
        Ok(())
    }

    pub(crate) fn clear(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    pub(crate) fn holds(&self, id: &TenantId) -> bool {
        self.waiting.lock().last_of.contains_key(id)
    }

    /// The position of the first entry that is not folded.
    pub(crate) fn first(&self) -> Option<Seq> {
        let Waiting { lines, folded, first, .. } = &mut *self.waiting.lock();
        while folded.get(*first).is_some_and(|folded| *folded) {
            *first += 1;
        }
        (*first < folded.len()).then(|| lines.seq(*first as u32))
    }

    /// Tenants in order of id, after `after`.
    pub(crate) fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Vec<TenantId> {
        let mut ids: Vec<TenantId> = {
            let waiting = self.waiting.lock();
            waiting.last_of.keys().filter(|id| after.is_none_or(|after| *id > after)).cloned().collect()
        };
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// Every plan that a tenant was put on.
    pub(crate) fn plans(&self) -> Result<BTreeSet<PlanKey>, LedgerError> {
        let lines = self.waiting.lock().lines.clone();
        let mut plans = BTreeSet::new();
        for number in 0..lines.len() {
            for effect in lines.entry(number as u32)?.effects {
                if let Effect::Profile(profile) = effect {
                    plans.extend(profile.catalog_pin.is_none().then_some(profile.plan));
                }
            }
        }
        Ok(plans)
    }

    /// The lines, and the tenant's last.
    fn of(&self, id: &TenantId) -> Option<(Arc<TailLines>, u32)> {
        let waiting = self.waiting.lock();
        waiting.last_of.get(id).map(|last| (waiting.lines.clone(), *last))
    }

    /// The next tenant to fold.
    fn next(&self) -> Option<TenantId> {
        let Waiting { last_of, order, .. } = &mut *self.waiting.lock();
        if last_of.is_empty() {
            return None;
        }
        let order = order.get_or_insert_with(|| {
            let mut ids: Vec<TenantId> = last_of.keys().cloned().collect();
            ids.sort_unstable_by(|a, b| b.cmp(a));
            ids
        });
        while order.pop_if(|id| !last_of.contains_key(id)).is_some() {}
        order.last().cloned()
    }

    /// The tenant is folded.
    fn forget(&self, id: &TenantId) {
        let mut waiting = self.waiting.lock();
        let Waiting { lines, last_of, folded, .. } = &mut *waiting;
        if let Some(last) = last_of.remove(id) {
            lines.numbers(last).for_each(|number| folded[number as usize] = true);
        }
        if last_of.is_empty() {
            *waiting = Waiting::default();
        }
    }
}

/// A tenant with the tail folded in.
struct Folded {
    book: Box<Book>,
    /// Whether the tail had anything that the tenant's row had not.
    is_news: bool,
    /// Whether the tail has its first entry.
    is_new: bool,
}

impl Engine {
    /// Folds a tenant of the tail and puts it in its place; tells whether the tail has (or had) it.
    pub(crate) async fn fold_from_tail(&self, cell: &Arc<Cell>, epoch: u64) -> Result<bool, EngineError> {
        let Some((lines, last)) = self.tail.of(&cell.id) else { return Ok(false) };
        let folded = self.folded(&cell.id, &lines, last).await;
        let failure = self.failure.read();
        if let Some(error) = failure.as_ref() {
            return Err(error.clone().into());
        }
        let mut place = cell.place.lock();
        // Somebody else was quicker, or a recovery was.
        if !matches!(*place, Place::Empty) || self.epoch() != epoch {
            return Ok(true);
        }
        let Folded { mut book, is_news, is_new } = folded?;
        if is_news {
            self.live.list_dirty(cell, &mut book);
        }
        self.live.users.fetch_add(book.users.len() as u64, Ordering::Relaxed);
        self.live.tenants.fetch_add(1, Ordering::Relaxed);
        self.lapses.note(&cell.id, &book);
        *place = Place::Open(book);
        if is_new {
            self.unsaved.lock().insert(cell.id.clone());
        }
        // Last: a checkpoint that no longer sees it here must find it on the list of what is dirty.
        self.tail.forget(&cell.id);
        Ok(true)
    }

    async fn folded(&self, id: &TenantId, lines: &TailLines, last: u32) -> Result<Folded, EngineError> {
        let stored = self.ledger.load_tenant(id).await?;
        let is_new = stored.is_none();
        let row_seq = stored.as_ref().map_or(0, |stored| stored.seq);
        let news = after(lines, last, row_seq)?;
        let Some(book) = self.book_of(id, stored, &news).await? else {
            let why = format!("tenant {id} has neither a row nor entries");
            return Err(LedgerError::Damaged(why.into()).into());
        };
        Ok(Folded { book, is_news: !news.is_empty(), is_new })
    }

    /// Folds so many tenants of the tail, if there are any left. What can't be folded can't be kept right by anybody:
    /// then nothing is decided any more.
    pub(crate) async fn fold_some(&self, tenants: usize) -> Result<(), EngineError> {
        for number in 1..=tenants {
            let epoch = self.epoch();
            let Some(id) = self.tail.next() else { return Ok(()) };
            match self.with_tenant(Whom::known(&id, &[]), |_| Ok(())).await {
                Err(EngineError::Ledger(error)) => {
                    self.fail(epoch, &error);
                    return Err(error.into());
                }
                other => other?,
            }
            if number % FOLDED_AT_ONCE == 0 {
                let_others_run().await;
            }
        }
        Ok(())
    }
}

/// The entries of the tenant with this last line that come after a position, in order.
fn after(lines: &TailLines, last: u32, row_seq: Seq) -> Result<Vec<(Seq, Entry)>, LedgerError> {
    let numbers = lines.numbers(last).take_while(|number| lines.seq(*number) > row_seq);
    let read = numbers.map(|number| Ok((lines.seq(number), lines.entry(number)?)));
    let mut news = read.collect::<Result<Vec<_>, LedgerError>>()?;
    news.reverse();
    Ok(news)
}

/// Gives way once to whatever else the runtime has to do: ledgers may answer at once, and a loop over them never waits.
async fn let_others_run() {
    let mut gave_way = false;
    poll_fn(|context| match std::mem::replace(&mut gave_way, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
