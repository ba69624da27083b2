//! Lines of CSV as requests to the API.

use crate::client::in_path;
use anyhow::bail;
use domain::{
    day::Day,
    id::{MeterKey, TenantId, UserId},
};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wire::csv::Record;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tenants.
    Tenants,
    /// What was used so far.
    Balances,
    /// What was used on days that are over, and where levels stood when they ended.
    History,
}

impl Kind {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Tenants => "tenants",
            Kind::Balances => "balances",
            Kind::History => "history",
        }
    }

    /// The columns that a file must have, and those that it may.
    fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Kind::Tenants => (&["tenant_id"], &["plan", "timezone", "period_anchor", "status"]),
            Kind::Balances => (&["tenant_id", "meter", "value"], &["user_id", "window"]),
            Kind::History => (&["tenant_id", "date", "meter"], &["used", "level", "user_id"]),
        }
    }
}

/// A day that a line tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfDay {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub meter: MeterKey,
    /// Which.
    pub day: Day,
    /// Whether it tells where a level stood, and not what was used.
    pub is_level: bool,
}

/// A line, as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub line: usize,
    /// How it is sent.
    pub method: Method,
    /// Where to.
    pub path: String,
    /// What.
    pub body: Value,
    /// The day that it tells of, where it is history.
    pub of_day: Option<OfDay>,
}

/// What a line says, by column. What is empty was not said.
type Said<'a> = BTreeMap<&'a str, &'a str>;

/// The rows that can be sent, and the lines that can't, with the reason.
///
/// # Errors
/// Where the first line does not name the columns.
pub fn read(kind: Kind, records: &[Record]) -> anyhow::Result<(Vec<Row>, super::Failed)> {
    let (needed, known) = kind.columns();
    let Some((names, records)) = records.split_first() else {
        bail!("the file is empty; its first line names the columns: {}", needed.join(", "));
    };
    let names: Vec<&str> = names.fields.iter().map(|name| name.trim()).collect();
    if let Some(missing) = needed.iter().find(|name| !names.contains(name)) {
        bail!("the first line names no column {missing}; it must name {}", needed.join(", "));
    }
    if let Some(unknown) = names.iter().find(|name| !needed.contains(name) && !known.contains(name)) {
        bail!(
            "the first line names the column {unknown:?}, which is not known; besides {} there may be {}",
            needed.join(", "),
            known.join(", ")
        );
    }
    if kind == Kind::History && !names.contains(&"used") && !names.contains(&"level") {
        bail!("the first line names neither used nor level: say what was used, or where a level stood");
    }
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let mut seen = BTreeMap::new();
    for record in records {
        let said = names.iter().copied().zip(record.fields.iter().map(|field| field.trim()));
        let said: Said<'_> = said.filter(|(_, value)| !value.is_empty()).collect();
        let row = match record.fields.len() == names.len() {
            true => row(kind, &said, needed, record.line),
            false => Err(format!("{} values, where the first line names {}", record.fields.len(), names.len())),
        };
        match row {
            Ok((name, row)) => match seen.insert(name, record.line) {
                Some(first) => failed.push((record.line, format!("line {first} says something of the same already"))),
                None => rows.push(row),
            },
            Err(why) => failed.push((record.line, why)),
        }
    }
    Ok((rows, failed))
}

/// What a line is about, and how it is sent.
fn row(kind: Kind, said: &Said<'_>, needed: &[&str], line: usize) -> Result<(String, Row), String> {
    if let Some(missing) = needed.iter().find(|name| !said.contains_key(*name)) {
        return Err(format!("{missing} is empty"));
    }
    let tenant = TenantId::new(named(said, "tenant_id")).map_err(|error| format!("tenant_id: {error}"))?;
    match kind {
        Kind::Tenants => Ok(tenant_row(said, &tenant, line)),
        Kind::Balances => balance_row(said, &tenant, line),
        Kind::History => history_row(said, tenant, line),
    }
}

fn tenant_row(said: &Said<'_>, tenant: &TenantId, line: usize) -> (String, Row) {
    let body: BTreeMap<&str, &str> =
        said.iter().filter(|(name, _)| **name != "tenant_id").map(|(name, value)| (*name, *value)).collect();
    let row = Row { line, method: Method::PUT, path: path_of(tenant), body: json!(body), of_day: None };
    (tenant.to_string(), row)
}

fn balance_row(said: &Said<'_>, tenant: &TenantId, line: usize) -> Result<(String, Row), String> {
    let (meter, user) = (meter(said)?, user(said)?);
    let mut body = json!({ "meter": meter.as_str(), "set": number(said, "value")?, "reason": "opening balance" });
    if let Some(window) = said.get("window") {
        body["window"] = (*window).into();
    }
    if let Some(user) = &user {
        body["user_id"] = user.as_str().into();
    }
    let about = about(tenant, &meter, user.as_ref(), named(said, "window"));
    Ok((about, Row { line, method: Method::POST, path: adjustments_of(tenant), body, of_day: None }))
}

