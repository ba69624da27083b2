//! Entries of holds and sessions: taken, settled and lapsed once; opened, charged and ended as the auditor has it.

use super::replay::{Replay, asked};
use crate::{
    auditor::{
        Asked, Book, Who,
        holds::Settles,
        journal::uses,
        sessions::{Charged, session_in},
    },
    cluster::{attempts::Attempt, database::Written, script::Ask},
};
use domain::{
    catalog::Catalog,
    decision::Code,
    entry::{Cause, Effect, Entry},
    hold::{Hold, HoldId, Settlement},
    id::MeterKey,
    op::Charge,
    session::{CloseReason, Session, SessionEnd},
    time::WindowKind,
};
use engine::requests::{Check, OpId};

/// What became of a session.
#[derive(Debug, Clone)]
pub(in crate::cluster) struct Life {
    pub(super) user: Who,
    pub(super) meter: MeterKey,
    /// Where it ended, and how.
    pub(super) ended: Option<(usize, SessionEnd)>,
    /// Every touch.
    touches: Vec<Touch>,
}

/// A touch of a session: after it, it is known by the instant and what was charged.
#[derive(Debug, Clone)]
struct Touch {
    at_ms: i64,
    accrued_ms: i64,
    /// Which life of which node did it.
    sender: u64,
    /// When, by the clock that does not jump.
    steady_ms: i64,
}

/// What the settlement of a hold is bound to: there is one.
pub(super) fn settlement_id(id: HoldId) -> OpId {
    OpId { source: "settlement".into(), id: format!("{:032x}", id.0).into() }
}

fn holds(entry: &Entry) -> impl Iterator<Item = &Hold> {
    entry.effects.iter().filter_map(|effect| match effect {
        Effect::Hold(hold) => Some(&**hold),
        _ => None,
    })
}

pub(super) fn sessions(entry: &Entry) -> impl Iterator<Item = &Session> {
    entry.effects.iter().filter_map(|effect| match effect {
        Effect::Session(session) => Some(&**session),
        _ => None,
    })
}

pub(super) fn ends(entry: &Entry) -> impl Iterator<Item = &SessionEnd> {
    entry.effects.iter().filter_map(|effect| match effect {
        Effect::SessionClosed(end) => Some(&**end),
        _ => None,
    })
}

/// What of the use of a meter counts in the open window of each kind.
fn in_open(entry: &Entry, of: &MeterKey) -> [i64; 5] {
    let mut sums = [0; 5];
    for effect in &entry.effects {
        let Effect::Use { meter, amount, open, .. } = effect else { continue };
        for kind in WindowKind::ALL.into_iter().filter(|kind| meter == of && open.has(*kind)) {
            sums[kind.index()] += amount;
        }
    }
    sums
}

impl Replay {
    /// A hold is taken.
    pub(super) fn hold(
        &mut self,
        book: &mut Book,
        (attempt, check): (&Attempt, &Check),
        entry: &Entry,
        catalog: &Catalog,
    ) -> Result<Cause, String> {
        let terms = check.hold.ok_or("nothing was to be held")?;
        let at_ms = entry.at.ms();
        book.turn(at_ms);
        let asked = Asked { consume: true, ..asked(check) };
        let code = book.clone().hold(&asked, at_ms, catalog);
        if code != Code::Allowed {
            return Err(format!("it is held, and should have been refused with {code:?}"));
        }
        let mut taken = holds(entry);
        let (Some(hold), None) = (taken.next(), taken.next()) else { return Err("it holds nothing, or twice".into()) };
        let parts: Vec<Charge> =
            hold.charges.iter().map(|part| Charge { meter: part.meter.clone(), amount: part.amount }).collect();
        let until_ms = at_ms + terms.ttl_ms;
        if parts != check.charges || hold.user != check.user || hold.expires_at.ms() != until_ms || hold.lapsed {
            return Err(format!("{hold:?} is not what was asked for"));
        }
        if !uses(entry).is_empty() {
            return Err("it is held and charged".to_owned());
        }
        book.held_as(hold.id, &asked, (terms.ttl_ms, terms.excess), catalog);
        self.bind(attempt, check.id.as_ref())?;
        Ok(check.cause)
    }

    /// A hold is settled.
    pub(super) fn settle(
        &mut self,
        book: &mut Book,
        attempt: &Attempt,
        (id, how): (HoldId, &Settlement),
        (entry, catalog): (&Entry, &Catalog),
    ) -> Result<Cause, String> {
        let (at_ms, user) = (entry.at.ms(), &entry.user);
        self.bind(attempt, Some(&settlement_id(id)))?;
        let whose = book.who_holds(id);
        if whose.is_some_and(|whose| *whose != *user) {
            return Err(format!("it is about {user:?}, and its hold is {whose:?}'s"));
        }
        match book.settle(id, how, at_ms, catalog) {
            Settles::Yes => Ok(Cause::Hold),
            other => Err(format!("it is settled, and should not have been: {other:?}")),
        }
    }

    /// Whether an entry only writes down that something lapsed; then it must have.
    pub(super) fn lapse(&mut self, book: &mut Book, attempt: &Attempt, entry: &Entry) -> Result<bool, String> {
        if let Some(hold) = holds(entry).find(|hold| hold.lapsed) {
            book.turn(entry.at.ms());
            let charged = book.lapse_written(hold.id)?;
            return match uses(entry) == charged {
                true => Ok(true),
                false => Err(format!("{:?} are charged when it lapses, not {charged:?}", uses(entry))),
            };
        }
        let Some(end) = ends(entry).find(|end| end.reason == CloseReason::Idle) else { return Ok(false) };
        book.turn(entry.at.ms());
        self.ends_idle(book, end)?;
        if let Ask::Touch(_, id, _) = &attempt.ask
            && *id == end.id
        {
            self.bind(attempt, None)?;
        }
        Ok(sessions(entry).next().is_none())
    }

