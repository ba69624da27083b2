//! What was learnt: the prior of each meter from all tenants, and how its past forecasts did, by plan.

use crate::{
    learn::Learning,
    question::{Prior, Settings, Thresholds},
    score::{SCORE_COUNTS, Score},
};
use domain::{
    catalog::ForecastTerms,
    id::{MeterKey, PlanKey},
};
use std::collections::BTreeMap;

/// What was learnt of one meter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lesson {
    /// What tenants' levels show.
    pub learning: Learning,
    /// How past forecasts did, by the plan that the tenant was on.
    pub scores: BTreeMap<PlanKey, Score>,
}

impl Lesson {
    /// How past forecasts of the meter did, on whichever plan.
    pub fn score(&self) -> Score {
        self.scores.values().fold(Score::default(), |mut sum, score| {
            sum.merge(score);
            sum
        })
    }
}

/// What was learnt of every meter: all that one tenant's forecast has of another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lessons(pub BTreeMap<MeterKey, Lesson>);

impl Lessons {
    /// What was kept of scores, by meter and plan, and of what all tenants show of a meter: its [`Learning::sums`].
    pub fn of(
        scores: impl IntoIterator<Item = (MeterKey, PlanKey, [u64; SCORE_COUNTS])>,
        growth: impl IntoIterator<Item = (MeterKey, (u64, u64))>,
    ) -> Self {
        let mut lessons = Self::default();
        for (meter, plan, counts) in scores {
            lessons.0.entry(meter).or_default().scores.insert(plan, Score::of_counts(counts));
        }
        for (meter, sums) in growth {
            lessons.0.entry(meter).or_default().learning = Learning::of_sums(sums);
        }
        lessons
    }

    /// What is answered by for one meter.
    pub fn settings(&self, meter: &MeterKey, terms: ForecastTerms) -> Settings {
        let lesson = self.0.get(meter);
        Settings {
            prior: lesson.map_or_else(Prior::default, |lesson| lesson.learning.prior(Prior::default())),
            calibration: lesson.map(|lesson| lesson.score().calibration()).unwrap_or_default(),
            thresholds: Thresholds { critical_days: terms.critical_days, warning_days: terms.warning_days },
            days_min: terms.days_min,
        }
    }

    /// How past forecasts of a meter did, on whichever plan; `None` where none was judged yet.
    pub fn score(&self, meter: &MeterKey) -> Option<Score> {
        self.0.get(meter).map(Lesson::score).filter(|score| score.count > 0)
    }
}
