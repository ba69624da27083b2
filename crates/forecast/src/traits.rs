//! What a history is like: rates, noise, and traits that are the same whatever unit it is counted in.

use domain::day::Day;

/// How many traits correct a forecast.
pub(crate) const TRAITS: usize = 7;

/// Sums over a history's daily changes. Rates are a day.
pub(crate) struct Sums {
    /// Days of evidence.
    pub(crate) days: f64,
    /// Mean change.
    pub(crate) mean: f64,
    /// Mean size of a change, whichever way it went.
    pub(crate) size: f64,
    /// Means that look back with half-lives of 3, 7 and 30 days.
    pub(crate) faded: [f64; 3],
    /// Variance of a day.
    pub(crate) variance: f64,
    /// Variance of a week's sum, per day: it sees what days have in common with their neighbours.
    pub(crate) weekly: f64,
    /// Which share of all change went down.
    pub(crate) falls: f64,
    /// The traits; see [`traits`].
    pub(crate) traits: [f64; TRAITS],
}

impl Sums {
    /// The sums over these changes (the newest last), of which `days` are evidence; `level` is what a gauge stands at.
    pub(crate) fn of(changes: &[f64], days: f64, level: Option<f64>) -> Self {
        let count = changes.len().max(1) as f64;
        let sum: f64 = changes.iter().sum();
        let absolute: f64 = changes.iter().map(|change| change.abs()).sum();
        let (mean, size) = (sum / count, absolute / count);
        let variance = match changes.len() {
            0 | 1 => size * size,
            _ => changes.iter().map(|change| (change - mean) * (change - mean)).sum::<f64>() / (count - 1.0),
        };
        let weekly = weekly_variance(changes).unwrap_or(variance);
        let faded = FADES.map(|fade| faded_mean(changes, fade));
        let falls = if absolute > 0.0 { 0.5 * (1.0 - sum / absolute) } else { 0.0 };
        let mut sums = Self { days, mean, size, faded, variance, weekly, falls, traits: [0.0; TRAITS] };
        sums.traits = traits(changes, &sums, absolute, level);
        sums
    }
}

/// What a day back weighs less than the one after it, for half-lives of 3, 7 and 30 days: 0.5 to the power of their inverse.
const FADES: [f64; 3] = [0.793_700_525_984_099_7, 0.905_723_664_263_906_7, 0.977_159_968_434_245_8];

/// A mean in which each day back weighs `fade` times the one after it.
fn faded_mean(changes: &[f64], fade: f64) -> f64 {
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for change in changes.iter().rev() {
        (sum, weights, weight) = (sum + weight * change, weights + weight, weight * fade);
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

/// The variance of the sums of whole weeks that end with the newest day, divided by 7; `None` with fewer than two weeks.
fn weekly_variance(changes: &[f64]) -> Option<f64> {
    let weeks = changes.rchunks_exact(7);
    let count = weeks.len() as f64;
    if count < 2.0 {
        return None;
    }
    let sum = |week: &[f64]| week.iter().sum::<f64>();
    let mean = weeks.clone().map(sum).sum::<f64>() / count;
    Some(weeks.map(|week| (sum(week) - mean).powi(2)).sum::<f64>() / (count - 1.0) / 7.0)
}

/// The traits, about 0 for a middling history; all but the first are 0 for one that never moved:
///
/// 0. its length: the logarithm of its days;
/// 1. the share of days on which it moved;
/// 2. how much weeks differ: the logarithm of their standard deviation by the size of a week's change;
/// 3. the largest day's share of all change;
/// 4. for a level, the logarithm of its daily change as a share of it; 0 for counters;
/// 5. how long it has not moved, in months, at most one;
/// 6. the logarithm of the days on which it moved.
fn traits(changes: &[f64], sums: &Sums, absolute: f64, level: Option<f64>) -> [f64; TRAITS] {
    let length = sums.days.max(1.0).ln() - 3.2;
    if absolute <= 0.0 {
        return [length, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    }
    let largest = changes.iter().fold(0.0_f64, |largest, change| largest.max(change.abs()));
    let active = changes.iter().filter(|change| **change != 0.0).count() as f64 / changes.len() as f64;
    let idle = changes.iter().rev().take_while(|change| **change == 0.0).count();
    [
        length,
        active,
        ((sums.weekly * 7.0).sqrt() / (7.0 * sums.size) + 0.05).ln(),
        largest / absolute,
        level.map_or(0.0, |level| (sums.size / level.max(sums.size * 1e-9) + 1e-4).ln() + 6.0),
        idle.min(30) as f64 / 30.0,
        (active * sums.days).ln_1p() - 2.0,
    ]
}

/// How much use each day of the week sees, as a multiple of the mean day; nearly 1 where there is little to tell by.
pub(crate) fn weekday_profile(changes: &[f64], last: Day) -> [f64; 7] {
    let rises = || changes.iter().map(|change| change.max(0.0));
    let base = rises().sum::<f64>() / changes.len().max(1) as f64;
    if changes.len() < 10 || base <= 0.0 {
        return [1.0; 7];
    }
    let (mut sums, mut counts) = ([0.0; 7], [0.0; 7]);
    let first = (last + (1 - changes.len() as i32)).weekday();
    for (at, rise) in rises().enumerate() {
        let weekday = (first + at) % 7;
        sums[weekday] += rise;
        counts[weekday] += 1.0;
    }
    let mut profile = [0.0; 7];
    for weekday in 0..7 {
        profile[weekday] = (sums[weekday] + PROFILE_DAYS * base) / ((counts[weekday] + PROFILE_DAYS) * base);
    }
    let total: f64 = profile.iter().sum();
    profile.map(|share| share * 7.0 / total)
}

/// Days like the mean that every day of the week is taken to have had besides: the reference method's figure.
const PROFILE_DAYS: f64 = 8.0;
