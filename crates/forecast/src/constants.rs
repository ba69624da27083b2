//! The numbers of the law, and where they come from.
//!
//! *The reference method's* stand in the study of real histories that the yardstick came from; they were kept. *Set*
//! ones were chosen among two or three by hand: the shift, what fades, how long a history counts (as long as those of
//! the sample are), and how the tails were narrowed and the median raised afterwards, so that intervals cover less
//! than 90 % and alerts find more. All others were *fitted*, 25 for levels and 18 for counters, by gradient descent on
//! the mean of the date's pinball loss over the development sample (limits set beforehand and from the outcome in
//! equal parts, each by what the reference method lost), with twice as many tasks more from other days of the same 648
//! series, and held lightly to where they began. What held up when whole sources were left out, and what did not,
//! stands in `bench/README.md`.
//!
//! Fitted numbers have no meaning to more than their two first digits.

use crate::{question::Prior, traits::TRAITS};

/// The numbers of the law, for one kind of meter.
pub(crate) struct Constants {
    /// Most days of history that are looked at.
    pub(crate) days_max: usize,
    /// Changes more than so many times as large as the others are shifts.
    pub(crate) shift: f64,
    /// Share of the mean size of a change that rates don't fall below, less what of the change went down.
    pub(crate) floor: f64,
    /// How far the long rate is the mean that fades with a half-life of 30 days (1) or the plain one (0).
    pub(crate) long_thirty: f64,
    /// How far the short rate is the mean that fades with a half-life of 7 days (1) or of 3 (0).
    pub(crate) short_seven: f64,
    /// How many days of evidence the short rate is worth beside the prior.
    pub(crate) short_days: f64,
    /// How many days of evidence the prior is worth.
    pub(crate) prior_days: f64,
    /// Standard deviation of the days that the prior expects, in units of its growth.
    pub(crate) prior_noise: f64,
    /// Share of the short rate on the first day...
    pub(crate) mix: f64,
    /// ...and what is left of it a day later.
    pub(crate) fade: f64,
    /// How much of the profile of the week is believed.
    pub(crate) weekdays: f64,
    /// Share of the noise that evens out over days.
    pub(crate) noise: f64,
    /// Doubt that grows with every day: rates wander.
    pub(crate) wander: f64,
    /// Logarithm of the doubt about the rate, in units of its squared standard error: weights of the traits, and the base.
    pub(crate) doubt: [f64; TRAITS + 1],
    /// Logarithm of the correction of the rate: weights of the traits, and the base.
    pub(crate) correction: [f64; TRAITS + 1],
    /// How far the median is below the mean, where 1 is what a gamma law has.
    pub(crate) middle: f64,
    /// Logarithm of what the median is raised by where there is much doubt, so that alerts come in time.
    pub(crate) lean: f64,
    /// Standard normal points of the two tails: use that is exceeded with one chance in ten...
    pub(crate) above: f64,
    /// ...and with nine.
    pub(crate) below: f64,
}

/// Gauges.
pub(crate) const LEVEL: Constants = Constants {
    days_max: 60,
    shift: 8.0,
    floor: 0.59,
    long_thirty: 0.0,
    short_seven: 0.0,
    short_days: 4.01,
    prior_days: 2.55,
    prior_noise: 1.89,
    mix: 0.655,
    fade: 0.99,
    weekdays: 0.0,
    noise: 0.179,
    wander: 4.98e-04,
    doubt: [0.16, -0.87, 0.28, 0.41, 0.80, -0.99, 0.00, 0.56],
    correction: [-0.48, -0.94, 0.31, -0.75, 0.36, 0.70, 0.00, 0.37],
    middle: 0.617,
    lean: 0.2,
    above: 2.24,
    below: 1.27,
};

/// Counters, of which `prior` expects nothing.
pub(crate) const COUNTER: Constants = Constants {
    days_max: 90,
    shift: 8.0,
    floor: 0.119,
    long_thirty: 1.0,
    short_seven: 0.5,
    short_days: 1.0,
    prior_days: 0.0,
    prior_noise: 0.0,
    mix: 0.564,
    fade: 0.99,
    weekdays: 0.804,
    noise: 0.646,
    wander: 7.02e-04,
    doubt: [0.27, -0.18, 0.00, 0.00, 0.00, 0.65, 0.12, 0.96],
    correction: [0.70, -0.22, 0.00, 0.00, 0.00, 0.43, -0.87, 0.30],
    middle: 0.266,
    lean: 0.07,
    above: 1.42,
    below: 1.06,
};

impl Default for Prior {
    /// What levels of the development sample usually do.
    fn default() -> Self {
        Self { growth_per_day: 0.0030 }
    }
}
