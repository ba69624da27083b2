//! What stands around every request: who calls, a bound on patience, and no panic that ends a connection without a word.
//! [`Door`] is the router with a short way past it for the two calls that come by the ten thousand.

use crate::{
    access::{Access, CHECK_PATH, Caller, EVENTS_PATH, access_of},
    auth,
    body::{BODY_MAX_BYTES, read, require_json},
    reply::{Answer, Failure},
    routes::{check, events, router},
    state::ApiState,
};
use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::Method;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tower::{Service, ServiceExt};
use wire::{problem::Problem, rescue};

/// How long an answer may take, body included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands before every route. What is not in the table of endpoints is refused.
pub(crate) async fn guard(
    State(state): State<ApiState>,
    matched: MatchedPath,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = access_of(request.method().as_str(), matched.as_str())
        .ok_or_else(|| rescue::FORBIDDEN.problem("This endpoint is open to nobody."))
        .and_then(|access| {
            let caller = auth::admit(&state, access, request.headers())?;
            own_path(access, caller.as_ref(), params)?;
            Ok(caller)
        });
    let mut response = match admitted {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            patient(pin!(async { Ok(next.run(request).await) })).await
        }
        Err(problem) => Failure::from(problem).into_response(),
    };
    // For the figures, which are told after the router is done.
    response.extensions_mut().insert(matched);
    response
}

/// A tenant's credentials are good for its own path alone.
fn own_path(
    access: Access,
    caller: Option<&Caller>,
    params: Result<RawPathParams, RawPathParamsRejection>,
) -> Result<(), Problem> {
    let Some(own) = caller.filter(|_| access == Access::OwnPath).and_then(Caller::only_tenant) else { return Ok(()) };
    let is_own = params.is_ok_and(|params| params.iter().any(|(name, value)| name == "id" && value == own.as_str()));
    if is_own { Ok(()) } else { Err(auth::not_yours()) }
}

/// Waits for an answer, but not for ever, and makes one of a panic. The future is taken where it lies: one handed over by
/// value is copied, and kept twice, in every function it passes through.
async fn patient(answer: Pin<&mut impl Future<Output = Answer>>) -> Response {
    let answer = match tokio::time::timeout(PATIENCE, caught(answer)).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(rescue::INTERNAL
            .problem("A defect of this program; please report what you sent. It is safe to repeat with the same id.")
            .into()),
        Err(_) => Err(rescue::UNAVAILABLE.problem("The answer took too long; repeat with the same id.").into()),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// The output of a future; `None` if it panicked. The panic hook has logged it by then.
async fn caught<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        // After a panic the future is never polled again; state behind it is guarded by its own locks.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// The API as a service: [`router`], with a short way for `POST /api/v1/check` and `POST /api/v1/events`. Every answer,
/// whichever way it came, says which pages may read it and is told to the observer.
#[derive(Clone)]
pub struct Door {
    state: ApiState,
    router: Router,
}

impl Door {
    /// The API over this state.
    pub fn new(state: ApiState) -> Self {
        Self { router: router(state.clone()), state }
    }

    /// The router alone, without the short way and the observer.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Answers a request.
    pub async fn answer<B>(&self, request: http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let method = request.method().clone();
        let cors = &self.state.parts.cors_origins;
        if let Some(preflight) = cors.preflight(&method, request.headers()) {
            self.state.parts.observer.answered(&method, "preflight", preflight.status().as_u16(), begun.elapsed());
            return preflight.map(|()| Body::empty());
        }
        let origin = cors.allowed(request.headers());
        let short = (method == Method::POST).then(|| short_way(request.uri().path())).flatten();
        let mut response = match short {
            Some(CHECK_PATH) => patient(pin!(self.check(request))).await,
            // Rare beside checks, and large: kept out of the future that every connection holds.
            Some(_) => patient(Box::pin(self.events(request)).as_mut()).await,
            None => Box::pin(self.routed(request.map(Body::new))).await,
        };
        cors.finish(origin, response.headers_mut());
        let matched = response.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let route = short.or(matched).unwrap_or("unmatched");
        self.state.parts.observer.answered(&method, route, response.status().as_u16(), begun.elapsed());
        response
    }

    async fn check<B>(&self, request: http::Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let caller = self.caller(CHECK_PATH, &parts)?;
        require_json(&parts.headers)?;
        let body = read(&parts.headers, body, BODY_MAX_BYTES).await?;
        check::decide(&self.state, &caller, &parts.headers, &body).await
    }

    async fn events<B>(&self, request: http::Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        self.caller(EVENTS_PATH, &parts)?;
        events::accept(&self.state, &parts.headers, body).await
    }

    fn caller(&self, path: &str, parts: &http::request::Parts) -> Result<Caller, Problem> {
        let access = access_of(parts.method.as_str(), path).unwrap_or(Access::Admin);
        let nobody = || rescue::FORBIDDEN.problem("This endpoint is open to nobody.");
        auth::admit(&self.state, access, &parts.headers)?.ok_or_else(nobody)
    }

    async fn routed(&self, request: Request) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn short_way(path: &str) -> Option<&'static str> {
    [CHECK_PATH, EVENTS_PATH].into_iter().find(|known| *known == path)
}

impl<B> Service<http::Request<B>> for Door
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(door.answer(request).await) })
    }
}
