//! Requests name meters, features, plans and types of events. On many nodes a name that this one's catalog lacks may be
//! in a newer one: that is asked before it is refused.

use crate::reply::Failure;
use domain::{catalog::Catalog, id::TenantId};
use engine::Engine;
use std::sync::Arc;
use wire::{problem::Problem, rescue};

/// Reads something by the catalog, and again by a newer one where there is one and it may know more.
pub(crate) async fn by_catalog<T>(
    engine: &Engine,
    mut read: impl FnMut(&Catalog) -> Result<T, Problem>,
) -> Result<(T, Arc<Catalog>), Failure> {
    let catalog = engine.catalog();
    match read(&catalog) {
        Err(problem) if is_missing(&problem) && engine.catch_up(catalog.version).await? => {
            let newer = engine.catalog();
            Ok((read(&newer)?, newer))
        }
        done => Ok((done?, catalog)),
    }
}

/// The same for one tenant: by the catalog that decides for it.
pub(crate) async fn by_catalog_of<T>(
    engine: &Engine,
    tenant: &TenantId,
    mut read: impl FnMut(&Catalog) -> Result<T, Problem>,
) -> Result<T, Failure> {
    let catalog = engine.prices_for(tenant).await?;
    match read(&catalog) {
        Err(problem) if is_missing(&problem) && engine.catch_up(catalog.version).await? => {
            Ok(read(&*engine.prices_for(tenant).await?)?)
        }
        done => Ok(done?),
    }
}

/// Whether a newer catalog may have what this one lacks.
pub(crate) fn is_missing(problem: &Problem) -> bool {
    let missing = [
        rescue::UNKNOWN_METER,
        rescue::UNKNOWN_FEATURE,
        rescue::UNKNOWN_PLAN,
        rescue::UNKNOWN_EVENT_TYPE,
        rescue::UNKNOWN_COST,
        rescue::UNKNOWN_PRICE,
    ];
    missing.iter().any(|kind| kind.code == &*problem.code)
}
