//! The journal of all tenants, read while others write to it.

use super::{
    Database,
    nodes::{append, commit, created, id},
    run,
};
use crate::world::wait;
use engine::ports::{Ledger, LedgerError, SharedLedger};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use stores::postgres::PostgresLedger;

/// The order of all is given when entries are written, not when they are committed.
#[test]
fn the_journal_does_not_run_ahead_of_a_slow_commit() {
    let database = Database::new();
    let ledger = database.open();
    let (slow, fast) = (id("slow"), id("fast"));
    commit(&*ledger, append(&slow, 0, &Arc::default(), vec![created("free")])).unwrap();
    let before = wait(ledger.journal(0, 10)).unwrap()[0].0;
    let client = database.client();
    // The same entry in another place, not committed yet.
    let again = format!("BEGIN; UPDATE {}.entries SET position = DEFAULT WHERE tenant = 'slow'", database.schema());
    run(client.batch_execute(&again)).unwrap();
    commit(&*ledger, append(&fast, 0, &Arc::default(), vec![created("free")])).unwrap();
    let behind = wait(ledger.journal(before, 10));
    assert_eq!(behind, Err(LedgerError::Overloaded { waiting: 1 }), "what is under way may still come before it");
    run(client.batch_execute("COMMIT")).unwrap();
    let tenants: Vec<_> = wait(ledger.journal(before, 10)).unwrap().into_iter().map(|(_, tenant, _)| tenant).collect();
    assert_eq!(tenants, [slow, fast]);
}

/// A replica that takes over knows sequences that are behind those of the server before.
#[test]
fn the_journal_does_not_run_ahead_when_places_are_given_anew() {
    let database = Database::new();
    let ledger = database.open();
    let (slow, fast) = (id("slow"), id("fast"));
    commit(&*ledger, append(&slow, 0, &Arc::default(), vec![created("free")])).unwrap();
    database.sql("SELECT setval('@.entries_position_seq', 900)");
    let before = wait(ledger.journal(0, 10)).unwrap()[0].0;
    database.sql("SELECT setval('@.entries_position_seq', (SELECT max(position) FROM @.entries))");
    let client = database.client();
    let again = format!("BEGIN; UPDATE {}.entries SET position = DEFAULT WHERE tenant = 'slow'", database.schema());
    run(client.batch_execute(&again)).unwrap();
    commit(&*ledger, append(&fast, 0, &Arc::default(), vec![created("free")])).unwrap();
    let behind = wait(ledger.journal(before, 10));
    assert_eq!(behind, Err(LedgerError::Overloaded { waiting: 1 }), "what is under way may still come before it");
    run(client.batch_execute("COMMIT")).unwrap();
    let tenants: Vec<_> = wait(ledger.journal(before, 10)).unwrap().into_iter().map(|(_, tenant, _)| tenant).collect();
    assert_eq!(tenants, [slow, fast]);
}

#[test]
fn readers_of_the_journal_that_wait_leave_connections_to_others() {
    let database = Database::new();
    let ledger = run(PostgresLedger::open(&database.url("&pool_max=4"), Default::default())).unwrap();
    let slow = id("slow");
    commit(&*ledger, append(&slow, 0, &Arc::default(), vec![created("free")])).unwrap();
    let client = database.client();
    let again = format!("BEGIN; UPDATE {}.entries SET position = DEFAULT WHERE tenant = 'slow'", database.schema());
    run(client.batch_execute(&again)).unwrap();
    // One waits for the slow transaction, for two seconds; the others wait for that one.
    let readers: Vec<_> = (0..4).map(|_| ledger.journal(0, 10)).collect();
    let began = Instant::now();
    for _ in 0..20 {
        run(ledger.load(&slow, false)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    run(client.batch_execute("COMMIT")).unwrap();
    readers.into_iter().for_each(|reader| assert_eq!(wait(reader).unwrap().len(), 1));
}
