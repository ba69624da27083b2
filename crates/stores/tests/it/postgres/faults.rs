//! Connections that are cut, servers that are away, tables of another release.

use super::{
    Database,
    nodes::{append, commit, created, id, positions, used},
    proxy::{Mode, Proxy},
    run, until,
};
use crate::world::done;
use engine::ports::{Basis, Ledger, LedgerError, SharedLedger};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use stores::postgres::{PostgresLedger, PostgresOptions};

fn open_by(database: &Database, proxy: &Proxy, give_up: Duration) -> Arc<PostgresLedger> {
    let options = PostgresOptions { give_up, ..Default::default() };
    run(PostgresLedger::open(&database.url_by(proxy.port), options)).unwrap()
}

/// A connection is cut in the middle of a commit, before or after the server has heard of it.
fn cut_in_commit(mode: Mode) {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_secs(30));
    let direct = database.open();
    for round in 0..6 {
        let tenant = id(&format!("tenant-{round}"));
        commit(&*ledger, append(&tenant, 0, &Arc::default(), vec![created("free")])).unwrap();
        proxy.set(mode);
        let basis = Arc::<Basis>::default();
        let entries = vec![used(round + 1), used(0)];
        let appended = ledger.append(append(&tenant, 1, &basis, entries)).unwrap();
        until("it is cut", || proxy.mode() == Mode::Closed);
        if mode == Mode::CutReply {
            until("it is written", || positions(&*direct, &tenant).len() == 3);
            // Another node goes on from there before this one knows.
            if round % 2 == 0 {
                assert_eq!(commit(&*direct, append(&tenant, 3, &Arc::default(), vec![used(0)])), Ok(4));
            }
        }
        proxy.set(Mode::Pass);
        assert_eq!(done(appended.commit), Ok(()), "round {round}");
        let last = if mode == Mode::CutReply && round % 2 == 0 { 4 } else { 3 };
        assert!(positions(&*direct, &tenant).into_iter().eq(1..=last), "exactly once");
        assert!(!basis.is_stale() && ledger.ready().is_ok());
    }
    assert!(ledger.stats().commit_failures >= 6);
}

#[test]
fn a_commit_that_is_cut_before_it_arrives_is_applied_once() {
    cut_in_commit(Mode::CutRequest);
}

#[test]
fn a_commit_whose_answer_is_cut_is_applied_once() {
    cut_in_commit(Mode::CutReply);
}

#[test]
fn a_commit_that_was_lost_and_overtaken_is_stale() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_secs(30));
    let direct = database.open();
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    proxy.set(Mode::CutRequest);
    let lost = ledger.append(append(&acme, 1, &Arc::default(), vec![used(1)])).unwrap();
    until("it is cut", || proxy.mode() == Mode::Closed);
    assert_eq!(commit(&*direct, append(&acme, 1, &Arc::default(), vec![used(2)])), Ok(2));
    proxy.set(Mode::Pass);
    assert_eq!(done(lost.commit), Err(LedgerError::Stale));
    assert_eq!(positions(&*direct, &acme), [1, 2]);
}

/// The server does not notice at once that a connection is gone: what was sent on it may be written later.
#[test]
fn a_commit_that_is_still_under_way_on_a_lost_connection_is_waited_for() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_secs(30));
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    // Somebody is about to bind the same id, so that the commit waits inside the server, the tenant's row locked.
    let client = database.client();
    let bind = format!("BEGIN; INSERT INTO {}.ids VALUES ('acme', '{:032x}', 9, 0)", database.schema(), 5);
    run(client.batch_execute(&bind)).unwrap();
    let appended = ledger.append(append(&acme, 1, &Arc::default(), vec![used(5)])).unwrap();
    until("it waits", || database.commits_waiting() == 1);
    proxy.set(Mode::Closed);
    proxy.set(Mode::Pass);
    until("the second try waits for the first", || database.commits_waiting() == 2);
    run(client.batch_execute("ROLLBACK")).unwrap();
    assert_eq!(done(appended.commit), Ok(()));
    assert_eq!(positions(&*ledger, &acme), [1, 2]);
}

