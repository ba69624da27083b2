#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    id::TenantId,
    time::{Window, Zone},
};

fn asked(by_user: bool, by: &[&str]) -> HistoryAsked {
    HistoryAsked {
        tenant: TenantId::new("acme").unwrap(),
        per: WindowKind::Day,
        zone: Zone::named("Europe/Madrid").unwrap(),
        window: Window { start: at("2026-03-28T23:00:00Z"), end: at("2026-03-29T22:00:00Z") },
        meters: vec![],
        user: None,
        dimension: None,
        by_user,
        by: by.iter().map(|key| DimensionKey::new(key).unwrap()).collect(),
    }
}

fn at(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

fn point(user: Option<&str>, model: Option<&str>, used: i64) -> HistoryPoint {
    HistoryPoint {
        window: asked(false, &[]).window,
        meter: MeterKey::new("messages").unwrap(),
        user: user.map(|user| UserId::new(user).unwrap()),
        dimensions: vec![(DimensionKey::new("model").unwrap(), model.map(Into::into))],
        used,
        denied: 0,
    }
}

/// An answer in two pieces.
fn written(format: HistoryFormat, asked: &HistoryAsked, points: &[HistoryPoint]) -> String {
    let mut writer = HistoryWriter::new(format, asked);
    let mut text = writer.head(asked, asked.window);
    let (first, rest) = points.split_at(points.len().min(1));
    text.extend(writer.points(first));
    text.extend(writer.points(rest));
    text.extend(writer.tail(at("2026-03-30T10:00:00Z")));
    String::from_utf8(text).unwrap()
}

#[test]
fn every_format_says_the_same() {
    let asked = asked(true, &["model"]);
    let points = [point(Some("ann"), Some("tide, \"large\""), 3), point(Some("=cmd"), None, -2), point(None, None, 1)];
    let when = r#""start":"2026-03-28T23:00:00Z","end":"2026-03-29T22:00:00Z","meter":"messages""#;
    let lines = [
        format!(r#"{{{when},"user_id":"ann","dimensions":{{"model":"tide, \"large\""}},"used":3,"denied":0}}"#),
        format!(r#"{{{when},"user_id":"=cmd","dimensions":{{"model":null}},"used":-2,"denied":0}}"#),
        format!(r#"{{{when},"user_id":null,"dimensions":{{"model":null}},"used":1,"denied":0}}"#),
    ];
    let until = r#""complete_until":"2026-03-30T10:00:00Z""#;
    assert_eq!(written(HistoryFormat::Lines, &asked, &points), format!("{}\n{{{until}}}\n", lines.join("\n")));
    let head = r#""tenant_id":"acme","per":"day","timezone":"Europe/Madrid""#;
    let window = r#""from":"2026-03-28T23:00:00Z","to":"2026-03-29T22:00:00Z""#;
    assert_eq!(
        written(HistoryFormat::Json, &asked, &points),
        format!("{{{head},{window},\"items\":[{}],{until}}}", lines.join(","))
    );
    let day = "2026-03-28T23:00:00Z,2026-03-29T22:00:00Z,messages";
    assert_eq!(
        written(HistoryFormat::Csv, &asked, &points),
        format!(
            "start,end,meter,user_id,model,used,denied\r\n{day},ann,\"tide, \"\"large\"\"\",3,0\r\n\
             {day},'=cmd,,-2,0\r\n{day},,,1,0\r\n"
        )
    );
}

#[test]
fn an_empty_answer_is_whole() {
    let shown: serde_json::Value =
        serde_json::from_str(&written(HistoryFormat::Json, &asked(false, &[]), &[])).unwrap();
    assert_eq!(shown["items"], serde_json::json!([]));
    assert_eq!(shown["complete_until"], "2026-03-30T10:00:00Z");
    assert_eq!(written(HistoryFormat::Csv, &asked(false, &[]), &[]), "start,end,meter,used,denied\r\n");
}

#[test]
fn a_format_is_asked_for_by_its_media_type() {
    assert_eq!(HistoryFormat::from_accept("text/html, text/csv;q=0.9"), Some(HistoryFormat::Csv));
    assert_eq!(HistoryFormat::from_accept("*/*"), None);
}
