//! What is charged under leases: in step with the lease, whatever else is written to the tenant meanwhile.

use super::{
    Database,
    nodes::{append, commit, created, id, positions, used},
    proxy::{Mode, Proxy},
    run, two, until,
};
use crate::world::{done, retain, wait};
use domain::{
    entry::{Effect, Entry},
    id::TenantId,
    lease::Lease,
    tenant::Tenant,
    time::{DAY_MS, Instant},
};
use engine::ports::{Append, Basis, Fold, Ledger, LedgerError, Lookup, Retention, Stored, leased_seq};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use stores::postgres::{PostgresLedger, PostgresOptions};

/// An entry after which there are these leases, each with so many entries under it.
fn leases(all: &[(u64, u64)]) -> Entry {
    let lease = |(epoch, entries): &(u64, u64)| Lease {
        epoch: *epoch,
        entries: *entries,
        catalog: 1,
        granted_at: Instant::EPOCH,
        slices: vec![],
    };
    Entry { effects: vec![Effect::Leases(all.iter().map(lease).collect())], ..used(0) }
}

/// Entries under a lease, of which the first is made as number `number`.
fn under(tenant: &TenantId, epoch: u64, number: u64, basis: &Arc<Basis>, ids: &[u128]) -> Append {
    let entry = |id: &u128| {
        let mut entry = used(*id);
        entry.effects.insert(0, Effect::Under { epoch });
        entry
    };
    let entries = ids.iter().map(entry).collect();
    Append { under: Some(epoch), ..append(tenant, leased_seq(epoch, number - 1), basis, entries) }
}

fn leased(ledger: &dyn Ledger, append: Append) -> Result<(), LedgerError> {
    done(ledger.append(append)?.commit)
}

#[test]
fn what_others_write_does_not_outdate_what_is_charged_under_a_lease() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), leases(&[(2, 0)])])).unwrap();
    let basis = Arc::new(Basis::at(leased_seq(2, 0)));
    leased(&*one, under(&acme, 2, 1, &basis, &[0, 5])).unwrap();
    assert!(basis.is_durable(leased_seq(2, 2)) && !basis.has_others());
    commit(&*two, append(&acme, 4, &Arc::default(), vec![used(6)])).unwrap();
    leased(&*one, under(&acme, 2, 3, &basis, &[7])).unwrap();
    assert!(basis.has_others() && !basis.is_stale());
    assert_eq!(positions(&*two, &acme), [1, 2, 3, 4, 5, 6]);
    // Ids lead to positions, on the node that bound them and elsewhere.
    assert_eq!(one.find(&acme, 7), Lookup::Bound(6));
    assert_eq!(wait(two.find_on_disk(&acme, 5)), Ok(Some(4)));
    let entry = wait(two.entry(&acme, 6)).unwrap().unwrap();
    assert_eq!((entry.under(), entry.binding.unwrap().id), (Some(2), 7));
}

