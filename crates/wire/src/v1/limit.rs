//! One limit with its numbers, as it stands in every answer that shows one.

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
    /// `period`, `month`, `day`, `hour`, `minute`, or `none` for a gauge's level.
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
            window: state.window.map_or(NO_WINDOW, |kind| kind.word()),
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
}

/// An instant on the wire: RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Instant);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}
