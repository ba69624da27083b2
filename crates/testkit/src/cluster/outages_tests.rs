use super::*;
use crate::{
    cluster::script::mark,
    world::{charge, tenant},
};
use domain::{entry::Binding, outage::Passed};
use engine::ports::SpoolLine;

/// What an earlier life of the node left is recorded by the next, and what the ledger will never take is kept apart.
#[test]
fn what_cannot_be_recorded_is_set_aside_and_keeps_nothing_from_being_recorded() {
    let allows = |world: &World| {
        let limits = world.catalog.plan("free").unwrap().limits.clone();
        matches!(limits.on(&crate::catalog::meter("tokens"))[0].outage, Outage::Open { allowance: 3.. })
    };
    let mut world = (1..).map(|seed| World::new(seed, None, false)).find(allows).unwrap();
    let passed = |key: &str, id: u128| Passed {
        user: None,
        charges: vec![charge(key, 3)],
        at: beginning(),
        dimensions: mark(&id.to_string()),
        binding: Binding { id, fingerprint: 0 },
    };
    let spool = world.members[0].spool.clone();
    for (id, key) in [(1, "gone"), (2, "tokens")] {
        spool.append(SpoolLine::Passed(tenant("t1"), passed(key, id))).unwrap();
    }
    while !spool.is_idle() {
        spool.step();
    }
    world.members[0].node = world.life(&spool);
    let wrong = world.run(0).unwrap_err();
    assert!(wrong.contains("set aside") && wrong.contains("gone"), "{wrong}");
    let stats = world.members[0].node.engine.stats().outage.unwrap();
    assert_eq!((stats.set_aside, stats.reconciled, stats.spool_lines), (1, 1, 0));
    let state = world.database.state();
    let entries = &state.tenants[&tenant("t1")].entries;
    let is_it = |written: &&crate::cluster::database::Written| written.entry.dimensions == mark("2");
    assert_eq!(entries.iter().filter(is_it).count(), 1);
}
