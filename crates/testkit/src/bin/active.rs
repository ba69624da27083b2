//! `cargo run --release -p testkit --bin active -- PATH TENANTS USERS`: how much memory active tenants take in the engine.
//! Every tenant uses five meters, and each of its users one of them, in two different minutes; then everything is written
//! down. Nothing else of a node is there, so what is printed is the engine's and the ledger's memory alone.

use domain::{
    catalog::MeterKind,
    entry::Cause,
    id::{TenantId, UserId},
    op::Charge,
    time::WindowKind,
};
use engine::{
    Engine,
    ports::Clock,
    requests::{Ack, Check},
};
use std::{error::Error, path::Path, sync::Arc};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::{
    catalog::{Draft, limit, meter},
    clock::SimClock,
};

// As in the product: what is measured is also how much room it leaves between things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const METERS: [&str; 5] = ["messages", "api_calls", "tokens", "exports", "conversation_time"];
const BATCH_TENANTS: u64 = 500;
const NOW: &str = "2026-03-01T12:00:00Z";

/// Resident memory in bytes; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

fn check(tenant: u64, user: Option<u64>, meters: &[&str]) -> Result<Check, Box<dyn Error>> {
    Ok(Check {
        tenant: TenantId::new(&format!("tenant-{tenant}"))?,
        user: user.map(|user| UserId::new(&format!("user-{user}"))).transpose()?,
        charges: meters.iter().map(|key| Charge { meter: meter(key), amount: 1 }).collect(),
        features: Vec::new(),
        consume: true,
        enforce: None,
        dimensions: Vec::new(),
        id: None,
        cause: Cause::Gateway,
        hold: None,
        sent: None,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, tenants, users] = arguments.as_slice() else { return Err("usage: active PATH TENANTS USERS".into()) };
    let (tenants, users): (u64, u64) = (tenants.parse()?, users.parse()?);
    let clock = Arc::new(SimClock::at(NOW));
    let limits = METERS.map(|key| limit(key, WindowKind::Day, 1_000_000_000_000)).to_vec();
    let draft = METERS.into_iter().fold(Draft::default(), |draft, key| draft.meter(key, MeterKind::Counter));
    let catalog = draft.plan("bench", &[], limits).default_plan("bench").done();
    let ledger = SqliteLedger::open(Path::new(path), SqliteOptions::default())?;
    let engine = Engine::open(ledger, Arc::clone(&clock) as Arc<dyn Clock>, catalog, "made by active").await?;

    let before = resident();
    for _minute in 0..2 {
        for first in (0..tenants).step_by(BATCH_TENANTS as usize) {
            let mut last = None;
            for tenant in first..(first + BATCH_TENANTS).min(tenants) {
                for user in 0..users {
                    engine.admit(&check(tenant, Some(user), &METERS[..1])?, Ack::Memory).await?;
                }
                last = Some(engine.admit(&check(tenant, None, &METERS)?, Ack::Disk).await?.commit);
            }
            if let Some(commit) = last {
                commit.wait().await?;
            }
            engine.upkeep().await?;
        }
        clock.advance_ms(60_000);
    }
    engine.drain().await?;
    let (after, all) = (resident(), tenants.max(1) * (users + 1));
    println!(
        "{tenants} tenants with {users} users each: {} MB, {} MB more than empty; {} bytes a tenant with its users, {} bytes \
         if all {all} took the same",
        after / 1_000_000,
        after.saturating_sub(before) / 1_000_000,
        after.saturating_sub(before) / tenants.max(1),
        after.saturating_sub(before) / all,
    );
    Ok(())
}