    fn ends_idle(&mut self, book: &mut Book, end: &SessionEnd) -> Result<(), String> {
        let touched_ms = book.touched_ms(end.id).ok_or("a session ends that has ended")?;
        if end.ended_at.ms() != touched_ms {
            return Err(format!("it was touched last at {touched_ms}, and ended at {:?}", end.ended_at));
        }
        self.ended(book, end)
    }

    fn ended(&mut self, book: &mut Book, end: &SessionEnd) -> Result<(), String> {
        let seq = self.written.len() + 1;
        let life = self.sessions.get_mut(&end.id).ok_or("nobody opened it")?;
        let before = life.ended.replace((seq, end.clone()));
        match book.ended(end.id) && before.is_none() {
            true => Ok(()),
            false => Err(format!("{end:?}: it had ended before, {before:?}")),
        }
    }

    /// A session is opened, goes on or ends.
    pub(super) fn session(
        &mut self,
        book: &mut Book,
        attempt: &Attempt,
        written: &Written,
        catalog: &Catalog,
    ) -> Result<(), String> {
        let entry = &written.entry;
        book.turn(entry.at.ms());
        let session = &session_in(entry).ok_or("it is about no session")?;
        if entry.user != session.user {
            return Err(format!("it is about {:?}, and its session is {:?}'s", entry.user, session.user));
        }
        if entry.cause != Cause::Session {
            return Err(format!("its cause is {:?}", entry.cause));
        }
        match (&attempt.ask, book.touched_ms(session.id)) {
            (Ask::Open(ask), None) => {
                let code = book.session_code(&ask.user, &ask.meter, None, catalog);
                if code != Code::Allowed {
                    return Err(format!("a session is opened, and should have been refused with {code:?}"));
                }
                if session.user != ask.user || session.meter != ask.meter || session.accrued_ms != 0 {
                    return Err(format!("{session:?} is not what was asked for"));
                }
                book.opened(session, catalog)?;
                self.bind(attempt, ask.id.as_ref())?;
            }
            (_, None) => return Err(format!("{session:?} is not open")),
            (_, Some(touched_ms)) => {
                let code = self.went_on(book, (attempt, session), (written, touched_ms), catalog)?;
                // Who only touches it is told of a limit when it ends there.
                let is_told = matches!(attempt.ask, Ask::Open(_)) || ends(entry).any(|end| end.id == session.id);
                self.codes.insert(attempt.number, if is_told { code } else { Code::Allowed });
                let id = match &attempt.ask {
                    // An id is bound to the session that is open already, if what is begun in it is not refused.
                    Ask::Open(ask) if code == Code::Allowed => ask.id.as_ref(),
                    _ => None,
                };
                self.bind(attempt, id)?;
            }
        }
        let (user, meter, touches) = (session.user.clone(), session.meter.clone(), Vec::new());
        let life = self.sessions.entry(session.id).or_insert(Life { user, meter, ended: None, touches });
        let (at_ms, accrued_ms) = (entry.at.ms(), session.accrued_ms);
        life.touches.push(Touch { at_ms, accrued_ms, sender: written.sender, steady_ms: written.decided.steady_ms });
        self.add_demand(book, attempt, entry)
    }

    /// A session is charged, and goes on or ends; tells what is decided about what is begun in it.
    fn went_on(
        &mut self,
        book: &mut Book,
        (attempt, session): (&Attempt, &Session),
        (written, touched_ms): (&Written, i64),
        catalog: &Catalog,
    ) -> Result<Code, String> {
        let (entry, id) = (&written.entry, session.id);
        let touches = &self.sessions.get(&id).ok_or("nobody opened it")?.touches;
        let last = touches.last().map(|touch| (touch.at_ms, touch.accrued_ms));
        // A node measures from when it touched the session itself, if nobody charged it since.
        let is_measured =
            |touch: &&Touch| Some((touch.at_ms, touch.accrued_ms)) == last && touch.sender == written.sender;
        let measured = touches.iter().filter(is_measured).map(|touch| written.decided.steady_ms - touch.steady_ms);
        let may_have_run_ms: Vec<i64> = measured.chain([entry.at.ms() - touched_ms]).collect();
        let charged = Charged {
            accrued_ms: session.accrued_ms,
            overage_ms: session.overage_ms,
            may_have_run_ms: &may_have_run_ms,
            in_open: Some(in_open(entry, &session.meter)),
        };
        book.ran(id, &charged, catalog)?;
        let closes = matches!(attempt.ask, Ask::Touch(_, _, Some(_)));
        let (who, meter) = (&session.user, &session.meter);
        let limited = if closes { Code::Allowed } else { book.session_code(who, meter, Some(id), catalog) };
        let finishes = limited != Code::TenantSuspended && book.may_finish(id, catalog);
        let end = ends(entry).find(|end| end.id == id);
        if end.is_some() != (closes || limited != Code::Allowed && !finishes) {
            return Err(format!("{limited:?}, may finish: {finishes}, and it ends with {end:?}"));
        }
        match end {
            Some(end) => self.ended(book, end)?,
            None => book.goes_on(sessions(entry).last().unwrap_or(session), catalog)?,
        }
        Ok(limited)
    }
}
