//! `GET /api/v1/tenants/{id}/history`: what was used when, as JSON, lines of JSON or CSV, written piece by piece.

use super::limit::Time;
use domain::{
    id::{DimensionKey, MeterKey, UserId},
    time::{Instant, WindowKind},
};
use engine::{HistoryAsked, HistoryPoint};
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFormat {
    /// One JSON object.
    Json,
    /// A JSON object a line.
    Lines,
    /// Comma-separated values with a line of names, as RFC 4180 has them.
    Csv,
}

impl HistoryFormat {
    /// The format with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Lines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// The format that an `Accept` header asks for first.
    pub fn from_accept(accept: &str) -> Option<Self> {
        let media = |part: &str| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        accept.split(',').find_map(|part| match media(part).as_str() {
            "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/jsonl" => Some(Self::Lines),
            "text/csv" => Some(Self::Csv),
            _ => None,
        })
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// What was used when.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = History)]
pub struct HistoryAnswer<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// The user, where one was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    /// `minute`, `hour`, `day` or `month`.
    #[schema(example = "day")]
    pub per: &'static str,
    /// The time zone in which hours, days and months are cut.
    #[schema(example = "Europe/Madrid")]
    pub timezone: &'a str,
    /// Where the answer begins: at the start of a bucket.
    #[schema(value_type = String, format = DateTime)]
    pub from: Time,
    /// Where it ends, not included.
    #[schema(value_type = String, format = DateTime)]
    pub to: Time,
    /// In order of time and meter. Buckets in which nothing was used are left out, but for gauges.
    pub items: Vec<HistoryPointShape<'a>>,
    /// Everything that was recorded before this instant is in the answer.
    #[schema(value_type = String, format = DateTime)]
    pub complete_until: Time,
}

/// A number.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HistoryPoint)]
pub struct HistoryPointShape<'a> {
    /// Where the bucket begins.
    #[schema(value_type = String, format = DateTime)]
    pub start: Time,
    /// Where it ends, not included.
    #[schema(value_type = String, format = DateTime)]
    pub end: Time,
    /// Which meter.
    pub meter: &'a str,
    /// Whose, where users are told apart; null for use that named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user_id: Option<Option<&'a str>>,
    /// With which dimensions, where they are told apart; null for use that named no value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub dimensions: BTreeMap<&'a str, Option<&'a str>>,
    /// What was used in it; the level of a gauge at its end, or now.
    pub used: i64,
    /// Unmet demand.
    pub denied: i64,
}

impl<'a> HistoryPointShape<'a> {
    fn of(point: &'a HistoryPoint, by_user: bool) -> Self {
        let value = |(key, value): &'a (DimensionKey, Option<Arc<str>>)| (key.as_str(), value.as_deref());
        Self {
            start: Time(point.window.start),
            end: Time(point.window.end),
            meter: point.meter.as_str(),
            user_id: by_user.then(|| point.user.as_ref().map(UserId::as_str)),
            dimensions: point.dimensions.iter().map(value).collect(),
            used: point.used,
            denied: point.denied,
        }
    }
}

/// Writes an answer piece by piece.
#[derive(Debug, Clone)]
pub struct HistoryWriter {
    format: HistoryFormat,
    by_user: bool,
    by: Vec<DimensionKey>,
    is_first: bool,
}

impl HistoryWriter {
    /// For an answer to this.
    pub fn new(format: HistoryFormat, asked: &HistoryAsked) -> Self {
        Self { format, by_user: asked.by_user, by: asked.by.clone(), is_first: true }
    }

