//! Sessions: opened, touched, closed, forgotten.

use super::{Known, Simulation};
use crate::{
    auditor::sessions::Charged,
    catalog::meter,
    workload::{self, TALK},
    world::tenant,
};
use domain::{
    decision::Code,
    op::OpError,
    session::{CloseReason, SessionId},
};
use engine::{
    requests::EngineError,
    session::{SessionAnswer, SessionAsk, SessionTouch, Touched},
};

/// How a session is gone on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// Something new begins in it.
    Asked,
    Touched,
    Closed,
}

impl Simulation {
    pub(super) async fn open(&mut self, customer: usize) -> Result<(), String> {
        let name = self.accounts[customer].name.clone();
        let ask = workload::session(&mut self.random, &name, self.operations);
        let now_ms = self.now_ms();
        self.accounts[customer].book_mut().turn(now_ms);
        let book = self.accounts[customer].book();
        let known = ask.key.as_ref().and_then(|key| book.session_named(&ask.user, key));
        let answer = self.world.engine.open_session(&ask).await.map_err(|error| format!("{ask:?}: {error}"))?;
        match known {
            Some(id) => self.went_on(customer, id, answer, Goes::Asked),
            None => self.opened(customer, &ask, answer),
        }
    }

    fn opened(&mut self, customer: usize, ask: &SessionAsk, answer: SessionAnswer) -> Result<(), String> {
        let mut book = self.accounts[customer].book().clone();
        let code = book.session_code(&ask.user, &ask.meter, None, &self.catalog);
        let decision = answer.decision.as_ref().ok_or("an open is decided")?;
        if decision.code() != code || answer.state.is_some() != (code == Code::Allowed) || answer.repeated {
            return Err(format!("{ask:?} was answered {answer:?}, not {code:?}"));
        }
        let Some(state) = answer.state else {
            book.refused_time(&ask.user, &ask.meter, self.slice_ms());
            *self.accounts[customer].book_mut() = book;
            return Ok(());
        };
        if state.was_open {
            return Err(format!("{state:?} was not open"));
        }
        book.opened(&state.session, &self.catalog)?;
        let operation = self.push(customer, book);
        self.accounts[customer].sessions.push(state.session.id);
        if ask.id.is_some() {
            self.accounts[customer].known.push((operation, Known::Open(ask.clone())));
        }
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
    }

    /// A session is opened again under the id that opened it, or another one is.
    pub(super) async fn open_again(
        &mut self,
        customer: usize,
        mut ask: SessionAsk,
        differs: bool,
    ) -> Result<(), String> {
        if differs {
            ask.key = Some("another".into());
        }
        let now_ms = self.now_ms();
        self.accounts[customer].book_mut().turn(now_ms);
        let engine = self.world.engine.clone();
        let answer = self.drive(async { Ok(engine.open_session(&ask).await) }).await;
        match answer.map_err(|error| error.to_string())? {
            Err(EngineError::IdempotencyConflict { .. }) if differs => {}
            Err(EngineError::Ledger(error)) => return self.settled::<()>(Err(error.into())).await.map(drop),
            Ok(SessionAnswer { repeated: true, state: Some(state), .. }) if !differs => {
                let is_open = self.accounts[customer].book().is_open(state.session.id);
                if state.ended.is_none() != is_open {
                    return Err(format!("{state:?} is told of a session that is open: {is_open}"));
                }
            }
            other => return Err(format!("{ask:?}, told again, was answered {other:?}")),
        }
        self.settled(Ok(())).await.map(drop)
    }

    pub(super) async fn touch(&mut self, customer: usize) -> Result<(), String> {
        if self.accounts[customer].sessions.is_empty() {
            return Ok(());
        }
        let id = *self.random.pick(&self.accounts[customer].sessions);
        let close = self.random.percent(30).then(|| *self.random.pick(&[CloseReason::Closed, CloseReason::Forced]));
        let now_ms = self.now_ms();
        self.accounts[customer].book_mut().turn(now_ms);
        let is_open = self.accounts[customer].book().is_open(id);
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        if is_open {
            let touched = engine.touch_session(&name, SessionTouch { id, close, enforce: None }).await;
            return match touched.map_err(|error| format!("{id:?} is open: {error}"))? {
                Touched::Now(answer) => {
                    let goes = if close.is_some() { Goes::Closed } else { Goes::Touched };
                    self.went_on(customer, id, *answer, goes)
                }
                Touched::Before(end) => Err(format!("{end:?} had not ended")),
            };
        }
        // It may wait for the commit of what ended it.
        let touch = async { Ok(engine.touch_session(&name, SessionTouch { id, close, enforce: None }).await) };
        let touched = self.drive(touch).await.map_err(|error| error.to_string())?;
        match touched {
            Ok(Touched::Before(_)) | Err(EngineError::Op(OpError::UnknownSession)) => {}
            Ok(Touched::Now(answer)) if answer.state.as_ref().is_some_and(|state| state.ended.is_some()) => {}
            Err(EngineError::Ledger(error)) => return self.settled::<()>(Err(error.into())).await.map(drop),
            other => return Err(format!("{id:?} has ended, and is answered {other:?}")),
        }
        self.settled(Ok(())).await.map(drop)
    }

    /// A session that was open ran until now, and goes on or ends.
    fn went_on(&mut self, customer: usize, id: SessionId, answer: SessionAnswer, goes: Goes) -> Result<(), String> {
        let mut book = self.accounts[customer].book().clone();
        let state = answer.state.as_deref().ok_or("a session that is open stands somehow")?;
        if state.session.id != id || !state.was_open {
            return Err(format!("{state:?} is not {id:?}, which is open"));
        }
        let ran_ms = self.now_ms() - book.touched_ms(id).ok_or("it is open")?;
        let session = &state.session;
        let charged = Charged {
            accrued_ms: session.accrued_ms,
            overage_ms: session.overage_ms,
            may_have_run_ms: &[ran_ms],
            in_open: None,
        };
        book.ran(id, &charged, &self.catalog)?;
        let (who, meter) = (&session.user, &session.meter);
        let closes = goes == Goes::Closed;
        let limited = if closes { Code::Allowed } else { book.session_code(who, meter, Some(id), &self.catalog) };
        let finishes = limited != Code::TenantSuspended && book.may_finish(id, &self.catalog);
        // What runs may finish; what is new is refused.
        let code = if finishes && goes == Goes::Touched { Code::Allowed } else { limited };
        let decision = answer.decision.as_ref().ok_or("a touch is decided")?;
        let ends = closes || limited != Code::Allowed && !finishes;
        if decision.code() != code || state.ended.is_some() != ends {
            return Err(format!("{id:?} was answered {answer:?}, not {code:?}"));
        }
        if code != Code::Allowed {
            book.refused_time(who, meter, self.slice_ms());
        }
        if ends {
            book.ended(id);
        } else {
            book.goes_on(session, &self.catalog)?;
        }
        let operation = self.push(customer, book);
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
    }

    fn slice_ms(&self) -> i64 {
        self.catalog.meters[&meter(TALK)].session.debit_interval_ms
    }
}
