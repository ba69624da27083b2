//! `cargo run --release -p testkit --bin fill -- PATH TENANTS IDS [USERS]`: makes a large ledger, for the benchmarks of start
//! and memory, and for copies. It is written by the engine: every tenant with five accounts, then events with ids of their own on the first
//! 10,000 tenants (each with so many users; none unless told), spread over the 34 days that end now.

use domain::{
    catalog::MeterKind,
    id::{TenantId, UserId},
    op::{Fact, Movement},
    time::{DAY_MS, Instant, WindowKind},
};
use engine::{
    Engine,
    ports::{Clock, Retention},
    requests::{Event, EventOutcome, OpId},
};
use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::{
    catalog::{Draft, limit, meter},
    clock::SimClock,
};

const METERS: [&str; 5] = ["messages", "api_calls", "tokens", "exports", "conversation_time"];
const BATCH: u64 = 5_000;
const BUSY_TENANTS: u64 = 10_000;
const DAYS: i64 = 34;

fn event(number: u64, tenant: u64, meters: &[&str], by: &By) -> Result<Event, Box<dyn Error>> {
    let movements = meters.iter().map(|key| (meter(key), Movement::Add(1))).collect();
    Ok(Event {
        tenant: TenantId::new(&format!("t{tenant}"))?,
        user: (by.users > 0).then(|| UserId::new(&format!("u{}", number / BUSY_TENANTS % by.users))).transpose()?,
        id: OpId { source: Arc::clone(&by.source), id: format!("{number:x}").into() },
        fact: Fact { movements, time: None, dimensions: Vec::new(), binding: None },
    })
}

/// Who sends events, and for how many users of each tenant.
struct By {
    source: Arc<str>,
    users: u64,
}

async fn record(engine: &Engine, events: Vec<Event>) -> Result<(), Box<dyn Error>> {
    let wrong = engine.record(events).await?.into_iter().find(|outcome| *outcome != EventOutcome::Accepted);
    engine.upkeep().await?;
    wrong.map_or(Ok(()), |outcome| Err(format!("{outcome:?}").into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, tenants, ids, users) = match arguments.as_slice() {
        [path, tenants, ids] => (path, tenants, ids, "0"),
        [path, tenants, ids, users] => (path, tenants, ids, users.as_str()),
        _ => return Err("usage: fill PATH TENANTS IDS [USERS]".into()),
    };
    let (tenants, ids): (u64, u64) = (tenants.parse()?, ids.parse()?);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let clock = Arc::new(SimClock::at(&Instant::from_ms(now_ms - DAYS * DAY_MS).rfc3339()));
    let limits = METERS.map(|key| limit(key, WindowKind::Day, 1_000_000_000_000)).to_vec();
    let draft = METERS.into_iter().fold(Draft::default(), |draft, key| draft.meter(key, MeterKind::Counter));
    let catalog = draft.plan("bench", &[], limits).default_plan("bench").done();
    let ledger = SqliteLedger::open(Path::new(path), SqliteOptions::default())?;
    let engine = Engine::open(ledger, Arc::clone(&clock) as Arc<dyn Clock>, catalog, "made by fill").await?;
    engine
        .retain(Retention {
            dedupe_ms: 35 * DAY_MS,
            journal_ms: 400 * DAY_MS,
            denials_ms: 90 * DAY_MS,
            history_ms: 400 * DAY_MS,
        })
        .await?;

    let by = By { source: "fill".into(), users: users.parse()? };
    let batches = (tenants.div_ceil(BATCH) + ids.div_ceil(BATCH)).max(1);
    let step_ms = DAYS * DAY_MS / batches as i64;
    let started = std::time::Instant::now();
    for first in (0..tenants).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(tenants);
        let made: Result<Vec<_>, _> = numbers.map(|number| event(number, number + 1, &METERS, &by)).collect();
        record(&engine, made?).await?;
        clock.advance_ms(step_ms);
    }
    for first in (0..ids).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(ids);
        let busy = BUSY_TENANTS.min(tenants);
        let made = numbers.map(|number| event(tenants + number, number % busy + 1, &METERS[..1], &by));
        record(&engine, made.collect::<Result<Vec<_>, _>>()?).await?;
        clock.advance_ms(step_ms);
        if first % 5_000_000 == 0 {
            eprintln!("{first} ids, {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    engine.drain().await?;
    eprintln!("{tenants} tenants and {ids} ids in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
