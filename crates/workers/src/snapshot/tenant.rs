//! One tenant's day.

use super::{
    Work,
    asked::{Answer, Asked},
    counted::{Counted, Periods},
    levels::Levels,
    start_of,
};
use domain::{catalog::MeterKind, id::MeterKey, view::Usage};
use engine::{
    ports::{Snapshot, SnapshotSource, Taken, TenantSnapshots},
    requests::{EngineError, TenantCard},
};
use std::collections::BTreeMap;
use wire::v1::snapshots::ValueFailure;

/// What the ledger itself knows of a day.
pub(super) struct Known<'a> {
    pub(super) counted: Counted<'a>,
    pub(super) levels: Levels<'a>,
    /// Whether history has the whole day.
    pub(super) is_kept: bool,
}

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
        known: &mut Known<'_>,
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
        let (counts, moved) = match known.is_kept {
            true => {
                let counts = known.counted.of_tenant(&card.id, &Periods::of(&card, &usage)).await?;
                (Some(counts), known.moved(work, &card, &usage, asked).await?)
            }
            false => (None, BTreeMap::new()),
        };
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
                None => match &counts {
                    // What is not known is not overwritten; that was told once, not of each tenant.
                    None => closed.is_whole = false,
                    Some(_) if kind == MeterKind::Gauge => {
                        let value = of_meter.used.saturating_sub(moved.get(meter).copied().unwrap_or(0));
                        row(value, None, usage.at, SnapshotSource::Ledger);
                    }
                    Some(counts) => {
                        row(counts.used(meter), counts.after_reset(meter), usage.at, SnapshotSource::Ledger);
                    }
                },
            }
        }
        Ok(Some(closed))
    }
}

impl Known<'_> {
    /// By how much the levels that the ledger counts have moved from the day's end until the tenant was looked at.
    async fn moved(
        &mut self,
        work: &Work<'_>,
        card: &TenantCard,
        usage: &Usage,
        asked: &Asked,
    ) -> Result<BTreeMap<MeterKey, i64>, EngineError> {
        let is_level = |kind, meter: &MeterKey| kind == MeterKind::Gauge && !asked.asks(meter);
        if !usage.meters.iter().any(|of| is_level(of.meter.kind, &of.meter.key)) {
            return Ok(BTreeMap::new());
        }
        work.engine.settled(&card.id).await?;
        self.levels.moved(&card.id, usage.at).await
    }
}

fn failure(card: &TenantCard, meter: &MeterKey, reason: String) -> ValueFailure {
    ValueFailure { tenant_id: card.id.as_str().to_owned(), meter: meter.as_str().to_owned(), reason }
}
