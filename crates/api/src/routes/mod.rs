//! The table of contents.

mod adjustments;
mod catalogs;
pub(crate) mod check;
mod counted;
mod daily;
mod denials;
mod entries;
pub(crate) mod events;
mod forecasts;
mod grants;
mod history;
mod holds;
mod keys;
mod operation;
mod organizations;
mod overrides;
mod plans;
mod sessions;
mod snapshots;
mod tenants;
mod test_clock;
mod token;
mod usage;
mod warnings;

use crate::{door::guard, openapi, reply::Failure, state::ApiState};
use axum::{Router, middleware::from_fn_with_state};
use http::{Method, Uri};
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::rescue;

/// The API over this state. Who may use what stands in [`ENDPOINTS`](crate::access::ENDPOINTS).
pub fn router(state: ApiState) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .route_layer(from_fn_with_state(state.clone(), guard))
        // After the guard: that a method is not offered is no secret.
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(state)
}

/// The routes with their descriptions.
pub(crate) fn described() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(events::record))
        .routes(routes!(check::check))
        .routes(routes!(holds::commit))
        .routes(routes!(holds::release))
        .routes(routes!(sessions::open))
        .routes(routes!(sessions::touch))
        .routes(routes!(sessions::close))
        .routes(routes!(sessions::list))
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::get, tenants::put))
        .routes(routes!(overrides::get, overrides::put, overrides::delete))
        .routes(routes!(adjustments::adjust))
        .routes(routes!(grants::list, grants::put))
        .routes(routes!(grants::revoke))
        .routes(routes!(usage::get))
        .routes(routes!(warnings::list))
        .routes(routes!(forecasts::get))
        .routes(routes!(forecasts::fleet))
        .routes(routes!(forecasts::backtest))
        .routes(routes!(history::get))
        .routes(routes!(organizations::usage))
        .routes(routes!(organizations::tiers))
        .routes(routes!(plans::list))
        .routes(routes!(catalogs::list, catalogs::apply))
        .routes(routes!(catalogs::get))
        .routes(routes!(daily::list))
        .routes(routes!(denials::list))
        .routes(routes!(denials::get))
        .routes(routes!(entries::list))
        .routes(routes!(snapshots::close))
        .routes(routes!(snapshots::track))
        .routes(routes!(counted::close))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(token::create))
        .routes(routes!(test_clock::advance))
        .routes(routes!(operation::healthz))
        .routes(routes!(operation::readyz))
        .routes(routes!(operation::metrics))
        .routes(routes!(operation::openapi))
}

async fn not_found(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(100).collect();
    rescue::NOT_FOUND.problem(format!("There is nothing at {path:?}; see /openapi.json for what there is.")).into()
}

async fn method_not_allowed(method: Method) -> Failure {
    rescue::METHOD_NOT_ALLOWED
        .problem(format!("{method} is not offered here; the header \"Allow\" says what is."))
        .into()
}
