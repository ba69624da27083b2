//! Forwarding. Takes admitted requests only, streams both ways, and keeps the commit rule: the request goes on at
//! once, the head of the response waits until the charge is durable.

use crate::{
    admit::{self, Admitted, Metered, Ticket},
    afterwards::Afterwards,
    ahead::{self, Ahead},
    answer,
    body::{ContinueSignal, RequestBody, ResponseBody},
    client_io::ClientState,
    dial::DialError,
    gateway::{Peer, Running},
    scrub::{self, REQUEST_ID},
    session::SessionGuard,
    tap::{Encoding, EventEditor, EventFlow, Format, StreamHandle},
    tunnel,
    upstream::{Line, SendError, Upstream},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use std::sync::{Arc, atomic::Ordering};
use wire::rescue;

/// A request as the client sent it, and where it goes.
pub(crate) struct Outbound {
    pub(crate) request: Request<Incoming>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) request_id: HeaderValue,
    pub(crate) host: Option<HeaderValue>,
    /// What was read of its body already.
    pub(crate) ahead: Ahead,
}

type Answer = Response<ResponseBody>;
type Refused = Box<Answer>;

/// Sends an admitted request to its upstream and answers with what comes back.
pub(crate) async fn forward(running: &Running, peer: &Arc<Peer>, admitted: Admitted<Outbound>) -> Answer {
    let (mut outbound, mut ticket) = admitted.into_parts();
    let upstream = outbound.upstream.clone();
    if let Some(metered) = ticket.metered.as_mut().filter(|metered| metered.commit_first)
        && let Err(answer) = committed(running, metered).await
    {
        return *answer;
    }
    if let Some(measure) = ticket.metered.as_ref().and_then(|metered| metered.request_measure.as_ref()) {
        measure.count(outbound.ahead.bytes());
    }
    let Ticket { identity, metered } = &mut ticket;
    if let (Some(identity), Some(metered)) = (identity, metered.as_mut().filter(|it| it.reading.include_usage)) {
        let Outbound { request, ahead, .. } = &mut outbound;
        let asking = ahead::ask_for_usage(request, ahead, metered, &running.peeks, &identity.tenant);
        if let Err(why) = Box::pin(asking).await {
            unread(peer.client.as_ref());
            return *Refused::from(why);
        }
    }
    let mut tunnel = None;
    let Some(request) = rewritten(running, peer, outbound, &ticket, &mut tunnel) else {
        return answer::of(rescue::INVALID_REQUEST, "The path can't be put behind the upstream's.");
    };
    if let Some(client) = tunnel {
        // Boxed: tunnels are rare, and large.
        return Box::pin(tunnel::open(running, peer, &upstream, request, ticket, client)).await;
    }
    match exchange(&upstream, request, ticket.metered.as_mut()).await {
        Err(failure) => failed(running, &upstream, &failure, ticket.metered).await,
        Ok((response, line)) => {
            let (parts, incoming) = response.into_parts();
            let afterwards = match settled_head(running, &parts, ticket.metered.as_mut()).await {
                Ok(afterwards) => afterwards,
                Err(answer) => return *answer,
            };
            let session = ticket.metered.as_mut().and_then(|metered| metered.session.take());
            let body = ResponseBody::relayed(incoming, line, upstream, afterwards).await;
            let mut response = Response::new(body);
            *response.status_mut() = parts.status;
            *response.headers_mut() = parts.headers;
            finish_head(response.headers_mut(), ticket.metered.as_ref());
            let strips_usage = ticket.metered.as_ref().is_some_and(|metered| metered.strips_usage);
            watch_events(&mut response, strips_usage, session);
            response
        }
    }
}

/// What to do when the head of the response is there: give back, or keep, and wait for the commit. Gives what watches
/// the response's body.
pub(crate) async fn settled_head(
    running: &Running,
    head: &http::response::Parts,
    metered: Option<&mut Metered>,
) -> Result<Option<Box<Afterwards>>, Refused> {
    let Some(metered) = metered else { return Ok(None) };
    committed(running, metered).await?;
    if !metered.pledge.stands_after(head.status) {
        metered.cancel_measures();
        metered.pledge.give_back().await;
        return Ok(None);
    }
    metered.pledge.keep();
    metered.request_measure = None;
    let mut afterwards = metered.afterwards.take();
    if let Some(afterwards) = &mut afterwards {
        afterwards.stands(true);
        afterwards.head(&head.headers);
    }
    Ok(afterwards)
}

