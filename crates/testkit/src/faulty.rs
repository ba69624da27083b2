//! A ledger in front of a ledger: holds commits back until it is told to let them go, loses them, loses only the
//! answer, takes its time to load, is unsure about ids. Everything it does is allowed by the contract of the port.

mod ledger;
mod rows;

use engine::ports::{Append, Commit, Fold, Ledger, LedgerError, Seq};
use parking_lot::Mutex;
use rows::{Row, add_to_open, is_open_shape};
use rustc_hash::FxHashMap;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::{Notify, oneshot};

type Waiter = oneshot::Sender<Result<(), LedgerError>>;

/// What becomes of what waits when a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing of it is on disk.
    Everything,
    /// The first entries are on disk; nobody is told.
    AllButFirst(usize),
    /// All of it is on disk; nobody is told.
    OnlyTheAnswer,
}

/// See the module.
pub struct FaultyLedger {
    inner: Arc<dyn Ledger>,
    queue: Mutex<Queue>,
    held: AtomicBool,
    overloaded: AtomicBool,
    /// Loads yield up to this often, so that others get in between.
    slowness: AtomicU64,
    /// One in so many ids is only known to the disk; 0 for none.
    unsure_one_in: AtomicU64,
    ticks: AtomicU64,
    /// Whether a user that was read is kept from the reader until [`FaultyLedger::hand_over`].
    keeps_users: AtomicBool,
    handed_over: Notify,
}

#[derive(Default)]
struct Queue {
    next: Seq,
    rows: Vec<Row>,
    waiters: Vec<(Seq, Waiter)>,
    checkpoints: Vec<(Vec<Fold>, Option<Seq>, Waiter)>,
    /// Ids that memory knows.
    recent: FxHashMap<u128, Seq>,
    generation: u64,
    failed: Option<LedgerError>,
}

impl FaultyLedger {
    /// In front of `inner`, which must have nothing waiting. Behaves until told otherwise.
    pub fn new(inner: Arc<dyn Ledger>) -> Arc<Self> {
        let next = inner.stats().committed_seq + 1;
        Arc::new(Self {
            inner,
            queue: Mutex::new(Queue { next, ..Queue::default() }),
            held: AtomicBool::new(false),
            overloaded: AtomicBool::new(false),
            slowness: AtomicU64::new(0),
            unsure_one_in: AtomicU64::new(0),
            // The first is slow too.
            ticks: AtomicU64::new(1),
            keeps_users: AtomicBool::new(false),
            handed_over: Notify::new(),
        })
    }

