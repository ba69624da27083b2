//! Sessions: how one is opened, touched and closed, and how it stands.

use super::{
    check::{ShadowShape, UpgradeShape, bad_name, denied_by, known_meter, message, op_id, upgrade},
    in_flight_id::session_text,
    limit::{LimitShape, Time},
};
use crate::{problem::Problem, rescue};
use domain::{
    catalog::Catalog,
    id::{TenantId, UserId},
    session::{SESSION_KEY_MAX_BYTES, Session, SessionEnd, SessionId, SessionState},
};
use engine::session::{SessionAnswer, SessionAsk};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A session to open.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionRequest)]
pub struct SessionRequest<'a> {
    /// Whose.
    #[serde(borrow)]
    #[schema(example = "acme")]
    pub tenant_id: Cow<'a, str>,
    /// The user, for limits that are the user's own.
    #[serde(borrow, default)]
    pub user_id: Option<Cow<'a, str>>,
    /// The `duration` meter that it feeds.
    #[serde(borrow)]
    #[schema(example = "conversation_time")]
    pub meter: Cow<'a, str>,
    /// What you call it, such as the id of a conversation: at most 200 bytes. Under a key that is open, the one that is
    /// open is touched. Without a key it is one of its own.
    #[serde(borrow, default)]
    pub key: Option<Cow<'a, str>>,
    /// The idempotency key; the same thing as the header `Idempotency-Key`.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
}

impl SessionRequest<'_> {
    /// Whose it is to be.
    ///
    /// # Errors
    /// A problem where that can't be a tenant's name.
    pub fn tenant(&self) -> Result<TenantId, Problem> {
        TenantId::new(&self.tenant_id).map_err(|error| bad_name("tenant_id", &error))
    }

    /// The session that is asked for. `header_id` is the `Idempotency-Key` header, `fresh` a number that nobody has drawn.
    ///
    /// # Errors
    /// A problem that names what is wrong.
    pub fn to_ask(&self, header_id: Option<&str>, fresh: u128, catalog: &Catalog) -> Result<SessionAsk, Problem> {
        let tenant = self.tenant()?;
        let user = self.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?;
        if let Some(key) = self.key.as_deref()
            && (key.is_empty() || key.len() > SESSION_KEY_MAX_BYTES || key.chars().any(char::is_control))
        {
            return Err(rescue::INVALID_BODY.problem(format!(
                "\"key\" must have 1 to {SESSION_KEY_MAX_BYTES} bytes and no control characters; leave it out for a \
                 session of its own."
            )));
        }
        Ok(SessionAsk {
            tenant,
            user,
            meter: known_meter(catalog, &self.meter)?,
            key: self.key.as_deref().map(Into::into),
            id: op_id(self.id.as_deref(), header_id)?,
            fresh,
            enforce: None,
            dimensions: Vec::new(),
        })
    }
}

/// How a session is to be closed.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CloseRequest)]
pub struct CloseRequest {
    /// Whether an administrator closes it, and not its caller; needs an admin key.
    #[serde(default)]
    pub force: bool,
}

/// How a session stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Session)]
pub struct SessionShape<'a> {
    /// Its name; absent where none was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ses_0123456789abcdef0123456789abcdef_61636d65")]
    pub session_id: Option<String>,
    /// `open`, `finishing` (a limit is reached, and what runs may end) or `closed`; absent where none was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "open")]
    pub status: Option<&'static str>,
    /// Why it ended: `closed`, `idle`, `limit` or `forced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Whether the caller may go on.
    pub allowed: bool,
    /// `allowed`, or why not.
    #[schema(example = "allowed")]
    pub code: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
    /// The limit that refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<&'a str>,
    /// Whose.
    pub tenant_id: &'a str,
    /// What its caller calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// What was charged for it, milliseconds.
    pub accrued_ms: i64,
    /// What of that was past a limit, milliseconds; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overage_ms: Option<i64>,
    /// How many seconds it may still run if nobody else uses the same limits, rounded down; null is without end.
    pub may_run_s: Option<i64>,
    /// The same in milliseconds.
    pub may_run_ms: Option<i64>,
    /// The limit that ends it then.
    pub limited_by: Option<&'a str>,
    /// Within how many seconds it should be touched, so that what it runs stays held ahead; rounded down.
    pub touch_within_s: i64,
    /// The same in milliseconds.
    pub touch_within_ms: i64,
    /// When it was opened; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub opened_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Time>,
    /// The limits on its meter, and on the one that counts sessions. Empty where it ended before.
    pub limits: Vec<LimitShape<'a>>,
    /// Where the refusal can be read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
    /// Seconds until a repeat is worth it; absent where waiting does not help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// What would have been refused, had the limit been hard or enforcement on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowShape<'a>>,
    /// The cheapest plan under which it would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeShape<'a>>,
}

impl<'a> SessionShape<'a> {
    /// The shape of what the engine answers.
    pub fn of(answer: &'a SessionAnswer, catalog: &Catalog) -> Self {
        let mut shape = match &answer.state {
            Some(state) => Self::of_state(&answer.tenant, state),
            None => Self::nothing(&answer.tenant),
        };
        let Some(decision) = &answer.decision else { return shape };
        let denial = decision.denial.as_deref();
        shape.allowed = decision.allowed;
        shape.code = decision.code().word();
        shape.denied_by = denial.and_then(|denial| denied_by(denial, decision));
        if let Some(denial) = denial {
            shape.message = message(denial, decision, catalog);
            shape.upgrade = upgrade(denial, &answer.tenant, decision, catalog);
        }
        let limited_by = answer.state.as_ref().and_then(|state| state.limited_by);
        shape.limited_by = limited_by.and_then(|place| decision.limits.get(place)).map(|state| &*state.name);
        shape.limits = decision.limits.iter().map(LimitShape::of).collect();
        shape.denial_id = answer.denial_id.map(|id| id.to_string());
        shape.retry_after_s = decision.retry_after_s();
        shape.shadow = decision.shadow.as_ref().map(|shadow| ShadowShape {
            code: shadow.code.word(),
            denied_by: denied_by(shadow, decision),
            message: message(shadow, decision, catalog),
        });
        shape
    }

