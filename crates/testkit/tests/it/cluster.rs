//! Many nodes on one simulated database, where everything that can go wrong does.

use std::time::{SystemTime, UNIX_EPOCH};
use testkit::cluster::{Bug, Plan, Tally, audit, audit_outages};

#[test]
fn many_nodes_agree_with_their_auditor() {
    let mut sum = Tally::default();
    (0..100).for_each(|seed| sum.add(&audit(seed, 0, 60).unwrap()));
    (100..110).for_each(|seed| sum.add(&audit(seed, 0, 300).unwrap()));
    assert!(
        sum.leased > 100 && sum.holds > 300 && sum.sessions > 300 && sum.draws > 100 && sum.warnings > 100,
        "{sum:?}"
    );
}

/// Worlds that nobody has seen before: the seed is in what it says when one goes wrong.
#[test]
fn new_worlds_of_many_nodes_agree_with_their_auditor() {
    let from = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 8;
    for seed in from..from + 20 {
        audit(seed, 0, 100).unwrap();
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let plan = Plan::draw(7, 3, 80, None);
    assert_eq!(plan.run(), plan.run());
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..200).find(|seed| Plan::draw(*seed, 0, 80, Some(bug)).run().is_err());
        assert!(found.is_some(), "{bug:?} is not found in 200 worlds");
    }
}

#[test]
fn what_passes_in_outages_is_within_bounds_and_recorded_once() {
    let passed: u64 = (0..150).map(|seed| audit_outages(seed, 250, None, false).unwrap()).sum();
    assert!(passed > 1_000, "only {passed} passed");
}

#[test]
fn new_outages_are_within_bounds_and_recorded_once() {
    let from = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 8;
    (from..from + 30).for_each(|seed| _ = audit_outages(seed, 250, None, false).unwrap());
}

#[test]
fn mistakes_around_outages_are_found() {
    for bug in [Bug::OwnIdsOnly, Bug::RetryCommitsTwice] {
        let found = (0..200).find(|seed| audit_outages(*seed, 250, Some(bug), false).is_err());
        assert!(found.is_some(), "{bug:?} is not found in 200 worlds");
    }
    let found = (0..200).find(|seed| audit_outages(*seed, 250, None, true).is_err());
    assert!(found.is_some(), "a spool that forgets is not found in 200 worlds");
}
