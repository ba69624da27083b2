//! What the replay needs, asked of the node: the catalog in force, who is on what, and the daily history.

use super::{report::Subject, start_of};
use crate::{
    catalog_file,
    client::{Client, in_path},
    commands::{all_pages, parameter},
    output::ProgressBar,
};
use anyhow::Context;
use domain::{
    catalog::{Catalog, Limit, Mode, Outage, Quota, Scope},
    day::Day,
    id::{MeterKey, PlanKey},
    time::{Frame, Instant, WindowKind, Zone},
};
use forecast::simulate::Recorded;
use serde_json::Value;
use std::collections::BTreeMap;

/// Tenants whose history is asked for at once.
const PAGE_TENANTS: usize = 50;

/// The catalog in force.
pub async fn catalog_in_force(client: &Client) -> anyhow::Result<Catalog> {
    let all = client.get("/api/v1/catalogs").await?;
    let in_force = all["items"].as_array().into_iter().flatten().find(|catalog| catalog["in_force"] == true);
    let version =
        in_force.and_then(|catalog| catalog["version"].as_u64()).context("the node has no catalog in force")?;
    let found = client.get(&format!("/api/v1/catalogs/{version}")).await?;
    let text = found["text"].as_str().context("the node's catalog has no text")?.to_owned();
    Ok(catalog_file::parse(text, "the catalog in force")?.loaded.catalog)
}

/// Every tenant (or one) with what it used on each of so many days until yesterday, and those days, by the node's clock.
pub async fn subjects(client: &Client, only: Option<&str>, days: u16) -> anyhow::Result<(Vec<Subject>, (Day, Day))> {
    let tenants = match only {
        Some(tenant) => vec![client.get(&format!("/api/v1/tenants/{}", in_path(tenant))).await?],
        None => all_pages(client, "/api/v1/tenants", usize::MAX).await?,
    };
    let mut subjects = BTreeMap::new();
    for tenant in &tenants {
        let subject = subject(tenant)?;
        subjects.insert(subject.tenant.clone(), subject);
    }
    let mut bar = ProgressBar::new("reading");
    let (mut done, mut cursor, mut shown) = (0, None::<String>, None);
    loop {
        let after = parameter("cursor", cursor.as_deref());
        let of = parameter("tenant_id", only);
        let path = format!("/api/v1/snapshots?days={days}&limit={PAGE_TENANTS}{of}{after}");
        let page = client.get(&path).await?;
        shown.get_or_insert((day(&page["from"])?, day(&page["to"])?));
        for item in page["items"].as_array().into_iter().flatten() {
            done += 1;
            let tenant = item["tenant_id"].as_str().unwrap_or_default();
            if let Some(subject) = subjects.get_mut(tenant) {
                subject.recorded = recorded(item, &subject.frame)?;
            }
        }
        bar.at(done, tenants.len() as u64);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    bar.end();
    let days = shown.context("the node names no days")?;
    Ok((subjects.into_values().collect(), days))
}

fn subject(tenant: &Value) -> anyhow::Result<Subject> {
    let text = |field: &str| tenant[field].as_str().with_context(|| format!("a tenant without {field}"));
    let zone = text("timezone")?;
    let frame = Frame {
        anchor: Instant::parse(text("period_anchor")?).context("a tenant's period_anchor is no instant")?,
        zone: Zone::named(zone).with_context(|| format!("this program does not know the time zone {zone}"))?,
    };
    let overrides =
        tenant["overrides"].as_array().into_iter().flatten().map(own_limit).collect::<anyhow::Result<_>>()?;
    let plan = PlanKey::new(text("plan")?)?;
    Ok(Subject { tenant: text("tenant_id")?.to_owned(), plan, frame, overrides, recorded: Vec::new() })
}

/// A limit of a tenant's own.
fn own_limit(own: &Value) -> anyhow::Result<Limit> {
    let word = |field: &str| own[field].as_str().with_context(|| format!("an override without {field}"));
    let meter = MeterKey::new(word("meter")?)?;
    let window =
        wire::v1::tenants::limit_window(Some(word("window")?)).map_err(|_| anyhow::anyhow!("an override's window"))?;
    let scope = [Scope::Tenant, Scope::User].into_iter().find(|scope| own["scope"] == scope.word());
    let mode = [Mode::Hard, Mode::Soft, Mode::Shadow].into_iter().find(|mode| own["mode"] == mode.word());
    let scope = scope.context("an override's scope")?;
    Ok(Limit {
        name: format!("{} (own)", Limit::default_name(&meter, window, scope)).into(),
        meter,
        max: own["max"].as_i64(),
        window,
        scope,
        mode: mode.context("an override's mode")?,
        answer_402: false,
        outage: Outage::default(),
        quota: Quota::default(),
    })
}

/// The days of a tenant as points in time: one a day, and where a billing period ended within the day one more for what was
/// used after that.
fn recorded(item: &Value, frame: &Frame) -> anyhow::Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for meter in item["meters"].as_array().into_iter().flatten() {
        let mut points = Vec::new();
        for row in meter["days"].as_array().into_iter().flatten() {
            let start = start_of(day(&row["day"])?);
            let value = row["value"].as_i64().context("a snapshot without a value")?;
            let later = row["after_reset"].as_i64();
            // At the day's middle, which lies in the same day of nearly every zone; a day that is split begins where it begins.
            let at = if later.is_some() { start } else { start.plus_ms(domain::time::DAY_MS / 2) };
            points.push((at, value - later.unwrap_or(0)));
            if let Some(later) = later {
                let end = start.plus_ms(domain::time::DAY_MS - 1);
                points.push((frame.window(WindowKind::Period, end).start.max(start), later));
            }
        }
        let key = meter["meter"].as_str().context("a snapshot without a meter")?;
        all.push(Recorded { meter: MeterKey::new(key)?, points });
    }
    Ok(all)
}

fn day(value: &Value) -> anyhow::Result<Day> {
    value.as_str().and_then(Day::parse).with_context(|| format!("{value} is no day"))
}
