//! The one thread that writes. It takes what waits, commits it, wakes those who waited, and between commits does a
//! slice of what else is to be done: checkpoints, keys, retention, the id index.

use super::{
    errors::OrDamaged,
    ids::IdIndex,
    linger::Next,
    log::Log,
    queue::{Body, Queue, Segment, State, Task, Waiter},
    running::Times,
};
use crate::codec;
use engine::ports::{LedgerError, Seq};
use rusqlite::{Connection, TransactionBehavior, params};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How long a slice may hold back the next commit.
const SLICE: Duration = Duration::from_millis(5);

/// How long it may while somebody waits for that commit.
const SLICE_UNDER_LOAD: Duration = Duration::from_millis(2);

/// How long it may even then when the tail is long; as long as a commit takes, where that is more.
const SLICE_WITH_LONG_TAIL: Duration = Duration::from_millis(10);

/// How long it may at the very most.
const SLICE_MAX: Duration = Duration::from_millis(50);

/// So many entries are a long tail. A start has to read them all, so the longer it is, the more of the writer's time
/// goes to what makes it shorter, and the fewer entries are taken meanwhile.
const LONG_TAIL: u64 = 500_000;

/// How long entries that nobody waits for may stay queued while the writer has nothing else to do.
const LINGER: Duration = Duration::from_millis(2);

/// Pages that a millisecond of other work writes to the log, at most, about.
const PAGES_A_MS: u64 = 64;

