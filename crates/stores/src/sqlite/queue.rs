//! What waits for the writer: segments of entries, those who wait for their commit, and tasks that run between commits.

use super::merge::Merge;
use crate::{
    codec,
    denials::{self, Runs},
};
use domain::{
    entry::{Effect, Entry},
    id::TenantId,
};
use engine::ports::{Append, Appended, Commit, DenialId, LedgerError, LedgerStats, Seq};
use parking_lot::{Condvar, Mutex};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::oneshot;

/// Who waits for a commit or a task.
pub(super) type Waiter = oneshot::Sender<Result<(), LedgerError>>;

/// Rows of a commit at most, give or take the last append.
pub(super) const SEGMENT_ROWS: usize = 5_000;

/// Rows that become durable together, in order of position.
#[derive(Default)]
pub(super) struct Segment {
    /// Position of the first row.
    pub(super) first: Seq,
    pub(super) rows: Vec<Row>,
    /// Encoded entries, each followed by room for its checksum.
    pub(super) bytes: Vec<u8>,
    pub(super) merge: Merge,
}

/// One row of the journal.
pub(super) struct Row {
    pub(super) tenant: TenantId,
    pub(super) at_ms: i64,
    pub(super) body: Body,
}

/// The bytes of a row, or what they will be made of.
pub(super) enum Body {
    /// In [`Segment::bytes`], room for the checksum included.
    Encoded { start: usize, end: usize },
    /// Gateway traffic, to which more may be added until the segment is taken.
    Open(Box<Entry>),
}

/// Something the writer does between commits.
pub(super) struct Task {
    /// Entries through this position must be durable first.
    pub(super) after: Seq,
    pub(super) work: Box<dyn Work>,
    pub(super) done: Option<Waiter>,
}

/// Work in slices.
pub(super) trait Work: Send {
    /// Does a part, in its own transaction, that ends soon after `until`; true when all is done.
    fn slice(&mut self, conn: &mut rusqlite::Connection, until: std::time::Instant) -> Result<bool, LedgerError>;

    /// Whether the ledger can't go on when this fails for another reason than that nothing can be written.
    fn is_vital(&self) -> bool {
        false
    }
}

/// Takes steps in one transaction until there are no more, or it is late; true if there may be more.
pub(super) fn in_steps(
    conn: &mut rusqlite::Connection,
    until: std::time::Instant,
    mut step: impl FnMut(&rusqlite::Connection) -> rusqlite::Result<bool>,
) -> rusqlite::Result<bool> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut more = true;
    while more && std::time::Instant::now() < until {
        more = step(&transaction)?;
    }
    transaction.commit()?;
    Ok(more)
}

/// Runs of denials that a queued checkpoint will write.
pub(super) type Frozen = Arc<Vec<(DenialId, denials::RunFold)>>;

/// Denials that are in the journal but not in their table yet. A stretch counts only if its last position is past that
/// of the table's row: a reader may see a stretch here that was written a moment ago.
#[derive(Default)]
pub(super) struct PendingDenials {
    /// Since the last checkpoint was queued.
    pub(super) current: Runs,
    /// Of checkpoints that are queued or running, oldest first.
    pub(super) frozen: VecDeque<Frozen>,
}

/// Everything behind the queue's lock.
pub(super) struct State {
    /// Position of the next row.
    pub(super) next: Seq,
    pub(super) committed: Seq,
    pub(super) complete_through: Seq,
    pub(super) segments: VecDeque<Segment>,
    /// In order of position.
    pub(super) waiters: VecDeque<(Seq, Waiter)>,
    /// Out of order: those who ask later for a position that is queued already.
    pub(super) late_waiters: Vec<(Seq, Waiter)>,
    /// Short tasks, done before the others.
    pub(super) urgent: VecDeque<Task>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) failed: Option<LedgerError>,
    pub(super) stopping: bool,
    /// Whether the writer waits for more to gather.
    pub(super) lingering: bool,
    pub(super) stats: LedgerStats,
    /// An empty segment, to use its memory again.
    pub(super) spare: Option<Segment>,
}

