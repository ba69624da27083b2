//! Time while a request runs: its session is opened before the request goes on, touched while the response streams, and
//! touched or closed when it is over, whoever ended it. At its limit the stream is cut, or may finish, as the plan says.

mod keeper;
mod texts;

pub(crate) use keeper::{Keeper, Stream};

use crate::{ahead, routes::Matched, tap::StreamHandle};
use domain::{
    catalog::Enforce,
    decision::Decision,
    id::{MeterKey, TenantId, UserId},
    op::Dimensions,
    session::CloseReason,
};
use engine::{
    ports::{Commit, LedgerError},
    requests::{Admission, EngineError},
    session::{SessionAnswer, SessionAsk},
};
use http::{HeaderMap, header};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};
use wire::catalog::{RouteSession, SessionKey};

/// Longest key of a session that is taken from a request, in bytes. A longer one is none.
const KEY_MAX_BYTES: usize = domain::session::SESSION_KEY_MAX_BYTES;

/// The session that a request asks for.
#[derive(Debug, Clone)]
pub(crate) struct SessionDemand {
    pub(crate) tenant: TenantId,
    pub(crate) user: Option<UserId>,
    pub(crate) meter: MeterKey,
    /// What makes several requests one session; `None` is a session of its own.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) enforce: Option<Enforce>,
    pub(crate) dimensions: Dimensions,
}

/// The key of the session that a request runs in, where the request says it: its head, or its body as far as that was
/// looked at.
pub(crate) fn key_of(
    rules: &RouteSession,
    matched: &Matched<'_>,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> Option<Arc<str>> {
    let text = match &rules.key {
        SessionKey::Stream => None,
        SessionKey::Body(pointer) => ahead::field(body?, pointer).map(Cow::into_owned),
        SessionKey::Header(name) => headers.get(name)?.to_str().ok().map(str::to_owned),
        SessionKey::Cookie(name) => cookie(headers, name),
        SessionKey::Capture(name) => matched.capture(name).map(str::to_owned),
    };
    key(&text?)
}

/// A key, if it can be one.
fn key(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= KEY_MAX_BYTES && !text.chars().any(char::is_control);
    fits.then(|| text.into())
}

/// A cookie of this name (RFC 6265, section 4.2). Of several the first.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"').to_owned())
}

/// What came of asking for a session.
pub(crate) enum Opened {
    /// The request may go on in it.
    Open(Box<Running>),
    /// It may not.
    Refused(Box<Admission>),
}

/// A request runs in a session.
pub(crate) struct Running {
    pub(crate) decision: Decision,
    pub(crate) catalog_pin: Option<u32>,
    /// Resolves when it is durable that it was opened.
    pub(crate) commit: Commit,
    pub(crate) guard: SessionGuard,
}

/// Opens the session that a request asks for, or goes on in the one that is open.
///
/// # Errors
/// [`EngineError`]; then nothing has changed.
pub(crate) async fn open(keeper: &Arc<Keeper>, demand: SessionDemand) -> Result<Opened, EngineError> {
    let known = keeper.clone();
    // In a task of its own: who goes away meanwhile leaves a guard behind that ends what was opened.
    match keeper.run(async move { begin(&known, &demand).await }).await {
        Ok(opened) => opened,
        Err(_) => Err(EngineError::Ledger(LedgerError::Unwritable("the session could not be opened".into()))),
    }
}

async fn begin(keeper: &Arc<Keeper>, demand: &SessionDemand) -> Result<Opened, EngineError> {
    let ask = SessionAsk {
        tenant: demand.tenant.clone(),
        user: demand.user.clone(),
        meter: demand.meter.clone(),
        key: demand.key.clone(),
        id: None,
        fresh: keeper.fresh(),
        enforce: demand.enforce,
        dimensions: demand.dimensions.clone(),
    };
    let mut answer = keeper.engine().open_session(&ask).await?;
    let (state, decision) = (answer.state.take(), answer.decision.take());
    let (Some(decision), commit) = (decision, std::mem::replace(&mut answer.commit, Commit::Done)) else {
        return Err(domain::op::OpError::UnknownSession.into());
    };
    match state {
        Some(state) if decision.allowed && state.ended.is_none() => {
            let is_own = demand.key.is_none();
            let stream = keeper.stream(demand, &state, &decision, answer.catalog_pin).await;
            let guard = SessionGuard { keeper: keeper.clone(), stream, is_own };
            Ok(Opened::Open(Box::new(Running { decision, catalog_pin: answer.catalog_pin, commit, guard })))
        }
        _ => Ok(Opened::Refused(Box::new(admission(demand, answer, decision, commit)))),
    }
}

/// A refusal as the answers to requests know it.
fn admission(demand: &SessionDemand, answer: SessionAnswer, decision: Decision, commit: Commit) -> Admission {
    Admission {
        tenant: demand.tenant.clone(),
        user: demand.user.clone(),
        decision,
        denial_id: answer.denial_id,
        repeated: false,
        outage: false,
        hold: None,
        charged: None,
        dimensions: demand.dimensions.clone(),
        leased: false,
        catalog_pin: answer.catalog_pin,
        commit,
    }
}

/// Held for as long as the request runs. Dropped, the session has been used until then.
pub(crate) struct SessionGuard {
    keeper: Arc<Keeper>,
    stream: Arc<Stream>,
    /// Whether the session ends with the request.
    is_own: bool,
}

impl SessionGuard {
    /// The stream that runs.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Speaks into the response, where that is a stream of events.
    pub(crate) fn handle(&self) -> StreamHandle {
        self.stream.handle()
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let close = self.is_own.then_some(CloseReason::Closed);
        self.keeper.end(&self.stream, close);
    }
}