#[test]
fn nothing_is_written_under_a_lease_that_is_not_there_or_out_of_step() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), leases(&[(2, 0)])])).unwrap();
    let basis = || Arc::new(Basis::at(leased_seq(2, 0)));
    assert_eq!(leased(&*one, under(&acme, 3, 1, &basis(), &[0])), Err(LedgerError::Stale), "no such lease");
    assert_eq!(leased(&*one, under(&acme, 2, 2, &basis(), &[0])), Err(LedgerError::Stale), "one is missing");
    leased(&*one, under(&acme, 2, 1, &basis(), &[0])).unwrap();
    let again = basis();
    assert_eq!(leased(&*one, under(&acme, 2, 1, &again, &[0])), Err(LedgerError::Stale), "that was the second");
    assert!(again.is_stale());
    // Another lease beside it, which keeps its step; then the first ends.
    commit(&*two, append(&acme, 3, &Arc::default(), vec![leases(&[(2, 1), (4, 0)])])).unwrap();
    leased(&*one, under(&acme, 2, 2, &basis(), &[0])).unwrap();
    commit(&*two, append(&acme, 5, &Arc::default(), vec![leases(&[(4, 0)])])).unwrap();
    assert_eq!(leased(&*one, under(&acme, 2, 3, &basis(), &[0])), Err(LedgerError::Stale), "it has ended");
    leased(&*two, under(&acme, 4, 1, &Arc::new(Basis::at(leased_seq(4, 0))), &[0])).unwrap();
    assert_eq!(positions(&*one, &acme), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn two_nodes_charge_one_tenant_at_once() {
    const ROUNDS: u64 = 150;
    let database = Database::new();
    let (one, two) = two(&database);
    let (acme, other) = (id("acme"), id("other"));
    for tenant in [&acme, &other] {
        let first = vec![created("free"), leases(&[(2, 0), (3, 0)])];
        commit(&*one, append(tenant, 0, &Arc::default(), first)).unwrap();
    }
    let charge = |ledger: Arc<PostgresLedger>, epoch: u64| {
        let tenants = [acme.clone(), other.clone()];
        std::thread::spawn(move || {
            let basis = Arc::new(Basis::at(leased_seq(epoch, 0)));
            let mut waiting = Vec::new();
            for number in 1..=ROUNDS {
                for tenant in &tenants {
                    let bound = u128::from(epoch << 32 | number);
                    waiting.push(ledger.append(under(tenant, epoch, number, &basis, &[bound])).unwrap().commit);
                }
                if number % 7 == 0 {
                    waiting.drain(..).for_each(|commit| done(commit).unwrap());
                }
            }
            waiting.into_iter().for_each(|commit| done(commit).unwrap());
            basis.has_others()
        })
    };
    let nodes = [charge(one.clone(), 2), charge(two.clone(), 3)];
    assert!(nodes.map(|node| node.join().unwrap()).into_iter().any(|met| met), "they never met");
    for tenant in [&acme, &other] {
        assert!(positions(&*one, tenant).into_iter().eq(1..=2 + 2 * ROUNDS));
        for (epoch, number) in [(2, 1), (3, 1), (2, ROUNDS), (3, ROUNDS)] {
            let bound = u128::from((epoch as u64) << 32 | number);
            let seq = wait(two.find_on_disk(tenant, bound)).unwrap().expect("it is bound");
            assert_eq!(wait(one.entry(tenant, seq)).unwrap().unwrap().binding.unwrap().id, bound);
        }
    }
}

#[test]
fn an_id_is_bound_once_whichever_lease_is_quicker() {
    let database = Database::new();
    let (one, two) = two(&database);
    let acme = id("acme");
    commit(&*one, append(&acme, 0, &Arc::default(), vec![created("free"), leases(&[(2, 0), (3, 0)])])).unwrap();
    let (mut numbers, mut lost) = ([1, 1], 0);
    for round in 1..=60_u128 {
        let ledgers = [&one, &two];
        let appended: Vec<_> = [(0, 2), (1, 3)]
            .map(|(node, epoch)| {
                let basis = Arc::new(Basis::at(leased_seq(epoch, 0)));
                ledgers[node].append(under(&acme, epoch, numbers[node], &basis, &[round])).unwrap().commit
            })
            .into();
        for (node, commit) in appended.into_iter().enumerate() {
            match done(commit) {
                Ok(()) => numbers[node] += 1,
                Err(error) => {
                    assert_eq!(error, LedgerError::Stale);
                    assert!(matches!(ledgers[node].find(&acme, round), Lookup::Bound(_)), "it says who bound it");
                    lost += 1;
                }
            }
        }
        assert_eq!(numbers[0] + numbers[1], round as u64 + 2, "exactly one of them");
    }
    assert_eq!(lost, 60);
    assert_eq!(positions(&*one, &acme).len(), 62);
}

/// What is sent under a lease is not judged by the tenant's version: what was sent twice must not be written twice.
fn cut_under_lease(mode: Mode) {
    let database = Database::new();
    let proxy = Proxy::to(database.address());
    let options = PostgresOptions { give_up: Duration::from_secs(30), ..Default::default() };
    let ledger = run(PostgresLedger::open(&database.url_by(proxy.port), options)).unwrap();
    let direct = database.open();
    // Its connection is made when it is needed first.
    let warm = id("warm");
    commit(&*ledger, append(&warm, 0, &Arc::default(), vec![created("free"), leases(&[(2, 0)])])).unwrap();
    leased(&*ledger, under(&warm, 2, 1, &Arc::new(Basis::at(leased_seq(2, 0))), &[0])).unwrap();
    for round in 0..6 {
        let tenant = id(&format!("tenant-{round}"));
        let first = vec![created("free"), leases(&[(2, 0)])];
        commit(&*ledger, append(&tenant, 0, &Arc::default(), first)).unwrap();
        proxy.set(mode);
        let basis = Arc::new(Basis::at(leased_seq(2, 0)));
        let appended = ledger.append(under(&tenant, 2, 1, &basis, &[0, round])).unwrap();
        until("it is cut", || proxy.mode() == Mode::Closed);
        let written = if mode == Mode::CutReply {
            until("it is written", || positions(&*direct, &tenant).len() == 4);
            4
        } else {
            2
        };
        // Another node writes before this one knows.
        commit(&*direct, append(&tenant, written, &Arc::default(), vec![used(0)])).unwrap();
        proxy.set(Mode::Pass);
        assert_eq!(done(appended.commit), Ok(()), "round {round}");
        leased(&*ledger, under(&tenant, 2, 3, &basis, &[0])).unwrap();
        assert!(positions(&*direct, &tenant).into_iter().eq(1..=6), "exactly once");
        assert!(!basis.is_stale());
    }
}

#[test]
fn what_is_charged_under_a_lease_and_cut_before_it_arrives_is_applied_once() {
    cut_under_lease(Mode::CutRequest);
}

#[test]
fn what_is_charged_under_a_lease_and_whose_answer_is_cut_is_applied_once() {
    cut_under_lease(Mode::CutReply);
}

#[test]
fn what_was_charged_under_a_lease_verifies_and_is_cut_from_the_front() {
    let database = Database::new();
    let (one, _two) = two(&database);
    let acme = id("acme");
    let first = used(0).at;
    let at = |entry: Entry, after_ms: i64| Entry { at: first.plus_ms(after_ms), ..entry };
    let begin = vec![created("free"), leases(&[(2, 0), (3, 0)])];
    commit(&*one, append(&acme, 0, &Arc::default(), begin)).unwrap();
    let mut basis = BTreeMap::new();
    // Two nodes whose clocks differ: instants go back and forth.
    for (number, late_ms) in [(1_u64, 90), (2, 60), (3, 130), (4, 100), (5, 150), (6, 120)] {
        let epoch = 2 + number % 2;
        let made = basis.entry(epoch).or_insert((Arc::new(Basis::at(leased_seq(epoch, 0))), 0));
        made.1 += 1;
        let mut append = under(&acme, epoch, made.1, &made.0, &[u128::from(number)]);
        append.entries = append.entries.into_iter().map(|entry| at(entry, late_ms)).collect();
        leased(&*one, append).unwrap();
    }
    commit(&*one, append(&acme, 8, &Arc::default(), vec![at(leases(&[]), 200)])).unwrap();
    let verified = || run(stores::postgres::verify(&database.url(""), &mut |_| {})).unwrap();
    let report = verified();
    assert!(report.is_clean() && report.entries == 9 && report.ids == 6, "{:?}", report.differences);
    let loaded = wait(one.shared().unwrap().load(&acme, false)).unwrap();
    let mut state = Tenant::born(acme.clone(), &loaded.after[0].1).unwrap();
    loaded.after.iter().for_each(|(_, entry)| state.fold(None, entry));
    let fold = Fold { tenant: Stored { state, seq: 9 }, users: vec![], from: 0, basis: Arc::new(Basis::at(9)) };
    done(one.checkpoint(vec![fold], None)).unwrap();
    // Everything before this instant goes, but nothing behind an entry that stays.
    let days = |days| days * DAY_MS;
    let retention =
        Retention { dedupe_ms: days(3), journal_ms: days(5), denials_ms: days(20), history_ms: days(1_000) };
    retain(&*one, retention, first.plus_ms(days(5) + 125)).unwrap();
    assert_eq!(database.sql("SELECT seq::text FROM @.entries ORDER BY seq"), ["5", "6", "7", "8", "9"]);
    let report = verified();
    assert!(report.is_clean() && report.entries == 5, "{:?}", report.differences);
}
