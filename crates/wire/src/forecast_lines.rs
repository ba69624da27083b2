//! `tidegate forecast --jsonl`: one question a line, one answer a line. Each is read and answered from its own line alone.

use domain::day::Day;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest line, in bytes: ten years of days, and room.
pub const LINE_MAX_BYTES: usize = 256 * 1024;
/// Most days of history in one question: ten years, with their leap days.
pub const DAYS_MAX: usize = 3653;
/// Longest id, in bytes.
pub const ID_MAX_BYTES: usize = 512;
/// Largest value and limit: the largest whole number that JSON's numbers hold exactly.
pub const VALUE_MAX: f64 = 9_007_199_254_740_991.0;
/// Longest period, in days: a year.
pub const PERIOD_MAX_DAYS: i32 = 366;

/// One question, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The caller's name for it; the answer carries it.
    pub id: String,
    /// Day and value, at least one; in the order given, and perhaps with a day twice.
    pub history: Vec<(Day, f64)>,
    /// The limit: above 0, at most [`VALUE_MAX`].
    pub limit: f64,
    /// `None` for a gauge; a counter's first and last day, which hold the last day of the history.
    pub period: Option<(Day, Day)>,
}

/// Why a line is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The id, where it could be read.
    pub id: Option<String>,
    /// A sentence that names what is wrong and says what would be right.
    pub detail: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    history: Vec<Row<'a>>,
    limit: f64,
    #[serde(borrow, default)]
    period_start: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    period_end: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    date: Cow<'a, str>,
    value: f64,
}

/// The id alone, of a line that is no question but JSON.
#[derive(Deserialize)]
struct OnlyId<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// Reads one line.
///
/// # Errors
/// Where it is no question: not JSON of this shape, or with values that make no sense.
pub fn read(line: &str) -> Result<Asked, Wrong> {
    if line.len() > LINE_MAX_BYTES {
        return Err(too_long());
    }
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| Wrong {
        id: id_of(line),
        detail: format!(
            "the line is not a question: {error}. Expected id, kind, history, limit, period_start, period_end"
        ),
    })?;
    check(&line).map_err(|detail| Wrong { id: shown_id(&line.id), detail })
}

/// What is wrong with a line that was too long to be read at all.
pub fn too_long() -> Wrong {
    Wrong {
        id: None,
        detail: format!("the line is longer than {LINE_MAX_BYTES} bytes: send at most {DAYS_MAX} days of history"),
    }
}

fn id_of(line: &str) -> Option<String> {
    let only: OnlyId<'_> = serde_json::from_str(line).ok()?;
    shown_id(&serde_json::from_str::<Cow<'_, str>>(only.id.get()).ok()?)
}

fn shown_id(id: &str) -> Option<String> {
    (!id.is_empty() && id.len() <= ID_MAX_BYTES).then(|| id.to_owned())
}

fn check(line: &Line<'_>) -> Result<Asked, String> {
    let id = shown_id(&line.id).ok_or_else(|| format!("id has {} bytes: give 1 to {ID_MAX_BYTES}", line.id.len()))?;
    let days = line.history.len();
    if days == 0 || days > DAYS_MAX {
        return Err(format!("history has {days} days: give 1 to {DAYS_MAX}"));
    }
    let limit = line.limit;
    if !(limit > 0.0 && limit <= VALUE_MAX) {
        return Err(format!("limit is {limit}: give a number above 0, at most {VALUE_MAX}"));
    }
    let history = line.history.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let last = history.iter().map(|(day, _)| *day).max();
    let period = match &*line.kind {
        "gauge" => None,
        "counter" => Some(period(line, last)?),
        other => return Err(format!("kind is {:?}: give \"gauge\" or \"counter\"", short(other))),
    };
    Ok(Asked { id, history, limit, period })
}

fn row(row: &Row<'_>) -> Result<(Day, f64), String> {
    let day = date("history's date", &row.date)?;
    match row.value {
        value if (0.0..=VALUE_MAX).contains(&value) => Ok((day, value)),
        value => Err(format!("history's value of {day} is {value}: give a number from 0 to {VALUE_MAX}")),
    }
}

fn period(line: &Line<'_>, last: Option<Day>) -> Result<(Day, Day), String> {
    let bound = |name: &str, text: &Option<Cow<'_, str>>| match text {
        Some(text) => date(name, text),
        None => Err(format!("{name} is missing: a counter's question needs it")),
    };
    let (start, end) = (bound("period_start", &line.period_start)?, bound("period_end", &line.period_end)?);
    let length = end - start;
    if !(0..PERIOD_MAX_DAYS).contains(&length) {
        return Err(format!("the period from {start} to {end} has to have 1 to {PERIOD_MAX_DAYS} days"));
    }
    if last.is_none_or(|last| last < start || last > end) {
        return Err(format!("the history has to end inside the period from {start} to {end}"));
    }
    Ok((start, end))
}

fn date(name: &str, text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| format!("{name} is {:?}: give a date as YYYY-MM-DD", short(text)))
}

/// What somebody sent, short enough to be shown.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// One answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answer<'a> {
    /// The question's.
    pub id: &'a str,
    /// The likely day, or `null`: not within the horizon.
    pub predicted_breach_date: Option<String>,
    /// One chance in ten that it is earlier.
    pub lower: Option<String>,
    /// One in ten that it is later; `null` is open-ended.
    pub upper: Option<String>,
    /// 10 %, 50 % and 90 % points of use above the last snapshot, for each of the next days.
    pub path: Vec<[f64; 3]>,
}

/// What is answered to a line that is no question.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal<'a> {
    /// The question's, where it could be read.
    pub id: Option<&'a str>,
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it, and what would be right.
    pub error: &'a str,
}

/// The JSON of an answer or a refusal, without the line's end.
pub fn line(shape: &impl Serialize) -> String {
    serde_json::to_string(shape).unwrap_or_default()
}

#[cfg(test)]
#[path = "forecast_lines_tests.rs"]
mod tests;
