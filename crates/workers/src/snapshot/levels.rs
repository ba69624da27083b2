//! Where levels stood when a day ended: where they stand when they are looked at, less what has moved them since. What is
//! folded into history by then is read for a page of tenants at once; what is not is read from the journal as it grows.

use super::start_of;
use domain::{
    day::Day,
    entry::{Effect, Entry},
    history::{Place, Resolution, Series},
    id::{MeterKey, TenantId},
    time::Instant,
};
use engine::{
    Engine,
    ports::{HistoryPage, Seq},
    requests::{EngineError, TenantCard},
};
use std::{collections::BTreeMap, sync::Arc};

/// Entries of the journal read in one go.
const PAGE_ENTRIES: usize = 1_000;

/// What has moved levels since a day ended.
pub(super) struct Levels<'a> {
    engine: &'a Arc<Engine>,
    ended: Day,
    folded: Folded,
    tail: Tail,
}

/// What history has, of a page of tenants.
#[derive(Default)]
struct Folded {
    /// Through which entry, of each day since.
    through: BTreeMap<Day, Seq>,
    moved: BTreeMap<TenantId, BTreeMap<MeterKey, i64>>,
}

/// What the journal has after that.
#[derive(Default)]
struct Tail {
    /// How far it was read; `None` before that was begun.
    through: Option<Seq>,
    moves: BTreeMap<TenantId, Vec<Move>>,
}

/// A level that moved.
struct Move {
    place: Seq,
    at: Instant,
    meter: MeterKey,
    delta: i64,
}

impl<'a> Levels<'a> {
    /// Since this day ended.
    pub(super) fn since(engine: &'a Arc<Engine>, ended: Day) -> Self {
        Self { engine, ended, folded: Folded::default(), tail: Tail::default() }
    }

    /// Goes on to the next tenants, in order of id: before they are looked at.
    pub(super) async fn next(&mut self, cards: &[TenantCard]) -> Result<(), EngineError> {
        let (Some(first), Some(last)) = (cards.first(), cards.last()) else { return Ok(()) };
        let mut folded = Folded::default();
        let today = Day::of(self.engine.now());
        for day in (self.ended.number() + 1..=today.number()).map(Day::from_number) {
            let page = bucket(self.engine, day, (&first.id, &last.id), cards.len()).await?;
            folded.through.insert(day, page.state.through);
            for (place, amounts) in page.rows.into_iter().filter(|(place, _)| place.tenant <= last.id) {
                *folded.moved.entry(place.tenant).or_default().entry(place.meter).or_default() += amounts.moved;
            }
        }
        let oldest = folded.through.values().copied().min().unwrap_or(0);
        self.tail.through.get_or_insert(oldest);
        self.tail.forget(&first.id, oldest);
        self.folded = folded;
        Ok(())
    }

    /// By how much the levels of a tenant have moved from the day's end until it was looked at. Everything that was seen then must be
    /// durable.
    pub(super) async fn moved(
        &mut self,
        tenant: &TenantId,
        looked_at: Instant,
    ) -> Result<BTreeMap<MeterKey, i64>, EngineError> {
        self.tail.go_on(self.engine, tenant, start_of(self.ended + 1)).await?;
        let mut moved = self.folded.moved.remove(tenant).unwrap_or_default();
        for of in self.tail.moves.remove(tenant).unwrap_or_default() {
            let through = self.folded.through.get(&Day::of(of.at)).copied().unwrap_or(0);
            if of.place > through && of.at <= looked_at {
                let sum = moved.entry(of.meter).or_default();
                *sum = sum.saturating_add(of.delta);
            }
        }
        Ok(moved)
    }
}

impl Tail {
    /// Drops what is folded by now, and what is of tenants that were gone through.
    fn forget(&mut self, first: &TenantId, through: Seq) {
        self.moves = self.moves.split_off(first);
        for moves in self.moves.values_mut() {
            moves.retain(|of| of.place > through);
        }
        self.moves.retain(|_, moves| !moves.is_empty());
    }

    /// Reads what is new, of a tenant and those behind it.
    async fn go_on(&mut self, engine: &Engine, tenant: &TenantId, since: Instant) -> Result<(), EngineError> {
        loop {
            let lines = engine.journal(self.through.unwrap_or(0), PAGE_ENTRIES).await?;
            let Some((last, ..)) = lines.last() else { return Ok(()) };
            self.through = Some(*last);
            for (place, whose, entry) in lines.iter().filter(|(_, whose, entry)| whose >= tenant && entry.at >= since) {
                let moves = moves(*place, entry);
                if !moves.is_empty() {
                    self.moves.entry(whose.clone()).or_default().extend(moves);
                }
            }
            if lines.len() < PAGE_ENTRIES {
                return Ok(());
            }
        }
    }
}

fn moves(place: Seq, entry: &Entry) -> Vec<Move> {
    let levels = entry.effects.iter().filter_map(|effect| match effect {
        Effect::Level { meter, tenant_delta, .. } if *tenant_delta != 0 => {
            Some(Move { place, at: entry.at, meter: meter.clone(), delta: *tenant_delta })
        }
        _ => None,
    });
    levels.collect()
}

/// What tenants did on a day, in one reading: all of it is true for the same entry.
async fn bucket(
    engine: &Engine,
    day: Day,
    (first, last): (&TenantId, &TenantId),
    tenants: usize,
) -> Result<HistoryPage, EngineError> {
    let start = start_of(day);
    let before = Place { start, tenant: first.clone(), series: Series::WHOLE, meter: MeterKey::trusted("") };
    let mut limit = tenants * (engine.catalog().meters.len() + 1);
    loop {
        let page = engine.history_of_all(Resolution::Day, start, Some(&before), limit).await?;
        if page.rows.len() < limit || page.rows.last().is_some_and(|(place, _)| place.tenant > *last) {
            return Ok(page);
        }
        // Of meters that the catalog has no more there are rows as well.
        limit *= 2;
    }
}