/// The queue: shared by callers and the writer.
pub(super) struct Queue {
    pub(super) state: Mutex<State>,
    /// Signalled when there is something for the writer.
    pub(super) work: Condvar,
    pub(super) denials: Mutex<PendingDenials>,
    entries_max: usize,
}

impl Queue {
    pub(super) fn new(last: Seq, complete_through: Seq, denials: Runs, entries_max: usize) -> Self {
        let state = State {
            next: last + 1,
            committed: last,
            complete_through,
            segments: VecDeque::new(),
            waiters: VecDeque::new(),
            late_waiters: Vec::new(),
            urgent: VecDeque::new(),
            tasks: VecDeque::new(),
            failed: None,
            stopping: false,
            lingering: false,
            stats: LedgerStats::default(),
            spare: None,
        };
        let denials = PendingDenials { current: denials, frozen: VecDeque::new() };
        Self { state: Mutex::new(state), work: Condvar::new(), denials: Mutex::new(denials), entries_max }
    }

    pub(super) fn ready(&self) -> Result<(), LedgerError> {
        let state = self.state.lock();
        state.check()?;
        let waiting = state.waiting();
        if waiting >= self.entries_max { Err(LedgerError::Overloaded { waiting }) } else { Ok(()) }
    }

    /// Queues entries. `bind` is told every idempotency key with its position, before the writer can see the entry.
    pub(super) fn append(&self, append: Append, bind: impl Fn(u128, Seq)) -> Result<Appended, LedgerError> {
        if append.fold_after.is_some() {
            return self.append_open(append);
        }
        // Encoding is most of the work, so it happens before the lock is taken.
        let mut encoded = Vec::with_capacity(append.entries.len() * 96);
        let mut ends = Vec::with_capacity(append.entries.len());
        for entry in &append.entries {
            codec::encode_entry(entry, &mut encoded);
            encoded.extend_from_slice(&[0; codec::CHECKSUM_BYTES]);
            ends.push(encoded.len());
        }
        let mut state = self.state.lock();
        state.check()?;
        let first = state.next;
        state.next += append.entries.len() as Seq;
        let segment = state.open_segment(first);
        segment.merge.no_more_for(&append.tenant, segment.rows.len());
        let base = segment.bytes.len();
        segment.bytes.extend_from_slice(&encoded);
        let mut start = base;
        for (seq, (entry, end)) in (first..).zip(append.entries.iter().zip(ends)) {
            let body = Body::Encoded { start, end: base + end };
            start = base + end;
            segment.rows.push(Row { tenant: append.tenant.clone(), at_ms: entry.at.ms(), body });
            if let Some(binding) = entry.binding {
                bind(binding.id, seq);
            }
            self.note_denials(seq, &append.tenant, entry);
        }
        let last = state.next - 1;
        let commit = if append.wait { state.wait_for_last() } else { Commit::Done };
        self.wake(state);
        Ok(Appended { first, last, commit })
    }

    /// Gateway traffic: added to what waits already where it differs in amounts alone.
    fn append_open(&self, append: Append) -> Result<Appended, LedgerError> {
        let fold_after = append.fold_after.unwrap_or(0);
        let mut state = self.state.lock();
        state.check()?;
        let (mut first, mut last) = (Seq::MAX, 0);
        for entry in append.entries {
            let next = state.next;
            let segment = state.open_segment(next);
            let seq = match segment.add_to_open(&append.tenant, &entry, fold_after) {
                Some(seq) => seq,
                None => {
                    self.note_denials(next, &append.tenant, &entry);
                    segment.push_open(&append.tenant, entry);
                    state.next += 1;
                    next
                }
            };
            (first, last) = (first.min(seq), last.max(seq));
        }
        let commit = if append.wait { state.wait_for_last() } else { Commit::Done };
        self.wake(state);
        Ok(Appended { first, last, commit })
    }

    fn note_denials(&self, seq: Seq, tenant: &TenantId, entry: &Entry) {
        if entry.effects.iter().any(|effect| matches!(effect, Effect::Denials(_))) {
            denials::note_entry(&mut self.denials.lock().current, seq, tenant, entry);
        }
    }

