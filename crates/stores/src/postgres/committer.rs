//! The task that commits: one batch at a time, on a connection of its own.

use super::{
    batch::Part,
    errors::{Done, Failure},
    ledger::PostgresOptions,
    outcome,
    pool::{Conn, Pool},
    probe,
    queue::{Lane, Queue},
    statement::Locked,
};
use engine::ports::LedgerError;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// How often a connection that has nothing to do is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The share of a commit's time that is waited for more to come.
const LINGER_SHARE: u32 = 16;
const LINGER_MAX: Duration = Duration::from_micros(250);
/// Tries of a batch that is in other transactions' way, before it is treated as if the server were away.
const TRIES_AT_ONCE: u32 = 5;

/// Plans that suit batches of any size: rows are found by index, one by one. What a paused node would block ends soon.
const SESSION: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; \
                       SET idle_in_transaction_session_timeout = '2s'";

/// Says that a connection should be tried for now.
#[derive(Default)]
pub(super) struct Nudge(pub(super) Notify);

pub(super) struct Committer {
    pub(super) lane: Lane,
    pub(super) queue: Arc<Queue>,
    pub(super) pool: Arc<Pool>,
    pub(super) options: PostgresOptions,
    pub(super) nudge: Arc<Nudge>,
    pub(super) conn: Option<Conn>,
    /// How long the next try waits. Only a commit that goes through makes it short again.
    pub(super) wait: Duration,
    /// How many appends may be expected to wait after the last commit, and how long that is worth waiting for.
    pub(super) last: (usize, Duration),
}

impl Committer {
    /// Commits what comes until the ledger is closed and nothing is left.
    pub(super) async fn run(mut self) {
        let mut carried: Vec<Part> = Vec::new();
        let mut since: Option<Instant> = None;
        let mut tries = 0;
        loop {
            if carried.is_empty() {
                (since, tries) = (None, 0);
                self.linger().await;
                match self.next_batch().await {
                    Some(batch) => carried = batch,
                    None => return,
                }
            }
            let sent_at = Instant::now();
            let batch = match carried.iter().any(|part| part.alone) {
                true => vec![carried.swap_remove(0)],
                false => std::mem::take(&mut carried),
            };
            match self.commit(batch, &mut tries).await {
                Ok(again) => carried.extend(again),
                Err((batch, why)) => {
                    carried.extend(batch);
                    let began = *since.get_or_insert(sent_at);
                    if !self.recover(began, why).await {
                        carried.extend(self.queue.take_all(self.lane));
                        self.give_up(std::mem::take(&mut carried));
                    }
                }
            }
        }
    }

    /// Callers that were answered just now often come back at once: those who come within a small part of what a commit
    /// takes are in the next one, instead of waiting for it and the one after. (Timers are too coarse for that.)
    async fn linger(&self) {
        let (target, limit) = self.last;
        let began = Instant::now();
        while target > 1 && began.elapsed() < limit && self.queue.state.lock().appends(self.lane) < target {
            tokio::task::yield_now().await;
        }
    }

    /// Waits for something to commit; `None` when the ledger is closed.
    async fn next_batch(&mut self) -> Option<Vec<Part>> {
        loop {
            let batch = self.queue.take_batch(self.lane);
            if !batch.is_empty() {
                return Some(batch);
            }
            {
                let state = self.queue.state.lock();
                if state.stopping && (state.slots.is_empty() || self.lane == Lane::Leased) {
                    return None;
                }
            }
            if self.lane == Lane::Leased {
                // Whether there is a server, the other one looks.
                self.queue.leased_work.notified().await;
                continue;
            }
            let asked = tokio::select! {
                () = self.queue.work.notified() => false,
                () = self.nudge.0.notified() => true,
                () = sleep(LOOK_EVERY) => false,
            };
            let closed = self.conn.as_ref().is_none_or(Conn::is_closed);
            let is_down = self.queue.state.lock().down.is_some();
            if asked || closed || is_down {
                self.check().await;
            }
        }
    }

    /// Makes sure that there is a connection, and says so. Where commits failed, one on which they would go through.
    async fn check(&mut self) {
        let failed = self.queue.state.lock().down.is_some();
        match self.usable(failed).await {
            Ok(()) => {
                self.pool.set_away(None);
                self.queue.state.lock().down = None;
            }
            Err(failure) => {
                self.is_down(failure);
                let wait = self.longer().max(BACKOFF_FIRST * 5);
                self.pause(wait).await;
            }
        }
    }

    /// Nothing can be written, and perhaps not even read.
    fn is_down(&mut self, failure: Failure) {
        self.conn = None;
        self.pool.set_away(match &failure {
            Failure::Lost(why) => Some(why.clone()),
            _ => None,
        });
        self.queue.state.lock().down = Some(failure.into());
    }

    async fn usable(&mut self, for_commits: bool) -> Done<()> {
        let random = (self.options.random)();
        let conn = self.connected().await?;
        match for_commits {
            true => probe::commit_in_vain(conn, random).await,
            false => conn.rows("SELECT 1", &[]).await.map(|_| ()),
        }
    }

