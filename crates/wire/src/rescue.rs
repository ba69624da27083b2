//! The one table from outcomes to HTTP: every kind of problem there is, and which outcome becomes which.

use crate::problem::{Kind, Problem};
use domain::{
    cost::CostError,
    decision::{Code, Denial, LimitState},
    op::OpError,
};
use engine::{ports::LedgerError, requests::EngineError};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal $title:literal;)*) => {
        $($(#[$doc])* pub const $name: Kind = Kind { code: $code, status: $status, title: $title };)*
        /// Every kind of problem, for documents and tests.
        pub const ALL_KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    /// The body is not JSON, or not UTF-8.
    MALFORMED_JSON = 400 "malformed_json" "The body is not valid JSON";
    /// A header or a query parameter can't be read.
    INVALID_REQUEST = 400 "invalid_request" "The request can't be read";
    /// The body is JSON, but not of the shape that is asked for.
    INVALID_BODY = 422 "invalid_body" "The body does not have the expected shape";
    /// No credentials, or ones that are not valid.
    UNAUTHENTICATED = 401 "unauthenticated" "Credentials are missing or not valid";
    /// Valid credentials that may not do this.
    FORBIDDEN = 403 "forbidden" "These credentials may not do this";
    /// Nothing at this path.
    NOT_FOUND = 404 "not_found" "There is nothing here";
    /// Something is at this path, but not for this method.
    METHOD_NOT_ALLOWED = 405 "method_not_allowed" "This method is not offered here";
    /// The client did not send its request in time.
    REQUEST_TIMEOUT = 408 "request_timeout" "The request took too long";
    /// The body is larger than is accepted.
    PAYLOAD_TOO_LARGE = 413 "payload_too_large" "The body is too large";
    /// The body's media type is not one that is accepted here.
    UNSUPPORTED_MEDIA_TYPE = 415 "unsupported_media_type" "This media type is not accepted here";
    /// A defect of ours.
    INTERNAL = 500 "internal_error" "Something went wrong on our side";

    /// No such tenant.
    UNKNOWN_TENANT = 404 "unknown_tenant" "The tenant is unknown";
    /// No such denial.
    UNKNOWN_DENIAL = 404 "unknown_denial" "The denial is unknown";
    /// No such key.
    UNKNOWN_KEY = 404 "unknown_key" "The API key is unknown";
    /// No such meter in the catalog.
    UNKNOWN_METER = 422 "unknown_meter" "The catalog has no such meter";
    /// No such feature in the catalog.
    UNKNOWN_FEATURE = 422 "unknown_feature" "The catalog has no such feature";
    /// No such plan in the catalog.
    UNKNOWN_PLAN = 422 "unknown_plan" "The catalog has no such plan";
    /// No such price list in the catalog.
    UNKNOWN_COST = 422 "unknown_cost" "The catalog has no such cost table";
    /// A value (or the lack of one) that has no price.
    UNKNOWN_PRICE = 422 "unknown_price" "This has no price";
    /// A property that the price list does not look at.
    UNKNOWN_PROPERTY = 422 "unknown_property" "The cost table has no such property";
    /// A quantity that the price list has no prices for, or none at all.
    UNKNOWN_QUANTITY = 422 "unknown_quantity" "The cost table has no such quantity";
    /// Neither meter nor feature nor charges nor a cost.
    NOTHING_ASKED = 422 "nothing_asked" "Nothing was asked for";
    /// A negative amount where a meter only adds up.
    NEGATIVE_AMOUNT = 422 "negative_amount" "This amount must not be negative";
    /// Beyond 2^53 - 1.
    AMOUNT_TOO_LARGE = 422 "amount_too_large" "The amount is too large";
    /// Not an integer.
    INVALID_AMOUNT = 422 "invalid_amount" "The amount is not an integer";
    /// A level set on a counter.
    NOT_A_GAUGE = 422 "not_a_gauge" "Only gauges can be set";
    /// A window named for a gauge.
    GAUGE_HAS_NO_WINDOW = 422 "gauge_has_no_window" "A gauge has no window";
    /// The account can't hold that much.
    ACCOUNT_OVERFLOW = 422 "account_overflow" "The account can't hold that much";
    /// An override that does not fit its meter.
    WINDOW_DOES_NOT_FIT = 422 "window_does_not_fit" "The window does not fit the meter";
    /// Shares that have no meaning.
    INVALID_SHARES = 422 "invalid_shares" "These shares have no meaning";
    /// Too many overrides.
    TOO_MANY_OVERRIDES = 422 "too_many_overrides" "The tenant has too many overrides";
    /// An event older than is accepted.
    EVENT_TOO_LATE = 422 "event_too_late" "The event is too old";
    /// An event too far ahead of the server's clock.
    EVENT_TOO_EARLY = 422 "event_too_early" "The event lies in the future";
    /// An event without an attribute it must have, or with one that can't be read.
    INVALID_EVENT = 422 "invalid_event" "The event can't be read";
    /// An event whose `type` no meter reads.
    UNKNOWN_EVENT_TYPE = 422 "unknown_event_type" "No meter reads events of this type";
    /// A dimension's value that the catalog does not accept.
    INVALID_DIMENSION = 422 "invalid_dimension" "A dimension has a value that is not accepted";
    /// More events than a batch may hold.
    BATCH_TOO_LARGE = 413 "batch_too_large" "The batch holds too many events";
    /// Another payload under the same id.
    IDEMPOTENCY_CONFLICT = 409 "idempotency_conflict" "The id was used for another payload";
    /// Days are closed one at a time.
    SNAPSHOT_RUNNING = 409 "snapshot_running" "A day is being closed";
    /// Two ids for one operation.
    TWO_IDS = 422 "two_ids" "The body's id and the Idempotency-Key differ";
    /// A hold that can't be taken so.
    INVALID_HOLD = 422 "invalid_hold" "The hold can't be taken so";
    /// More holds or sessions than a tenant may have at once.
    TOO_MANY_IN_FLIGHT = 429 "too_many_in_flight" "The tenant has too much in flight";
    /// No hold to settle.
    UNKNOWN_HOLD = 404 "unknown_hold" "There is no such hold";
    /// A hold that was settled in another way.
    HOLD_SETTLED = 409 "hold_settled" "The hold was settled otherwise";
    /// A meter that is not held.
    NOT_HELD = 422 "not_held" "The hold does not hold this meter";
    /// More than was held.
    HOLD_EXCEEDED = 409 "hold_exceeded" "More was used than was held";
    /// A session on a meter that has none.
    NOT_A_DURATION = 422 "not_a_duration" "Only durations have sessions";
    /// No such grant.
    UNKNOWN_GRANT = 404 "unknown_grant" "There is no such grant";
    /// Too many grants.
    TOO_MANY_GRANTS = 422 "too_many_grants" "The tenant has too many grants";
    /// No such session.
    UNKNOWN_SESSION = 404 "unknown_session" "There is no such open session";
    /// A session that goes on after it has ended.
    SESSION_CLOSED = 409 "session_closed" "The session has ended";
    /// Tenants are on plans a new catalog lacks.
    PLANS_IN_USE = 409 "plans_in_use" "Tenants are on plans that the catalog lacks";
    /// A stretch of time of which history is not kept any more, at least not so fine.
    HISTORY_NOT_KEPT = 422 "history_not_kept" "History is not kept that far back";
    /// History is folded behind what is recorded, and has not caught up.
    HISTORY_BEHIND = 503 "history_behind" "History has not caught up yet";
    /// More buckets or series than an answer may have.
    HISTORY_TOO_WIDE = 422 "history_too_wide" "This is too much history for one answer";

    /// No such version.
    UNKNOWN_CATALOG = 422 "unknown_catalog" "There is no such catalog";
    /// A version that this program can't read.
    CATALOG_UNREADABLE = 503 "catalog_unreadable" "A catalog can't be read";
    /// A catalog that is not valid.
    INVALID_CATALOG = 422 "invalid_catalog" "The catalog is not valid";

    /// More waits for the ledger than it can take.
    OVERLOADED = 503 "overloaded" "The server is overloaded";
    /// The ledger can't be read or written.
    LEDGER_UNAVAILABLE = 503 "ledger_unavailable" "The ledger is not available";
    /// The server is shutting down, or took too long.
    UNAVAILABLE = 503 "unavailable" "The server can't answer now";

    /// A path that an upstream might read in another way than the gateway did.
    AMBIGUOUS_PATH = 400 "ambiguous_path" "The path can be read in more than one way";
    /// A message whose end could be read in two ways, or that names no host.
    AMBIGUOUS_MESSAGE = 400 "ambiguous_message" "The request can be read in more than one way";
    /// The path names another tenant than the credentials.
    TENANT_MISMATCH = 403 "tenant_mismatch" "These credentials belong to another tenant";
    /// The path names another user than the credentials.
    USER_MISMATCH = 403 "user_mismatch" "These credentials belong to another user";
    /// No connection to the upstream could be made.
    UPSTREAM_UNREACHABLE = 502 "upstream_unreachable" "The upstream can't be reached";
    /// The upstream broke off before it answered.
    UPSTREAM_FAILED = 502 "upstream_failed" "The upstream did not answer";
    /// The upstream took too long.
    UPSTREAM_TIMEOUT = 504 "upstream_timeout" "The upstream took too long to answer";

    /// The tenant is suspended.
    TENANT_SUSPENDED = 402 "tenant_suspended" "The tenant is suspended";
    /// The plan lacks a feature.
    FEATURE_NOT_IN_PLAN = 402 "feature_not_in_plan" "The plan does not have this feature";
    /// A gauge is at its limit.
    GAUGE_LIMIT_REACHED = 402 "gauge_limit_reached" "As many as the plan allows are in use";
    /// A long window's quota is used up.
    PERIOD_LIMIT_REACHED = 429 "period_limit_reached" "The plan's quota is used up";
    /// A session is as long as it may be.
    SESSION_LIMIT_REACHED = 429 "session_limit_reached" "The session is as long as the plan allows";
    /// As many sessions are open as may be.
    CONCURRENCY_LIMIT_REACHED = 429 "concurrency_limit_reached" "As many sessions as the plan allows are open";
    /// The rate is used up.
    RATE_LIMIT_REACHED = 429 "rate_limit_reached" "Requests come faster than the plan allows";
}

/// The kind of problem a refusal is answered with. [`Code::Allowed`] is no refusal, and has none.
pub fn kind_of_code(code: Code) -> Option<Kind> {
    Some(match code {
        Code::Allowed => return None,
        Code::TenantSuspended => TENANT_SUSPENDED,
        Code::FeatureNotInPlan => FEATURE_NOT_IN_PLAN,
        Code::GaugeLimitReached => GAUGE_LIMIT_REACHED,
        Code::PeriodLimitReached => PERIOD_LIMIT_REACHED,
        Code::SessionLimitReached => SESSION_LIMIT_REACHED,
        Code::ConcurrencyLimitReached => CONCURRENCY_LIMIT_REACHED,
        Code::RateLimitReached => RATE_LIMIT_REACHED,
    })
}

/// The status the gateway refuses with: 429 where waiting helps, 402 where only a change of plan does (a feature, a
/// gauge, an amount larger than the whole limit) and where the limit says so. `limit` is the one that refused.
pub fn denial_status(denial: &Denial, limit: Option<&LimitState>) -> u16 {
    let status = kind_of_code(denial.code).map_or(200, |kind| kind.status);
    let wants_402 = !denial.waiting_helps || limit.is_some_and(|limit| limit.answer_402);
    if status == 429 && wants_402 { 402 } else { status }
}

/// What a failed operation is answered with.
pub fn problem_of(error: &EngineError) -> Problem {
    match error {
        EngineError::Op(error) => problem_of_op(error),
        EngineError::Ledger(error) => problem_of_ledger(error),
        EngineError::UnknownTenant(tenant) => UNKNOWN_TENANT.problem(format!(
            "The tenant \"{tenant}\" is unknown. Create it with PUT /api/v1/tenants/{tenant}, or set default_plan in \
             the catalog."
        )),
        EngineError::IdempotencyConflict { at, .. } => IDEMPOTENCY_CONFLICT.problem(format!(
            "The id was used for another payload at {}. Send the same payload, or use a new id.",
            at.rfc3339()
        )),
        EngineError::PlansInUse(plans) => PLANS_IN_USE.problem(format!(
            "Tenants are on plans that the new catalog lacks: {plans}. Keep these plans, or move the tenants first."
        )),
        EngineError::UnknownCatalog(version) => UNKNOWN_CATALOG.problem(format!(
            "There is no catalog version {version}. GET /api/v1/catalogs lists those that were in force."
        )),
        EngineError::HistoryNotKept { since } => HISTORY_NOT_KEPT.problem(format!(
            "By these stretches of time history is kept since {}. Ask from then on, or by days or months of the time zone \
             UTC, which are kept longer.",
            since.rfc3339()
        )),
        EngineError::HistoryBehind => HISTORY_BEHIND
            .problem("Not everything that was recorded is in history yet. It catches up by itself: ask again.")
            .retry_after(1),
        EngineError::TooManySeries { max } => HISTORY_TOO_WIDE.problem(format!(
            "The answer would tell more than {max} series apart. Name a meter, a user or a dimension, or ask for less time."
        )),
        EngineError::UnreadableCatalog { .. } => CATALOG_UNREADABLE.problem(sentence(&error.to_string())),
    }
}

/// What an operation without meaning is answered with.
pub fn problem_of_op(error: &OpError) -> Problem {
    let kind = match error {
        OpError::UnknownMeter(_) => UNKNOWN_METER,
        OpError::UnknownFeature(_) => UNKNOWN_FEATURE,
        OpError::UnknownPlan(_) => UNKNOWN_PLAN,
        OpError::Empty => NOTHING_ASKED,
        OpError::NegativeAmount(_) => NEGATIVE_AMOUNT,
        OpError::AmountTooLarge(_) => AMOUNT_TOO_LARGE,
        OpError::NotAGauge(_) => NOT_A_GAUGE,
        OpError::GaugeHasNoWindow(_) => GAUGE_HAS_NO_WINDOW,
        OpError::Overflow(_) => ACCOUNT_OVERFLOW,
        OpError::TooLate { .. } => EVENT_TOO_LATE,
        OpError::TooEarly { .. } => EVENT_TOO_EARLY,
        OpError::WindowDoesNotFit(_) => WINDOW_DOES_NOT_FIT,
        OpError::Shares(_) => INVALID_SHARES,
        OpError::TooManyOverrides(_) => TOO_MANY_OVERRIDES,
        OpError::HoldTime { .. } => INVALID_HOLD,
        OpError::NothingToHold => NOTHING_ASKED,
        OpError::TooManyInFlight(_) => TOO_MANY_IN_FLIGHT,
        OpError::UnknownHold => UNKNOWN_HOLD,
        OpError::NotHeld(_) => NOT_HELD,
        OpError::HoldExceeded { .. } => HOLD_EXCEEDED,
        OpError::NotADuration(_) => NOT_A_DURATION,
        OpError::UnknownSession => UNKNOWN_SESSION,
        OpError::UnknownGrant => UNKNOWN_GRANT,
        OpError::GrantOver => INVALID_BODY,
        OpError::TooManyGrants(_) => TOO_MANY_GRANTS,
    };
    let problem = kind.problem(sentence(&error.to_string()));
    match error {
        // Work in flight ends by itself.
        OpError::TooManyInFlight(_) => problem.retry_after(1),
        _ => problem,
    }
}

/// What is answered where something has no price.
pub fn problem_of_cost(error: &CostError) -> Problem {
    let kind = match error {
        CostError::UnknownTable(_) => UNKNOWN_COST,
        CostError::UnknownValue { .. } | CostError::MissingProperty { .. } => UNKNOWN_PRICE,
        CostError::UnknownProperty { .. } => UNKNOWN_PROPERTY,
        CostError::UnknownQuantity { .. } | CostError::NoQuantity { .. } => UNKNOWN_QUANTITY,
        CostError::QuantityOutOfRange { amount, .. } if *amount < 0 => NEGATIVE_AMOUNT,
        CostError::QuantityOutOfRange { .. } | CostError::AmountTooLarge(_) => AMOUNT_TOO_LARGE,
    };
    kind.problem(sentence(&error.to_string()))
}

/// What a failing ledger is answered with. What exactly failed is for the log, not for the caller.
pub fn problem_of_ledger(error: &LedgerError) -> Problem {
    match error {
        LedgerError::Overloaded { .. } | LedgerError::Stale | LedgerError::CatalogBehind { .. } => {
            OVERLOADED.problem("More waits to be written than the ledger can take. Try again shortly.").retry_after(1)
        }
        LedgerError::Unwritable(_) | LedgerError::Damaged(_) | LedgerError::Unopenable(_) => LEDGER_UNAVAILABLE
            .problem("The ledger can't be written now; nothing was recorded. Repeat with the same id.")
            .retry_after(5),
    }
}

/// An error message as a sentence: a capital first, a full stop last.
pub fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let mut sentence: String = match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    };
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
#[path = "rescue_tests.rs"]
mod tests;
