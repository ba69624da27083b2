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
    /// What was used on days that are over.
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
            Kind::History => (&["tenant_id", "date", "meter", "used"], &["user_id"]),
        }
    }
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
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let mut seen = BTreeMap::new();
    for record in records {
        let said = names.iter().copied().zip(record.fields.iter().map(|field| field.trim()));
        let said: Said<'_> = said.filter(|(_, value)| !value.is_empty()).collect();
        let row = match record.fields.len() == names.len() {
            true => row(kind, &said, needed),
            false => Err(format!("{} values, where the first line names {}", record.fields.len(), names.len())),
        };
        match row {
            Ok((name, method, path, body)) => match seen.insert(name, record.line) {
                Some(first) => failed.push((record.line, format!("line {first} says something of the same already"))),
                None => rows.push(Row { line: record.line, method, path, body }),
            },
            Err(why) => failed.push((record.line, why)),
        }
    }
    Ok((rows, failed))
}

/// What a line is about, and how it is sent.
fn row(kind: Kind, said: &Said<'_>, needed: &[&str]) -> Result<(String, Method, String, Value), String> {
    if let Some(missing) = needed.iter().find(|name| !said.contains_key(*name)) {
        return Err(format!("{missing} is empty"));
    }
    let get = |name: &str| said.get(name).copied();
    let named = |name: &str| get(name).unwrap_or_default();
    let tenant = TenantId::new(named("tenant_id")).map_err(|error| format!("tenant_id: {error}"))?;
    let path = format!("/api/v1/tenants/{}", in_path(tenant.as_str()));
    if kind == Kind::Tenants {
        let body: BTreeMap<&str, &str> =
            said.iter().filter(|(name, _)| **name != "tenant_id").map(|(name, value)| (*name, *value)).collect();
        return Ok((tenant.to_string(), Method::PUT, path, json!(body)));
    }
    let meter = MeterKey::new(named("meter")).map_err(|error| format!("meter: {error}"))?;
    let user = get("user_id").map(UserId::new).transpose().map_err(|error| format!("user_id: {error}"))?;
    let number = |name: &str| match named(name).parse::<i64>() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(format!("{name} is {:?}, which is no whole number from 0 on", named(name))),
    };
    let (what, mut body) = match kind {
        Kind::History => {
            let date = Day::parse(named("date"));
            let date = date.ok_or_else(|| format!("date is {:?}; write e.g. 2026-03-01", named("date")))?;
            let body = json!({ "add": number("used")?, "on": date.to_string(), "reason": "imported history" });
            (date.to_string(), body)
        }
        _ => {
            let mut body = json!({ "set": number("value")?, "reason": "opening balance" });
            if let Some(window) = get("window") {
                body["window"] = window.into();
            }
            (named("window").to_owned(), body)
        }
    };
    let about = format!("{} {} {} {what}", tenant.as_str(), meter.as_str(), user.as_ref().map_or("", UserId::as_str));
    body["meter"] = meter.as_str().into();
    if let Some(user) = &user {
        body["user_id"] = user.as_str().into();
    }
    // A balance may be corrected by another import; a day is counted once.
    if kind == Kind::History {
        body["id"] = format!("import {about}").into();
    }
    Ok((about, Method::POST, format!("{path}/adjustments"), body))
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
    fn the_first_line_names_the_columns() {
        let error = |text: &str| read(Kind::History, &wire::csv::records(text).unwrap()).unwrap_err().to_string();
        assert!(error("").contains("empty"));
        assert!(error("tenant_id,meter,used\n").contains("no column date"));
        assert!(error("tenant_id,date,meter,used,colour\n").contains("colour"));
    }
}
