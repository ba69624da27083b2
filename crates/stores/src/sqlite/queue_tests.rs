#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    entry::{Binding, Cause, KindSet},
    id::{DimensionKey, MeterKey, UserId},
    time::{Instant, WindowKind},
};

fn queue() -> Queue {
    Queue::new(0, 0, Runs::default(), 10)
}

fn used(amount: i64) -> Entry {
    Entry {
        at: Instant::from_ms(amount.saturating_add(1000)),
        catalog: 1,
        cause: Cause::Gateway,
        binding: None,
        user: None,
        dimensions: vec![],
        note: None,
        effects: vec![Effect::Use {
            meter: MeterKey::new("requests").unwrap(),
            amount,
            open: KindSet::ALL,
            closed: vec![],
        }],
    }
}

fn push(queue: &Queue, tenant: &str, entry: Entry, fold_after: Option<Seq>) -> Seq {
    let tenant = TenantId::new(tenant).unwrap();
    let append = Append { fold_after, wait: false, ..Append::new(tenant, vec![entry]) };
    queue.append(append, |_, _| {}).unwrap().last
}

fn amounts(queue: &Queue) -> Vec<i64> {
    let state = queue.state.lock();
    let rows = state.segments.iter().flat_map(|segment| &segment.rows);
    rows.filter_map(|row| match &row.body {
        Body::Open(entry) => match &entry.effects[0] {
            Effect::Use { amount, .. } => Some(*amount),
            _ => None,
        },
        Body::Encoded { .. } => None,
    })
    .collect()
}

#[test]
fn requests_of_one_shape_become_one_row() {
    let queue = queue();
    for amount in 1..=100 {
        assert_eq!(push(&queue, "acme", used(amount), Some(0)), 1);
    }
    assert_eq!(amounts(&queue), [5050]);
    let state = queue.state.lock();
    assert_eq!(state.segments[0].rows[0].at_ms, 1100, "the latest instant");
    assert_eq!(state.waiting(), 1);
}

#[test]
fn what_differs_in_more_than_amounts_stays_apart() {
    let queue = queue();
    push(&queue, "acme", used(1), Some(0));
    push(&queue, "bell", used(2), Some(0));
    push(&queue, "acme", Entry { user: Some(UserId::new("ann").unwrap()), ..used(4) }, Some(0));
    push(&queue, "acme", Entry { catalog: 2, ..used(8) }, Some(0));
    let dimensions = vec![(DimensionKey::new("model").unwrap(), "large".into())];
    push(&queue, "acme", Entry { dimensions, ..used(16) }, Some(0));
    push(&queue, "acme", Entry { cause: Cause::Check, ..used(32) }, Some(0));
    let Effect::Use { meter, .. } = used(1).effects.remove(0) else { unreachable!() };
    let day = Effect::Use { meter, amount: 64, open: KindSet::NONE.with(WindowKind::Day), closed: vec![] };
    push(&queue, "acme", Entry { effects: vec![day], ..used(1) }, Some(0));
    // Each is still open: neither of them stands in the way of another.
    push(&queue, "acme", used(100), Some(0));
    push(&queue, "acme", Entry { user: Some(UserId::new("ann").unwrap()), ..used(400) }, Some(0));
    assert_eq!(amounts(&queue), [101, 2, 404, 8, 16, 32, 64]);
}

#[test]
fn nothing_is_added_past_another_entry_of_the_tenant() {
    let queue = queue();
    push(&queue, "acme", used(1), Some(0));
    push(&queue, "bell", used(2), Some(0));
    assert_eq!(push(&queue, "acme", used(5), None), 3);
    assert_eq!(push(&queue, "acme", used(10), Some(0)), 4);
    assert_eq!(push(&queue, "acme", used(10), Some(0)), 4);
    assert_eq!(push(&queue, "bell", used(20), Some(0)), 2);
    assert_eq!(amounts(&queue), [1, 22, 20]);
}

#[test]
fn nothing_is_added_to_what_the_caller_has_seen_folded() {
    let queue = queue();
    assert_eq!(push(&queue, "acme", used(1), Some(0)), 1);
    assert_eq!(push(&queue, "acme", used(2), Some(1)), 2);
    assert_eq!(push(&queue, "acme", used(4), Some(1)), 2);
    assert_eq!(amounts(&queue), [1, 6]);
}

#[test]
fn bound_and_giving_back_entries_are_rows_of_their_own() {
    let queue = queue();
    let binding = Some(Binding { id: 7, fingerprint: 8 });
    push(&queue, "acme", Entry { binding, ..used(1) }, Some(0));
    push(&queue, "acme", Entry { binding, ..used(2) }, Some(0));
    push(&queue, "acme", used(4), Some(0));
    push(&queue, "acme", used(-3), Some(0));
    push(&queue, "acme", used(8), Some(0));
    push(&queue, "acme", used(i64::MAX), Some(0));
    assert_eq!(amounts(&queue), [1, 2, 4, -3, 8, i64::MAX]);
}

#[test]
fn a_segment_that_was_taken_is_not_added_to() {
    let queue = queue();
    push(&queue, "acme", used(1), Some(0));
    let taken = queue.state.lock().segments.pop_front().unwrap();
    assert_eq!(push(&queue, "acme", used(2), Some(0)), 2);
    assert_eq!(taken.rows.len(), 1);
    assert_eq!(amounts(&queue), [2]);
}

#[test]
fn the_queue_says_when_it_is_full() {
    let queue = queue();
    for _ in 0..10 {
        assert_eq!(queue.ready(), Ok(()));
        push(&queue, "acme", used(1), None);
    }
    assert_eq!(queue.ready(), Err(LedgerError::Overloaded { waiting: 10 }));
    assert_eq!(push(&queue, "acme", used(1), None), 11, "what was decided is taken");
}

#[test]
fn waiters_are_woken_in_order_and_late_ones_too() {
    let queue = queue();
    let tenant = TenantId::new("acme").unwrap();
    let append = |count| Append::new(tenant.clone(), vec![used(1); count]);
    let _first = queue.append(append(2), |_, _| {}).unwrap();
    let _second = queue.append(append(3), |_, _| {}).unwrap();
    let _late = queue.committed(1);
    let mut woken = Vec::new();
    let mut state = queue.state.lock();
    state.take_waiters(2, &mut woken);
    assert_eq!(woken.len(), 2);
    state.take_waiters(5, &mut woken);
    assert_eq!(woken.len(), 3);
}
