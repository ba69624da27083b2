//! Sessions: opened, touched, closed, forgotten.

use super::Simulation;
use crate::{
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

impl Simulation {
    pub(super) async fn open(&mut self, customer: usize) -> Result<(), String> {
        let key = *self.random.pick(&["one", "two", "three"]);
        let user = workload::who(&mut self.random);
        let ask = SessionAsk {
            tenant: tenant(&self.accounts[customer].name),
            user: user.clone(),
            meter: meter(TALK),
            key: Some(key.into()),
            id: None,
            fresh: u128::from(self.operations) << 32 | 1,
            enforce: None,
            dimensions: Vec::new(),
        };
        let now_ms = self.now_ms();
        self.accounts[customer].book_mut().turn(now_ms);
        let known = self.accounts[customer].book().session_named(&user, key);
        let answer = self.world.engine.open_session(&ask).await.map_err(|error| format!("{ask:?}: {error}"))?;
        match known {
            Some(id) => self.went_on(customer, id, answer, false),
            None => self.opened(customer, &ask, answer),
        }
    }

    fn opened(&mut self, customer: usize, ask: &SessionAsk, answer: SessionAnswer) -> Result<(), String> {
        let mut book = self.accounts[customer].book().clone();
        let code = book.session_code(&ask.user, &ask.meter, false, &self.catalog);
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
        book.opened(&state.session);
        let operation = self.push(customer, book);
        self.accounts[customer].sessions.push(state.session.id);
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
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
                Touched::Now(answer) => self.went_on(customer, id, *answer, close.is_some()),
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
    fn went_on(&mut self, customer: usize, id: SessionId, answer: SessionAnswer, closes: bool) -> Result<(), String> {
        let mut book = self.accounts[customer].book().clone();
        let state = answer.state.as_deref().ok_or("a session that is open stands somehow")?;
        if state.session.id != id || !state.was_open {
            return Err(format!("{state:?} is not {id:?}, which is open"));
        }
        book.ran(id, state.session.accrued_ms)?;
        let (who, meter) = (&state.session.user, &state.session.meter);
        let code = if closes { Code::Allowed } else { book.session_code(who, meter, true, &self.catalog) };
        let decision = answer.decision.as_ref().ok_or("a touch is decided")?;
        let ends = closes || code != Code::Allowed;
        if decision.code() != code || state.ended.is_some() != ends {
            return Err(format!("{id:?} was answered {answer:?}, not {code:?}"));
        }
        if code != Code::Allowed {
            book.refused_time(who, meter, self.slice_ms());
        }
        if ends {
            book.ended(id);
        } else {
            book.goes_on(&state.session);
        }
        let operation = self.push(customer, book);
        self.waiting.push((customer, operation, answer.commit));
        self.poll_commits()
    }

    fn slice_ms(&self) -> i64 {
        self.catalog.meters[&meter(TALK)].session.debit_interval_ms
    }
}
