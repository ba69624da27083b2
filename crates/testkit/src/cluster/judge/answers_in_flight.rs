//! Answers about holds, sessions and grants against what the ledger held.

use super::{
    answers::Judge,
    in_flight::{ends, sessions, settlement_id},
    numbers::decision_differs,
    replay::granted,
};
use crate::{
    auditor::{Book, holds::Settles},
    cluster::script::Ask,
};
use domain::{
    catalog::Catalog,
    decision::Code,
    entry::{Effect, Entry},
    grant::GrantId,
    op::OpError,
    session::{CloseReason, SessionId},
};
use engine::{
    requests::{Admission, OpId},
    session::{SessionAnswer, SessionAsk, Touched},
};

impl Judge<'_> {
    /// The hold that is told is the one that its entry takes.
    pub(super) fn held(&self, admission: &Admission, entry: &Entry) -> Result<(), String> {
        let taken = entry.effects.iter().find_map(|effect| match effect {
            Effect::Hold(hold) => Some(hold.id),
            _ => None,
        });
        let told = admission.hold.map(|hold| hold.id);
        if taken == told { Ok(()) } else { Err(format!("it took {taken:?}, and {told:?} is told")) }
    }

    pub(super) fn granted(&self, id: Option<&OpId>, told: GrantId, repeated: bool) -> Result<(), String> {
        let seq = match id {
            Some(id) => {
                self.once(id, repeated)?;
                self.place(id).map(|place| place.seq).ok_or("it is in the ledger")?
            }
            None => self.done()?,
        };
        let given = granted(&self.replay.written[seq - 1].entry).map(|grant| grant.id);
        match given == Some(told) && (id.is_some() || !repeated) {
            true => Ok(()),
            false => Err(format!("it gave {given:?}")),
        }
    }

    pub(super) fn opened(&self, ask: &SessionAsk, answer: &SessionAnswer) -> Result<(), String> {
        if answer.repeated {
            let id = ask.id.as_ref().ok_or("it has no id, and can't be a repeat")?;
            self.once(id, true)?;
            let place = self.place(id).ok_or("it is in the ledger")?;
            let opened = sessions(&self.replay.written[place.seq - 1].entry).next().map(|session| session.id);
            let told = answer.state.as_ref().map(|state| state.session.id);
            return if opened == told { Ok(()) } else { Err(format!("{opened:?} was opened, and {told:?} is told")) };
        }
        let decision = answer.decision.as_ref().ok_or("an open is decided")?;
        if decision.allowed {
            if let Some(id) = &ask.id {
                self.once(id, false)?;
            }
            return self.stands(answer);
        }
        self.is_explained(answer.denial_id)?;
        if ask.id.as_ref().is_some_and(|id| self.place(id).is_some_and(|place| self.was_known(place.seq))) {
            return Err("it had been opened under this id, and is refused".to_owned());
        }
        let beside = answer.state.as_ref().map(|state| state.session.id);
        if beside.is_some() && decision.charged {
            // What it ran until then is charged, though nothing more is begun in it.
            return self.stands(answer);
        }
        self.at_some_time(decision.at, |book, catalog| {
            let code = book.session_code(&ask.user, &ask.meter, beside, catalog);
            if code == Code::Allowed || code != decision.code() {
                return Some(format!("{:?} should be {code:?}", decision.code()));
            }
            match beside {
                Some(id) if !book.may_finish(id, catalog) => Some(format!("{id:?} is not finishing")),
                _ => decision_differs(book, &ask.user, decision),
            }
        })
    }

    /// Whether an entry was committed before this was asked, and longer ago than a node may not know of it.
    fn was_known(&self, seq: usize) -> bool {
        self.replay.written.get(seq - 1).is_some_and(|written| written.tick < self.attempt.tick)
    }

    pub(super) fn touched(&self, id: SessionId, touched: &Touched) -> Result<(), String> {
        match touched {
            Touched::Now(answer) => self.stands(answer),
            Touched::Before(told) => match self.replay.sessions.get(&id).and_then(|life| life.ended.as_ref()) {
                Some((seq, end)) if end == told => self.is_known_by(*seq),
                other => Err(format!("it is told to have ended, and did so {other:?}")),
            },
        }
    }

    /// A session stands as its entry says.
    fn stands(&self, answer: &SessionAnswer) -> Result<(), String> {
        let seq = self.done()?;
        let entry = &self.replay.written[seq - 1].entry;
        let state = answer.state.as_deref().ok_or("a session that was touched stands somehow")?;
        let end = ends(entry).find(|end| end.id == state.session.id);
        if state.ended.as_ref() != end {
            return Err(format!("it ended with {end:?}"));
        }
        if end.is_some_and(|end| end.reason == CloseReason::Idle) {
            return Ok(());
        }
        let session = sessions(entry).filter(|session| session.id == state.session.id).last();
        if end.is_none() && session != Some(&state.session) {
            return Err(format!("it stands as {session:?}"));
        }
        self.is_explained(answer.denial_id)?;
        let decision = answer.decision.as_ref().ok_or("what happens to a session is decided")?;
        if entry.at != decision.at {
            return Err(format!("the entry is dated {:?}", entry.at));
        }
        let expected = self.replay.codes.get(&self.attempt.number).copied().unwrap_or(Code::Allowed);
        if decision.code() != expected {
            return Err(format!("{:?} should be {expected:?}", decision.code()));
        }
        let book = self.replay.states[seq].as_ref().ok_or("there is no tenant")?;
        decision_differs(book, &state.session.user, decision).map_or(Ok(()), Err)
    }

    /// An operation that has no meaning (any more) had none at some time that the answer may be about.
    pub(super) fn has_no_meaning(&self, error: &OpError) -> Result<(), String> {
        let was_so = |is_so: &dyn Fn(&mut Book, &Catalog) -> bool| self.was_so_then(is_so);
        let is_right = match (error, &self.attempt.ask) {
            (OpError::UnknownHold, Ask::Settle(_, id, _)) if self.place(&settlement_id(*id)).is_some() => false,
            (OpError::UnknownHold, Ask::Settle(_, id, how)) => {
                was_so(&|book, catalog| book.settle(*id, how, book.now_ms(), catalog) == Settles::Unknown)
            }
            (OpError::HoldExceeded { .. }, Ask::Settle(_, id, how)) => {
                was_so(&|book, catalog| book.settle(*id, how, book.now_ms(), catalog) == Settles::Exceeded)
            }
            (OpError::UnknownGrant, Ask::Revoke(_, id)) => {
                was_so(&|book, _| book.grants().all(|(known, _)| known != *id))
            }
            (OpError::GrantOver, Ask::Grant(_, grant, _)) => {
                grant.expires_at.is_some_and(|end| was_so(&|book, _| end.ms() <= book.now_ms()))
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("{error} is no answer to this")) }
    }

    /// Whether something was so in one of the states that an answer may be about, at one of the instants it may.
    fn was_so_then(&self, is_so: &dyn Fn(&mut Book, &Catalog) -> bool) -> bool {
        let jitter_ms = self.case.cluster.plan.jitter_ms;
        let instants = [self.attempt.at_ms - jitter_ms, self.attempt.at_ms, self.end.at_ms, self.end.at_ms + jitter_ms];
        let states = super::numbers::states(self.case, self.attempt, self.end, self.replay);
        let catalogs = (self.attempt.catalog..=self.end.catalog).filter_map(|version| self.case.catalog(version).ok());
        let catalogs: Vec<&Catalog> = catalogs.collect();
        let mut books = states.filter_map(|number| self.replay.states.get(number)?.clone());
        books.any(|book| {
            instants.iter().any(|at_ms| {
                let mut book = book.clone();
                book.turn((*at_ms).max(book.now_ms()));
                let known = catalogs.iter().filter(|catalog| catalog.plans.contains_key(&book.plan));
                known.into_iter().any(|catalog| is_so(&mut book.clone(), catalog))
            })
        })
    }
}
