//! Two nodes on one database.

use super::{Database, run, two};
use crate::world::{Random, States, World, all_lines, done, fold_history, wait};
use domain::{
    entry::{Binding, Cause, Effect, Entry, KindSet, Profile, Status},
    id::{MeterKey, PlanKey, TenantId},
    time::{DAY_MS, Instant, Zone},
};
use engine::ports::{
    Append, Basis, Commit, Fold, Ledger, LedgerError, Lookup, Published, Retention, Seq, SharedLedger,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Use of one, bound to an id unless that is 0.
pub fn used(bound_to: u128) -> Entry {
    Entry {
        at: Instant::from_ms(1_790_000_000_000),
        catalog: 1,
        cause: Cause::Check,
        binding: (bound_to != 0).then_some(Binding { id: bound_to, fingerprint: 7 }),
        user: None,
        dimensions: vec![],
        note: None,
        effects: vec![Effect::Use {
            meter: MeterKey::new("messages").unwrap(),
            amount: 1,
            open: KindSet::ALL,
            closed: vec![],
        }],
    }
}

/// A tenant's first entry.
pub fn created(plan: &str) -> Entry {
    let at = Instant::from_ms(1_790_000_000_000);
    let profile = Profile {
        plan: PlanKey::new(plan).unwrap(),
        status: Status::Active,
        enforce: None,
        zone: Zone::utc(),
        anchor: at,
        created_at: at,
        overrides: vec![],
        catalog_pin: None,
        shares: Vec::new(),
    };
    Entry { cause: Cause::Admin, effects: vec![Effect::Profile(Box::new(profile))], ..used(0) }
}

/// What one caller appends.
pub fn append(tenant: &TenantId, follows: Seq, basis: &Arc<Basis>, entries: Vec<Entry>) -> Append {
    Append { follows, basis: basis.clone(), ..Append::new(tenant.clone(), entries) }
}

pub fn commit(ledger: &dyn Ledger, append: Append) -> Result<Seq, LedgerError> {
    let appended = ledger.append(append)?;
    done(appended.commit)?;
    Ok(appended.last)
}

/// The positions of a tenant's entries, as the database has them.
pub fn positions(ledger: &dyn Ledger, tenant: &TenantId) -> Vec<Seq> {
    let loaded = wait(ledger.shared().unwrap().load(tenant, false)).unwrap();
    loaded.after.into_iter().map(|(seq, _)| seq).collect()
}

#[test]
fn what_was_decided_on_less_than_all_is_not_written() {
    let database = Database::new();
    let (one, two) = two(&database);
    let (acme, other) = (id("acme"), id("other"));
    let basis = Arc::<Basis>::default();
    assert_eq!(commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), used(1)])), Ok(2));
    // In one batch: two that follow too little, on one basis, and one of another tenant.
    let stale = two.append(append(&acme, 0, &basis, vec![created("free")])).unwrap();
    // On the same basis, and it would even fit: it was decided on what is not so.
    let fits_by_chance = two.append(append(&acme, 2, &basis, vec![used(0)]));
    let stale_too = two.append(append(&acme, 1, &basis, vec![used(0)]));
    let fine = two.append(append(&other, 0, &Arc::default(), vec![created("free")])).unwrap();
    assert_eq!(done(stale.commit), Err(LedgerError::Stale));
    assert_eq!(stale_too.and_then(|appended| done(appended.commit).map(|()| 0)), Err(LedgerError::Stale));
    assert_eq!(fits_by_chance.and_then(|appended| done(appended.commit).map(|()| 0)), Err(LedgerError::Stale));
    assert_eq!(done(fine.commit), Ok(()));
    assert!(basis.is_stale());
    assert_eq!(two.append(append(&acme, 2, &basis, vec![used(0)])).unwrap_err(), LedgerError::Stale);
    assert_eq!(positions(&*two, &acme), [1, 2]);
    assert_eq!(commit(&*two, append(&acme, 2, &Arc::default(), vec![used(0)])), Ok(3));
    assert_eq!(positions(&*one, &acme), [1, 2, 3]);
    assert_eq!(two.stats().queue_entries, 0);
}

