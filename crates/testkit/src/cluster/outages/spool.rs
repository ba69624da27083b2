//! A spool whose writes take their time, and of which a crash may take what was not yet told of.

use crate::cluster::chance::Chance;
use domain::{
    id::{MeterKey, TenantId, UserId},
    op::Charge,
};
use engine::ports::{Commit, LedgerError, Spool, SpoolLine};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot;

type Done = oneshot::Sender<Result<(), LedgerError>>;

enum Work {
    Line(u64, SpoolLine),
    Remove(Vec<u64>),
    SetAside(Vec<(u64, String)>),
    Nothing,
}

#[derive(Default)]
struct Inner {
    next: u64,
    durable: u64,
    lines: BTreeMap<u64, SpoolLine>,
    aside: BTreeMap<u64, String>,
    waiting: VecDeque<(Work, Done)>,
}

/// The spool of a node, which outlives its lives.
pub(super) struct SimSpool {
    chance: Arc<Chance>,
    lines_max: usize,
    inner: Mutex<Inner>,
}

impl SimSpool {
    pub(super) fn new(chance: Arc<Chance>, lines_max: usize) -> Arc<Self> {
        Arc::new(Self { chance, lines_max, inner: Mutex::new(Inner { next: 1, ..Inner::default() }) })
    }

    /// Writes some of what waits.
    pub(super) fn step(&self) {
        let mut inner = self.inner.lock();
        for _ in 0..=self.chance.below(3) {
            let Some((work, done)) = inner.waiting.pop_front() else { return };
            inner.write(work);
            let _ = done.send(Ok(()));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.inner.lock().waiting.is_empty()
    }

    /// The node is gone: what waited may be written, from the front, and nobody is told. With `forgets`, the last line
    /// that was told of is lost as well.
    pub(super) fn crash(&self, forgets: bool) {
        let mut inner = self.inner.lock();
        let written = self.chance.below(inner.waiting.len() + 1);
        let waiting: Vec<(Work, Done)> = inner.waiting.drain(..).collect();
        waiting.into_iter().take(written).for_each(|(work, _)| inner.write(work));
        if forgets {
            inner.lines.pop_last();
        }
        inner.next = inner.durable + 1;
    }

    /// What is in it, written or not, by account.
    pub(super) fn outstanding(&self) -> BTreeMap<(TenantId, Option<UserId>, MeterKey), i64> {
        let inner = self.inner.lock();
        let waiting = inner.waiting.iter().filter_map(|(work, _)| match work {
            Work::Line(_, line) => Some(line),
            _ => None,
        });
        let mut sums = BTreeMap::new();
        for line in inner.lines.values().chain(waiting) {
            let SpoolLine::Passed(tenant, passed) = line else { continue };
            for Charge { meter, amount } in &passed.charges {
                *sums.entry((tenant.clone(), None, meter.clone())).or_default() += amount;
                if passed.user.is_some() {
                    *sums.entry((tenant.clone(), passed.user.clone(), meter.clone())).or_default() += amount;
                }
            }
        }
        sums
    }

    /// Whether a line with these dimensions is durable.
    pub(super) fn has(&self, mark: &domain::op::Dimensions) -> bool {
        let is_it = |line: &SpoolLine| matches!(line, SpoolLine::Passed(_, passed) if passed.dimensions == *mark);
        self.inner.lock().lines.values().any(is_it)
    }

    /// What will never be recorded, and why.
    pub(super) fn aside(&self) -> Vec<String> {
        self.inner.lock().aside.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().lines.len()
    }
}

impl Inner {
    fn write(&mut self, work: Work) {
        match work {
            Work::Line(number, line) => {
                self.lines.insert(number, line);
                self.durable = number;
            }
            Work::Remove(numbers) => self.lines.retain(|number, _| !numbers.contains(number)),
            Work::SetAside(reasons) => {
                self.lines.retain(|number, _| reasons.iter().all(|(aside, _)| aside != number));
                self.aside.extend(reasons);
            }
            Work::Nothing => {}
        }
    }

    fn queue(&mut self, work: Work) -> Commit {
        let (done, waiting) = oneshot::channel();
        self.waiting.push_back((work, done));
        Commit::Waiting(waiting)
    }
}

impl Spool for SimSpool {
    fn lines(&self) -> Result<Vec<(u64, SpoolLine)>, LedgerError> {
        Ok(self.inner.lock().lines.iter().map(|(number, line)| (*number, line.clone())).collect())
    }

    fn append(&self, line: SpoolLine) -> Result<(u64, Commit), LedgerError> {
        let mut inner = self.inner.lock();
        if inner.lines.len() + inner.waiting.len() >= self.lines_max {
            return Err(LedgerError::Unwritable("the spool is full".into()));
        }
        let number = inner.next;
        inner.next += 1;
        let commit = inner.queue(Work::Line(number, line));
        Ok((number, commit))
    }

    fn flushed(&self) -> Commit {
        self.inner.lock().queue(Work::Nothing)
    }

    fn durable(&self) -> u64 {
        self.inner.lock().durable
    }

    fn is_lost(&self, _number: u64) -> bool {
        // It takes every line that it does not refuse at once.
        false
    }

    fn settle(&self, recorded: Vec<u64>, set_aside: Vec<(u64, String)>) -> Commit {
        let mut inner = self.inner.lock();
        drop(inner.queue(Work::Remove(recorded)));
        inner.queue(Work::SetAside(set_aside))
    }
}
