//! What was used when: entries folded into buckets of time, by user and declared dimensions. Pure sums, so that whoever
//! folds each entry once has the numbers of the accounts, in whatever order.
//!
//! - **When.** Use counts where it was counted in the accounts: late events and what is given back in the minute of their own
//!   time, what a hold became in the minute in which the hold was taken, a session's time in the minute in which the stretch
//!   began that was charged. What is only held is not there.
//! - **What.** All that counts in a tenant's day. A correction of one longer or shorter window alone, such as the opening
//!   balance of a billing period, is nobody's use of that day.
//! - **Gauges** have levels, not sums. Buckets keep by how much a level moved; the level at the end of a bucket is the one of
//!   now less what came after it.
//!
//! Three resolutions are kept, each summed by itself, so that dropping a finer one loses nothing of a coarser. Time zones
//! are at whole quarters of an hour from UTC, so quarters answer for the hours, days and months of every zone.

use crate::{
    day::Day,
    entry::{ClosedWindow, Effect, Entry, KindSet},
    id::{DimensionKey, MeterKey, TenantId, UserId},
    time::{DAY_MS, Instant, Window, WindowKind},
};
use std::{collections::BTreeMap, sync::Arc};

/// How long the buckets are that history is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Minutes.
    Minute,
    /// Quarters of an hour.
    Quarter,
    /// Days in UTC.
    Day,
}

impl Resolution {
    /// Every resolution, finest first; the position is part of the ledger's format.
    pub const ALL: [Resolution; 3] = [Resolution::Minute, Resolution::Quarter, Resolution::Day];

    /// The length of a bucket, milliseconds.
    pub fn length_ms(self) -> i64 {
        match self {
            Resolution::Minute => 60_000,
            Resolution::Quarter => 900_000,
            Resolution::Day => DAY_MS,
        }
    }

    /// Where the bucket around an instant begins.
    pub fn start_of(self, at: Instant) -> Instant {
        Instant::from_ms(at.ms() - at.ms().rem_euclid(self.length_ms()))
    }

    /// Whether buckets end where this instant is.
    pub fn is_boundary(self, at: Instant) -> bool {
        at.ms().rem_euclid(self.length_ms()) == 0
    }
}

/// Whose use, and told apart by what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Series {
    /// The user; `None` where none was named, or of the whole tenant.
    pub user: Option<UserId>,
    /// Declared dimensions, sorted by key.
    pub dimensions: Vec<(DimensionKey, Arc<str>)>,
}

impl Series {
    /// The whole tenant.
    pub const WHOLE: Series = Series { user: None, dimensions: Vec::new() };

    /// Whether this is the whole tenant, of which the others are parts.
    pub fn is_whole(&self) -> bool {
        self.user.is_none() && self.dimensions.is_empty()
    }
}

/// The place of a row within its resolution. The order is that in which rows are kept and listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Where the bucket begins.
    pub start: Instant,
    /// Whose.
    pub tenant: TenantId,
    /// Whose use within the tenant.
    pub series: Series,
    /// Of what.
    pub meter: MeterKey,
}

/// What happened in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Use of a counter. Negative where more was taken back by a correction than was used.
    pub used: i64,
    /// Unmet demand.
    pub denied: i64,
    /// By how much a gauge's level moved.
    pub moved: i64,
}

impl Amounts {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what happened as well.
    pub fn add(&mut self, more: &Amounts) {
        self.used = self.used.saturating_add(more.used);
        self.denied = self.denied.saturating_add(more.denied);
        self.moved = self.moved.saturating_add(more.moved);
    }

    /// Takes a part out.
    pub fn subtract(&mut self, part: &Amounts) {
        self.used = self.used.saturating_sub(part.used);
        self.denied = self.denied.saturating_sub(part.denied);
        self.moved = self.moved.saturating_sub(part.moved);
    }
}

/// From when on buckets are kept, at [`Resolution::ALL`]'s positions. Those that end before are not made any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptFrom(pub [Instant; Resolution::ALL.len()]);

impl KeptFrom {
    /// From when on buckets of this length are kept.
    pub fn of(&self, resolution: Resolution) -> Instant {
        self.0[resolution as usize]
    }

    /// The first day in UTC of which nothing can be missing.
    pub fn first_whole_day(&self) -> Day {
        let from = self.of(Resolution::Day);
        let day = Day::of(from);
        if Resolution::Day.is_boundary(from) { day } else { day + 1 }
    }

    /// From when on nothing can be missing of the buckets of both lengths: the start of a bucket of the coarser one.
    pub fn both_from(&self, finer: Resolution, coarser: Resolution) -> Instant {
        let from = self.of(finer).max(self.of(coarser));
        if from == Instant::EPOCH { from } else { coarser.start_of(from).plus_ms(coarser.length_ms()) }
    }