/// Has a response run in its session, and what it should not have taken out of it.
pub(crate) fn watch_events(response: &mut Answer, strips_usage: bool, session: Option<Box<SessionGuard>>) {
    if strips_usage || session.is_some() {
        let handle = session.as_ref().map(|session| session.handle());
        edit_events(response, EventFlow::new(strips_usage), handle);
    }
    if let Some(session) = session {
        response.body_mut().run_in(session);
    }
}

/// Has the events of a response edited, if it is a stream of events that can be: one that is not packed. What it was
/// said to be long it then need not be.
fn edit_events(response: &mut Answer, flow: EventFlow, handle: Option<StreamHandle>) {
    let headers = response.headers_mut();
    if Format::of(headers) == Some(Format::Events) && Encoding::of(headers) == Some(Encoding::Identity) {
        headers.remove(header::CONTENT_LENGTH);
        response.body_mut().edit(EventEditor::new(flow, handle));
    }
}

/// Takes out of a response head what is not for the client and adds what is.
pub(crate) fn finish_head(headers: &mut HeaderMap, metered: Option<&Metered>) {
    scrub::response(headers);
    if let Some(metered) = metered {
        answer::add_limits(headers, metered);
    }
}

/// Waits until the charge is durable.
async fn committed(running: &Running, metered: &mut Metered) -> Result<(), Refused> {
    let Some(commit) = metered.commit.take() else { return Ok(()) };
    commit.wait().await.map_err(|error| {
        // The engine drops what it could not write, so no charge is to be given back, and nothing to be measured.
        metered.pledge.doubt();
        metered.cancel_measures();
        Box::new(admit::outage(running, &error))
    })
}

