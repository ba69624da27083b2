//! One tenant's day.

use super::{
    Work,
    asked::{Answer, Asked},
    counted::{Counted, Periods},
    start_of,
};
use domain::{catalog::MeterKind, id::MeterKey};
use engine::{
    ports::{Snapshot, SnapshotSource, Taken, TenantSnapshots},
    requests::{EngineError, TenantCard},
};
use wire::v1::snapshots::ValueFailure;

/// What is to be written of a tenant.
pub(super) struct Closed {
    pub(super) rows: Vec<Snapshot>,
    pub(super) failures: Vec<ValueFailure>,
    /// Whether no meter is lacking.
    pub(super) is_whole: bool,
}

impl Closed {
    /// Of one tenant; `None` where there was none on that day.
    pub(super) async fn of(
        work: &Work<'_>,
        card: &TenantCard,
        asked: &mut Asked,
        counted: &mut Counted<'_>,
        pushed: Option<&TenantSnapshots>,
    ) -> Result<Option<Self>, EngineError> {
        let day = work.asked.day;
        if card.profile.created_at >= start_of(day + 1) {
            return Ok(None);
        }
        let (card, usage) = match work.engine.usage(&card.id, None).await {
            Ok(found) => found,
            // Its creation was undone in between.
            Err(EngineError::UnknownTenant(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let counts = counted.of_tenant(&card.id, &Periods::of(&card, &usage)).await?;
        let mut closed = Self { rows: Vec::new(), failures: Vec::new(), is_whole: true };
        for of_meter in &usage.meters {
            let (meter, kind) = (&of_meter.meter.key, of_meter.meter.kind);
            let is_pushed = pushed.is_some_and(|known| known.meters.iter().any(|known| known.meter == *meter));
            let mut row = |value, after_reset, observed_at, source| {
                let taken = Taken { day, value, after_reset, observed_at, source };
                closed.rows.push(Snapshot { tenant: card.id.clone(), meter: meter.clone(), taken });
            };
            match asked.take(meter, &card.id) {
                Some(Answer::Value(value, at)) => row(value, None, at, SnapshotSource::Collector),
                Some(Answer::Nothing) => {}
                Some(Answer::Bad(reason)) => {
                    closed.failures.push(failure(&card, meter, reason));
                    closed.is_whole = false;
                }
                Some(Answer::Unknown) => closed.is_whole = false,
                None if is_pushed => {}
                None if kind == MeterKind::Gauge => {
                    let value = of_meter.used.saturating_sub(counts.moved_since(meter));
                    row(value, None, usage.at, SnapshotSource::Ledger);
                }
                None => row(counts.used(meter), counts.after_reset(meter), usage.at, SnapshotSource::Ledger),
            }
        }
        Ok(Some(closed))
    }
}

fn failure(card: &TenantCard, meter: &MeterKey, reason: String) -> ValueFailure {
    ValueFailure { tenant_id: card.id.as_str().to_owned(), meter: meter.as_str().to_owned(), reason }
}
