//! How much will be used within so many days: a mean that relaxes from the short rate to the long one, and a law around it
//! of the gamma kind, whose spread is the noise of the days and the doubt about the rate.

use crate::{
    constants::Constants,
    score::Calibration,
    traits::{Sums, TRAITS},
};

/// The law of one meter. It knows nothing of the limit: so more headroom never means an earlier date.
pub(crate) struct Law<'a> {
    constants: &'a Constants,
    /// The rate that counts in the long run, a day.
    long: f64,
    /// What is added to it on the first days, before it fades.
    burst: f64,
    /// Variance of a day, of the kind that evens out.
    noise: f64,
    /// Squared relative doubt about the rate itself.
    doubt: f64,
    /// By how much the rate is corrected, for what the history is like.
    correction: f64,
    /// By how much the median alone is raised.
    lean: f64,
    profile: [f64; 7],
    first_weekday: usize,
    calibration: Calibration,
}

/// Points of the law at the end of one day: what will have been used, with one chance in ten of less, in two, of more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Points {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

impl<'a> Law<'a> {
    /// The law for a history of these sums. `usual` is the growth a day that the prior expects: 0 for counters, of which
    /// it expects nothing. `None` where nothing ever moved and nothing is expected to.
    pub(crate) fn new(
        constants: &'a Constants,
        sums: &Sums,
        usual: f64,
        profile: [f64; 7],
        first_weekday: usize,
        calibration: Calibration,
    ) -> Option<Self> {
        let floor = constants.floor * sums.size * (1.0 - sums.falls);
        let [three, seven, thirty] = sums.faded;
        let short = (three + constants.short_seven * (seven - three)).max(floor);
        let long = (sums.mean + constants.long_thirty * (thirty - sums.mean)).max(floor);
        // Half of what days show and half of what weeks show, of which no less than half of what days do: neighbours that
        // are alike make a sum less certain, and the other way about is rarely more than luck.
        let shown = 0.5 * sums.variance + 0.5 * sums.weekly.max(0.5 * sums.variance);
        let prior_days = constants.prior_days * prior_share(shown, long, usual);
        let blend = |rate: f64, days: f64| (days * rate + prior_days * usual) / (days + prior_days);
        let (long, short) = (blend(long, sums.days), blend(short, constants.short_days));
        if long <= 0.0 {
            return None;
        }
        let days = sums.days + prior_days;
        let expected = (constants.prior_noise * usual).powi(2);
        let shown = shown + NOISE_MIN * sums.size * sums.size;
        let noise = (sums.days * shown + prior_days * expected) / days;
        let relative = (noise / (days * long * long)).min(RELATIVE_MAX);
        let doubtful = relative / (relative + RELATIVE_HALF);
        let weighed = |row: &[f64; TRAITS + 1]| row[TRAITS] + dot(row, &sums.traits);
        Some(Self {
            constants,
            long,
            burst: constants.mix * (short - long),
            noise: constants.noise * noise,
            doubt: weighed(&constants.doubt).exp() * relative,
            correction: (doubtful * weighed(&constants.correction)).exp(),
            lean: (doubtful * constants.lean).exp(),
            profile: profile.map(|share| 1.0 + constants.weekdays * (share - 1.0)),
            first_weekday,
            calibration,
        })
    }

    /// The points at the end of each day, from the first on, without end. No point ever falls.
    pub(crate) fn days(&self) -> impl Iterator<Item = Points> + '_ {
        let (mut mean, mut fade, mut weekday) = (0.0, 1.0, self.first_weekday);
        let mut reached = Points::default();
        (1_u32..).map(move |day| {
            fade *= self.constants.fade;
            mean += (self.long + self.burst * fade) * self.profile[weekday];
            weekday = if weekday == 6 { 0 } else { weekday + 1 };
            let now = self.points(mean, f64::from(day));
            reached = Points {
                low: reached.low.max(now.low),
                middle: reached.middle.max(now.middle),
                high: reached.high.max(now.high),
            };
            reached
        })
    }

    /// Points of a gamma law with this mean, by Wilson and Hilferty's cube root.
    fn points(&self, mean: f64, day: f64) -> Points {
        let constants = self.constants;
        let squared = mean * mean;
        let spread = if squared > 0.0 {
            (self.noise * day / squared + self.doubt + constants.wander * day).min(SPREAD_MAX)
        } else {
            SPREAD_MAX
        };
        let ninth = spread / 9.0;
        let corrected = mean * self.correction;
        // A tail so many times as wide is that of a law of so much squared the variance; the median stays where it was.
        let at = |shift: f64, wider: f64| {
            let ninth = (ninth * wider * wider).min(SPREAD_MAX / 9.0);
            let side = (1.0 - ninth + shift * ninth.sqrt()).max(0.0);
            corrected * side * side * side
        };
        let side = 1.0 - constants.middle * ninth;
        let middle = corrected * self.lean * side * side * side;
        Points {
            low: at(-constants.below, self.calibration.late).min(middle),
            middle,
            high: at(constants.above, self.calibration.early).max(middle),
        }
    }
}

fn dot(row: &[f64; TRAITS + 1], traits: &[f64; TRAITS]) -> f64 {
    row.iter().zip(traits).map(|(weight, of)| weight * of).sum()
}

/// How much of the prior's evidence counts: all of it for a history that never moved or is all noise, next to nothing for
/// one that keeps its pace.
fn prior_share(variance: f64, rate: f64, usual: f64) -> f64 {
    if usual <= 0.0 {
        return 0.0;
    }
    let unsteady = variance + 0.05 * usual * usual;
    unsteady / (unsteady + rate * rate)
}

/// The least noise, in squared sizes of a change: nothing is perfectly even. The reference method's figure.
const NOISE_MIN: f64 = 0.02;
/// More relative doubt than this makes no difference: with a standard deviation of twice the rate nothing is known.
const RELATIVE_MAX: f64 = 4.0;
/// Where half of the correction is made. A history that leaves no doubt needs none. Of 0.05 and 0.2 the one that foretold a
/// source best which it was not fitted on.
const RELATIVE_HALF: f64 = 0.2;
/// The widest law: with a variance of 9 squared means the cube root below has its zero at the mean.
const SPREAD_MAX: f64 = 9.0;