/// The request as the upstream gets it.
fn rewritten(
    running: &Running,
    peer: &Arc<Peer>,
    outbound: Outbound,
    ticket: &Ticket,
    tunnel: &mut Option<OnUpgrade>,
) -> Option<Request<RequestBody>> {
    let Outbound { mut request, upstream, request_id, host, ahead } = outbound;
    let websocket = scrub::asks_for_websocket(request.method(), request.version(), request.headers());
    if websocket {
        *tunnel = Some(hyper::upgrade::on(&mut request));
    }
    let (parts, incoming) = request.into_parts();
    let mut headers = parts.headers;
    running.scrub.request(&mut headers);
    if websocket {
        scrub::ask_for_websocket(&mut headers);
    }
    running.scrub.forwarded(&mut headers, peer.ip, host);
    if let Some(identity) = &ticket.identity {
        scrub::add_identity(&mut headers, identity);
    }
    if let Some(plan) =
        ticket.metered.as_ref().and_then(|metered| HeaderValue::from_str(metered.decision.plan.as_str()).ok())
    {
        headers.insert(scrub::PLAN, plan);
    }
    headers.insert(header::HOST, upstream.authority.clone());
    headers.insert(REQUEST_ID, request_id);
    if ticket.metered.as_ref().is_some_and(|metered| metered.reading.identity_encoding) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let waits = parts.version == Version::HTTP_11 && expects_continue(&headers);
    let measure = ticket.metered.as_ref().and_then(|metered| metered.request_measure.clone());
    let mut body = RequestBody::new(ahead, incoming, measure, peer.client.clone());
    if body.is_empty() {
        drop_framing(&parts.method, &mut headers);
    }
    let signal = (waits && !body.is_empty()).then(Arc::<ContinueSignal>::default);
    if let Some(signal) = &signal {
        body.wait_for(signal.clone());
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = upstream.target(parts.uri.path_and_query())?;
    *request.headers_mut() = headers;
    if let Some(signal) = signal {
        hyper::ext::on_informational(&mut request, move |response| signal.informed(response.status()));
    }
    Some(request)
}

/// `Content-Length: 0` says something about a POST, and nothing about a GET.
fn drop_framing(method: &Method, headers: &mut HeaderMap) {
    if method == Method::GET || method == Method::HEAD {
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::EXPECT);
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Why there is no response.
pub(crate) enum Failure {
    Unreachable(DialError),
    Broken(hyper::Error),
    NeverSent,
    Timeout,
    /// It switched to a protocol that nobody asked for.
    Unasked,
}

/// Puts the request on a connection. One that was not sent, because a kept connection had died, is put on another.
async fn exchange(
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    mut metered: Option<&mut Metered>,
) -> Result<(Response<Incoming>, Line), Failure> {
    let timeout = upstream.response_timeout();
    let sent = timeout.is_some().then(|| request.body_mut().watch_end());
    loop {
        let mut line = upstream.line().await.map_err(Failure::Unreachable)?;
        // From here on the request may reach the upstream, even if the client goes away this very moment.
        if let Some(metered) = metered.as_deref_mut() {
            metered.on_its_way(true);
        }
        let body_sent = || sent.as_ref().is_none_or(|sent| sent.load(Ordering::Acquire));
        match line.send(request, body_sent, timeout).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Err(Failure::Unasked),
            Ok(response) => return Ok((response, line)),
            Err(SendError::NotSent(back)) => {
                if let Some(metered) = metered.as_deref_mut() {
                    metered.on_its_way(false);
                }
                if !line.was_reused() {
                    return Err(Failure::NeverSent);
                }
                request = *back;
            }
            Err(SendError::Broken(error)) => return Err(Failure::Broken(error)),
            Err(SendError::Timeout) => return Err(Failure::Timeout),
        }
    }
}

/// The answer when the upstream gave none. What never reached it is given back, and so is what is charged for success.
pub(crate) async fn failed(
    running: &Running,
    upstream: &Upstream,
    failure: &Failure,
    metered: Option<Metered>,
) -> Answer {
    let name = &*upstream.rules.name;
    let answer = match failure {
        Failure::Unreachable(DialError::Timeout(after)) => {
            tracing::warn!(upstream = name, ?after, "no connection in time");
            answer::of(rescue::UPSTREAM_UNREACHABLE, "No connection to the upstream could be made in time.")
        }
        Failure::Unreachable(error @ DialError::Untrusted(_)) => {
            tracing::error!(upstream = name, %error, "the upstream's certificate is not trusted");
            let detail = "The upstream could not prove who it is: its certificate is not trusted, or not for its name.";
            answer::of(rescue::UPSTREAM_UNREACHABLE, detail)
        }
        Failure::Unreachable(error) => {
            tracing::warn!(upstream = name, %error, "no connection");
            answer::of(rescue::UPSTREAM_UNREACHABLE, "No connection to the upstream could be made.")
        }
        Failure::NeverSent => {
            answer::of(rescue::UPSTREAM_UNREACHABLE, "The upstream closed the connection before the request was sent.")
        }
        Failure::Broken(error) => {
            tracing::warn!(upstream = name, %error, "the upstream broke off");
            answer::of(rescue::UPSTREAM_FAILED, "The upstream closed the connection before it answered.")
        }
        Failure::Unasked => {
            answer::of(rescue::UPSTREAM_FAILED, "The upstream switched to a protocol that nobody asked for.")
        }
        Failure::Timeout => answer::of(rescue::UPSTREAM_TIMEOUT, "The upstream did not begin to answer in time."),
    };
    let Some(mut metered) = metered else { return answer };
    let reached = matches!(failure, Failure::Broken(_) | Failure::Timeout | Failure::Unasked);
    if reached && !metered.pledge.is_for_success() {
        // The charge stands, and no answer begins whose use is not on disk.
        return committed(running, &mut metered).await.err().map_or(answer, |refused| *refused);
    }
    metered.cancel_measures();
    metered.pledge.give_back().await;
    answer
}

/// Remembers that what the client still sends must be read before its connection is closed.
pub(crate) fn unread(client: Option<&Arc<ClientState>>) {
    if let Some(client) = client {
        client.linger();
    }
}
