//! One suite, every ledger.

use crate::{
    forecasts::{
        forecasts_wait_for_their_day_and_count_once, the_fleet_is_in_order_of_the_day_and_paged,
        what_all_tenants_show_is_written_over,
    },
    postgres::{Database, Pooler},
    snapshots::{
        a_day_is_written_again_never_added_to, closed_days_are_noted, snapshots_are_kept_by_tenant_meter_and_day,
        snapshots_of_many_tenants_are_paged_and_dropped_by_day, snapshots_outlive_a_reopening,
        what_was_written_gives_a_tenant_another_version,
    },
    world::{Random, States, World, all_lines, done, fold_history, retain, wait},
};
use domain::{
    decision::Code,
    entry::{Cause, Effect, Entry, KindSet, Profile},
    history::{Amounts, KeptFrom, Place, Resolution, Rows, fold},
    id::{MeterKey, PlanKey, TenantId, UserId},
    time::{DAY_MS, Instant, Window},
};
use engine::ports::{
    ApiKey, Append, DenialPlace, DenialQuery, HistoryQuery, KeyScope, Ledger, LedgerError, Lookup, Retention, Seq,
    Stored,
};
use std::sync::Arc;
use stores::{
    memory::MemoryLedger,
    sqlite::{SqliteLedger, SqliteOptions},
};

fn memory() -> (Arc<dyn Ledger>, Option<tempfile::TempDir>) {
    (MemoryLedger::new([7; 32]), None)
}

fn sqlite() -> (Arc<dyn Ledger>, Option<tempfile::TempDir>) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), SqliteOptions::default()).unwrap();
    (ledger, Some(directory))
}

fn postgres() -> (Arc<dyn Ledger>, Database) {
    let database = Database::new();
    (database.open(), database)
}

