//! What would other plans have done? Recorded use is replayed against limits that nobody has bought yet.
//!
//! Whole numbers throughout: these are sums of accounts, and no forecasts. What was used is taken as it was: that people would have used less
//! had they been refused is not guessed.

use domain::{
    catalog::{Limit, LimitWindow, Mode, Plan, Price, Scope},
    id::MeterKey,
    time::{Frame, Instant, WindowKind},
};
use std::{collections::BTreeMap, sync::Arc};

/// What was recorded of one meter, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Which meter.
    pub meter: MeterKey,
    /// A gauge's level at each instant; what anything else used from it to the next one. The finer, the truer the windows they are
    /// counted in.
    pub points: Vec<(Instant, i64)>,
}

/// What one limit would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The limit.
    pub limit: Arc<Limit>,
    /// In how many windows (for a level: at how many instants) it would have been passed.
    pub passed: u32,
    /// When first.
    pub first_passed: Option<Instant>,
    /// How much was past it, over all windows; for a level, at most at once.
    pub past: i64,
    /// In how many windows (at how many instants) use came to the share of it from which warnings are given, those in which it was
    /// passed included.
    pub warned: u32,
    /// When first.
    pub first_warned: Option<Instant>,
}

impl Replayed {
    /// Whether something would have been refused.
    pub fn refuses(&self) -> bool {
        self.passed > 0 && self.limit.mode == Mode::Hard
    }
}

/// Whether daily or hourly records can tell what a limit would have done: those of users, of sessions, and of windows shorter than a day
/// they can't.
pub fn can_replay(limit: &Limit) -> bool {
    let long = !matches!(
        limit.window,
        LimitWindow::Of(WindowKind::Hour | WindowKind::Minute) | LimitWindow::Session | LimitWindow::Concurrent
    );
    limit.scope == Scope::Tenant && long && limit.mode != Mode::Shadow
}

/// What the limits of a plan would have done to a tenant whose windows are shaped so; limits that nothing came near are there as well.
/// Unlimited ones and those that [`can_replay`] rules out are not.
pub fn replay(plan: &Plan, frame: &Frame, recorded: &[Recorded], warn_percent: u8) -> Vec<Replayed> {
    let bounded = plan.limits.iter().filter(|limit| can_replay(limit) && limit.max.is_some());
    bounded.filter_map(|limit| replay_one(limit, frame, recorded, warn_percent)).collect()
}

fn replay_one(limit: &Limit, frame: &Frame, recorded: &[Recorded], warn_percent: u8) -> Option<Replayed> {
    let max = limit.max?.saturating_add(limit.quota.overdraft);
    let warn_at = i64::try_from((i128::from(max) * i128::from(warn_percent) + 99) / 100).unwrap_or(max);
    let mut found = Replayed {
        limit: Arc::new(limit.clone()),
        passed: 0,
        first_passed: None,
        past: 0,
        warned: 0,
        first_warned: None,
    };
    let points = recorded.iter().find(|recorded| recorded.meter == limit.meter).map_or(&[][..], |of| &of.points);
    let Some(kind) = limit.window.kind() else {
        for &(at, level) in points {
            found.see(at, level, max, warn_at);
            found.past = found.past.max(level.saturating_sub(max));
        }
        return Some(found);
    };
    let (mut end, mut used) = (Instant::EPOCH, 0_i64);
    for &(at, amount) in points {
        if at >= end {
            found.past = found.past.saturating_add(used.saturating_sub(max).max(0));
            (end, used) = (frame.window(kind, at).end, 0);
        }
        let before = used;
        used = used.saturating_add(amount);
        found.turn(before, used, at, max, warn_at);
    }
    found.past = found.past.saturating_add(used.saturating_sub(max).max(0));
    Some(found)
}

impl Replayed {
    /// A level at an instant.
    fn see(&mut self, at: Instant, level: i64, max: i64, warn_at: i64) {
        if level > max {
            self.passed += 1;
            self.first_passed.get_or_insert(at);
        }
        if level >= warn_at && level > 0 {
            self.warned += 1;
            self.first_warned.get_or_insert(at);
        }
    }

    /// A sum that grew: what it crossed, it crosses once in a window.
    fn turn(&mut self, before: i64, used: i64, at: Instant, max: i64, warn_at: i64) {
        if before <= max && used > max {
            self.passed += 1;
            self.first_passed.get_or_insert(at);
        }
        if before < warn_at.max(1) && used >= warn_at.max(1) {
            self.warned += 1;
            self.first_warned.get_or_insert(at);
        }
    }
}

/// The first of these plans that would have refused nothing; give them cheapest step first, the tenant's own before all.
pub fn plan_that_holds<'a>(
    plans: impl IntoIterator<Item = &'a Arc<Plan>>,
    frame: &Frame,
    recorded: &[Recorded],
) -> Option<&'a Arc<Plan>> {
    plans.into_iter().find(|plan| !replay(plan, frame, recorded, 100).iter().any(Replayed::refuses))
}

/// What plans cost a month, by currency: hundredths of its unit. Yearly prices count a twelfth, rounded down in the sum alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revenue {
    /// Twelfths of hundredths.
    twelfths: BTreeMap<Arc<str>, i64>,
    /// How many tenants' plans have no price.
    pub unpriced: u64,
}

impl Revenue {
    /// Adds one tenant's plan.
    pub fn add(&mut self, price: Option<&Price>) {
        let Some(price) = price else {
            self.unpriced += 1;
            return;
        };
        let months = if &*price.per == "year" { 1 } else { 12 };
        let sum = self.twelfths.entry(Arc::clone(&price.currency)).or_default();
        *sum = sum.saturating_add(price.amount_cents.saturating_mul(months));
    }

    /// Currency and hundredths of its unit a month, in order of the currency.
    pub fn cents_per_month(&self) -> impl Iterator<Item = (&str, i64)> {
        self.twelfths.iter().map(|(currency, twelfths)| (&**currency, twelfths.div_euclid(12)))
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