    /// Whether nothing can be missing of the bucket around an instant, and of those after it.
    pub fn is_whole(&self, resolution: Resolution, at: Instant) -> bool {
        self.of(resolution) <= resolution.start_of(at)
    }

    /// Whether a bucket that begins then is kept.
    pub fn keeps(&self, resolution: Resolution, start: Instant) -> bool {
        start.plus_ms(resolution.length_ms()) > self.of(resolution)
    }
}

/// Rows by resolution and place.
pub type Rows = BTreeMap<(Resolution, Place), Amounts>;

/// Something that an entry adds to history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// Of what.
    pub meter: MeterKey,
    /// To the whole tenant.
    pub whole: Amounts,
    /// To the user and dimensions that the entry names.
    pub part: Amounts,
}

/// What an entry adds to history.
pub fn moments(entry: &Entry) -> impl Iterator<Item = Moment> {
    entry.effects.iter().filter_map(|effect| moment(entry, effect))
}

fn moment(entry: &Entry, effect: &Effect) -> Option<Moment> {
    let (at, meter, whole, part) = match effect {
        Effect::Use { meter, amount, open, closed } => {
            let amounts = Amounts { used: *amount, ..Amounts::default() };
            (instant_of(entry, *open, closed)?, meter, amounts, amounts)
        }
        Effect::Denied { meter, amount, open, closed } => {
            let amounts = Amounts { denied: *amount, ..Amounts::default() };
            (instant_of(entry, *open, closed)?, meter, amounts, amounts)
        }
        Effect::Level { meter, tenant_delta, user_delta, .. } => {
            let moved = |moved| Amounts { moved, ..Amounts::default() };
            (entry.at, meter, moved(*tenant_delta), moved(*user_delta))
        }
        Effect::Profile(_)
        | Effect::Turn { .. }
        | Effect::Denials(_)
        | Effect::Leases(_)
        | Effect::Under { .. }
        | Effect::Hold(_)
        | Effect::HoldSettled { .. }
        | Effect::Session(_)
        | Effect::SessionClosed(_)
        | Effect::Grant(_)
        | Effect::GrantRevoked { .. }
        | Effect::Draw(_)
        | Effect::Warned(_) => return None,
    };
    Some(Moment { at, meter: meter.clone(), whole, part })
}

/// When something was that counts in these windows; `None` if in no day.
fn instant_of(entry: &Entry, open: KindSet, closed: &[ClosedWindow]) -> Option<Instant> {
    let of_kind = |kind: WindowKind| closed.iter().find(|late| late.kind == kind).map(|late| late.window.start);
    let day = of_kind(WindowKind::Day);
    if day.is_none() && !open.has(WindowKind::Day) {
        return None;
    }
    // Entries of releases that did not name minutes: the day, at least, is right.
    Some(of_kind(WindowKind::Minute).or(day).unwrap_or(entry.at))
}

/// Folds an entry of a tenant into rows.
pub fn fold(rows: &mut Rows, tenant: &TenantId, entry: &Entry, kept: &KeptFrom) {
    // A gauge has one level whatever was named when it moved: dimensions are told apart of use alone.
    let named = Series { user: entry.user.clone(), dimensions: entry.dimensions.clone() };
    let of_user = Series { user: entry.user.clone(), dimensions: Vec::new() };
    for moment in moments(entry) {
        let part = if moment.part.moved != 0 { &of_user } else { &named };
        for resolution in Resolution::ALL {
            let start = resolution.start_of(moment.at);
            if !kept.keeps(resolution, start) {
                continue;
            }
            let mut add = |series: &Series, amounts: &Amounts| {
                if amounts.is_empty() {
                    return;
                }
                let (tenant, series, meter) = (tenant.clone(), series.clone(), moment.meter.clone());
                rows.entry((resolution, Place { start, tenant, series, meter })).or_default().add(amounts);
            };
            add(&Series::WHOLE, &moment.whole);
            if !part.is_whole() {
                add(part, &moment.part);
            }
        }
    }
}

/// The buckets of a resolution that lie in a stretch of time, each by its start.
pub fn starts(resolution: Resolution, window: Window) -> impl Iterator<Item = Instant> {
    let first = resolution.start_of(window.start);
    let length_ms = resolution.length_ms();
    let end = if window.start < window.end { window.end } else { first };
    let count = (end.ms() - first.ms() + length_ms - 1) / length_ms;
    (0..count).map(move |index| first.plus_ms(index * length_ms))
}