    pub(super) fn committed(&self, seq: Seq) -> Commit {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return answered(Err(error.clone()));
        }
        let seq = seq.min(state.next - 1);
        if seq <= state.committed {
            return Commit::Done;
        }
        let (sender, receiver) = oneshot::channel();
        state.late_waiters.push((seq, sender));
        self.wake(state);
        Commit::Waiting(receiver)
    }

    /// Queues a checkpoint behind everything queued so far.
    pub(super) fn checkpoint(
        &self,
        complete_through: Option<Seq>,
        work: impl FnOnce(Frozen, Option<Seq>) -> Box<dyn Work>,
    ) -> Commit {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return answered(Err(error.clone()));
        }
        let frozen = {
            let mut denials = self.denials.lock();
            let mut runs: Vec<_> = std::mem::take(&mut denials.current).into_iter().collect();
            runs.sort_by_key(|(id, _)| *id);
            let frozen = Arc::new(runs);
            denials.frozen.push_back(frozen.clone());
            frozen
        };
        let after = state.next - 1;
        let (sender, receiver) = oneshot::channel();
        let work = work(frozen, complete_through);
        state.tasks.push_back(Task { after, work, done: Some(sender) });
        self.wake(state);
        Commit::Waiting(receiver)
    }

    /// Queues a task; `urgent` ones pass the others.
    pub(super) fn push_task(&self, work: Box<dyn Work>, urgent: bool) -> Commit {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return answered(Err(error.clone()));
        }
        let (sender, receiver) = oneshot::channel();
        let task = Task { after: 0, work, done: Some(sender) };
        if urgent {
            state.urgent.push_back(task)
        } else {
            state.tasks.push_back(task)
        }
        self.wake(state);
        Commit::Waiting(receiver)
    }

    /// Tells the writer to end after what is queued.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.wake(state);
    }
}

impl State {
    fn check(&self) -> Result<(), LedgerError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Entries not durable yet.
    pub(super) fn waiting(&self) -> usize {
        (self.next - 1 - self.committed) as usize
    }

    /// Entries after the last complete checkpoint.
    pub(super) fn tail(&self) -> u64 {
        (self.next - 1).saturating_sub(self.complete_through)
    }

    /// The segment that is being filled.
    fn open_segment(&mut self, first: Seq) -> &mut Segment {
        if self.segments.back().is_none_or(|segment| segment.rows.len() >= SEGMENT_ROWS) {
            let segment = self.spare.take().unwrap_or_default();
            self.segments.push_back(Segment { first, ..segment });
        }
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    fn wait_for_last(&mut self) -> Commit {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push_back((self.next - 1, sender));
        Commit::Waiting(receiver)
    }

    /// Takes those who waited for what is durable through `seq`.
    pub(super) fn take_waiters(&mut self, seq: Seq, taken: &mut Vec<Waiter>) {
        while let Some((_, waiter)) = self.waiters.pop_front_if(|(waits_for, _)| *waits_for <= seq) {
            taken.push(waiter);
        }
        let late = self.late_waiters.extract_if(.., |(waits_for, _)| *waits_for <= seq);
        taken.extend(late.map(|(_, waiter)| waiter));
    }

    /// Nothing is durable from here on until the ledger is reopened: everybody who waits is told.
    pub(super) fn fail(&mut self, error: &LedgerError) {
        self.failed = Some(error.clone());
        self.segments.clear();
        let waiters = self.waiters.drain(..).chain(self.late_waiters.drain(..)).map(|(_, waiter)| waiter);
        let tasks = self.urgent.drain(..).chain(self.tasks.drain(..)).filter_map(|task| task.done);
        for waiter in waiters.chain(tasks) {
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

impl Segment {
    /// Empty, with its memory kept.
    pub(super) fn emptied(mut self) -> Self {
        self.rows.clear();
        self.bytes.clear();
        self.merge.clear();
        self
    }
}

/// A commit that is answered already.
pub(super) fn answered(result: Result<(), LedgerError>) -> Commit {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(result);
    Commit::Waiting(receiver)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