    /// How long to wait before the next try: not at all, then longer and longer.
    fn longer(&mut self) -> Duration {
        let now = self.wait;
        self.wait = (now * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
        now
    }

    async fn connected(&mut self) -> Done<&mut Conn> {
        if self.conn.as_ref().is_some_and(Conn::is_closed) {
            self.conn = None;
        }
        if self.conn.is_none() {
            let mut conn = self.pool.get_at_last().await?;
            conn.limit(self.options.give_up);
            if !self.pool.is_behind_pooler() {
                conn.run(SESSION).await?;
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().ok_or_else(|| Failure::Lost("PostgreSQL: no connection".into()))
    }

    /// Commits a batch. Gives the parts that have to be sent again, each alone; or all of them, and why nobody knows what
    /// became of them, or why the server will not have them now.
    async fn commit(&mut self, mut parts: Vec<Part>, tries: &mut u32) -> Result<Vec<Part>, (Vec<Part>, Failure)> {
        outcome::stamp(&mut parts, || (self.options.random)());
        let queue = self.queue.clone();
        let began = Instant::now();
        let uncertain = parts.iter().any(|part| part.uncertain);
        let locked = match (self.lane, uncertain) {
            (Lane::Leased, _) => Locked::Leased,
            (Lane::Main, true) => Locked::Wait,
            (Lane::Main, false) => Locked::Skip,
        };
        let sent = match self.connected().await {
            Ok(conn) => outcome::send(conn, &queue, &mut parts, locked).await,
            Err(failure) => Err(failure),
        };
        let failure = match sent {
            Ok(verdicts) => {
                self.wait = Duration::ZERO;
                self.pool.set_away(None);
                let mut state = self.queue.state.lock();
                let took_us = began.elapsed().as_micros() as u64;
                state.down = None;
                state.stats.commits += 1;
                state.stats.commit_us += took_us;
                state.stats.commit_max_us = state.stats.commit_max_us.max(took_us);
                let appends: usize = parts.iter().map(|part| part.appends.len()).sum();
                self.last = (appends + state.appends(self.lane), (began.elapsed() / LINGER_SHARE).min(LINGER_MAX));
                drop(state);
                outcome::tell(&self.queue, parts, verdicts);
                return Ok(Vec::new());
            }
            Err(failure) => failure,
        };
        self.queue.state.lock().stats.commit_failures += 1;
        match failure {
            Failure::Again(_) if *tries < self.tries_at_once() => {
                *tries += 1;
                Ok(parts)
            }
            // One row that is not to be had must not keep other tenants from being charged: each is sent by itself, and
            // what was not sent before is not written.
            Failure::Again(_) if self.lane == Lane::Leased && parts.len() > 1 => {
                parts.iter_mut().for_each(|part| part.alone = true);
                Ok(parts)
            }
            Failure::Again(_) if self.lane == Lane::Leased && !uncertain => {
                parts.into_iter().for_each(|part| self.queue.fail(part, &LedgerError::Stale));
                Ok(Vec::new())
            }
            // Something in it can't be stored: the others must not suffer for it.
            Failure::Unfit(_) if parts.len() > 1 => {
                parts.iter_mut().for_each(|part| part.alone = true);
                Ok(parts)
            }
            Failure::Unfit(why) => {
                tracing::error!(%why, "PostgreSQL does not take an entry");
                parts.into_iter().for_each(|part| self.queue.fail(part, &LedgerError::Unwritable(why.clone())));
                Ok(Vec::new())
            }
            Failure::Ledger(error) => {
                tracing::error!(%error, "a batch was not committed");
                parts.into_iter().for_each(|part| self.queue.fail(part, &error));
                Ok(Vec::new())
            }
            failure => Err((parts, failure)),
        }
    }

    fn tries_at_once(&self) -> u32 {
        match self.lane {
            Lane::Main => TRIES_AT_ONCE,
            // Each may have waited for as long as a row may be waited for.
            Lane::Leased => 1,
        }
    }

    /// Connects again; false if it has taken too long, or the ledger is being closed.
    async fn recover(&mut self, began: Instant, why: Failure) -> bool {
        tracing::warn!(why = %LedgerError::from(why.clone()), "a batch has no answer, and is sent again");
        // A lost connection is made anew at once. A server that refuses gets a moment, and the doors are told meanwhile.
        let refused = !matches!(why, Failure::Lost(_));
        if refused {
            self.wait = self.wait.max(BACKOFF_FIRST);
            self.queue.state.lock().down = Some(why.clone().into());
        }
        let mut wait = self.longer();
        self.conn = None;
        self.pool.forget_idle();
        loop {
            if began.elapsed() >= self.options.give_up {
                self.is_down(why);
                return false;
            }
            self.pause(wait).await;
            let left = self.options.give_up.saturating_sub(began.elapsed());
            let failure = match timeout(left, self.usable(refused)).await {
                Ok(Ok(())) => {
                    self.pool.set_away(None);
                    return true;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Lost("PostgreSQL: no connection in time".into()),
            };
            self.is_down(failure);
            wait = self.longer();
        }
    }

    /// Waits for about as long, or until somebody asks for a connection.
    async fn pause(&self, about: Duration) {
        if about.is_zero() {
            return;
        }
        // Between half and one and a half times: nodes that lost the server together must not come back together.
        let share = ((self.options.random)() % 1024) as f64 / 1024.0;
        let _ = timeout(about.mul_f64(0.5 + share), self.nudge.0.notified()).await;
    }

    fn give_up(&self, parts: Vec<Part>) {
        let error = self.queue.state.lock().down.clone();
        let error = error.unwrap_or_else(|| LedgerError::Unwritable("PostgreSQL: no connection".into()));
        tracing::error!(%error, parts = parts.len(), "what waited for a commit is given up");
        parts.into_iter().for_each(|part| self.queue.fail(part, &error));
    }
}
