//! `POST /api/v1/check`.

use crate::{
    access::Caller,
    auth,
    body::{JsonBytes, idempotency_key, parse},
    known::is_missing,
    reply::{Answer, Failure, json_bytes, replayed},
    state::ApiState,
};
use axum::{Extension, extract::State, response::Response};
use domain::{catalog::Catalog, id::TenantId};
use engine::{Engine, ports::Commit, requests::Ack};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use wire::{
    rescue,
    v1::check::{CheckAnswer, CheckRequest},
};

/// A decision: may this tenant use this much, or this feature? With `consume`, charges in the same step.
#[utoipa::path(
    post, path = "/api/v1/check", tag = "decisions", operation_id = "check",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same thing as `id` in the body.")),
    request_body = CheckRequest,
    responses((status = 200, description = "The decision, allowed or not.", body = CheckAnswer)),
)]
pub(crate) async fn check(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Answer {
    decide(&state, &caller, &headers, &body).await
}

/// The road of a check behind its door: the router's handler and the fast path both end here.
pub(crate) async fn decide(state: &ApiState, caller: &Caller, headers: &HeaderMap, body: &[u8]) -> Answer {
    let engine = state.engine();
    let header_id = idempotency_key(headers)?;
    let read = |catalog: &Catalog| parse::<CheckRequest<'_>>(body)?.into_check(header_id, catalog);
    let request = parse::<CheckRequest<'_>>(body)?;
    let mut catalog = prices(engine, caller, &request).await?;
    let mut asked = request.into_check(header_id, &catalog);
    if asked.as_ref().is_err_and(is_missing) {
        // Only the catalog may have it that the tenant is pinned to, or a newer one than this node's. To ask for another
        // tenant's is refused before anything is said of it.
        if let Ok(tenant) = TenantId::new(&parse::<CheckRequest<'_>>(body)?.tenant_id) {
            auth::own(caller, &tenant)?;
        }
        if let Some(pinned) = pinned(engine, &parse::<CheckRequest<'_>>(body)?.tenant_id).await {
            asked = read(&pinned);
        } else if engine.catch_up(catalog.version).await? {
            catalog = engine.catalog();
            asked = read(&catalog);
        }
    }
    let (mut check, ack) = match asked {
        Ok(asked) => asked,
        Err(problem) => return Ok(repeat(engine, caller, header_id, body).await?.ok_or(problem)?),
    };
    if caller.only_tenant().is_some() {
        auth::own(caller, &check.tenant)?;
        if check.consume {
            return Err(rescue::FORBIDDEN
                .problem("A tenant's own credentials may ask, but not charge: leave \"consume\" and \"hold\" out.")
                .into());
        }
    }
    if let Some(hold) = &mut check.hold {
        hold.fresh = state.fresh()?;
    }
    let mut admission = engine.admit(&check, ack).await?;
    let accepted = if admission.repeated { engine.accepted_charge(&check).await? } else { None };
    let asked = accepted.as_ref().or(check.charges.first()).map(|charge| (charge.meter.as_str(), charge.amount));
    // Written while the commit is on its way.
    let commit = std::mem::replace(&mut admission.commit, Commit::Done);
    let catalog = match admission.catalog_pin {
        None => catalog,
        Some(version) => engine.catalog_at(version).await?,
    };
    let json = CheckAnswer::of(&admission, asked, &catalog).to_json();
    if ack == Ack::Disk {
        commit.wait().await?;
    }
    let response = json_bytes(StatusCode::OK, json);
    Ok(if admission.repeated { replayed(response) } else { response })
}

/// The answer to a check that can't be read by the catalog, where the same was accepted before: it could then.
async fn repeat(
    engine: &Engine,
    caller: &Caller,
    header_id: Option<&str>,
    body: &[u8],
) -> Result<Option<Response>, Failure> {
    // What a tenant's own credentials could have charged was never accepted.
    let sent = match caller.only_tenant() {
        Some(_) => None,
        None => parse::<CheckRequest<'_>>(body)?.as_sent(header_id),
    };
    let Some(sent) = sent else { return Ok(None) };
    let Some((admission, priced)) = engine.accepted_check(&sent).await? else { return Ok(None) };
    let catalog = match admission.catalog_pin {
        None => engine.catalog(),
        Some(version) => engine.catalog_at(version).await?,
    };
    let first = sent.charges.first().filter(|_| sent.sent.is_none());
    let asked = priced.as_ref().or(first).map(|charge| (charge.meter.as_str(), charge.amount));
    let json = CheckAnswer::of(&admission, asked, &catalog).to_json();
    Ok(Some(replayed(json_bytes(StatusCode::OK, json))))
}

/// The catalog that a check is read by. Prices are those of the tenant's own, also where another has the same names.
async fn prices(engine: &Engine, caller: &Caller, request: &CheckRequest<'_>) -> Result<Arc<Catalog>, Failure> {
    match TenantId::new(&request.tenant_id) {
        Ok(tenant) if request.cost.is_some() => {
            auth::own(caller, &tenant)?;
            Ok(engine.prices_for(&tenant).await?)
        }
        _ => Ok(engine.catalog()),
    }
}

/// The catalog that a tenant is pinned to.
async fn pinned(engine: &Engine, tenant: &str) -> Option<Arc<Catalog>> {
    let card = engine.tenant(&TenantId::new(tenant).ok()?).await.ok()?;
    engine.catalog_at(card.profile.catalog_pin?).await.ok()
}
