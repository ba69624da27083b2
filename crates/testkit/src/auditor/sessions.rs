//! Sessions, as the auditor knows them: what was charged is told by the answer, and it says whether that may be, in which
//! windows it counts, and what is open.

use super::{Asked, Book, Who, accounts};
use domain::{
    catalog::{Catalog, LimitWindow, Mode, Scope},
    decision::Code,
    id::MeterKey,
    op::Charge,
    session::{Session, SessionId},
};

/// A session that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenBook {
    who: Who,
    key: String,
    meter: MeterKey,
    touched_ms: i64,
    idle_ms: i64,
    accrued_ms: i64,
    held_ms: i64,
    windows: [(i64, i64); 5],
}

impl OpenBook {
    fn is_open(&self, now_ms: i64) -> bool {
        now_ms < self.touched_ms + self.idle_ms
    }
}

impl Book {
    /// How many sessions are open on a meter.
    pub fn open_sessions(&self, who: &Who, meter: &MeterKey) -> i64 {
        let is_its = |open: &&OpenBook| open.meter == *meter && (who.is_none() || open.who == *who);
        self.sessions.values().filter(is_its).count() as i64
    }

    /// What open sessions hold ahead of themselves in the open window of a kind.
    pub(super) fn held_ahead(&self, who: &Who, meter: &MeterKey, kind: usize) -> i64 {
        let is_its = |open: &&OpenBook| open.meter == *meter && (who.is_none() || open.who == *who);
        let is_in = |open: &&OpenBook| open.windows[kind].0 == self.windows[kind].0;
        self.sessions.values().filter(is_its).filter(is_in).map(|open| open.held_ms).sum()
    }

    /// The session that is open under a name.
    pub fn session_named(&self, who: &Who, key: &str) -> Option<SessionId> {
        self.sessions.iter().find(|(_, open)| open.who == *who && open.key == key).map(|(id, _)| *id)
    }

    /// Whether it is open.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// What is said to whoever would open one, or goes on with one; [`Code::Allowed`] where all is only observed.
    pub fn session_code(&self, who: &Who, meter: &MeterKey, goes_on: bool, catalog: &Catalog) -> Code {
        if self.observes(None, catalog) {
            return Code::Allowed;
        }
        let charges = [Charge { meter: meter.clone(), amount: 1 }];
        let asked = Asked { who, charges: &charges, features: &[], consume: true };
        let mut code = self.verdict(&asked, self.now_ms, catalog);
        for limit in self.limits(who, meter, self.now_ms, catalog) {
            let account = if limit.scope == Scope::Tenant { &None } else { who };
            let others = self.open_sessions(account, meter) - i64::from(goes_on);
            let is_full = limit.window == LimitWindow::Concurrent && limit.max.is_some_and(|max| others + 1 > max);
            if is_full && limit.mode == Mode::Hard && (code == Code::Allowed || Code::ConcurrencyLimitReached < code) {
                code = Code::ConcurrencyLimitReached;
            }
        }
        code
    }

    /// A session was opened.
    pub fn opened(&mut self, session: &Session) {
        let open = OpenBook {
            who: session.user.clone(),
            key: session.key.to_string(),
            meter: session.meter.clone(),
            touched_ms: self.now_ms,
            idle_ms: session.idle_timeout_ms,
            accrued_ms: 0,
            held_ms: session.held_ms,
            windows: self.windows,
        };
        self.sessions.insert(session.id, open);
    }

    /// A session ran until now, and so much is charged for it by now, milliseconds. It holds nothing then.
    ///
    /// # Errors
    /// Where that is less than what was held for it, or more than it ran.
    pub fn ran(&mut self, id: SessionId, accrued_ms: i64) -> Result<(), String> {
        let now_ms = self.now_ms;
        let open = self.sessions.get_mut(&id).ok_or("a session is charged that is not open")?;
        let (ran_ms, charged_ms) = (now_ms - open.touched_ms, accrued_ms - open.accrued_ms);
        if charged_ms > ran_ms || charged_ms < ran_ms.min(open.held_ms) {
            return Err(format!("{charged_ms} of {ran_ms} ms are charged for {open:?}"));
        }
        let (from, to) = (open.touched_ms, open.touched_ms + charged_ms);
        (open.touched_ms, open.accrued_ms, open.held_ms, open.windows) = (now_ms, accrued_ms, 0, self.windows);
        let (who, meter) = (open.who.clone(), open.meter.clone());
        let mut cuts: Vec<i64> = self.windows.iter().map(|window| window.0.clamp(from, to)).chain([from, to]).collect();
        cuts.sort_unstable();
        for piece in cuts.windows(2).filter(|piece| piece[0] < piece[1]) {
            let mut windows = self.windows;
            for (kind, window) in windows.iter_mut().enumerate().filter(|(_, window)| piece[0] < window.0) {
                // Which closed window it is does not show; that it is no open one does.
                *window = (-1 - kind as i64, 0);
            }
            self.add(&who, &meter, piece[1] - piece[0], windows);
        }
        Ok(())
    }

    /// A session goes on with so much held ahead.
    pub fn goes_on(&mut self, session: &Session) {
        if let Some(open) = self.sessions.get_mut(&session.id) {
            open.held_ms = session.held_ms;
        }
    }

    /// A session has ended.
    pub fn ended(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// Somebody was refused time.
    pub fn refused_time(&mut self, who: &Who, meter: &MeterKey, slice_ms: i64) {
        let period = self.windows[0].0;
        for account in accounts(who) {
            *self.denied.entry((account, meter.clone(), period)).or_default() += slice_ms;
        }
    }

    /// Forgets those that nobody touched in time.
    pub(super) fn forget_idle(&mut self) {
        let now_ms = self.now_ms;
        self.sessions.retain(|_, open| open.is_open(now_ms));
    }
}
