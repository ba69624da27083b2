//! What a node finds that knows nothing but the database.

use super::Case;
use crate::{
    auditor::Book,
    cluster::tasks::finish,
    simulation::verify::{Demand, check_history, compare},
    world::{event, user},
};
use domain::{catalog::Catalog, op::Movement};
use engine::requests::{Event, EventOutcome};
use std::future::Future;

pub(super) fn judge(case: &Case<'_>) -> Result<(), String> {
    let cluster = case.cluster;
    // The nodes are gone, and time does not go on: what they kept nobody else would get.
    cluster.database.state().let_go();
    let node = cluster.makings.node(u64::from(u32::MAX), 0);
    let engine = &node.engine;
    let step = || {
        cluster.database.state().tick += 1;
        if !node.ledger.is_idle() {
            node.ledger.step();
        }
    };
    fn within<T>(future: impl Future<Output = T>, step: impl FnMut()) -> Result<T, String> {
        finish(future, step).ok_or_else(|| "a new node gets nowhere".to_owned())
    }
    let catalog = engine.catalog();
    for (tenant, replay) in &case.replays {
        let Some(mut book) = replay.states.last().cloned().flatten() else { continue };
        // Time may have gone back for this node, and never does for the tenant.
        let last_ms = replay.instants.last().copied().unwrap_or(0);
        let now_ms = cluster.database.now_ms().max(last_ms);
        book.turn(now_ms);
        let seen = within(compare(engine, tenant.as_str(), &book, Demand::Agrees), step)?;
        seen.map_err(|wrong| format!("a new node: {wrong}"))?;
        for meter in catalog.meters.values() {
            for who in [None, Some("al"), Some("bo"), Some("cy")] {
                let id = format!("touch-{}-{who:?}", meter.key);
                let user = who.map(user);
                let touch = Event { user: user.clone(), ..event(tenant.as_str(), &id, meter.key.as_str(), 1) };
                touched(&mut book, &touch, now_ms, &catalog);
                let told = within(engine.record(vec![touch]), step)?.map_err(|error| error.to_string())?;
                if told != [EventOutcome::Accepted] {
                    return Err(format!("a new node answers {told:?} to a new event"));
                }
            }
        }
        within(engine.drain(), step)?.map_err(|error| format!("a new node: {error}"))?;
        within(check_history(engine, tenant.as_str(), &book), step)??;
    }
    Ok(())
}

fn touched(book: &mut Book, touch: &Event, now_ms: i64, catalog: &Catalog) {
    for (meter, _) in &touch.fact.movements {
        book.record(&touch.user, meter, Movement::Add(1), (now_ms, now_ms), catalog);
    }
}
