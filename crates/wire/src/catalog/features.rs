//! `[features.X]`: what a plan has or has not, and the texts shown to those who lack it.

use super::{
    keys,
    report::Report,
    table::{Declared, Node, Table, Text, prose},
};
use domain::{
    catalog::{Benefit, Feature, RoiValue},
    id::FeatureKey,
};
use std::{collections::BTreeMap, sync::Arc};
use toml::de::DeValue;

/// How many features a catalog may have.
const FEATURES_MAX: usize = 256;

/// Reads every feature.
pub(super) fn read(report: &mut Report<'_>, document: &mut Table<'_>) -> Declared<Feature> {
    let entries = document.named(report, "features", "feature");
    keys::at_most(report, document.key_span("features"), "features", entries.len(), FEATURES_MAX);
    let read = |(name, node): (Text<'_>, Node<'_>)| (name.text.to_owned(), feature(report, name, node).map(Arc::new));
    entries.into_iter().take(FEATURES_MAX).map(read).collect()
}

fn feature(report: &mut Report<'_>, name: Text<'_>, node: Node<'_>) -> Option<Feature> {
    let key = keys::key(report, name, "feature", FeatureKey::new);
    let mut table = node.table(report, keys::about("feature", name))?.at(name.span);
    let title = table.prose(report, "title", 200).unwrap_or_else(|| keys::humanized(name.text).into());
    let description = table.prose(report, "description", 2000);
    let benefits = benefits(report, &mut table);
    let preview_url = table.text(report, "preview_url");
    let preview_url = preview_url.and_then(|text| keys::link(report, text, "`preview_url`"));
    let social_proof = table.prose(report, "social_proof", 500);
    let roi_estimate = roi_estimate(report, &mut table);
    table.finish(report);
    Some(Feature { key: key?, title, description, benefits, preview_url, social_proof, roi_estimate })
}

fn benefits(report: &mut Report<'_>, table: &mut Table<'_>) -> Vec<Benefit> {
    let nodes = table.list(report, "benefits");
    keys::at_most(report, table.key_span("benefits"), "benefits", nodes.len(), 20);
    nodes.into_iter().take(20).filter_map(|node| benefit(report, node)).collect()
}

fn benefit(report: &mut Report<'_>, node: Node<'_>) -> Option<Benefit> {
    if let DeValue::String(text) = node.value {
        let text = prose(report, Text { text, span: node.span }, "a benefit", 300)?;
        return Some(Benefit { text, icon: None });
    }
    let mut table = node.table(report, "a benefit")?;
    let help = "write { text = \"...\", icon = \"...\" }, or only the text";
    let text = table.required(report, "text", help).and_then(|node| node.text(report, "`text` of a benefit"));
    let text = text.and_then(|text| prose(report, text, "`text` of a benefit", 300));
    let icon = table.prose(report, "icon", 100);
    table.finish(report);
    Some(Benefit { text: text?, icon })
}

fn roi_estimate(report: &mut Report<'_>, table: &mut Table<'_>) -> BTreeMap<Arc<str>, RoiValue> {
    let Some(node) = table.get("roi_estimate") else { return BTreeMap::new() };
    let Some(mut estimate) = node.table(report, "`roi_estimate`") else { return BTreeMap::new() };
    let mut values = BTreeMap::new();
    let entries: Vec<_> = estimate.all().collect();
    keys::at_most(report, Some(node.span), "values in `roi_estimate`", entries.len(), 20);
    for (name, node) in entries.into_iter().take(20) {
        let what = format!("`roi_estimate.{}`", name.text.escape_debug());
        let value = match node.value {
            DeValue::Integer(_) => node.integer(report, &what).map(RoiValue::Integer),
            DeValue::String(text) => prose(report, Text { text, span: node.span }, &what, 200).map(RoiValue::Text),
            _ => {
                node.expected(report, &what, "an integer or a text", Some("write fractions as a text: \"1.5\""));
                None
            }
        };
        if let Some(value) = value {
            values.insert(name.text.into(), value);
        }
    }
    values
}