fn pgbouncer() -> (Arc<dyn Ledger>, Pooler, Database) {
    let database = Database::new();
    let pooler = Pooler::to(&database);
    (pooler.open(&database), pooler, database)
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod on_memory { $(#[test] fn $name() { let (ledger, _directory) = super::memory(); super::$name(&*ledger); })* }
        mod on_sqlite { $(#[test] fn $name() { let (ledger, _directory) = super::sqlite(); super::$name(&*ledger); })* }
        mod on_postgres { $(#[test] fn $name() { let (ledger, _database) = super::postgres(); super::$name(&*ledger); })* }
        mod by_pgbouncer {
            $(#[test] fn $name() { let (ledger, _pooler, _database) = super::pgbouncer(); super::$name(&*ledger); })*
        }
    };
}

suite![
    an_empty_ledger_is_empty,
    positions_follow_the_order_of_appends,
    the_journal_gives_back_what_was_appended,
    ids_are_known_from_the_append_on,
    rows_and_tail_give_the_state,
    a_fold_that_is_not_newer_is_skipped,
    a_checkpoint_without_position_keeps_the_tail,
    denials_are_counted_and_listed_newest_first,
    denials_are_filtered_and_paged,
    keys_are_kept_and_replaced,
    catalogs_get_versions,
    plans_in_use_are_those_of_the_folds,
    reopening_keeps_what_was_committed,
    work_in_flight_outlives_what_is_cut,
    retention_drops_what_is_past_its_time,
    retention_keeps_what_is_not_in_folds,
    many_threads_append_and_wait,
    gateway_traffic_adds_up,
    snapshots_are_kept_by_tenant_meter_and_day,
    a_day_is_written_again_never_added_to,
    snapshots_of_many_tenants_are_paged_and_dropped_by_day,
    closed_days_are_noted,
    snapshots_outlive_a_reopening,
    what_was_written_gives_a_tenant_another_version,
    the_fleet_is_in_order_of_the_day_and_paged,
    forecasts_wait_for_their_day_and_count_once,
    what_all_tenants_show_is_written_over,
    history_is_added_once_and_read_in_order,
    what_is_not_in_history_is_not_cut,
    history_is_dropped_by_resolution,
];

fn an_empty_ledger_is_empty(ledger: &dyn Ledger) {
    let tenant = TenantId::new("nobody").unwrap();
    assert_eq!(wait(ledger.load_tenant(&tenant)).unwrap(), None);
    assert_eq!(wait(ledger.load_user(&tenant, &UserId::new("noone").unwrap())).unwrap(), None);
    assert_eq!(ledger.find(&tenant, 42), Lookup::Fresh);
    assert_eq!(wait(ledger.entry(&tenant, 1)).unwrap(), None);
    assert_eq!(wait(ledger.entry(&tenant, 0)).unwrap(), None);
    assert!(wait(ledger.journal(0, 10)).unwrap().is_empty());
    assert!(wait(ledger.tenants(None, 10)).unwrap().is_empty());
    assert_eq!(wait(ledger.newest_catalog()).unwrap(), None);
    assert!(wait(ledger.keys()).unwrap().is_empty());
    assert_eq!(ledger.ready(), Ok(()));
    assert!(ledger.tail().unwrap().is_empty());
    done(ledger.committed(&tenant, 0)).unwrap();
    done(ledger.checkpoint(vec![], None)).unwrap();
}

fn positions_follow_the_order_of_appends(ledger: &dyn Ledger) {
    let mut world = World::new(1);
    let mut next = 1;
    for _ in 0..50 {
        // Where there are many writers, each tenant has positions of its own: the world asserts them.
        let appended = world.step(ledger).unwrap();
        if ledger.shared().is_none() {
            assert_eq!(appended.first, next);
        }
        next = appended.last + 1;
        done(appended.commit).unwrap();
        assert!(ledger.stats().committed_seq >= appended.last);
        done(ledger.committed(&world.whose(world.last()), appended.last)).unwrap();
    }
    assert_eq!(ledger.stats().committed_seq, world.last());
}

fn the_journal_gives_back_what_was_appended(ledger: &dyn Ledger) {
    let mut world = World::new(2);
    world.steps(ledger, 100);
    let lines = wait(ledger.journal(0, usize::MAX)).unwrap();
    assert!(world.is_log_from(1, &lines));
    assert_eq!(wait(ledger.journal(lines[9].0, 5)).unwrap(), lines[10..15]);
    assert_eq!(wait(ledger.journal(lines[lines.len() - 1].0, 5)).unwrap(), vec![]);
    let (seq, tenant, entry) = world.log[17].clone();
    assert_eq!(wait(ledger.entry(&tenant, seq)).unwrap(), Some(entry));
    let last = world.last_of(&tenant);
    assert!(wait(ledger.entry(&tenant, last)).unwrap().is_some());
    assert_eq!(wait(ledger.entry(&tenant, world.last() + 1)).unwrap(), None);
    let another = TenantId::new("another").unwrap();
    assert_eq!(wait(ledger.entry(&another, seq)).unwrap(), None, "an entry is read by its tenant only");
}

fn ids_are_known_from_the_append_on(ledger: &dyn Ledger) {
    let mut world = World::new(3);
    for _ in 0..40 {
        let before = world.last();
        let appended = world.step(ledger).unwrap();
        for (id, place) in world.bindings.iter().filter(|(_, place)| *place > before) {
            assert_eq!(ledger.find(&world.whose(*place), *id), Lookup::Bound(world.position(*place)));
        }
        done(appended.commit).unwrap();
    }
    assert!(world.bindings.len() > 10);
    every_id_is_bound(ledger, &world);
    assert_eq!(bound(ledger, &world.whose(1), 12345), None);
}

fn every_id_is_bound(ledger: &dyn Ledger, world: &World) {
    for (id, place) in &world.bindings {
        assert_eq!(bound(ledger, &world.whose(*place), *id), Some(world.position(*place)));
    }
}

fn bound(ledger: &dyn Ledger, tenant: &TenantId, id: u128) -> Option<Seq> {
    let on_disk = || wait(ledger.find_on_disk(tenant, id)).unwrap();
    match ledger.find(tenant, id) {
        // Where there are many writers, memory knows of what it has seen itself: the commit finds the others.
        Lookup::Fresh if ledger.shared().is_some() => on_disk(),
        Lookup::Bound(seq) if ledger.shared().is_some() => {
            assert_eq!(on_disk(), Some(seq), "memory and disk agree");
            Some(seq)
        }
        Lookup::Fresh => None,
        Lookup::Bound(seq) => Some(seq),
        Lookup::Unsure { .. } => wait(ledger.find_on_disk(tenant, id)).unwrap(),
    }
}

fn rows_and_tail_give_the_state(ledger: &dyn Ledger) {
    let mut world = World::new(4);
    for round in 0..6 {
        world.steps(ledger, 60);
        if round % 2 == 0 {
            done(world.checkpoint(ledger)).unwrap();
            assert_eq!(ledger.stats().tail_entries, 0);
        }
        ledger.reopen().unwrap();
        assert_eq!(States::of(ledger), world.states(world.last()), "round {round}");
    }
}

fn a_fold_that_is_not_newer_is_skipped(ledger: &dyn Ledger) {
    let mut world = World::new(5);
    world.steps(ledger, 80);
    let through = world.last();
    let folds = world.take_folds(true);
    assert!(folds.iter().any(|fold| !fold.tenant.state.accounts.closed().is_empty()), "the seed closes windows");
    done(ledger.checkpoint(folds.clone(), Some(through))).unwrap();
    done(ledger.checkpoint(folds, Some(through))).unwrap();
    ledger.reopen().unwrap();
    assert_eq!(States::of(ledger), world.states(through));
}

fn a_checkpoint_without_position_keeps_the_tail(ledger: &dyn Ledger) {
    let mut world = World::new(6);
    world.steps(ledger, 50);
    done(world.checkpoint(ledger)).unwrap();
    let complete = world.last();
    for _ in 0..5 {
        world.steps(ledger, 30);
        let some = world.take_folds(false);
        done(ledger.checkpoint(some, None)).unwrap();
    }
    ledger.reopen().unwrap();
    let tail = ledger.tail().unwrap().entries().unwrap();
    let first = tail.first().map(|(seq, ..)| *seq);
    match ledger.shared() {
        // Each tenant has its own tail, which its own fold ends.
        Some(_) => assert_eq!((first, ledger.stats().tail_entries), (None, world.last() - complete)),
        None => assert_eq!(first, Some(complete + 1)),
    }
    ledger.reopen().unwrap();
    assert_eq!(States::of(ledger), world.states(world.last()));
}

fn denials_are_counted_and_listed_newest_first(ledger: &dyn Ledger) {
    let mut world = World::new(7);
    for round in 0..4 {
        world.steps(ledger, 60);
        let expected = world.states(world.last()).denials;
        assert_eq!(States::of(ledger).denials, expected, "pending, round {round}");
        done(world.checkpoint(ledger)).unwrap();
        assert_eq!(States::of(ledger).denials, expected, "written, round {round}");
        ledger.reopen().unwrap();
        assert_eq!(States::of(ledger).denials, expected, "reopened, round {round}");
    }
    let all = wait(ledger.denials(&DenialQuery { limit: usize::MAX, ..Default::default() })).unwrap();
    let places: Vec<_> = all.iter().map(|denial| (denial.run.first_at, denial.id)).collect();
    assert!(places.is_sorted_by(|newer, older| newer > older) && places.len() > 5);
    for denial in all {
        assert_eq!(wait(ledger.denial(denial.id)).unwrap(), Some(denial));
    }
    assert_eq!(wait(ledger.denial(engine::ports::DenialId(1))).unwrap(), None);
}

fn denials_are_filtered_and_paged(ledger: &dyn Ledger) {
    let mut world = World::new(8);
    world.steps(ledger, 150);
    done(world.checkpoint(ledger)).unwrap();
    world.steps(ledger, 150);
    let list = |query: DenialQuery| wait(ledger.denials(&query)).unwrap();
    let everything = DenialQuery { limit: usize::MAX, ..Default::default() };
    let all = list(everything.clone());
    assert!(all.iter().all(|denial| !denial.run.key.shadow));
    let tenant = all[0].tenant.clone();
    let of_tenant = list(DenialQuery { tenant: Some(tenant.clone()), ..everything.clone() });
    let expected: Vec<_> = all.iter().filter(|denial| denial.tenant == tenant).cloned().collect();
    assert_eq!(of_tenant, expected);
    let user = UserId::new("user-1").unwrap();
    let of_user = list(DenialQuery { user: Some(user.clone()), ..everything.clone() });
    assert!(!of_user.is_empty() && of_user.iter().all(|denial| denial.run.key.user.as_ref() == Some(&user)));
    let meter = MeterKey::new("storage").unwrap();
    let of_meter = list(DenialQuery { meter: Some(meter.clone()), ..everything.clone() });
    assert!(!of_meter.is_empty() && of_meter.iter().all(|denial| denial.run.meter.as_ref() == Some(&meter)));
    assert!(list(DenialQuery { code: Some(Code::TenantSuspended), ..everything.clone() }).is_empty());
    assert_eq!(list(DenialQuery { code: Some(Code::PeriodLimitReached), ..everything.clone() }), all);
    let shadows = list(DenialQuery { shadow: true, ..everything });
    assert!(!shadows.is_empty() && shadows.iter().all(|denial| denial.run.key.shadow));

    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = list(DenialQuery { before, limit: 7, ..Default::default() });
        let Some(last) = page.last() else { break };
        before = Some(DenialPlace { first_at: last.run.first_at, id: last.id });
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

fn keys_are_kept_and_replaced(ledger: &dyn Ledger) {
    let key = |id: &str, scope: KeyScope| ApiKey {
        id: id.into(),
        hash: [3; 32],
        name: "for the door".into(),
        scope,
        created_at: Instant::from_ms(1000),
        created_by: "bootstrap".into(),
        revoked_at: None,
    };
    let mut keys = vec![
        key("key_a", KeyScope::Admin),
        key("key_b", KeyScope::Ingest),
        key("key_c", KeyScope::Read),
        key("key_d", KeyScope::Tenant(TenantId::new("acme").unwrap())),
    ];
    for key in &keys {
        wait(ledger.put_key(key)).unwrap();
    }
    assert_eq!(wait(ledger.keys()).unwrap(), keys);
    keys[1].revoked_at = Some(Instant::from_ms(2000));
    wait(ledger.put_key(&keys[1])).unwrap();
    ledger.reopen().unwrap();
    assert_eq!(wait(ledger.keys()).unwrap(), keys);
}

fn catalogs_get_versions(ledger: &dyn Ledger) {
    let secret = ledger.secret();
    assert_eq!(wait(ledger.put_catalog("one", Instant::from_ms(1))).unwrap(), 1);
    assert_eq!(wait(ledger.put_catalog("two", Instant::from_ms(2))).unwrap(), 2);
    ledger.reopen().unwrap();
    let newest = wait(ledger.newest_catalog()).unwrap().unwrap();
    assert_eq!((newest.version, &*newest.text, newest.applied_at.ms()), (2, "two", 2));
    let all = wait(ledger.catalogs()).unwrap();
    assert_eq!(all.iter().map(|one| (one.version, &*one.text)).collect::<Vec<_>>(), [(1, "one"), (2, "two")]);
    assert_eq!(ledger.secret(), secret);
    assert_ne!(secret, [0; 32]);
}

fn plans_in_use_are_those_of_the_folds(ledger: &dyn Ledger) {
    let mut world = World::new(9);
    world.steps(ledger, 30);
    let plans = wait(ledger.plans_in_use()).unwrap();
    assert_eq!(plans.is_empty(), ledger.shared().is_none(), "with many writers they are those of the entries");
    done(world.checkpoint(ledger)).unwrap();
    let in_use = || -> Vec<String> { wait(ledger.plans_in_use()).unwrap().iter().map(ToString::to_string).collect() };
    assert_eq!(in_use(), ["free"]);
    // No catalog in force has to have what only pinned tenants are on.
    let all = wait(ledger.tenants(None, usize::MAX)).unwrap();
    for (tenant, pin) in all.iter().zip([Some(1), None]) {
        let Some(Stored { state, .. }) = wait(ledger.load_tenant(tenant)).unwrap() else { panic!("{tenant} is gone") };
        let plan = PlanKey::new(if pin.is_some() { "gone" } else { "gold" }).unwrap();
        world.configure(ledger, tenant, Profile { plan, catalog_pin: pin, ..state.profile });
    }
    done(world.checkpoint(ledger)).unwrap();
    assert_eq!(in_use(), ["free", "gold"]);
    assert!(all.len() > 3 && all.is_sorted());
    assert_eq!(wait(ledger.tenants(Some(&all[1]), 2)).unwrap(), all[2..4]);
}

fn reopening_keeps_what_was_committed(ledger: &dyn Ledger) {
    let mut world = World::new(10);
    world.steps(ledger, 50);
    ledger.reopen().unwrap();
    assert!(world.is_log_from(1, &all_lines(ledger)));
    every_id_is_bound(ledger, &world);
    goes_on(ledger, &mut world);
}

/// The next entry has the next position. (Those of one tenant are asserted by the world.)
fn goes_on(ledger: &dyn Ledger, world: &mut World) {
    let before = world.last();
    let appended = world.step(ledger).unwrap();
    if ledger.shared().is_none() {
        assert_eq!(appended.first, before + 1);
    }
    done(appended.commit).unwrap();
}

const RETENTION: Retention =
    Retention { dedupe_ms: DAY_MS, journal_ms: DAY_MS, denials_ms: DAY_MS, history_ms: 30 * DAY_MS };

fn retention_drops_what_is_past_its_time(ledger: &dyn Ledger) {
    let mut world = World::new(11);
    world.steps(ledger, 120);
    done(world.checkpoint(ledger)).unwrap();
    let old = world.last();
    retain(ledger, RETENTION, world.now).unwrap();
    let states = world.states(old);
    let history = |id: &TenantId| wait(ledger.closed(id, None)).unwrap();
    let young = states.tenants.keys().map(|id| history(id).len()).sum::<usize>();
    assert!(young > 0, "history that is young stays");
    // Months later nothing of it lies in an open period.
    world.now = world.now.plus_ms(90 * DAY_MS);
    world.steps(ledger, 1);
    done(world.checkpoint(ledger)).unwrap();
    retain(ledger, RETENTION, world.now).unwrap();
    assert_eq!(wait(ledger.entry(&world.whose(1), 1)).unwrap(), None);
    let left = wait(ledger.journal(0, usize::MAX)).unwrap();
    assert!(world.is_log_from(old + 1, &left), "what is young stays, and nothing else");
    let untouched = |id: &TenantId| left.iter().all(|(_, tenant, _)| tenant != id);
    for (id, tenant) in states.tenants.iter().filter(|(id, _)| untouched(id)) {
        assert_eq!(wait(ledger.load_tenant(id)).unwrap().as_ref(), Some(tenant));
    }
    let young = wait(ledger.denials(&DenialQuery { limit: usize::MAX, ..Default::default() })).unwrap();
    assert!(young.iter().all(|denial| denial.run.last_at >= world.now.plus_ms(-DAY_MS)));
    let from = world.now.plus_ms(-RETENTION.history_ms);
    for id in states.tenants.keys() {
        let left = wait(ledger.closed(id, None)).unwrap();
        assert!(left.iter().all(|row| row.closed.window.end >= from), "{left:?}");
    }
    // A second time there is nothing to do.
    retain(ledger, RETENTION, world.now).unwrap();
    goes_on(ledger, &mut world);
}

fn retention_keeps_what_is_not_in_folds(ledger: &dyn Ledger) {
    let mut world = World::new(12);
    world.steps(ledger, 20);
    done(world.checkpoint(ledger)).unwrap();
    let through = world.last();
    world.steps(ledger, 20);
    let later = world.now.plus_ms(400 * DAY_MS);
    retain(ledger, RETENTION, later).unwrap();
    ledger.reopen().unwrap();
    if ledger.shared().is_some() {
        assert!(world.is_log_from(through + 1, &all_lines(ledger)), "what is in folds is cut, what is not stays");
        let states = world.states(world.last());
        assert_eq!(States::of(ledger).tenants, states.tenants);
        return;
    }
    let tail = ledger.tail().unwrap().entries().unwrap();
    let through = ledger.stats().committed_seq - ledger.stats().tail_entries;
    assert_eq!(tail, world.log[through as usize..]);
    assert!(!tail.is_empty());
}

/// Holds and sessions are part of the fold: they are there when the entries that took them are not any more.
fn work_in_flight_outlives_what_is_cut(ledger: &dyn Ledger) {
    let mut world = World::new(15);
    let (mut lapsed, mut open) = (false, false);
    for round in 0..4 {
        world.steps(ledger, 80);
        done(world.checkpoint(ledger)).unwrap();
        world.steps(ledger, 10);
        let later = world.now.plus_ms(400 * DAY_MS);
        retain(ledger, RETENTION, later).unwrap();
        ledger.reopen().unwrap();
        let (found, expected) = (States::of(ledger).tenants, world.states(world.last()).tenants);
        assert_eq!(found, expected, "round {round}");
        for tenant in found.values().map(|tenant| &tenant.state.in_flight) {
            lapsed |= tenant.holds().any(|hold| hold.lapsed);
            open |= tenant.sessions_count() > 1;
        }
    }
    assert!(lapsed && open);
    let first = all_lines(ledger)[0].2.at;
    assert!(world.log[0].2.at < first, "something was cut");
    let held = |entry: &Entry| entry.effects.iter().any(|effect| matches!(effect, Effect::Hold(_)));
    assert!(world.log.iter().any(|(_, _, entry)| entry.at < first && held(entry)), "and held something");
}

fn many_threads_append_and_wait(ledger: &dyn Ledger) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let mut random = Random(thread);
                let tenant = TenantId::new(&format!("thread-{thread}")).unwrap();
                let mut last = 0;
                for _ in 0..60 {
                    let entries = (0..=random.below(20)).map(|_| plain_use(1)).collect();
                    let append = Append { follows: last, ..Append::new(tenant.clone(), entries) };
                    let appended = ledger.append(append).unwrap();
                    assert!(appended.first > last);
                    last = appended.last;
                    done(appended.commit).unwrap();
                    assert!(wait(ledger.entry(&tenant, last)).unwrap().is_some(), "acknowledged, so it can be read");
                }
            });
        }
    });
    let stats = ledger.stats();
    let journal = wait(ledger.journal(0, usize::MAX)).unwrap();
    match ledger.shared() {
        // Places in the order of all may have gaps, each tenant's positions have none.
        Some(_) => assert!(journal.is_sorted_by(|(before, ..), (after, ..)| before < after)),
        None => assert!(journal.iter().map(|(seq, ..)| *seq).eq(1..=stats.committed_seq)),
    }
    assert_eq!(journal.len() as Seq, stats.committed_seq);
    assert_eq!(stats.entries, stats.committed_seq);
    assert_eq!(stats.queue_entries, 0);
}

fn plain_use(amount: i64) -> Entry {
    let meter = MeterKey::new("messages").unwrap();
    Entry {
        at: Instant::from_ms(1_790_000_000_000),
        catalog: 1,
        cause: Cause::Gateway,
        binding: None,
        user: None,
        dimensions: vec![],
        note: None,
        effects: vec![Effect::Use { meter, amount, open: KindSet::ALL, closed: vec![] }],
    }
}

/// Whatever is merged, the sum per tenant is that of what was appended, and positions cover it.
fn gateway_traffic_adds_up(ledger: &dyn Ledger) {
    let mut random = Random(13);
    let mut sums = std::collections::BTreeMap::<TenantId, i64>::new();
    let mut lasts = std::collections::BTreeMap::<TenantId, Seq>::new();
    let mut commits = Vec::new();
    for _ in 0..2000 {
        let tenant = TenantId::new(&format!("tenant-{}", random.below(5))).unwrap();
        let amount = 1 + random.below(9) as i64;
        let mut entry = plain_use(amount);
        if random.one_in(3) {
            entry.user = Some(UserId::new(&format!("user-{}", random.below(3))).unwrap());
        }
        let folds = !random.one_in(10);
        let fold_after = folds.then_some(0);
        let follows = lasts.get(&tenant).copied().unwrap_or(0);
        let append = Append { fold_after, follows, ..Append::new(tenant.clone(), vec![entry]) };
        let appended = ledger.append(append).unwrap();
        lasts.insert(tenant.clone(), appended.last);
        assert_eq!(appended.first, appended.last);
        *sums.entry(tenant).or_default() += amount;
        commits.push(appended.commit);
    }
    commits.into_iter().for_each(|commit| done(commit).unwrap());
    let mut found = std::collections::BTreeMap::<TenantId, i64>::new();
    for (_, tenant, entry) in wait(ledger.journal(0, usize::MAX)).unwrap() {
        for effect in &entry.effects {
            let Effect::Use { amount, .. } = effect else { panic!("only use was appended") };
            *found.entry(tenant.clone()).or_default() += amount;
        }
    }
    assert_eq!(found, sums);
}

#[test]
fn a_full_queue_says_so() {
    let ledger = MemoryLedger::new([1; 32]);
    ledger.set_commits(stores::memory::Commits::Held);
    let entries = vec![plain_use(1); 200_000];
    let tenant = TenantId::new("acme").unwrap();
    let appended = ledger.append(Append::new(tenant, entries)).unwrap();
    assert_eq!(ledger.ready(), Err(LedgerError::Overloaded { waiting: 200_000 }));
    ledger.release();
    done(appended.commit).unwrap();
    assert_eq!(ledger.ready(), Ok(()));
}

#[test]
fn a_commit_that_fails_is_told_to_everybody() {
    let ledger = MemoryLedger::new([1; 32]);
    ledger.set_commits(stores::memory::Commits::Held);
    let mut world = World::new(14);
    let lost = world.step(&*ledger).unwrap();
    ledger.set_commits(stores::memory::Commits::Failing);
    ledger.release();
    assert!(matches!(done(lost.commit), Err(LedgerError::Unwritable(_))));
    assert!(matches!(ledger.ready(), Err(LedgerError::Unwritable(_))));
    assert!(world.step(&*ledger).is_err());
    ledger.reopen().unwrap();
    assert!(wait(ledger.journal(0, 10)).unwrap().is_empty());
    let mut world = World::new(14);
    assert_eq!(world.step(&*ledger).unwrap().first, 1);
}

/// Rows of a tenant, page by page.
fn rows_of(ledger: &dyn Ledger, query: &HistoryQuery) -> Vec<(Place, Amounts)> {
    let (mut rows, mut query) = (Vec::new(), query.clone());
    loop {
        let page = wait(ledger.history().unwrap().page(&query)).unwrap();
        let is_last = page.rows.len() < query.limit;
        query.after = page.rows.last().map(|(place, _)| place.clone());
        rows.extend(page.rows);
        if is_last {
            return rows;
        }
    }
}

fn folded(world: &World) -> Rows {
    let mut rows = Rows::new();
    world.log.iter().for_each(|(_, tenant, entry)| fold(&mut rows, tenant, entry, &KeptFrom::default()));
    rows
}

fn history_is_added_once_and_read_in_order(ledger: &dyn Ledger) {
    let history = ledger.history().unwrap();
    let mut world = World::new(31);
    assert_eq!(wait(history.state()).unwrap(), Default::default());
    for _ in 0..3 {
        world.steps(ledger, 60);
        fold_history(ledger);
        ledger.reopen().unwrap();
    }
    let state = wait(history.state()).unwrap();
    assert_eq!(state.at, world.log.iter().map(|(.., entry)| entry.at).max().unwrap());
    // Who comes second adds nothing.
    let again = wait(history.add(0, state.through, state.at, folded(&world)));
    assert_eq!((again, wait(history.state()).unwrap()), (Ok(false), state));
    let known = folded(&world);
    let first = world.log[0].2.at;
    let window = Window { start: first, end: world.now.plus_ms(1) };
    let tenant = world.whose(1);
    for (resolution, parts) in
        Resolution::ALL.into_iter().flat_map(|resolution| [(resolution, false), (resolution, true)])
    {
        // Days, or else the buckets of a day and a half: as many look-ups as a question may need.
        let window = if resolution == Resolution::Day {
            window
        } else {
            Window { end: first.plus_ms(DAY_MS * 3 / 2), ..window }
        };
        let is_asked = |place: &Place| {
            place.tenant == tenant
                && place.series.is_whole() != parts
                && (resolution.start_of(window.start)..window.end).contains(&place.start)
        };
        let asked: Vec<(Place, Amounts)> = known
            .iter()
            .filter(|((found, place), _)| *found == resolution && is_asked(place))
            .map(|((_, place), amounts)| (place.clone(), *amounts))
            .collect();
        assert!(!asked.is_empty());
        let query =
            HistoryQuery { tenant: tenant.clone(), resolution, window, parts, user: None, after: None, limit: 3 };
        assert_eq!(rows_of(ledger, &query), asked);
        assert_eq!(rows_of(ledger, &HistoryQuery { limit: 1_000, ..query.clone() }), asked);
        if parts {
            let user = UserId::new("user-1").unwrap();
            let of_user = asked.into_iter().filter(|(place, _)| place.series.user.as_ref() == Some(&user));
            let query = HistoryQuery { user: Some(user.clone()), ..query };
            assert_eq!(rows_of(ledger, &query), of_user.collect::<Vec<_>>());
        }
    }
    let day = Resolution::Day.start_of(first);
    let whole = known.iter().filter(|((resolution, place), _)| {
        *resolution == Resolution::Day && place.start == day && place.series.is_whole()
    });
    let whole: Vec<(Place, Amounts)> = whole.map(|((_, place), amounts)| (place.clone(), *amounts)).collect();
    let mut found: Vec<(Place, Amounts)> = Vec::new();
    loop {
        let after = found.last().map(|(place, _)| place.clone());
        let page = wait(history.bucket(Resolution::Day, day, after.as_ref(), 2)).unwrap();
        if page.rows.is_empty() {
            break;
        }
        found.extend(page.rows);
    }
    assert_eq!(found, whole);
}

fn what_is_not_in_history_is_not_cut(ledger: &dyn Ledger) {
    let mut world = World::new(32);
    world.steps(ledger, 40);
    fold_history(ledger);
    let through = world.last();
    world.steps(ledger, 40);
    done(world.checkpoint(ledger)).unwrap();
    let later = world.now.plus_ms(400 * DAY_MS);
    wait(ledger.retain(RETENTION, later)).unwrap();
    assert!(world.is_log_from(through + 1, &all_lines(ledger)), "what is in history is cut, what is not stays");
    fold_history(ledger);
    wait(ledger.retain(RETENTION, later.plus_ms(DAY_MS))).unwrap();
    assert!(all_lines(ledger).is_empty());
}

fn history_is_dropped_by_resolution(ledger: &dyn Ledger) {
    let history = ledger.history().unwrap();
    let mut world = World::new(33);
    world.steps(ledger, 150);
    fold_history(ledger);
    let kept = KeptFrom([20, 40, 60].map(|days| world.now.plus_ms(-days * DAY_MS)));
    wait(history.drop_before(kept)).unwrap();
    // What was dropped once is not made again.
    wait(history.drop_before(KeptFrom::default())).unwrap();
    assert_eq!(wait(history.state()).unwrap().kept, kept);
    let known = folded(&world);
    for (resolution, days) in Resolution::ALL.into_iter().zip([3, 3, 400]) {
        for end in [kept.of(resolution).plus_ms(DAY_MS), world.now.plus_ms(1)] {
            let window = Window { start: end.plus_ms(-days * DAY_MS), end };
            let tenant = world.whose(1);
            let query = HistoryQuery {
                tenant: tenant.clone(),
                resolution,
                window,
                parts: false,
                user: None,
                after: None,
                limit: 500,
            };
            let asked = known.iter().filter(|((found, place), _)| {
                *found == resolution
                    && place.tenant == tenant
                    && place.series.is_whole()
                    && kept.keeps(resolution, place.start)
                    && (resolution.start_of(window.start)..window.end).contains(&place.start)
            });
            let asked: Vec<(Place, Amounts)> = asked.map(|((_, place), amounts)| (place.clone(), *amounts)).collect();
            assert_eq!(rows_of(ledger, &query), asked, "{resolution:?}");
        }
    }
}