    /// What stands before the points. `window` is what is answered.
    pub fn head(&self, asked: &HistoryAsked, window: domain::time::Window) -> Vec<u8> {
        match self.format {
            HistoryFormat::Lines => Vec::new(),
            HistoryFormat::Csv => {
                let names = ["start", "end", "meter"].into_iter();
                let names = names.chain(self.by_user.then_some("user_id"));
                let names = names.chain(self.by.iter().map(DimensionKey::as_str));
                csv_line(names.chain(["used", "denied"]))
            }
            HistoryFormat::Json => {
                let mut head = json(&HistoryAnswer {
                    tenant_id: asked.tenant.as_str(),
                    user_id: asked.user.as_ref().map(UserId::as_str),
                    per: asked.per.word(),
                    timezone: asked.zone.name(),
                    from: Time(window.start),
                    to: Time(window.end),
                    items: Vec::new(),
                    complete_until: Time(Instant::EPOCH),
                });
                // Up to where the points go.
                let items = b"\"items\":[";
                let place = head.windows(items.len()).position(|bytes| bytes == items);
                head.truncate(place.map_or(0, |place| place + items.len()));
                head
            }
        }
    }

    /// Points.
    pub fn points(&mut self, points: &[HistoryPoint]) -> Vec<u8> {
        let mut written = Vec::with_capacity(points.len() * 96);
        for point in points {
            match self.format {
                HistoryFormat::Csv => written.extend(self.csv(point)),
                HistoryFormat::Lines => {
                    written.extend(json(&HistoryPointShape::of(point, self.by_user)));
                    written.push(b'\n');
                }
                HistoryFormat::Json => {
                    if !std::mem::take(&mut self.is_first) {
                        written.push(b',');
                    }
                    written.extend(json(&HistoryPointShape::of(point, self.by_user)));
                }
            }
        }
        written
    }

    /// What stands after them.
    pub fn tail(&self, complete_until: Instant) -> Vec<u8> {
        match self.format {
            HistoryFormat::Csv => Vec::new(),
            HistoryFormat::Lines => format!("{{\"complete_until\":\"{}\"}}\n", complete_until.rfc3339()).into_bytes(),
            HistoryFormat::Json => format!("],\"complete_until\":\"{}\"}}", complete_until.rfc3339()).into_bytes(),
        }
    }

    fn csv(&self, point: &HistoryPoint) -> Vec<u8> {
        let (start, end) = (point.window.start.rfc3339(), point.window.end.rfc3339());
        let (used, denied) = (point.used.to_string(), point.denied.to_string());
        let user = point.user.as_ref().map_or("", UserId::as_str);
        let columns = [start.as_str(), end.as_str(), point.meter.as_str()].into_iter();
        let columns = columns.chain(self.by_user.then_some(user));
        let columns = columns.chain(point.dimensions.iter().map(|(_, value)| value.as_deref().unwrap_or_default()));
        csv_line(columns.chain([used.as_str(), denied.as_str()]))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts, numbers and objects of them: nothing here can fail to serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

/// A line of comma-separated values.
pub fn csv_line<'a>(columns: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let columns: Vec<Cow<'_, str>> = columns.map(csv_column).collect();
    let mut line = columns.join(",").into_bytes();
    line.extend_from_slice(b"\r\n");
    line
}

/// A value, quoted where it must be. One that a spreadsheet would read as a formula is kept from it by an apostrophe, as
/// OWASP advises: users' names come from outside.
fn csv_column(text: &str) -> Cow<'_, str> {
    let is_number = text.parse::<i64>().is_ok();
    let text: Cow<'_, str> = match text.starts_with(['=', '+', '-', '@']) && !is_number {
        true => format!("'{text}").into(),
        false => text.into(),
    };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")).into() } else { text }
}

/// The kinds of windows that history is answered by.
pub const PER: [WindowKind; 4] = [WindowKind::Minute, WindowKind::Hour, WindowKind::Day, WindowKind::Month];

/// A list of meters, separated by commas.
///
/// # Errors
/// A name that can't be one.
pub fn meters(text: &str) -> Result<Vec<MeterKey>, domain::id::NameError> {
    text.split(',').map(|name| MeterKey::new(name.trim())).collect()
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