pub(super) struct Writer {
    conn: Connection,
    queue: Arc<Queue>,
    ids: Arc<IdIndex>,
    times: Arc<Times>,
    log: Arc<Log>,
    /// Written to the log since it was copied back, about.
    log_pages: u64,
    /// How long the last commit took.
    last_commit: Duration,
    /// Whether the id index gave up: it is damaged, and says so when it is asked.
    ids_are_damaged: bool,
    /// Bytes of an entry that is encoded here.
    scratch: Vec<u8>,
    /// Those who are to be woken.
    woken: Vec<Waiter>,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        queue: Arc<Queue>,
        ids: Arc<IdIndex>,
        times: Arc<Times>,
        log: Arc<Log>,
    ) -> Self {
        let (scratch, woken) = (Vec::new(), Vec::new());
        Self {
            conn,
            queue,
            ids,
            times,
            log,
            log_pages: 0,
            last_commit: Duration::ZERO,
            ids_are_damaged: false,
            scratch,
            woken,
        }
    }

    /// Runs until the queue is stopped or a write fails. Either way nobody is left waiting.
    pub(super) fn run(mut self) {
        let mut ids_have_more = true;
        loop {
            let result = match self.queue.next_work(ids_have_more, LINGER) {
                Next::Commit(segment) => self.commit(segment),
                Next::Other => Ok(()),
                Next::Stop => return,
            };
            let began = Instant::now();
            let result = result.and_then(|()| self.do_urgent()).and_then(|()| self.do_slice());
            let result = result.and_then(|()| self.maintain_ids());
            self.log_pages += began.elapsed().as_millis() as u64 * PAGES_A_MS;
            if self.log.keep_short(&self.conn, self.log_pages) {
                self.log_pages = 0;
            }
            match result {
                Ok(more) => ids_have_more = more,
                Err(error) => {
                    tracing::error!(%error, "the ledger can't be written");
                    let mut state = self.queue.state.lock();
                    state.stats.commit_failures += 1;
                    state.fail(&error);
                    return;
                }
            }
        }
    }

    fn commit(&mut self, mut segment: Segment) -> Result<(), LedgerError> {
        let began = Instant::now();
        self.write(&mut segment).or_unwritable()?;
        self.last_commit = began.elapsed();
        let took_us = self.last_commit.as_micros() as u64;
        let rows = segment.rows.len() as u64;
        let last = segment.first + rows - 1;
        let newest_ms = segment.rows.iter().map(|row| row.at_ms).max().unwrap_or(0);
        self.times.now_ms.fetch_max(newest_ms, Ordering::Relaxed);
        self.log_pages += 2 + segment.bytes.len() as u64 / 3_500 + rows / 50;
        let emptied = segment.emptied();
        {
            let mut state = self.queue.state.lock();
            state.committed = last;
            state.take_waiters(last, &mut self.woken);
            state.stats.commits += 1;
            state.stats.entries += rows;
            state.stats.commit_us += took_us;
            state.stats.commit_max_us = state.stats.commit_max_us.max(took_us);
            state.spare = Some(emptied);
        }
        for waiter in self.woken.drain(..) {
            let _ = waiter.send(Ok(()));
        }
        Ok(())
    }

    fn write(&mut self, segment: &mut Segment) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO journal(seq, tenant, at_ms, body) VALUES (?1, ?2, ?3, ?4)")?;
            for (seq, row) in (segment.first..).zip(&segment.rows) {
                let (names, numbers) = ([row.tenant.as_str()], [seq as i64, row.at_ms]);
                let body = match &row.body {
                    Body::Encoded { start, end } => {
                        let body = &mut segment.bytes[*start..*end];
                        let length = body.len() - codec::CHECKSUM_BYTES;
                        let sum = codec::checksum(&names, &numbers, &body[..length]);
                        body[length..].copy_from_slice(&sum);
                        &*body
                    }
                    Body::Open(entry) => {
                        self.scratch.clear();
                        codec::encode_entry(entry, &mut self.scratch);
                        codec::seal(&names, &numbers, &mut self.scratch);
                        &self.scratch
                    }
                };
                insert.execute(params![seq as i64, row.tenant.as_str(), row.at_ms, body])?;
            }
        }
        transaction.commit()
    }

    /// Short tasks, whole.
    fn do_urgent(&mut self) -> Result<(), LedgerError> {
        loop {
            let Some(mut task) = self.queue.state.lock().urgent.pop_front() else { return Ok(()) };
            while !self.step(&mut task)? {}
        }
    }

    /// One slice of the first task whose time has come.
    fn do_slice(&mut self) -> Result<(), LedgerError> {
        let task = take_due(&mut self.queue.state.lock());
        let Some(mut task) = task else { return Ok(()) };
        if !self.step(&mut task)? {
            self.queue.state.lock().tasks.push_front(task);
        }
        Ok(())
    }

    /// How long the next slice may take.
    fn slice(&self) -> Duration {
        if self.queue.state.lock().segments.is_empty() { SLICE } else { SLICE_UNDER_LOAD }
    }

    /// How long the next slice of a task may take.
    fn task_slice(&self) -> Duration {
        let tail = self.queue.state.lock().tail();
        let long = SLICE_WITH_LONG_TAIL.max(self.last_commit.min(SLICE_MAX));
        self.slice().max(long.mul_f64((tail as f64 / LONG_TAIL as f64).min(1.0)))
    }

    /// Does a slice of a task; true when it is done, well or badly.
    fn step(&mut self, task: &mut Task) -> Result<bool, LedgerError> {
        let until = Instant::now() + self.task_slice();
        let result = task.work.slice(&mut self.conn, until);
        let answer = match result {
            Ok(false) => return Ok(false),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(waiter) = task.done.take() {
            let _ = waiter.send(answer.clone());
        }
        match answer {
            Err(error) if task.work.is_vital() || matches!(error, LedgerError::Unwritable(_)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "a task between commits failed");
                Ok(true)
            }
            Ok(()) => Ok(true),
        }
    }

    /// A slice of what the id index has to do; true if there is more.
    fn maintain_ids(&mut self) -> Result<bool, LedgerError> {
        let now_ms = self.times.now_ms.load(Ordering::Relaxed);
        // An empty ledger knows no time, and has no ids.
        if self.ids_are_damaged || now_ms == 0 {
            return Ok(false);
        }
        let committed: Seq = self.queue.state.lock().committed;
        let dedupe_ms = self.times.dedupe_ms.load(Ordering::Relaxed);
        let slice = self.slice();
        match self.ids.maintain(&mut self.conn, committed, now_ms, dedupe_ms, slice) {
            Err(error @ LedgerError::Damaged(_)) => {
                tracing::error!(%error, "upkeep of the id index stops");
                self.ids_are_damaged = true;
                Ok(false)
            }
            result => result,
        }
    }
}

fn take_due(state: &mut State) -> Option<Task> {
    let committed = state.committed;
    let tasks: &mut VecDeque<Task> = &mut state.tasks;
    tasks.pop_front_if(|task| task.after <= committed)
}

impl Drop for Writer {
    /// However the thread ends, nobody is left waiting.
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if state.failed.is_none() {
            state.fail(&LedgerError::Unwritable("the committer stopped".into()));
        }
    }
}