#[test]
fn what_waits_too_long_is_told_and_the_ledger_heals_by_itself() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_millis(700));
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    proxy.set(Mode::CutRequest);
    let basis = Arc::<Basis>::default();
    let first = ledger.append(append(&acme, 1, &basis, vec![used(1)])).unwrap();
    until("doors are told at once", || matches!(ledger.ready(), Err(LedgerError::Unwritable(_))));
    assert!(matches!(done(first.commit), Err(LedgerError::Unwritable(_))));
    assert!(basis.is_stale(), "what is in doubt is not built upon");
    assert!(ledger.append(append(&acme, 1, &Arc::default(), vec![used(1)])).is_err());
    assert!(ledger.reopen().is_err(), "it is still away");
    proxy.set(Mode::Pass);
    until("it comes back", || ledger.ready().is_ok());
    assert_eq!(commit(&*ledger, append(&acme, 1, &Arc::default(), vec![used(1)])), Ok(2));
    assert_eq!(positions(&*ledger, &acme), [1, 2]);
}

#[test]
fn a_connection_that_is_lost_while_idle_is_noticed() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_secs(5));
    commit(&*ledger, append(&id("acme"), 0, &Arc::default(), vec![created("free")])).unwrap();
    proxy.set(Mode::Closed);
    until("nobody has to find out by waiting", || ledger.ready().is_err());
    proxy.set(Mode::Pass);
    until("it comes back", || ledger.ready().is_ok());
    commit(&*ledger, append(&id("other"), 0, &Arc::default(), vec![created("free")])).unwrap();
}

/// As a full disk does, for one: the server answers, and takes no commits.
#[test]
fn a_server_that_refuses_commits_is_away_until_it_takes_one() {
    let database = Database::new();
    let options = PostgresOptions { give_up: Duration::from_millis(500), ..Default::default() };
    let ledger = run(PostgresLedger::open(&database.url(""), options)).unwrap();
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    database.sql(
        "CREATE FUNCTION @.refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END$$;
         CREATE TRIGGER refuse BEFORE INSERT ON @.entries FOR EACH ROW EXECUTE FUNCTION @.refuse()",
    );
    let first = ledger.append(append(&acme, 1, &Arc::default(), vec![used(1)])).unwrap();
    until("doors are told", || ledger.ready().is_err());
    assert!(matches!(done(first.commit), Err(LedgerError::Unwritable(_))));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let told = ledger.ready().unwrap_err().to_string();
        assert!(told.contains("no space left"), "{told}");
        assert_eq!(positions(&*ledger, &acme), [1], "what can be read is read");
    }
    database.sql("DROP TRIGGER refuse ON @.entries");
    until("it comes back", || ledger.ready().is_ok());
    assert_eq!(commit(&*ledger, append(&acme, 1, &Arc::default(), vec![used(1)])), Ok(2));
    assert_eq!(database.sql("SELECT count(*) FROM @.tenants"), ["1"], "trying leaves nothing behind");
}

/// It accepts connections, and says nothing on them.
#[test]
fn while_the_server_says_nothing_nobody_waits_to_be_told() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let ledger = open_by(&database, &proxy, Duration::from_millis(500));
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    proxy.set(Mode::Silent);
    let first = ledger.append(append(&acme, 1, &Arc::default(), vec![used(1)])).unwrap();
    assert!(matches!(done(first.commit), Err(LedgerError::Unwritable(_))));
    let began = Instant::now();
    assert!(matches!(run(ledger.load(&acme, false)), Err(LedgerError::Unwritable(_))));
    assert!(began.elapsed() < Duration::from_millis(200), "told after {:?}", began.elapsed());
    proxy.set(Mode::Pass);
    until("it comes back", || ledger.ready().is_ok());
    assert_eq!(commit(&*ledger, append(&acme, 1, &Arc::default(), vec![used(1)])), Ok(2));
}

#[test]
fn one_connection_that_says_nothing_is_enough_to_learn_from() {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let url = format!("{}&statement_timeout=300", database.url_by(proxy.port));
    let ledger = run(PostgresLedger::open(&url, PostgresOptions::default())).unwrap();
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let together: Vec<_> = (0..4).map(|_| ledger.load(&acme, false)).collect();
    together.into_iter().for_each(|load| drop(run(load).unwrap()));
    proxy.set(Mode::Silent);
    proxy.set(Mode::Pass);
    assert!(matches!(run(ledger.load(&acme, false)), Err(LedgerError::Unwritable(_))));
    assert_eq!(run(ledger.load(&acme, false)).unwrap().after.len(), 1, "the others are not tried");
}

