//! Sessions, as the auditor knows them: what was charged is told by the answer, and it says whether that may be, in which
//! windows it counts, and what is open.

use super::{Asked, Book, Who, accounts};
use domain::{
    catalog::{Catalog, Limit, LimitWindow, Mode, OnLimit, Scope},
    decision::Code,
    entry::{Effect, Entry},
    id::MeterKey,
    op::Charge,
    session::{CloseReason, Session, SessionEnd, SessionId},
    time::{Window, WindowKind},
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
    overage_ms: i64,
    held_ms: i64,
    windows: [(i64, i64); 5],
}

impl OpenBook {
    fn is_open(&self, now_ms: i64) -> bool {
        now_ms < self.touched_ms + self.idle_ms
    }
}

/// What was charged for a session that ran.
#[derive(Debug, Clone)]
pub struct Charged<'a> {
    /// What is charged for it in all by now, milliseconds.
    pub accrued_ms: i64,
    /// What of that was past a limit.
    pub overage_ms: i64,
    /// How long it may have run since it was touched: by the clock on the wall, or by one that does not jump.
    pub may_have_run_ms: &'a [i64],
    /// What of it is counted in the open window of each kind, where that is known.
    pub in_open: Option<[i64; 5]>,
}

impl Book {
    fn open_ones<'a>(&'a self, who: &'a Who, meter: &'a MeterKey) -> impl Iterator<Item = &'a OpenBook> {
        let is_its = move |open: &&OpenBook| {
            open.meter == *meter && (who.is_none() || open.who == *who) && open.is_open(self.now_ms)
        };
        self.sessions.values().filter(is_its)
    }

    /// How many sessions are open on a meter.
    pub fn open_sessions(&self, who: &Who, meter: &MeterKey) -> i64 {
        self.open_ones(who, meter).count() as i64
    }

    /// What open sessions hold ahead of themselves in the open window of a kind.
    pub(super) fn held_ahead(&self, who: &Who, meter: &MeterKey, kind: usize) -> i64 {
        let is_in = |open: &&OpenBook| open.windows[kind].0 == self.windows[kind].0;
        self.open_ones(who, meter).filter(is_in).map(|open| open.held_ms).sum()
    }

    /// The session that is open under a name.
    pub fn session_named(&self, who: &Who, key: &str) -> Option<SessionId> {
        let is_it =
            |(_, open): &(&SessionId, &OpenBook)| open.who == *who && open.key == key && open.is_open(self.now_ms);
        self.sessions.iter().find(is_it).map(|(id, _)| *id)
    }

    /// Whether it is open.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|open| open.is_open(self.now_ms))
    }

    /// When it was touched last, if nobody has ended it.
    pub fn touched_ms(&self, id: SessionId) -> Option<i64> {
        self.sessions.get(&id).map(|open| open.touched_ms)
    }

    /// What is said to whoever would open one, or goes on with one; [`Code::Allowed`] where all is only observed.
    pub fn session_code(&self, who: &Who, meter: &MeterKey, goes_on: Option<SessionId>, catalog: &Catalog) -> Code {
        if self.observes(None, catalog) {
            return Code::Allowed;
        }
        let charges = [Charge { meter: meter.clone(), amount: 1 }];
        let asked = Asked { who, charges: &charges, features: &[], consume: true };
        let mut codes = vec![self.verdict(&asked, self.now_ms, catalog)];
        let goes_on = goes_on.and_then(|id| self.sessions.get(&id));
        for limit in self.limits(who, meter, self.now_ms, catalog).iter().filter(|limit| limit.mode == Mode::Hard) {
            let account = if limit.scope == Scope::Tenant { &None } else { who };
            let itself = i64::from(goes_on.is_some_and(|open| open.is_open(self.now_ms)));
            let (taken, code) = match limit.window {
                LimitWindow::Concurrent => (self.open_sessions(account, meter) - itself, Code::ConcurrencyLimitReached),
                LimitWindow::Session => (goes_on.map_or(0, |open| open.accrued_ms), Code::SessionLimitReached),
                _ => continue,
            };
            codes.extend(limit.max.filter(|max| taken + 1 > *max).map(|_| code));
        }
        let refusals = codes.into_iter().filter(|code| *code != Code::Allowed);
        refusals.min().unwrap_or(Code::Allowed)
    }

    /// Whether a session whose time is used up may run on for a while.
    pub fn may_finish(&self, id: SessionId, catalog: &Catalog) -> bool {
        let took_ms = self.sessions.get(&id).map_or(0, |open| open.overage_ms);
        took_ms < self.finish_ms(catalog)
    }

    fn finish_ms(&self, catalog: &Catalog) -> i64 {
        match catalog.plans[&self.plan].sessions.on_limit {
            OnLimit::Cut => 0,
            OnLimit::Finish { max_ms } => max_ms,
        }
    }

    /// A session was opened.
    ///
    /// # Errors
    /// Where there was no room for what it holds ahead.
    pub fn opened(&mut self, session: &Session, catalog: &Catalog) -> Result<(), String> {
        let open = OpenBook {
            who: session.user.clone(),
            key: session.key.to_string(),
            meter: session.meter.clone(),
            touched_ms: self.now_ms,
            idle_ms: session.idle_timeout_ms,
            accrued_ms: 0,
            overage_ms: 0,
            held_ms: 0,
            windows: self.windows,
        };
        self.sessions.insert(session.id, open);
        self.goes_on(session, catalog)
    }

    /// A session ran until now, and so much is charged for it. It holds nothing then.
    ///
    /// # Errors
    /// Where that is less than what was held for it, more than it ran or may finish, or carries use past a limit.
    pub fn ran(&mut self, id: SessionId, told: &Charged<'_>, catalog: &Catalog) -> Result<(), String> {
        let now_ms = self.now_ms;
        let open = self.sessions.get(&id).ok_or("a session is charged that is not open")?.clone();
        let charged_ms = told.accrued_ms - open.accrued_ms;
        let more_ms = told.overage_ms - open.overage_ms;
        let covered_ms = |ran_ms: i64| if open.is_open(now_ms) { ran_ms.min(open.held_ms) } else { 0 };
        let ran_ms = told.may_have_run_ms.iter().map(|ran_ms| *ran_ms.clamp(&0, &open.idle_ms));
        let mut fits = ran_ms.filter(|ran_ms| (covered_ms(*ran_ms)..=*ran_ms).contains(&charged_ms));
        let counted = |ran_ms: &i64| {
            let windows = self.windows.map(|window| (now_ms - ran_ms + charged_ms - window.0).clamp(0, charged_ms));
            told.in_open.is_none_or(|in_open| in_open == windows)
        };
        let Some(ran_ms) = fits.find(counted) else {
            return Err(format!("{charged_ms} ms of {told:?} are charged for {open:?} at {now_ms}"));
        };
        let finish_ms = if self.observes(None, catalog) { 0 } else { self.finish_ms(catalog) };
        if more_ms < 0 || more_ms > charged_ms || more_ms > 0 && told.overage_ms > finish_ms {
            return Err(format!("{more_ms} of {charged_ms} ms are past a limit for {open:?}, {finish_ms} may be"));
        }
        let before = self.all_past(&id, catalog);
        self.count_time(&id, (now_ms - ran_ms, charged_ms), catalog);
        let open = self.sessions.get_mut(&id).ok_or("it is open")?;
        (open.touched_ms, open.held_ms, open.windows) = (now_ms, 0, self.windows);
        (open.accrued_ms, open.overage_ms) = (told.accrued_ms, told.overage_ms);
        self.is_within(&id, &before, more_ms, catalog)
    }

    fn count_time(&mut self, id: &SessionId, (from, ms): (i64, i64), catalog: &Catalog) {
        let (who, meter) = (self.sessions[id].who.clone(), self.sessions[id].meter.clone());
        let to = from + ms;
        let mut cuts: Vec<i64> = self.windows.iter().map(|window| window.0.clamp(from, to)).chain([from, to]).collect();
        cuts.sort_unstable();
        for piece in cuts.windows(2).filter(|piece| piece[0] < piece[1]) {
            let mut windows = self.windows;
            for (kind, window) in windows.iter_mut().enumerate().filter(|(_, window)| piece[0] < window.0) {
                // Which closed window it is does not show; that it is no open one does.
                *window = (-1 - kind as i64, 0);
            }
            self.use_up(&who, &meter, piece[1] - piece[0], windows, catalog);
        }
    }

    /// How far what is used and held is past each hard limit that bounds a session.
    fn all_past(&self, id: &SessionId, catalog: &Catalog) -> Vec<i64> {
        let open = &self.sessions[id];
        let past = |limit: &Limit| match limit.window {
            LimitWindow::Session => limit.max.map(|max| open.accrued_ms + open.held_ms - max),
            LimitWindow::Concurrent => None,
            _ => self.past(&open.who, limit, 0),
        };
        let limits = self.limits(&open.who, &open.meter, self.now_ms, catalog);
        let hard = limits.iter().filter(|limit| limit.mode == Mode::Hard);
        hard.map(|limit| past(limit).unwrap_or(i64::MIN)).collect()
    }

    /// Whether no hard limit is passed by more than it was before, but for what may be to finish.
    fn is_within(&self, id: &SessionId, before: &[i64], more_ms: i64, catalog: &Catalog) -> Result<(), String> {
        let after = self.all_past(id, catalog);
        let is_past = |(before, after): (&i64, &i64)| *after > 0.max(*before) + more_ms;
        match before.iter().zip(&after).any(is_past) && !self.observes(None, catalog) {
            true => Err(format!("it carries use past its limits: {before:?} past them before, {after:?} then")),
            false => Ok(()),
        }
    }

    /// A session goes on with so much held ahead.
    ///
    /// # Errors
    /// Where there was no room for that.
    pub fn goes_on(&mut self, session: &Session, catalog: &Catalog) -> Result<(), String> {
        let before = self.all_past(&session.id, catalog);
        let open = self.sessions.get_mut(&session.id).ok_or("it goes on, and is not open")?;
        open.held_ms = session.held_ms;
        self.is_within(&session.id, &before, 0, catalog)
    }

    /// A session has ended; whether it was open.
    pub fn ended(&mut self, id: SessionId) -> bool {
        self.sessions.remove(&id).is_some()
    }

    /// Somebody was refused time.
    pub fn refused_time(&mut self, who: &Who, meter: &MeterKey, slice_ms: i64) {
        self.denied_in(who, meter, slice_ms, self.windows[0].0);
    }

    /// Somebody was refused something, in the period that begins then.
    pub(super) fn denied_in(&mut self, who: &Who, meter: &MeterKey, amount: i64, period_ms: i64) {
        for account in accounts(who) {
            *self.denied.entry((account, meter.clone(), period_ms)).or_default() += amount;
        }
    }

    /// Forgets those that nobody touched in time.
    pub(super) fn forget_idle(&mut self) {
        let last_ms = self.now_ms.saturating_sub(self.patience_ms);
        self.sessions.retain(|_, open| open.is_open(last_ms));
    }
}

/// The session that an entry opens or charges: as it leaves it, or as it ended. `None` where nobody had touched it in time.
pub fn session_in(entry: &Entry) -> Option<Session> {
    let left = entry.effects.iter().find_map(|effect| match effect {
        Effect::Session(session) => Some(Session::clone(session)),
        _ => None,
    });
    let ended = || {
        entry.effects.iter().find_map(|effect| match effect {
            Effect::SessionClosed(end) if end.reason != CloseReason::Idle => Some(as_it_ended(end, entry)),
            _ => None,
        })
    };
    left.or_else(ended)
}

fn as_it_ended(end: &SessionEnd, entry: &Entry) -> Session {
    Session {
        id: end.id,
        key: end.key.clone(),
        meter: end.meter.clone(),
        user: entry.user.clone(),
        opened_at: end.opened_at,
        touched_at: entry.at,
        idle_timeout_ms: 0,
        accrued_ms: end.accrued_ms,
        overage_ms: end.overage_ms,
        held_ms: 0,
        windows: [Window { start: entry.at, end: entry.at }; WindowKind::COUNT],
        is_finishing: false,
        dimensions: entry.dimensions.clone(),
    }
}
