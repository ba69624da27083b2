//! Rows that are kept for a caller who lost before.

use super::{
    Database,
    nodes::{append, commit, created, id, positions, used},
    run, two, until,
};
use crate::world::done;
use engine::ports::{Ledger, LedgerError, SharedLedger};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[test]
fn nobody_else_writes_while_a_row_is_kept() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let loaded = run(one.load(&acme, true)).unwrap();
    assert_eq!(loaded.after.len(), 1);
    assert_eq!(commit(&*two, append(&acme, 1, &Arc::default(), vec![used(0)])), Err(LedgerError::Stale));
    // The next append goes into the same transaction, and so does one that comes along.
    let basis = Arc::default();
    let first = one.append(append(&acme, 1, &basis, vec![used(5)])).unwrap();
    let second = one.append(append(&acme, 2, &basis, vec![used(6)])).unwrap();
    assert_eq!((done(first.commit), done(second.commit)), (Ok(()), Ok(())));
    assert_eq!(positions(&*two, &acme), [1, 2, 3]);
    assert_eq!(commit(&*two, append(&acme, 3, &Arc::default(), vec![used(0)])), Ok(4), "and then it is free");
}

#[test]
fn a_row_is_not_kept_for_long() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    run(one.load(&acme, true)).unwrap();
    let began = Instant::now();
    run(two.load(&acme, true)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "given up after a quarter of a second");
    assert_eq!(commit(&*two, append(&acme, 1, &Arc::default(), vec![used(0)])), Ok(2));
    // Whoever kept it in vain goes the usual way.
    assert_eq!(commit(&*one, append(&acme, 2, &Arc::default(), vec![used(0)])), Ok(3));
}

#[test]
fn a_node_does_not_stand_in_its_own_way() {
    let database = Database::new();
    let ledger = database.open();
    let acme = id("acme");
    assert_eq!(run(ledger.load(&acme, true)).unwrap().after, vec![], "there is no row to keep");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let began = Instant::now();
    run(ledger.load(&acme, true)).unwrap();
    run(ledger.load(&acme, true)).unwrap();
    assert_eq!(commit(&*ledger, append(&acme, 1, &Arc::default(), vec![used(0)])), Ok(2));
    assert!(began.elapsed() < Duration::from_secs(2));
    // More rows than may be kept at once: the others are loaded without.
    let others: Vec<_> = (0..20).map(|number| id(&format!("other-{number}"))).collect();
    for other in &others {
        commit(&*ledger, append(other, 0, &Arc::default(), vec![created("free")])).unwrap();
    }
    for other in &others {
        run(ledger.load(other, true)).unwrap();
    }
    for other in &others {
        assert_eq!(commit(&*ledger, append(other, 1, &Arc::default(), vec![used(0)])), Ok(2));
    }
}

#[test]
fn what_does_not_follow_is_stale_in_a_kept_row_too() {
    let database = Database::new();
    let ledger = database.open();
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free"), used(9)])).unwrap();
    run(ledger.load(&acme, true)).unwrap();
    let basis = Arc::default();
    assert_eq!(commit(&*ledger, append(&acme, 1, &basis, vec![used(0)])), Err(LedgerError::Stale));
    assert!(basis.is_stale());
    run(ledger.load(&acme, true)).unwrap();
    assert_eq!(commit(&*ledger, append(&acme, 2, &Arc::default(), vec![used(9)])), Err(LedgerError::Stale));
    assert_eq!(commit(&*ledger, append(&acme, 2, &Arc::default(), vec![used(10)])), Ok(3));
}

#[test]
fn what_comes_while_a_kept_row_is_written_goes_after_it() {
    let database = Database::new();
    let ledger = database.open();
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    run(ledger.load(&acme, true)).unwrap();
    // Somebody is about to bind the same id: the commit in the kept transaction waits inside the server.
    let client = database.client();
    let bind = format!("BEGIN; INSERT INTO {}.ids VALUES ('acme', '{:032x}', 9, 0)", database.schema(), 5);
    run(client.batch_execute(&bind)).unwrap();
    let basis = Arc::default();
    let first = ledger.append(append(&acme, 1, &basis, vec![used(5)])).unwrap();
    until("the commit waits", || database.commits_waiting() == 1);
    let second = ledger.append(append(&acme, 2, &basis, vec![used(6)])).unwrap();
    // That it was not sent by another connection can't be waited for.
    std::thread::sleep(Duration::from_millis(100));
    run(client.batch_execute("ROLLBACK")).unwrap();
    assert_eq!((done(first.commit), done(second.commit)), (Ok(()), Ok(())));
    assert_eq!(positions(&*ledger, &acme), [1, 2, 3]);
    assert!(!basis.is_stale());
}