#[test]
fn a_position_that_two_readings_claim_is_one_readings_alone() {
    let database = Database::new();
    let (one, _two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), used(0)])).unwrap();
    for _ in 0..20 {
        let at = *positions(&*one, &acme).last().unwrap();
        let (before, after) = (Arc::<Basis>::default(), Arc::<Basis>::default());
        // The tenant was loaded again while something that was decided before waits.
        let first = one.append(append(&acme, at, &before, vec![used(0)])).unwrap();
        let same_place = one.append(append(&acme, at, &after, vec![used(0)])).unwrap();
        let behind_it = one.append(append(&acme, at + 1, &after, vec![used(0)]));
        assert_eq!(done(first.commit), Ok(()));
        assert_eq!(done(same_place.commit), Err(LedgerError::Stale));
        // It would follow what was written, but was decided on something else.
        assert_eq!(behind_it.and_then(|appended| done(appended.commit).map(|()| 0)), Err(LedgerError::Stale));
        assert_eq!(positions(&*one, &acme).last(), Some(&(at + 1)));
    }
}

#[test]
fn an_id_is_bound_once_whichever_node_asks() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), used(77)])).unwrap();
    assert_eq!(two.find(&acme, 77), Lookup::Fresh, "the other node has not heard of it");
    assert_eq!(commit(&*two, append(&acme, 2, &Arc::default(), vec![used(0), used(77)])), Err(LedgerError::Stale));
    assert_eq!(two.find(&acme, 77), Lookup::Bound(2), "now it has");
    assert_eq!(two.find(&id("other"), 77), Lookup::Fresh, "ids are a tenant's own");
    assert_eq!(positions(&*one, &acme), [1, 2], "all of the part or nothing");
    assert_eq!(commit(&*two, append(&acme, 2, &Arc::default(), vec![used(78)])), Ok(3));
}