    /// The shape of a session that ended before.
    pub fn ended(tenant: &'a TenantId, end: &'a SessionEnd) -> Self {
        Self { key: Some(&end.key), opened_at: Some(Time(end.opened_at)), ..Self::nothing(tenant) }
            .with_end(tenant, end)
    }

    fn of_state(tenant: &'a TenantId, state: &'a SessionState) -> Self {
        let session = &state.session;
        let shape = Self {
            session_id: Some(session_text(tenant, session.id)),
            status: Some(status(session)),
            key: Some(&session.key),
            accrued_ms: session.accrued_ms,
            overage_ms: some(session.overage_ms),
            may_run_s: state.may_run_ms.map(|ms| ms / 1_000),
            may_run_ms: state.may_run_ms,
            touch_within_s: state.touch_within_ms() / 1_000,
            touch_within_ms: state.touch_within_ms(),
            opened_at: Some(Time(session.opened_at)),
            ..Self::nothing(tenant)
        };
        match &state.ended {
            Some(end) => shape.with_end(tenant, end),
            None => shape,
        }
    }

    fn with_end(self, tenant: &TenantId, end: &SessionEnd) -> Self {
        Self {
            session_id: Some(session_text(tenant, end.id)),
            status: Some("closed"),
            reason: Some(end.reason.word()),
            accrued_ms: end.accrued_ms,
            overage_ms: some(end.overage_ms),
            may_run_s: Some(0),
            may_run_ms: Some(0),
            touch_within_s: 0,
            touch_within_ms: 0,
            ended_at: Some(Time(end.ended_at)),
            ..self
        }
    }

    fn nothing(tenant: &'a TenantId) -> Self {
        Self {
            session_id: None,
            status: None,
            reason: None,
            allowed: true,
            code: "allowed",
            message: Cow::Borrowed("Allowed."),
            denied_by: None,
            tenant_id: tenant.as_str(),
            key: None,
            accrued_ms: 0,
            overage_ms: None,
            may_run_s: Some(0),
            may_run_ms: Some(0),
            limited_by: None,
            touch_within_s: 0,
            touch_within_ms: 0,
            opened_at: None,
            ended_at: None,
            limits: Vec::new(),
            denial_id: None,
            retry_after_s: None,
            shadow: None,
            upgrade: None,
        }
    }
}

fn status(session: &Session) -> &'static str {
    if session.is_finishing { "finishing" } else { "open" }
}

fn some(ms: i64) -> Option<i64> {
    (ms > 0).then_some(ms)
}

/// The answer to a touch of a session that has ended: why and when.
pub fn session_closed(tenant: &TenantId, end: &SessionEnd) -> Problem {
    let (at, reason) = (end.ended_at.rfc3339(), end.reason.word());
    rescue::SESSION_CLOSED
        .problem(format!("The session ended at {at} ({reason}); open a new one with POST /api/v1/sessions."))
        .with("session_id", session_text(tenant, end.id))
        .with("reason", reason)
        .with("ended_at", at)
        .with("accrued_ms", end.accrued_ms)
}

/// The answer where there is, and was, no such session.
pub fn unknown_session() -> Problem {
    rescue::UNKNOWN_SESSION
        .problem("There is no such session: the id is not one that was given out, or the session ended long ago.")
}

/// A session that is open.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OpenSession)]
pub struct OpenSessionShape<'a> {
    /// Its name.
    pub session_id: String,
    /// `open` or `finishing`.
    pub status: &'static str,
    /// What its caller calls it.
    pub key: &'a str,
    /// The meter that it feeds.
    pub meter: &'a str,
    /// Whose, if a user was named.
    pub user_id: Option<&'a str>,
    /// When it was opened.
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Time,
    /// When it was touched last: what ran until then is charged.
    #[schema(value_type = String, format = DateTime)]
    pub touched_at: Time,
    /// When it has ended if nobody touches it.
    #[schema(value_type = String, format = DateTime)]
    pub idle_at: Time,
    /// What was charged for it, milliseconds.
    pub accrued_ms: i64,
    /// What of that was past a limit, milliseconds; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overage_ms: Option<i64>,
    /// What is held ahead for it, milliseconds.
    pub held_ms: i64,
}

impl<'a> OpenSessionShape<'a> {
    /// The shape of an open session.
    pub fn of(tenant: &TenantId, session: &'a Session) -> Self {
        Self {
            session_id: session_text(tenant, session.id),
            status: status(session),
            key: &session.key,
            meter: session.meter.as_str(),
            user_id: session.user.as_ref().map(UserId::as_str),
            opened_at: Time(session.opened_at),
            touched_at: Time(session.touched_at),
            idle_at: Time(session.idle_at()),
            accrued_ms: session.accrued_ms,
            overage_ms: some(session.overage_ms),
            held_ms: session.held_ms,
        }
    }
}

/// A session's place in a list, which is in order of its number.
pub fn place_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}

/// The place that such a text says.
pub fn parse_place(text: &str) -> Option<SessionId> {
    u128::from_str_radix(text, 16).ok().map(SessionId).filter(|id| place_text(*id) == text)
}
