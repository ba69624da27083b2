//! Who judges warnings finds what is wrong with them.

use domain::{
    catalog::{Catalog, MeterKind},
    entry::{Effect, Entry},
    time::WindowKind,
};
use engine::{EngineOptions, ports::Ledger};
use testkit::{
    auditor::warnings::{Used, judge},
    catalog::{Draft, each_user, limit},
    world::{World, by_user, charge, spend, tenant},
};

/// A journal in which somebody used all there is, one by one.
async fn journal() -> (Vec<Entry>, Catalog) {
    let limits = vec![limit("calls", WindowKind::Day, 5), each_user(limit("seats", None, 2))];
    let draft = Draft::default().meter("calls", MeterKind::Counter).meter("seats", MeterKind::Gauge);
    let catalog = draft.plan("free", &[], limits).done();
    let world = World::new(catalog.clone(), EngineOptions::default()).await;
    world.put("acme", "free").await;
    for _ in 0..5 {
        world.admit(&spend("acme", vec![charge("calls", 1)])).await.unwrap();
    }
    for amount in [2, -1, 1] {
        world.admit(&by_user(spend("acme", vec![charge("seats", amount)]), "al")).await.unwrap();
    }
    let lines = world.ledger.journal(0, 100).await.unwrap();
    (lines.into_iter().map(|(.., entry)| entry).collect(), catalog)
}

fn judged(entries: &[Entry], catalog: &Catalog) -> Result<u64, String> {
    judge(&tenant("acme"), entries, |_| Some(catalog), Used::Exactly)
}

#[tokio::test]
async fn a_warning_that_is_lost_repeated_or_wrong_is_found() {
    let (entries, catalog) = journal().await;
    // Of the calls 80 and 100 %, of the seats both at once, and again when they had fallen below.
    assert_eq!(judged(&entries, &catalog), Ok(6));
    let told = |entry: &Entry| entry.effects.iter().any(|effect| matches!(effect, Effect::Warned(_)));
    for place in (0..entries.len()).filter(|place| told(&entries[*place])) {
        let mut lost = entries.clone();
        lost[place].effects.retain(|effect| !matches!(effect, Effect::Warned(_)));
        assert!(judged(&lost, &catalog).unwrap_err().contains("is not told"));

        let warning = entries[place].effects.iter().find(|effect| matches!(effect, Effect::Warned(_))).unwrap();
        let mut repeated = entries.clone();
        repeated[place].effects.push(warning.clone());
        assert!(judged(&repeated, &catalog).unwrap_err().contains("was told before"));

        let mut early = lost;
        early[place - 1].effects.push(warning.clone());
        assert!(judged(&early, &catalog).unwrap_err().contains("is not reached"));

        let mut wrong = entries.clone();
        for effect in &mut wrong[place].effects {
            if let Effect::Warned(warning) = effect {
                warning.used -= 1;
            }
        }
        assert!(judged(&wrong, &catalog).unwrap_err().contains("is told, where"));
    }
}
