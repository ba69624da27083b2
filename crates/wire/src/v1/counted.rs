//! Days whose use was recorded afterwards, and is to be daily history.

use super::{
    check::bad_name,
    snapshots::{METRICS_MAX, day, meter},
};
use crate::{
    problem::Problem,
    rescue::{INVALID_BODY, problem_of_op},
};
use domain::{
    catalog::{Catalog, MeterKind},
    id::TenantId,
    op::OpError,
};
use engine::{CountedDays, ports::Days};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks to write down what a tenant used on days that are over, as history has it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountedRequest {
    /// Whose.
    pub tenant_id: String,
    /// Of which meters, and from when until when. Days that are not over or not kept any more are left out.
    pub meters: Vec<CountedMeter>,
    /// Say what would be written, whether or not there is such a tenant yet, and write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Days of one meter.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountedMeter {
    /// Which: one that adds up.
    #[schema(example = "messages")]
    pub meter: String,
    /// The first day, `YYYY-MM-DD`, in UTC.
    #[schema(format = Date)]
    pub first: String,
    /// The last.
    #[schema(format = Date)]
    pub last: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CountedAnswer {
    /// Whose.
    pub tenant_id: String,
    /// The first day that can be written now: older ones are not kept.
    #[schema(format = Date)]
    pub first: String,
    /// The last one: it is over.
    #[schema(format = Date)]
    pub last: String,
    /// Of how many days and meters there is a value now.
    pub values: usize,
}

impl CountedRequest {
    /// Reads it; gives whose, and the days of each meter.
    ///
    /// # Errors
    /// Names that can't be any, meters that the catalog lacks or that are levels, days that are none.
    pub fn into_asked(&self, catalog: &Catalog) -> Result<(TenantId, Vec<CountedDays>), Problem> {
        let tenant = TenantId::new(&self.tenant_id).map_err(|error| bad_name("tenant_id", &error))?;
        if self.meters.len() > METRICS_MAX {
            return Err(INVALID_BODY.problem(format!("Write at most {METRICS_MAX} meters at once.")));
        }
        let counted = self.meters.iter().map(|asked| {
            let key = meter(catalog, &asked.meter)?;
            if catalog.meters.get(&key).is_some_and(|known| known.kind == MeterKind::Gauge) {
                return Err(problem_of_op(&OpError::GaugeHasNoWindow(key)));
            }
            let days = Days { first: day(&asked.first, "first")?, last: day(&asked.last, "last")? };
            Ok(CountedDays { meter: key, days })
        });
        Ok((tenant, counted.collect::<Result<_, Problem>>()?))
    }
}

impl CountedAnswer {
    /// The shape of it.
    pub fn of(tenant: &TenantId, bounds: Days, values: usize) -> Self {
        let Days { first, last } = bounds;
        Self { tenant_id: tenant.to_string(), first: first.to_string(), last: last.to_string(), values }
    }
}
