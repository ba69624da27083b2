//! `/api/v1/denials`: unmet demand.

use crate::{
    access::Caller,
    body::{IdPath, Params, visible_tenant},
    cursor::{self, Page, page_limit},
    reply::{Answer, ok},
    state::ApiState,
};
use axum::{Extension, extract::State};
use domain::{
    decision::Code,
    id::{MeterKey, UserId},
    time::Instant,
};
use engine::ports::{DenialId, DenialPlace, DenialQuery};
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{
    rescue,
    v1::{check::bad_name, denials::DenialAnswer},
};

/// Which denials, and which page of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DenialParams {
    /// Only this tenant's.
    tenant_id: Option<String>,
    /// Only this user's.
    user_id: Option<String>,
    /// Only with this code.
    code: Option<String>,
    /// Only about this meter.
    meter: Option<String>,
    /// Those that were only recorded (observe mode, shadow limits) instead of those that were refused.
    #[serde(default)]
    shadow: bool,
    /// Rows of a page, 1 to 500; 50 where it is not given.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Refusals, newest first. Identical ones (tenant, user, limit, minute) are one row with a count.
#[utoipa::path(
    get, path = "/api/v1/denials", tag = "denials", operation_id = "listDenials", params(DenialParams),
    responses((status = 200, description = "A page of denials.", body = Page<DenialAnswer>)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<DenialParams>,
) -> Answer {
    let limit = page_limit(params.limit)?;
    let query = DenialQuery {
        tenant: match params.tenant_id {
            Some(tenant) => Some(visible_tenant(&caller, "tenant_id", &tenant)?),
            None => caller.only_tenant().cloned(),
        },
        user: params.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?,
        code: params.code.as_deref().map(refusal).transpose()?,
        // Meters of older catalogs are in old denials: any name that could be one may be asked for.
        meter: params.meter.as_deref().map(MeterKey::new).transpose().map_err(|error| bad_name("meter", &error))?,
        shadow: params.shadow,
        before: cursor::decode(params.cursor.as_deref(), place)?,
        limit: limit + 1,
    };
    let mut denials = state.engine().denials(&query).await?;
    let more = denials.len() > limit;
    denials.truncate(limit);
    let next_cursor =
        denials.last().filter(|_| more).map(|last| cursor::encode(&format!("{}/{}", last.run.first_at.ms(), last.id)));
    let catalog = state.engine().catalog();
    ok(&Page { items: denials.iter().map(|denial| DenialAnswer::of(denial, &catalog)).collect(), next_cursor })
}

fn refusal(word: &str) -> Result<Code, wire::problem::Problem> {
    Code::from_word(word).filter(|code| *code != Code::Allowed).ok_or_else(|| {
        let words: Vec<&str> = Code::ALL.into_iter().skip(1).map(Code::word).collect();
        rescue::INVALID_REQUEST.problem(format!("\"code\" must be one of {}.", words.join(", ")))
    })
}

fn place(text: &str) -> Option<DenialPlace> {
    let (first_at, id) = text.split_once('/')?;
    Some(DenialPlace { first_at: Instant::from_ms(first_at.parse().ok()?), id: DenialId::parse(id)? })
}

/// One denial, explained.
#[utoipa::path(
    get, path = "/api/v1/denials/{id}", tag = "denials", operation_id = "getDenial",
    params(("id" = String, Path, description = "The `denial_id` of a refusal.")),
    responses((status = 200, description = "The denial with its numbers.", body = DenialAnswer)),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    IdPath(id): IdPath,
) -> Answer {
    let unknown = || rescue::UNKNOWN_DENIAL.problem("There is no such denial, or it is no longer kept.");
    let id = DenialId::parse(&id).ok_or_else(unknown)?;
    let denial = state.engine().denial(id).await?.filter(|denial| caller.may_see(&denial.tenant));
    let denial = denial.ok_or_else(unknown)?;
    ok(&DenialAnswer::of(&denial, &state.engine().catalog()))
}