#[test]
fn the_first_of_several_servers_that_answers_is_used() {
    let database = Database::new();
    let silent = Proxy::to(database.address());
    silent.set(Mode::Silent);
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let also =
        |address: String| database.url("").replace(&database.address(), &format!("{address},{}", database.address()));
    let acme = id("acme");
    for (address, within) in [(refusing.to_string(), 4), (format!("127.0.0.1:{}", silent.port), 8)] {
        let began = Instant::now();
        let ledger = run(PostgresLedger::open(&also(address), PostgresOptions::default())).unwrap();
        commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).ok();
        assert!(began.elapsed() < Duration::from_secs(within), "{:?}", began.elapsed());
        // Whoever answered is asked first from then on.
        let began = Instant::now();
        let together: Vec<_> = (0..4).map(|_| ledger.load(&acme, false)).collect();
        together.into_iter().for_each(|load| drop(run(load).unwrap()));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn what_can_not_be_stored_harms_nobody_else() {
    let database = Database::new();
    let ledger = database.open();
    database.sql("ALTER TABLE @.entries ADD CONSTRAINT small CHECK (length(body) < 5000)");
    let (large, small) = (id("large"), id("small"));
    let huge = domain::entry::Entry { note: Some("x".repeat(6000).into()), ..created("free") };
    let refused = ledger.append(append(&large, 0, &Arc::default(), vec![huge])).unwrap();
    let fine = ledger.append(append(&small, 0, &Arc::default(), vec![created("free")])).unwrap();
    assert!(matches!(done(refused.commit), Err(LedgerError::Unwritable(_))));
    assert_eq!(done(fine.commit), Ok(()));
    assert_eq!(ledger.ready(), Ok(()));
}

#[test]
fn nodes_that_start_together_make_one_ledger() {
    let database = Database::new();
    let secrets: Vec<[u8; 32]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| database.open().secret())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(secrets.iter().all(|secret| *secret == secrets[0] && *secret != [0; 32]));
}

#[test]
fn tables_of_a_newer_release_are_refused_unless_it_says_otherwise() {
    let database = Database::new();
    database.open();
    database.sql("UPDATE @.meta SET schema_version = 90");
    commit(&*database.open(), append(&id("acme"), 0, &Arc::default(), vec![created("free")])).unwrap();
    database.sql("UPDATE @.meta SET schema_version = 91, min_reader = 91");
    let refused = run(PostgresLedger::open(&database.url(""), PostgresOptions::default())).err().unwrap();
    let message = refused.to_string();
    assert!(matches!(refused, LedgerError::Unopenable(_)) && message.contains("version 91"), "{message}");
}

#[test]
fn what_can_not_be_opened_says_why_and_no_password() {
    let database = Database::new();
    let open = |url: &str| run(PostgresLedger::open(url, PostgresOptions::default())).err().unwrap().to_string();
    let wrong = format!("postgres://nobody:hunter2@{}/postgres?sslmode=disable", database.address());
    let message = open(&wrong);
    assert!(message.contains("password authentication failed") && !message.contains("hunter2"), "{message}");
    let unreachable = open("postgres://me:hunter2@127.0.0.1:9/usage?connect_timeout=2");
    assert!(!unreachable.contains("hunter2"), "{unreachable}");
    let without_tls = open(&database.url("").replace("sslmode=disable", "sslmode=require"));
    assert!(without_tls.contains("TLS"), "{without_tls}");
    database.sql(&format!(
        "CREATE ROLE {0} LOGIN PASSWORD 'x'; ALTER ROLE {0} SET synchronous_commit = off",
        database.schema()
    ));
    let role = format!("postgres://{}:x@{}/postgres?sslmode=disable", database.schema(), database.address());
    assert!(open(&role).contains("synchronous_commit"));
    database.sql(&format!("DROP ROLE {}", database.schema()));
}

/// Another node may be at it for longer than any statement may take otherwise.
#[test]
fn a_node_that_starts_waits_for_one_that_makes_the_tables() {
    let database = Database::new();
    let client = database.client();
    let lock = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(1413958724, hashtext('tidegate migrations of {}'))",
        database.schema()
    );
    run(client.batch_execute(&lock)).unwrap();
    std::thread::scope(|scope| {
        let url = database.url("&statement_timeout=300");
        let opened = scope.spawn(move || run(PostgresLedger::open(&url, PostgresOptions::default())).map(|_| ()));
        std::thread::sleep(Duration::from_millis(900));
        run(client.batch_execute("COMMIT")).unwrap();
        assert_eq!(opened.join().unwrap(), Ok(()));
    });
}
