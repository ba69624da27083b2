//! Usage as it moves: a line whenever a tenant of the demo used more of what is watched.

use super::scene::Actor;
use crate::output;
use domain::id::TenantId;
use engine::Engine;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How often it is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells of every move of a meter of time, until it is dropped.
pub async fn run(actors: &'static [Actor], meter: &'static str, engine: Arc<Engine>) {
    let mut told = BTreeMap::new();
    loop {
        for actor in actors {
            let Some(now) = Time::of(&engine, actor.tenant, meter).await else { continue };
            let before = told.insert(actor.tenant, now);
            if before.is_some_and(|before| before != now) && output::line(&now.line(actor.tenant, meter)).is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a tenant has used, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Time {
    used: i64,
    held: i64,
    /// Of its billing period; `None` where that has no limit.
    max: Option<i64>,
}

impl Time {
    async fn of(engine: &Engine, tenant: &str, meter: &str) -> Option<Self> {
        let (_, usage) = engine.usage(&TenantId::new(tenant).ok()?, None).await.ok()?;
        let usage = usage.meters.into_iter().find(|usage| usage.meter.key.as_str() == meter)?;
        let limits = usage.limits.iter().filter(|state| !state.window.is_of_sessions());
        Some(Self { used: usage.used, held: usage.held, max: limits.filter_map(|state| state.max).min() })
    }

    fn line(self, tenant: &str, meter: &str) -> String {
        let held = if self.held > 0 { format!(", {} held ahead", clock(self.held)) } else { String::new() };
        let max = self.max.map_or(String::new(), |max| format!(" of {}", clock(max)));
        format!("  {tenant}: {meter} {}{max}{held}", clock(self.used))
    }
}

/// Minutes and seconds.
fn clock(ms: i64) -> String {
    let seconds = ms / 1_000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
