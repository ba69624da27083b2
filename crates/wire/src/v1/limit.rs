//! One limit with its numbers, as it stands in every answer that shows one.

use super::json::Json;
use domain::{decision::LimitState, time::Instant};
use serde::{Serialize, Serializer};

/// The word for the window of a gauge's level, which has none.
pub const NO_WINDOW: &str = "none";

/// A limit with its numbers.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Limit)]
pub struct LimitShape<'a> {
    /// Unique within the plan.
    #[schema(example = "messages_day")]
    pub name: &'a str,
    /// Which meter.
    #[schema(example = "messages")]
    pub meter: &'a str,
    /// `period`, `month`, `day`, `hour`, `minute`, or `none` for a gauge's level; `session` for the time of one session,
    /// `concurrent` for how many are open at once, which is counted in sessions.
    #[schema(example = "day")]
    pub window: &'static str,
    /// `tenant` or `user`.
    #[schema(example = "tenant")]
    pub scope: &'static str,
    /// `hard`, `soft` or `shadow`.
    #[schema(example = "hard")]
    pub mode: &'static str,
    /// `plan` or `override`.
    #[schema(example = "plan")]
    pub source: &'static str,
    /// The largest use allowed; null is unlimited.
    #[schema(example = 50)]
    pub max: Option<i64>,
    /// What was used.
    pub used: i64,
    /// What is reserved for work in flight.
    pub held: i64,
    /// What may still be used; null is unlimited.
    pub remaining: Option<i64>,
    /// When the window ends; null for a gauge's level.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Time>,
    /// Use in whole percent, rounded down; null is unlimited.
    pub percent: Option<i64>,
}

impl<'a> LimitShape<'a> {
    /// The shape of a limit's state.
    pub fn of(state: &'a LimitState) -> Self {
        Self {
            name: &state.name,
            meter: state.meter.as_str(),
            window: state.window.word(),
            scope: state.scope.word(),
            mode: state.mode.word(),
            source: state.source.word(),
            max: state.max,
            used: state.used,
            held: state.held,
            remaining: state.remaining(),
            resets_at: state.resets_at.map(Time),
            percent: state.percent(),
        }
    }

    /// Writes the members and the closing brace.
    pub(super) fn write(&self, json: &mut Json) {
        json.text("\"name\":", self.name);
        json.text(",\"meter\":", self.meter);
        json.word(",\"window\":", self.window);
        json.word(",\"scope\":", self.scope);
        json.word(",\"mode\":", self.mode);
        json.word(",\"source\":", self.source);
        json.number(",\"max\":", self.max);
        json.number(",\"used\":", Some(self.used));
        json.number(",\"held\":", Some(self.held));
        json.number(",\"remaining\":", self.remaining);
        match self.resets_at {
            Some(at) => {
                let mut buffer = TIME_TEMPLATE;
                json.raw(",\"resets_at\":\"");
                json.0.extend_from_slice(write_time(at.0, &mut buffer));
                json.raw("\"");
            }
            None => json.raw(",\"resets_at\":null"),
        }
        json.number(",\"percent\":", self.percent);
        json.raw("}");
    }
}

/// An instant on the wire: RFC 3339 in UTC, with milliseconds only where there are some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Instant);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = TIME_TEMPLATE;
        match std::str::from_utf8(write_time(self.0, &mut buffer)) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&self.0.rfc3339()),
        }
    }
}

const TIME_TEMPLATE: [u8; 24] = *b"0000-00-00T00:00:00.000Z";

/// The same text as [`Instant::rfc3339`], which is too slow to be written several times in every decision.
fn write_time(at: Instant, buffer: &mut [u8; 24]) -> &[u8] {
    const DAY_MS: i64 = 86_400_000;
    let (days, ms) = (at.ms() / DAY_MS, at.ms() % DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let mut put = |place: usize, digits: usize, number: i64| {
        let mut rest = number;
        for digit in buffer[place..place + digits].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, ms / 3_600_000);
    put(14, 2, ms / 60_000 % 60);
    put(17, 2, ms / 1000 % 60);
    put(20, 3, ms % 1000);
    // Trailing zeros of the fraction are left out, and the point where nothing is left of it.
    let mut end = 23;
    while end > 20 && buffer[end - 1] == b'0' {
        end -= 1;
    }
    let end = if end == 20 { 19 } else { end };
    buffer[end] = b'Z';
    &buffer[..=end]
}

/// Year, month and day of a day counted from 1970-01-01, for days from then on (H. Hinnant's algorithm).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
