//! The bytes of states and entries as they stand in rows, sealed to their place. Shared by every store on a disk.

use crate::codec;
use domain::{
    entry::Profile,
    id::{PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
};
use engine::ports::{Seq, Stored};

/// What a tenant is listed under: its plan, which no catalog in force may lack; or the version that it is pinned to, as
/// what no plan is called.
pub(crate) fn listed_plan(profile: &Profile) -> PlanKey {
    match profile.catalog_pin {
        None => profile.plan.clone(),
        Some(version) => PlanKey::trusted(&format!("@{version}")),
    }
}

/// Whether tenants that are listed under this follow the catalog in force.
pub(crate) fn is_plan(listed: &PlanKey) -> bool {
    !listed.as_str().starts_with('@')
}

/// The bytes of a tenant's row.
pub(crate) fn tenant_row(tenant: &Stored<Tenant>) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    codec::encode_tenant(&tenant.state, &mut body);
    codec::seal(&[tenant.state.id.as_str()], &[tenant.seq as i64], &mut body);
    body
}

/// What [`tenant_row`] wrote.
pub(crate) fn read_tenant_row(id: &TenantId, seq: i64, row: &[u8]) -> codec::Decoded<Stored<Tenant>> {
    let body = codec::checked(&[id.as_str()], &[seq], row)?;
    Ok(Stored { state: codec::decode_tenant(id.clone(), body)?, seq: seq as Seq })
}

/// The bytes of a user's row.
pub(crate) fn user_row(tenant: &TenantId, user: &Stored<User>) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    codec::encode_user(&user.state, &mut body);
    codec::seal(&[tenant.as_str(), user.state.id.as_str()], &[user.seq as i64], &mut body);
    body
}

/// What [`user_row`] wrote.
pub(crate) fn read_user_row(tenant: &TenantId, id: &UserId, seq: i64, row: &[u8]) -> codec::Decoded<Stored<User>> {
    let body = codec::checked(&[tenant.as_str(), id.as_str()], &[seq], row)?;
    Ok(Stored { state: codec::decode_user(id.clone(), body)?, seq: seq as Seq })
}