fn history_row(said: &Said<'_>, tenant: TenantId, line: usize) -> Result<(String, Row), String> {
    let (meter, user) = (meter(said)?, user(said)?);
    let day = Day::parse(named(said, "date"));
    let day = day.ok_or_else(|| format!("date is {:?}; write e.g. 2026-03-01", named(said, "date")))?;
    let date = day.to_string();
    let about = about(&tenant, &meter, user.as_ref(), &date);
    let is_level = match (said.contains_key("used"), said.contains_key("level")) {
        (true, false) => false,
        (false, true) if user.is_some() => return Err("level is the tenant's: leave user_id empty".to_owned()),
        (false, true) => true,
        (true, true) => return Err("used and level: a line tells of one of them".to_owned()),
        (false, false) => return Err("used and level are empty: a line tells of one of them".to_owned()),
    };
    let (path, body) = if is_level {
        let levels = BTreeMap::from([(meter.as_str(), number(said, "level")?)]);
        (TRACK_PATH.to_owned(), json!({ "tenant_id": tenant.as_str(), "date": date, "levels": levels }))
    } else {
        // A day is counted once, however often it is sent.
        let id = format!("import {about}");
        let used = number(said, "used")?;
        let mut body =
            json!({ "meter": meter.as_str(), "add": used, "on": date, "reason": "imported history", "id": id });
        if let Some(user) = &user {
            body["user_id"] = user.as_str().into();
        }
        (adjustments_of(&tenant), body)
    };
    let of_day = Some(OfDay { tenant, meter, day, is_level });
    Ok((about, Row { line, method: Method::POST, path, body, of_day }))
}

/// Where the level of a day is told.
const TRACK_PATH: &str = "/api/v1/usage-forecast/track-usage";

fn path_of(tenant: &TenantId) -> String {
    format!("/api/v1/tenants/{}", in_path(tenant.as_str()))
}

fn adjustments_of(tenant: &TenantId) -> String {
    format!("{}/adjustments", path_of(tenant))
}

fn about(tenant: &TenantId, meter: &MeterKey, user: Option<&UserId>, what: &str) -> String {
    format!("{} {} {} {what}", tenant.as_str(), meter.as_str(), user.map_or("", UserId::as_str))
}

fn named<'a>(said: &Said<'a>, name: &str) -> &'a str {
    said.get(name).copied().unwrap_or_default()
}

fn meter(said: &Said<'_>) -> Result<MeterKey, String> {
    MeterKey::new(named(said, "meter")).map_err(|error| format!("meter: {error}"))
}

fn user(said: &Said<'_>) -> Result<Option<UserId>, String> {
    said.get("user_id").map(|user| UserId::new(user)).transpose().map_err(|error| format!("user_id: {error}"))
}

fn number(said: &Said<'_>, name: &str) -> Result<i64, String> {
    match named(said, name).parse::<i64>() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(format!("{name} is {:?}, which is no whole number from 0 on", named(said, name))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read_text(kind: Kind, text: &str) -> (Vec<Row>, Vec<(usize, String)>) {
        read(kind, &wire::csv::records(text).unwrap()).unwrap()
    }

    #[test]
    fn lines_become_requests() {
        let (rows, failed) = read_text(Kind::Tenants, "tenant_id,plan\nacme,free\nb/c,free\nacme,pro\n");
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].path.as_str(), &rows[0].body), ("/api/v1/tenants/acme", &json!({ "plan": "free" })));
        assert_eq!(failed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4]);

        let (rows, failed) =
            read_text(Kind::Balances, "tenant_id,meter,value,window\nacme,messages,12,\nacme,messages,x,day\n");
        assert_eq!(rows[0].body, json!({ "meter": "messages", "set": 12, "reason": "opening balance" }));
        assert_eq!(failed[0].0, 3);

        let text =
            "date,tenant_id,meter,used,user_id\n2026-02-28,acme,messages,7,ann\n2026-02-30,acme,messages,7,ann\n";
        let (rows, failed) = read_text(Kind::History, text);
        assert_eq!(rows[0].body["on"], "2026-02-28");
        assert_eq!(rows[0].body["id"], "import acme messages ann 2026-02-28");
        assert_eq!(failed.len(), 1);
    }

    #[test]
    fn a_line_of_history_tells_of_use_or_of_a_level() {
        let text = "date,tenant_id,meter,used,level,user_id\n2026-02-28,acme,documents,,35,\n2026-02-28,acme,messages,7,,\n\
                    2026-02-28,acme,messages,7,8,bob\n2026-02-28,acme,messages,,,cid\n2026-02-28,acme,documents,,35,ann\n";
        let (rows, failed) = read_text(Kind::History, text);
        assert_eq!((rows.len(), rows[0].path.as_str()), (2, TRACK_PATH));
        assert_eq!(rows[0].body, json!({ "tenant_id": "acme", "date": "2026-02-28", "levels": { "documents": 35 } }));
        assert_eq!(rows.iter().map(|row| row.of_day.as_ref().unwrap().is_level).collect::<Vec<_>>(), [true, false]);
        assert_eq!(failed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 6]);
    }

    #[test]
    fn the_first_line_names_the_columns() {
        let error = |text: &str| read(Kind::History, &wire::csv::records(text).unwrap()).unwrap_err().to_string();
        assert!(error("").contains("empty"));
        assert!(error("tenant_id,meter,used\n").contains("no column date"));
        assert!(error("tenant_id,date,meter\n").contains("neither used nor level"));
        assert!(error("tenant_id,date,meter,used,colour\n").contains("colour"));
    }
}
