#![allow(clippy::unwrap_used)]

use super::*;
use crate::denials::Runs;
use domain::{
    entry::{Cause, Effect, Entry, KindSet},
    id::{MeterKey, TenantId},
    time::Instant as At,
};
use engine::ports::{Append, Commit, LedgerError};
use std::{
    sync::{Arc, mpsc},
    thread,
};

/// So long that only being woken ends it while anybody looks.
const AGES: Duration = Duration::from_secs(3600);
/// By when something that must happen has happened, on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nothing;

impl super::super::queue::Work for Nothing {
    fn slice(&mut self, _: &mut rusqlite::Connection, _: Instant) -> Result<bool, LedgerError> {
        Ok(true)
    }
}

fn queue() -> Arc<Queue> {
    Arc::new(Queue::new(0, 0, Runs::default(), 1_000_000))
}

fn push(queue: &Queue, entries: usize, wait: bool) -> Commit {
    let meter = MeterKey::new("requests").unwrap();
    let effects = vec![Effect::Use { meter, amount: 1, open: KindSet::ALL, closed: vec![] }];
    let (at, cause) = (At::from_ms(1000), Cause::Check);
    let entry = Entry { at, catalog: 1, cause, binding: None, user: None, dimensions: vec![], note: None, effects };
    let tenant = TenantId::new("acme").unwrap();
    let append = Append { wait, ..Append::new(tenant, vec![entry; entries]) };
    queue.append(append, |_, _| {}).unwrap().commit
}

/// A writer that takes one commit; gives its number of rows.
fn one_commit(queue: &Arc<Queue>, linger_at_most: Duration) -> mpsc::Receiver<usize> {
    let (sender, receiver) = mpsc::channel();
    let queue = queue.clone();
    thread::spawn(move || {
        if let Next::Commit(segment) = queue.next_work(false, linger_at_most) {
            let _ = sender.send(segment.rows.len());
        }
    });
    receiver
}

fn until_it_lingers(queue: &Queue) {
    while !queue.state.lock().lingering {
        thread::yield_now();
    }
}

/// What a writer takes that was lingering over one entry when `then` happened.
fn taken_after(then: impl FnOnce(&Queue)) -> usize {
    let queue = queue();
    let commit = one_commit(&queue, AGES);
    push(&queue, 1, false);
    until_it_lingers(&queue);
    then(&queue);
    commit.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_waiter_ends_it_and_takes_along_what_has_gathered() {
    let mut waiting = Vec::new();
    let rows = taken_after(|queue| {
        (0..10).for_each(|_| drop(push(queue, 1, false)));
        assert!(queue.state.lock().lingering, "nobody waits for these");
        waiting.push(push(queue, 1, true));
    });
    assert_eq!(rows, 12);
}

#[test]
fn whoever_asks_for_a_position_ends_it() {
    let mut waiting = Vec::new();
    assert_eq!(taken_after(|queue| waiting.push(queue.committed(1))), 1);
}

#[test]
fn tasks_end_it() {
    let mut waiting = Vec::new();
    assert_eq!(taken_after(|queue| waiting.push(queue.push_task(Box::new(Nothing), true))), 1);
    assert_eq!(taken_after(|queue| waiting.push(queue.push_task(Box::new(Nothing), false))), 1);
    assert_eq!(taken_after(|queue| waiting.push(queue.checkpoint(None, |_, _| Box::new(Nothing)))), 1);
}

#[test]
fn a_stop_ends_it() {
    assert_eq!(taken_after(Queue::stop), 1);
}

#[test]
fn enough_ends_it() {
    assert_eq!(taken_after(|queue| drop(push(queue, ENOUGH_ROWS, false))), ENOUGH_ROWS + 1);
}

#[test]
fn it_ends_by_itself() {
    let queue = queue();
    let commit = one_commit(&queue, Duration::from_millis(1));
    push(&queue, 3, false);
    assert_eq!(commit.recv_timeout(PATIENCE).unwrap(), 3);
}

#[test]
fn where_somebody_waits_already_it_does_not_begin() {
    let queue = queue();
    push(&queue, 1, false);
    let _waiting = push(&queue, 1, true);
    assert_eq!(one_commit(&queue, AGES).recv_timeout(PATIENCE).unwrap(), 2);
    assert!(!queue.state.lock().lingering);
}