    /// From here on, nothing is committed before [`FaultyLedger::release`].
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Commits what waits, and from here on everything at once.
    pub async fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.release().await;
    }

    /// Commits what waits, once.
    pub async fn release(&self) {
        self.release_first(usize::MAX).await;
    }

    /// Commits the first so many entries that wait. Checkpoints are written once nothing waits any more.
    pub async fn release_first(&self, rows: usize) {
        let commits = self.write_first(rows);
        for commit in commits {
            commit.wait().await.expect("the ledger behind does not fail");
        }
        let (waiters, checkpoints) = {
            let mut queue = self.queue.lock();
            let durable = queue.next - 1 - queue.rows.len() as Seq;
            let waiters: Vec<Waiter> =
                queue.waiters.extract_if(.., |(seq, _)| *seq <= durable).map(|(_, waiter)| waiter).collect();
            let checkpoints = if queue.rows.is_empty() { std::mem::take(&mut queue.checkpoints) } else { Vec::new() };
            (waiters, checkpoints)
        };
        for waiter in waiters {
            let _ = waiter.send(Ok(()));
        }
        for (folds, complete_through, waiter) in checkpoints {
            let written = self.inner.checkpoint(folds, complete_through).wait().await;
            let _ = waiter.send(written);
        }
    }

    /// Hands rows to the ledger behind, under the lock, so that positions stay the same.
    fn write_first(&self, rows: usize) -> Vec<Commit> {
        let mut queue = self.queue.lock();
        let count = rows.min(queue.rows.len());
        let written: Vec<Row> = queue.rows.drain(..count).collect();
        let mut commits = Vec::new();
        for row in written {
            let append = Append::new(row.tenant, vec![row.entry]);
            let appended = self.inner.append(append).expect("the ledger behind does not fail");
            assert_eq!(appended.last, row.seq, "positions must be those that were promised");
            commits.push(appended.commit);
        }
        commits
    }

    /// Fails the commit that waits, and everything after it until the ledger is reopened.
    pub async fn fail(&self, loss: Loss) {
        let kept = match loss {
            Loss::Everything => 0,
            Loss::AllButFirst(rows) => rows,
            Loss::OnlyTheAnswer => usize::MAX,
        };
        let error = LedgerError::Unwritable("the commit was made to fail".into());
        self.queue.lock().failed = Some(error.clone());
        for commit in self.write_first(kept) {
            commit.wait().await.expect("the ledger behind does not fail");
        }
        let mut queue = self.queue.lock();
        queue.rows.clear();
        let checkpoints = std::mem::take(&mut queue.checkpoints).into_iter().map(|(_, _, waiter)| waiter);
        let waiters = std::mem::take(&mut queue.waiters).into_iter().map(|(_, waiter)| waiter);
        for waiter in waiters.chain(checkpoints) {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// From here on, the queue is (not) full.
    pub fn overload(&self, full: bool) {
        self.overloaded.store(full, Ordering::SeqCst);
    }

    /// From here on, loads let up to `yields` others in.
    pub fn slow_down(&self, yields: u64) {
        self.slowness.store(yields, Ordering::SeqCst);
    }

    /// From here on, one in `n` ids (by its value) that were moved to disk can't be told in memory.
    pub fn unsure(&self, n: u64) {
        self.unsure_one_in.store(n, Ordering::SeqCst);
    }

    /// From here on, users that are read are (not) kept from those who asked.
    pub fn keep_users(&self, keep: bool) {
        self.keeps_users.store(keep, Ordering::SeqCst);
    }

    /// Gives the users that were read and kept to those who asked.
    pub fn hand_over(&self) {
        self.handed_over.notify_waiters();
    }

    /// Moves ids that are durable from memory to disk.
    pub fn seal_ids(&self) {
        let mut queue = self.queue.lock();
        let durable = queue.next - 1 - queue.rows.len() as Seq;
        queue.recent.retain(|_, seq| *seq > durable);
        queue.generation += 1;
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.queue.lock().rows.len()
    }

    async fn dawdle(&self) {
        let slowness = self.slowness.load(Ordering::Relaxed);
        if slowness > 0 {
            let tick = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for _ in 0..(tick >> 32) % (slowness + 1) {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Queue {
    fn check(&self) -> Result<(), LedgerError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Queues entries; gives the first and the last position.
    fn push(&mut self, append: Append) -> (Seq, Seq) {
        let (mut first, mut last) = (Seq::MAX, 0);
        for entry in append.entries {
            let open = append.fold_after.filter(|_| is_open_shape(&entry));
            let added = open.and_then(|after| add_to_open(&mut self.rows, &append.tenant, &entry, after));
            let seq = added.unwrap_or(self.next);
            if added.is_none() {
                if let Some(binding) = entry.binding {
                    self.recent.insert(binding.id, seq);
                }
                self.rows.push(Row { seq, tenant: append.tenant.clone(), entry, open: open.is_some() });
                self.next += 1;
            }
            (first, last) = (first.min(seq), last.max(seq));
        }
        (first, last)
    }

    fn commit_for(&mut self, seq: Seq) -> Commit {
        if let Some(error) = &self.failed {
            return answered(Err(error.clone()));
        }
        let durable = self.next - 1 - self.rows.len() as Seq;
        if seq <= durable {
            return Commit::Done;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.push((seq, sender));
        Commit::Waiting(receiver)
    }
}

fn answered(result: Result<(), LedgerError>) -> Commit {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(result);
    Commit::Waiting(receiver)
}
