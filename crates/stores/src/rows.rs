//! The bytes of states and entries as they stand in rows, sealed to their place. Shared by every store on a disk.

use crate::codec;
use domain::{
    entry::Profile,
    history::{Amounts, Place, Resolution, Series},
    id::{DimensionKey, MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::Instant,
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

/// The column that history is ordered by first: the resolution, and whether the row is a part of its tenant.
pub(crate) fn grain(resolution: Resolution, is_part: bool) -> i16 {
    resolution as i16 * 2 + i16::from(is_part)
}

/// Between the keys and values of dimensions: neither may hold it, and it comes before whatever they hold, so that texts are
/// in the order of what they stand for.
const BETWEEN: char = '\u{1}';

/// The dimensions of a series as one text.
pub(crate) fn dimensions_text(series: &Series) -> String {
    let mut text = String::new();
    for (key, value) in &series.dimensions {
        if !text.is_empty() {
            text.push(BETWEEN);
        }
        text.push_str(key.as_str());
        text.push(BETWEEN);
        text.push_str(value);
    }
    text
}

/// The series of a row.
pub(crate) fn read_series(user: &str, dimensions: &str) -> codec::Decoded<Series> {
    let mut series = Series { user: (!user.is_empty()).then(|| UserId::trusted(user)), dimensions: Vec::new() };
    let mut parts = dimensions.split(BETWEEN);
    while let Some(key) = parts.next().filter(|key| !key.is_empty()) {
        let value = parts.next().ok_or(codec::Malformed("a dimension without a value"))?;
        series.dimensions.push((DimensionKey::trusted(key), value.into()));
    }
    Ok(series)
}

/// A row of history as it stands in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HistoryRow {
    pub(crate) grain: i16,
    pub(crate) start_ms: i64,
    pub(crate) tenant: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) dimensions: Box<str>,
    pub(crate) meter: Box<str>,
    pub(crate) amounts: Amounts,
}

impl HistoryRow {
    /// Its resolution and place.
    pub(crate) fn place(&self) -> codec::Decoded<(Resolution, Place)> {
        let resolution = usize::try_from(self.grain / 2).ok().and_then(|place| Resolution::ALL.get(place).copied());
        let place = Place {
            start: Instant::from_ms(self.start_ms),
            tenant: TenantId::trusted(&self.tenant),
            series: read_series(&self.user, &self.dimensions)?,
            meter: MeterKey::trusted(&self.meter),
        };
        Ok((resolution.ok_or(codec::Malformed("an unknown resolution"))?, place))
    }
}