#[test]
fn what_was_decided_on_an_older_catalog_is_not_written() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    let free = [PlanKey::new("free").unwrap()];
    assert_eq!(run(one.publish("first", Instant::from_ms(1), &free)), Ok(Published::Version(1)));
    commit(&*two, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let without = run(one.publish("second", Instant::from_ms(2), &[PlanKey::new("pro").unwrap()]));
    assert_eq!(without, Ok(Published::PlansInUse(free.to_vec())), "a plan in use can't be left out");
    assert_eq!(run(one.publish("second", Instant::from_ms(2), &free)), Ok(Published::Version(2)));
    let basis = Arc::<Basis>::default();
    let behind = commit(&*two, append(&acme, 1, &basis, vec![used(0)]));
    assert_eq!(behind, Err(LedgerError::CatalogBehind { in_force: 2 }));
    assert!(basis.is_stale());
    let up_to_date = Entry { catalog: 2, ..used(0) };
    assert_eq!(commit(&*two, append(&acme, 1, &Arc::default(), vec![up_to_date])), Ok(2));
    let texts: Vec<_> = wait(two.catalogs()).unwrap().into_iter().map(|catalog| catalog.text.to_string()).collect();
    assert_eq!(texts, ["first", "second"]);
    let signals = run(two.signals()).unwrap();
    assert_eq!(signals.catalog_version, 2);
    assert!((signals.now.ms() - now_ms()).abs() < 60_000, "the server's clock, which is this machine's");
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn a_tenant_is_created_once() {
    let database = Database::new();
    let (one, two) = two(&database);
    for round in 0..30 {
        let tenant = id(&format!("tenant-{round}"));
        let create = |ledger: &Arc<stores::postgres::PostgresLedger>| {
            ledger.append(append(&tenant, 0, &Arc::default(), vec![created("free")])).unwrap().commit
        };
        let outcomes = [create(&one), create(&two)].map(done);
        assert!(outcomes.contains(&Ok(())) && outcomes.contains(&Err(LedgerError::Stale)), "{outcomes:?}");
        assert_eq!(positions(&*one, &tenant), [1]);
    }
}

/// Decides on what is there, again and again, as an engine does.
fn contend(ledger: &stores::postgres::PostgresLedger, tenant: &TenantId, rounds: u64) -> Vec<Seq> {
    let mut written = Vec::new();
    let mut conflicts = 0;
    while (written.len() as u64) < rounds {
        let loaded = run(ledger.load(tenant, conflicts > 0)).unwrap();
        let follows = loaded.after.last().map_or(0, |(seq, _)| *seq);
        match commit(ledger, append(tenant, follows, &Arc::default(), vec![used(0)])) {
            Ok(seq) => {
                written.push(seq);
                conflicts = 0;
            }
            Err(LedgerError::Stale) => conflicts += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(conflicts < 50, "whoever keeps the row gets through");
    }
    written
}

#[test]
fn every_position_is_taken_once_however_many_want_it() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free")])).unwrap();
    let mut written: Vec<Seq> = std::thread::scope(|scope| {
        let start = |ledger: &Arc<stores::postgres::PostgresLedger>| {
            let (ledger, acme) = (ledger.clone(), acme.clone());
            scope.spawn(move || contend(&ledger, &acme, 20))
        };
        let threads = [start(&one), start(&two), start(&one), start(&two)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    written.sort_unstable();
    assert!(written.iter().copied().eq(2..=81));
    assert!(positions(&*one, &acme).into_iter().eq(1..=81));
}

#[test]
fn the_journal_misses_nothing_while_many_write() {
    let database = Database::new();
    let (one, two) = two(&database);
    let reader = database.open();
    let stop = AtomicBool::new(false);
    let (lines, counts) = std::thread::scope(|scope| {
        let writers: Vec<_> = [&one, &two, &one, &two]
            .into_iter()
            .enumerate()
            .map(|(number, ledger)| {
                scope.spawn(move || {
                    let mut random = Random(number as u64);
                    let mut lasts = BTreeMap::<TenantId, Seq>::new();
                    for _ in 0..150 {
                        let tenant = id(&format!("tenant-{number}-{}", random.below(5)));
                        let last = lasts.entry(tenant.clone()).or_default();
                        let count = 1 + random.below(4);
                        let entries = (0..count).map(|_| used(0)).collect();
                        *last = commit(&**ledger, append(&tenant, *last, &Arc::default(), entries)).unwrap();
                    }
                    lasts
                })
            })
            .collect();
        let reads = scope.spawn(|| {
            let mut lines: Vec<engine::ports::Line> = Vec::new();
            loop {
                let is_last = stop.load(Ordering::Acquire);
                let after = lines.last().map_or(0, |(seq, ..)| *seq);
                let page = wait(reader.journal(after, 7)).unwrap();
                let is_empty = page.is_empty();
                lines.extend(page);
                if is_last && is_empty {
                    return lines;
                }
            }
        });
        let counts: BTreeMap<TenantId, Seq> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        stop.store(true, Ordering::Release);
        (reads.join().unwrap(), counts)
    });
    let mut found = BTreeMap::<TenantId, Seq>::new();
    for (_, tenant, _) in &lines {
        *found.entry(tenant.clone()).or_default() += 1;
    }
    assert!(lines.is_sorted_by(|(before, ..), (after, ..)| before < after));
    assert_eq!(found, counts);
    assert_eq!(all_lines(&*one), lines);
}

#[test]
fn a_fold_goes_on_from_the_one_that_is_stored() {
    let database = Database::new();
    let (one, two) = two(&database);
    let mut world = World::new(21);
    world.steps(&*one, 60);
    let folds = world.take_folds(true);
    done(one.checkpoint(folds.clone(), None)).unwrap();
    let states = States::of(&*two);
    assert_eq!(states, world.states(world.last()));
    // Another node that has loaded nothing since: its folds go on from the empty ledger.
    let theirs: Vec<_> =
        folds.iter().map(|fold| Fold { basis: Arc::new(Basis::at(fold.tenant.seq)), ..fold.clone() }).collect();
    done(two.checkpoint(theirs.clone(), None)).unwrap();
    assert!(theirs.iter().all(|fold| fold.basis.is_stale()), "told that they are outdated");
    assert!(folds.iter().all(|fold| !fold.basis.is_stale()));
    assert_eq!(States::of(&*two), states, "nothing is added twice");
    // What is not committed is no fold of anything.
    let mut ahead = folds[0].clone();
    ahead.from = ahead.tenant.seq;
    ahead.tenant.seq += 1;
    ahead.basis = Arc::new(Basis::at(ahead.tenant.seq));
    done(two.checkpoint(vec![ahead.clone()], None)).unwrap();
    assert!(ahead.basis.is_stale());
    assert_eq!(States::of(&*one), states);
    world.steps(&*one, 60);
    let next = world.take_folds(true);
    assert!(next.iter().any(|fold| fold.from > 0 && !fold.tenant.state.accounts.closed().is_empty()));
    for ledger in [&one, &two] {
        let theirs: Vec<_> =
            next.iter().map(|fold| Fold { basis: Arc::new(Basis::at(fold.tenant.seq)), ..fold.clone() }).collect();
        done(ledger.checkpoint(theirs.clone(), None)).unwrap();
        let written = theirs.iter().filter(|fold| !fold.basis.is_stale()).count();
        assert_eq!(
            written,
            if Arc::ptr_eq(ledger, &one) { next.len() } else { 0 },
            "the second goes on from an older one"
        );
        assert_eq!(States::of(&*two), world.states(world.last()));
    }
}

#[test]
fn a_job_is_one_nodes_and_changes_hands_by_the_servers_clock() {
    let database = Database::new();
    let (one, two) = two(&database);
    let first = run(one.claim("rollup", "one", 60_000)).unwrap().unwrap();
    assert_eq!(run(two.claim("rollup", "two", 60_000)), Ok(None));
    assert_eq!(run(one.claim("rollup", "one", 60_000)).unwrap().unwrap(), first, "renewed");
    assert_eq!(run(two.claim("other", "two", 60_000)).unwrap().unwrap().epoch, 1, "another job");
    database.sql("UPDATE @.jobs SET expires_at = clock_timestamp() WHERE job = 'rollup'");
    let second = run(two.claim("rollup", "two", 60_000)).unwrap().unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    run(one.release(&first)).unwrap();
    assert_eq!(run(one.claim("rollup", "one", 60_000)), Ok(None), "it was not the first's to give back");
    run(two.release(&second)).unwrap();
    assert_eq!(run(one.claim("rollup", "one", 60_000)).unwrap().unwrap().epoch, second.epoch + 1);
}

#[test]
fn keys_are_heard_of_everywhere() {
    let database = Database::new();
    let (one, two) = two(&database);
    let before = run(two.signals()).unwrap().keys_version;
    let key = engine::ports::ApiKey {
        id: "key_a".into(),
        hash: [9; 32],
        name: "door".into(),
        scope: engine::ports::KeyScope::Ingest,
        created_at: Instant::from_ms(5),
        created_by: "cli".into(),
        revoked_at: None,
    };
    wait(one.put_key(&key)).unwrap();
    assert_eq!(run(two.signals()).unwrap().keys_version, before + 1);
    assert_eq!(wait(two.keys()).unwrap(), [key]);
}

#[test]
fn retention_keeps_ids_for_their_window_and_folds_what_it_cuts() {
    let database = Database::new();
    let (one, two) = two(&database);
    let mut world = World::new(23);
    world.steps(&*one, 150);
    done(world.checkpoint(&*one)).unwrap();
    let all = world.states(world.last());
    let week =
        Retention { dedupe_ms: 7 * DAY_MS, journal_ms: 7 * DAY_MS, denials_ms: DAY_MS, history_ms: 400 * DAY_MS };
    let later = world.now.plus_ms(100 * DAY_MS);
    fold_history(&*one);
    // Both at once: what one cuts the other does not.
    std::thread::scope(|scope| {
        scope.spawn(|| wait(one.retain(week, later)).unwrap());
        scope.spawn(|| wait(two.retain(week, later)).unwrap());
    });
    assert!(all_lines(&*one).is_empty());
    let openings = database.sql("SELECT count(*) FROM @.openings WHERE user_id = ''");
    assert_eq!(openings, [all.tenants.len().to_string()]);
    let different = "SELECT count(*) FROM @.openings o JOIN @.folds f USING (tenant)
                     WHERE o.user_id = '' AND (o.seq, o.state) IS DISTINCT FROM (f.seq, f.state)";
    assert_eq!(database.sql(different), ["0"], "what was folded from the entries is what was written as folds");
    let sums = |table: &str| {
        database.sql(&format!("SELECT count(*) || ' ' || sum(used) || ' ' || sum(denied) FROM @.{table}"))
    };
    assert_eq!(sums("closed"), sums("opening_closed"));
    assert_eq!(database.sql("SELECT count(*) FROM @.ids"), ["0"]);
    // Young ids stay, and so does what lies in an open period.
    world.now = later;
    world.steps(&*one, 40);
    done(world.checkpoint(&*one)).unwrap();
    wait(two.retain(week, world.now)).unwrap();
    let young: Vec<_> = world.bindings.iter().filter(|(_, place)| *place > 150).collect();
    assert!(!young.is_empty());
    let bound = |id: u128, place: Seq| wait(two.find_on_disk(&world.whose(place), id)).unwrap();
    let is_young = |place: Seq| world.log[place as usize - 1].2.at >= world.now.plus_ms(-week.dedupe_ms);
    for (id, place) in young.into_iter().filter(|(_, place)| is_young(*place)) {
        assert_eq!(bound(*id, *place), Some(world.position(*place)));
    }
}

#[test]
fn what_nobody_waits_for_is_committed_all_the_same() {
    let database = Database::new();
    let ledger = database.open();
    let acme = id("acme");
    let append = Append { wait: false, ..append(&acme, 0, &Arc::default(), vec![created("free")]) };
    assert!(matches!(ledger.append(append).unwrap().commit, Commit::Done));
    done(ledger.committed(&acme, 1)).unwrap();
    assert_eq!(positions(&*ledger, &acme), [1]);
    run(ledger.close());
    assert!(matches!(ledger.ready(), Err(LedgerError::Unwritable(_))));
}
