//! Will any day pass a daily cap? Each day is drawn anew about the same mean: the question is for the largest of many.

use crate::traits::Sums;

/// Rates that are a third as likely each, as shifts of the normal law: its 1/6, 1/2 and 5/6 points.
const SHIFTS: [f64; 3] = [-0.967_421_566_101_701, 0.0, 0.967_421_566_101_701];

/// The chance that a day passes the cap, for each day of the week, under each of three rates.
pub(crate) struct Peaks {
    chances: [[f64; 7]; 3],
}

impl Peaks {
    /// For days that use `rate` in the mean, more or less of it by the day of the week.
    pub(crate) fn new(sums: &Sums, rate: f64, profile: &[f64; 7], cap: f64) -> Self {
        let relative = (sums.variance / (rate * rate)).min(9.0);
        let doubt = (sums.variance.max(sums.weekly) / (sums.days * rate * rate)).min(1.0);
        let chances = SHIFTS.map(|shift| {
            let factor = cube(1.0 - doubt / 9.0 + shift * (doubt / 9.0).sqrt());
            let chance = |share: &f64| passes(cap / (rate * factor * share), relative);
            let mut of_week = [0.0; 7];
            of_week.iter_mut().zip(profile).for_each(|(to, share)| *to = chance(share));
            of_week
        });
        Self { chances }
    }

    /// The chance that some day has passed the cap by the end of each day, from the first on.
    pub(crate) fn by_day(&self, first_weekday: usize) -> impl Iterator<Item = f64> + '_ {
        let mut none = [1.0; 3];
        (first_weekday..).map(move |weekday| {
            for (none, chances) in none.iter_mut().zip(&self.chances) {
                *none *= 1.0 - chances[weekday % 7];
            }
            1.0 - none.iter().sum::<f64>() / 3.0
        })
    }
}

/// The chance that a gamma law of mean 1 and this variance gives `multiple` or more (Wilson and Hilferty).
fn passes(multiple: f64, variance: f64) -> f64 {
    let ninth = variance / 9.0;
    if ninth <= 0.0 {
        return f64::from(u8::from(multiple <= 1.0));
    }
    1.0 - normal((multiple.cbrt() - (1.0 - ninth)) / ninth.sqrt())
}

fn cube(side: f64) -> f64 {
    side.max(0.05).powi(3)
}

/// The normal law's share below `z`, to 1e-7 (Abramowitz and Stegun, 26.2.17).
fn normal(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-0.5 * z * z).exp() * 0.398_942_280_401_432_7 * series;
    if z >= 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn the_normal_law_is_as_in_tables() {
        for (z, share) in [(0.0, 0.5), (1.281_551_6, 0.9), (-1.959_964, 0.025), (3.0, 0.998_650_1)] {
            assert!((normal(z) - share).abs() < 1e-6, "{z}: {}", normal(z));
        }
    }
}
