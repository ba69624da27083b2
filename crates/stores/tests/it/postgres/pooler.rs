//! The store through a real PgBouncer in transaction mode, where the next transaction may be in another session.

use super::{
    Database,
    nodes::{append, commit, created, id, positions, used},
    run,
};
use crate::world::{States, World, done};
use engine::ports::{Ledger, LedgerError, SharedLedger};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use stores::postgres::{PostgresLedger, PostgresOptions};

/// A PgBouncer of one test, in front of the tests' PostgreSQL.
pub struct Pooler {
    folder: String,
    port: u16,
}

impl Pooler {
    pub fn to(database: &Database) -> Self {
        let shown = script("start", ("TIDEGATE_TEST_POSTGRES", database.server()));
        let value = |name: &str| {
            let line = shown.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
            line.unwrap().trim_end_matches('\'').to_owned()
        };
        let url = value("TIDEGATE_TEST_PGBOUNCER");
        let (_, port) = url.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap();
        Self { folder: value("TIDEGATE_TEST_PGBOUNCER_DIR"), port: port.parse().unwrap() }
    }

    pub fn open(&self, database: &Database) -> Arc<PostgresLedger> {
        let url = format!("{}&pgbouncer=true", database.url_by(self.port));
        run(PostgresLedger::open(&url, PostgresOptions::default())).unwrap()
    }

    fn script(&self, verb: &str) {
        script(verb, ("TIDEGATE_TEST_PGBOUNCER_DIR", &self.folder));
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.script("stop");
    }
}

fn script(verb: &str, (name, value): (&str, &str)) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.ci/pgbouncer");
    let output = Command::new(path).arg(verb).env(name, value).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.unwrap();
    assert!(output.status.success(), ".ci/pgbouncer {verb}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_is_kept_in_a_session() {
    let database = Database::new();
    let pooler = Pooler::to(&database);
    let ledger = pooler.open(&database);
    let mut world = World::new(31);
    world.steps(&*ledger, 80);
    done(world.checkpoint(&*ledger)).unwrap();
    world.steps(&*ledger, 20);
    assert_eq!(States::of(&*ledger), world.states(world.last()));
    run(ledger.load(&world.whose(1), true)).unwrap();
    // Whichever session of the pooler's this is: nobody prepared or set anything in it.
    let url = database.url_by(pooler.port).split_once('?').unwrap().0.to_owned();
    let kept = "SELECT (SELECT count(*) FROM pg_prepared_statements)
                    + (SELECT count(*) FROM pg_settings WHERE source = 'session' AND (name LIKE '%timeout%'
                           OR name IN ('plan_cache_mode', 'enable_seqscan', 'jit', 'search_path')))
                    + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    assert_eq!(super::sql(&url, kept), ["0"]);
}

/// Two nodes, each in whatever session it is given, write to the same tenants.
#[test]
fn every_position_is_taken_once() {
    let database = Database::new();
    let pooler = Pooler::to(&database);
    let nodes = [pooler.open(&database), pooler.open(&database), database.open()];
    let acme = id("acme");
    commit(&*nodes[0], append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    std::thread::scope(|scope| {
        for ledger in &nodes {
            let acme = &acme;
            scope.spawn(move || {
                let mut written = 0;
                while written < 40 {
                    let last = run(ledger.load(acme, written % 2 == 1)).unwrap().after.last().unwrap().0;
                    match commit(&**ledger, append(acme, last, &Arc::default(), vec![used(0)])) {
                        Ok(_) => written += 1,
                        Err(error) => assert_eq!(error, LedgerError::Stale),
                    }
                }
            });
        }
    });
    assert!(positions(&*nodes[0], &acme).into_iter().eq(1..=121));
}

/// No session has a limit of its own there: the statement brings it along.
#[test]
fn a_commit_does_not_wait_for_a_lock_for_long() {
    let database = Database::new();
    let pooler = Pooler::to(&database);
    let ledger = pooler.open(&database);
    let (acme, other) = (id("acme"), id("other"));
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let client = database.client();
    let bind = format!("BEGIN; INSERT INTO {}.ids VALUES ('acme', '{:032x}', 9, 0)", database.schema(), 5);
    run(client.batch_execute(&bind)).unwrap();
    let began = Instant::now();
    let stuck = ledger.append(append(&acme, 1, &Arc::default(), vec![used(5)])).unwrap();
    super::until("it waits inside the server", || database.commits_waiting() == 1);
    super::until("and then no more", || ledger.stats().commit_failures > 0);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    run(client.batch_execute("ROLLBACK")).unwrap();
    assert_eq!(done(stuck.commit), Ok(()));
    commit(&*ledger, append(&other, 0, &Arc::default(), vec![created("free")])).unwrap();
}

#[test]
fn a_pooler_that_is_killed_and_started_again_loses_nothing() {
    let database = Database::new();
    let pooler = Pooler::to(&database);
    let ledger = pooler.open(&database);
    let acme = id("acme");
    commit(&*ledger, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    pooler.script("crash");
    super::until("it is noticed", || ledger.ready().is_err());
    pooler.script("resume");
    super::until("it comes back", || ledger.ready().is_ok());
    assert_eq!(commit(&*ledger, append(&acme, 1, &Arc::default(), vec![used(5)])), Ok(2));
    assert_eq!(positions(&*ledger, &acme), [1, 2]);
}
