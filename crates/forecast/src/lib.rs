//! When a meter will reach its limit: daily history in, a status and the 10, 50 and 90 % points of the date out.
//!
//! Pure: no clock, no I/O, no randomness. A question is answered from itself alone; what other tenants do comes in by the
//! [`Prior`] only. Floats are at home here: a forecast is no account.
//!
//! # How
//!
//! 1. The history becomes daily changes ([`History`]; a level's differences, a counter's use). A counter's days are never
//!    summed across a reset: what is asked is the sum of the days that are left in its window.
//! 2. What is eight times as large as the changes of other days is cut down to that: a deletion or an import in bulk is a shift of
//!    the level, and no rate.
//! 3. A long and a short rate are blended; the short one fades. Both are drawn towards what the prior expects, so that a
//!    flat week is no promise.
//! 4. Use after h days follows a law of the gamma kind: noise of days and weeks, and doubt about the rate. Few traits of
//!    the history (how long, how lively, how even) widen it and correct the rate, the more the doubt.
//! 5. A date's 10, 50 and 90 % points are the first days on which the 90, 50 and 10 % points of use reach the headroom.
//!
//! What was foreseen is judged when its day has come ([`Kept`], [`Score`]); what is learnt from that makes the next intervals wider or
//! narrower ([`Calibration`]), and what all tenants' levels show is the [`Prior`] of each meter ([`Learning`]).
//!
//! [`outlook`] puts a tenant's questions together, from its limits with their live numbers and its daily history.
//!
//! Where each number comes from stands beside it, in the source of `constants.rs`; what it is good for, in `bench/README.md`.

mod answer;
mod asked;
mod backtest;
mod constants;
mod daily;
mod foresee;
mod history;
mod law;
mod learn;
mod lessons;
mod outlook;
mod question;
mod score;
mod shape;
pub mod simulate;
mod traits;

pub use answer::{Dates, Forecast, Quantiles, Status};
pub use asked::{days_of, last_known};
pub use backtest::{Replay, backtest, first_reached};
pub use foresee::{HORIZON_DAYS, WINDOW_MAX_DAYS, foresee};
pub use history::{History, HistoryError};
pub use learn::Learning;
pub use lessons::{Lesson, Lessons};
pub use outlook::{
    HISTORY_DAYS, Histories, LimitOutlook, MeterBacktest, MeterOutlook, Outlook, Recorded, Seen, TREND_DAYS, backtests,
    outlook, percent,
};
pub use question::{Measure, Prior, Question, Settings, Thresholds};
pub use score::{ALERT_DAYS, Calibration, Judgement, Kept, SCORE_COUNTS, Score};
