//! The entries of a tenant, one after the other: each is what its operation should have led to.

use super::{Case, in_flight::Life};
use crate::{
    auditor::{Asked, Book, Taken, Who},
    cluster::{attempts::Attempt, database::Written, history::ask_line, script::Ask},
};
use domain::{
    catalog::Catalog,
    decision::Code,
    entry::{Cause, Effect, Entry},
    grant::Grant,
    id::{MeterKey, TenantId},
    op::ProfileChange,
    session::SessionId,
    time::WindowKind,
};
use engine::{
    denial_id,
    ports::DenialId,
    requests::{Check, Event, OpId},
};
use std::collections::BTreeMap;

/// Where something is in the ledger, and which attempt put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: usize,
    pub(super) attempt: u64,
}

/// A tenant's books after each of its entries.
pub(in crate::cluster) struct Replay {
    /// After so many entries; nothing before the first.
    pub(super) states: Vec<Option<Book>>,
    /// The tenant's instant after each of its entries.
    pub(super) instants: Vec<i64>,
    pub(super) written: Vec<Written>,
    /// What is bound to an id.
    pub(super) bound: BTreeMap<(String, String), Place>,
    /// What an attempt did.
    pub(super) done: BTreeMap<u64, usize>,
    /// Unmet demand in the entries.
    pub(super) denied: BTreeMap<(Who, MeterKey), i64>,
    /// Of that, what may have been written down twice, since a node was not told that it was the first time.
    pub(super) uncertain: BTreeMap<(Who, MeterKey), i64>,
    /// Where each run of denials is found first.
    pub(super) runs: BTreeMap<DenialId, usize>,
    taken: BTreeMap<u64, Taken>,
    pub(super) sessions: BTreeMap<SessionId, Life>,
    /// What is to be said to whoever went on with a session, by attempt.
    pub(super) codes: BTreeMap<u64, Code>,
}

impl Replay {
    pub(super) fn of(case: &Case<'_>, tenant: &TenantId) -> Result<Self, String> {
        let written = case.cluster.database.state().tenants.get(tenant).map_or(Vec::new(), |row| row.entries.clone());
        let mut replay = Self {
            states: vec![None],
            instants: vec![0],
            written: Vec::new(),
            bound: BTreeMap::new(),
            done: BTreeMap::new(),
            denied: BTreeMap::new(),
            uncertain: BTreeMap::new(),
            runs: BTreeMap::new(),
            taken: BTreeMap::new(),
            sessions: BTreeMap::new(),
            codes: BTreeMap::new(),
        };
        for entry in written {
            let seq = replay.written.len() + 1;
            let about = |wrong| {
                let by = case.cluster.attempts.get(entry.attempt as usize - 1);
                format!(
                    "entry {seq} of call {}, {}: {wrong}",
                    entry.attempt,
                    by.map_or(String::new(), |by| ask_line(&by.ask))
                )
            };
            replay.next(case, tenant, &entry).map_err(about)?;
            replay.written.push(entry);
        }
        Ok(replay)
    }

    /// The seq of an operation without an id, or of the attempt that did it.
    pub(super) fn place_of(&self, attempt: u64) -> Option<usize> {
        self.done.get(&attempt).copied()
    }

    fn next(&mut self, case: &Case<'_>, tenant: &TenantId, written: &Written) -> Result<(), String> {
        let Written { entry, attempt, decided, in_force, .. } = written;
        let attempt = case.cluster.attempts.get(*attempt as usize - 1).ok_or("nobody asked for it")?;
        if attempt.ask.tenant().is_some_and(|asked| asked != tenant) {
            return Err("it is another tenant's".to_owned());
        }
        let before_ms = self.instants.last().copied().unwrap_or(0);
        let at_ms = before_ms.max(decided.by_clock_ms);
        // Under a lease what others did meanwhile is not seen.
        let may_be_earlier = entry.under().is_some() && entry.at.ms() >= decided.by_clock_ms;
        if entry.at.ms() > at_ms || entry.at.ms() < at_ms && !may_be_earlier {
            return Err(format!("it is dated {:?}, not {at_ms}", entry.at));
        }
        if entry.catalog != *in_force {
            return Err(format!("it was decided on catalog {}, while {in_force} was in force", entry.catalog));
        }
        let catalog = case.catalog(entry.catalog)?;
        let book = self.states.last().cloned().flatten();
        let mut book = match book {
            Some(book) => book,
            None => born(attempt, entry, catalog)?,
        };
        let (creates, seq) = (self.written.is_empty(), self.written.len() + 1);
        for effect in &entry.effects {
            if let Effect::Denials(run) = effect {
                self.runs.entry(denial_id(tenant, &run.key)).or_insert(seq);
            }
        }
        if creates && !matches!(attempt.ask, Ask::Put(..)) {
            // The entry that makes the tenant comes before what was asked.
        } else if is_demand(entry) {
            self.note_demand(&mut book, attempt, entry, catalog)?;
        } else if self.lapse(&mut book, attempt, entry)? {
            // Nobody asked for it.
        } else if let Ask::Open(_) | Ask::Touch(..) = attempt.ask {
            self.session(&mut book, attempt, written, catalog)?;
        } else {
            self.operation(&mut book, attempt, entry, catalog, creates)?;
        }
        if !catalog.plans.contains_key(&book.plan) {
            return Err(format!("the tenant is on {}, which catalog {in_force} lacks", book.plan));
        }
        self.states.push(Some(book));
        self.instants.push(at_ms);
        Ok(())
    }

    /// Unmet demand that is written down.
    fn note_demand(
        &mut self,
        book: &mut Book,
        attempt: &Attempt,
        entry: &Entry,
        catalog: &Catalog,
    ) -> Result<(), String> {
        let at_ms = entry.at.ms();
        book.turn(at_ms);
        let verdict = match &attempt.ask {
            Ask::Check(check) => Some(book.verdict(&asked(check), at_ms, catalog)),
            Ask::Open(ask) => Some(book.session_code(&ask.user, &ask.meter, None, catalog)),
            Ask::Upkeep | Ask::Drain => None,
            _ => return Err("only what is refused is unmet".to_owned()),
        };
        if verdict == Some(Code::Allowed) && !has_shadow(entry) {
            return Err("it is counted as refused, and should not have been".to_owned());
        }
        self.add_demand(book, attempt, entry)
    }

    /// Adds unmet demand that an entry writes down.
    pub(super) fn add_demand(&mut self, book: &mut Book, attempt: &Attempt, entry: &Entry) -> Result<(), String> {
        let told = attempt.end.as_ref().is_some_and(|_| !attempt.is_open());
        for effect in &entry.effects {
            let Effect::Denied { meter, amount, open, closed } = effect else { continue };
            *self.denied.entry((entry.user.clone(), meter.clone())).or_default() += amount;
            if !told {
                *self.uncertain.entry((entry.user.clone(), meter.clone())).or_default() += amount;
            }
            let late = closed.iter().find(|closed| closed.kind == WindowKind::Period);
            let start_ms = match (open.has(WindowKind::Period), late) {
                (true, _) => book.windows[WindowKind::Period.index()].0,
                (_, Some(closed)) => closed.window.start.ms(),
                _ => return Err("unmet demand is in no period".to_owned()),
            };
            let accounts = [None, entry.user.clone()];
            for account in &accounts[..1 + usize::from(entry.user.is_some())] {
                *book.denied.entry((account.clone(), meter.clone(), start_ms)).or_default() += amount;
            }
        }
        Ok(())
    }

    /// Something that was asked, and done.
    fn operation(
        &mut self,
        book: &mut Book,
        attempt: &Attempt,
        entry: &Entry,
        catalog: &Catalog,
        creates: bool,
    ) -> Result<(), String> {
        let at_ms = entry.at.ms();
        let kind = |meter: &MeterKey| catalog.meters[meter].kind;
        let expected = match &attempt.ask {
            Ask::Check(check) if check.hold.is_some() => self.hold(book, (attempt, check), entry, catalog)?,
            Ask::Settle(_, id, how) => self.settle(book, attempt, (*id, how), (entry, catalog))?,
            Ask::Grant(.., id) => {
                let grant = granted(entry).ok_or("nothing is granted")?;
                book.turn(at_ms);
                book.granted(grant);
                self.bind(attempt, id.as_ref())?;
                Cause::Admin
            }
            Ask::Revoke(_, id) => {
                book.turn(at_ms);
                if !book.revoked(*id) {
                    return Err("what is taken back was not there".to_owned());
                }
                self.bind(attempt, None)?;
                Cause::Admin
            }
            Ask::Check(check) => {
                let demanded = book.denied.clone();
                let (code, taken) = book.spend(&asked(check), at_ms, catalog, check.enforce);
                book.denied = demanded;
                let Some(taken) = taken else {
                    return Err(format!("it is charged, and should have been refused with {code:?}"));
                };
                self.taken.insert(attempt.number, taken);
                self.bind(attempt, check.id.as_ref())?;
                check.cause
            }
            Ask::Events(events) => {
                let event = event_of(events, entry).ok_or("none of its events has this mark")?;
                let happened_ms = event.fact.time.map_or(at_ms, |time| time.ms().min(at_ms));
                for (meter, movement) in &event.fact.movements {
                    book.record(&event.user, meter, *movement, (happened_ms, at_ms), catalog);
                }
                self.bind(attempt, Some(&event.id))?;
                Cause::Event
            }
            Ask::Adjust(_, who, adjustment, id) => {
                book.adjust(who, &adjustment.meter, adjustment.movement, at_ms, kind(&adjustment.meter));
                self.bind(attempt, id.as_ref())?;
                Cause::Admin
            }
            Ask::Put(_, change, offset_ms) => {
                if !creates {
                    book.configure(change, *offset_ms, at_ms);
                }
                self.bind(attempt, None)?;
                Cause::Admin
            }
            Ask::Measured(_, who, charge) => {
                let movement = domain::op::Movement::Add(charge.amount);
                book.record(who, &charge.meter, movement, (at_ms, at_ms), catalog);
                self.bind(attempt, None)?;
                Cause::Event
            }
            Ask::Refund(_, _, _, charge) => {
                let taken = self.taken.get(charge).ok_or("what is given back was never taken")?;
                book.give_back(taken, at_ms);
                self.bind(attempt, None)?;
                Cause::Refund
            }
            other => return Err(format!("{other:?} leaves no such entry")),
        };
        match entry.cause == expected {
            true => Ok(()),
            false => Err(format!("its cause is {:?}, not {expected:?}", entry.cause)),
        }
    }

    pub(super) fn bind(&mut self, attempt: &Attempt, id: Option<&OpId>) -> Result<(), String> {
        let place = Place { seq: self.written.len() + 1, attempt: attempt.number };
        let before = self.done.insert(attempt.number, place.seq);
        match id {
            None => match before {
                None => Ok(()),
                Some(before) => Err(format!("it was done by entry {before}, and is done again")),
            },
            Some(id) => match self.bound.insert((id.source.to_string(), id.id.to_string()), place) {
                None => Ok(()),
                Some(before) => Err(format!("{} was done by entry {}, and is done again", id.id, before.seq)),
            },
        }
    }
}

/// A tenant that is met for the first time.
fn born(attempt: &Attempt, entry: &Entry, catalog: &Catalog) -> Result<Book, String> {
    let change = match &attempt.ask {
        Ask::Put(_, change, _) => change.clone(),
        _ => ProfileChange::default(),
    };
    let plan = change.plan.clone().or_else(|| catalog.default_plan.clone()).ok_or("nobody gave the tenant a plan")?;
    let at_ms = entry.at.ms();
    let anchor_ms = change.anchor.map_or(at_ms, |anchor| anchor.ms());
    let mut book = Book::new(plan, anchor_ms);
    book.patience_ms = i64::MAX;
    if let Ask::Put(_, change, offset_ms) = &attempt.ask {
        book.offset_ms = offset_ms.unwrap_or(0);
        book.status = change.status.unwrap_or(book.status);
        book.enforce = change.enforce.unwrap_or(book.enforce);
        book.overrides = change.put_overrides.clone();
        book.shares = change.shares.clone().unwrap_or_default();
    }
    book.windows = [(0, 0); 5];
    book.turn(at_ms);
    Ok(book)
}

pub(super) fn asked(check: &Check) -> Asked<'_> {
    Asked { who: &check.user, charges: &check.charges, features: &check.features, consume: check.consume }
}

pub(super) fn granted(entry: &Entry) -> Option<&Grant> {
    entry.effects.iter().find_map(|effect| match effect {
        Effect::Grant(grant) => Some(&**grant),
        _ => None,
    })
}

fn is_demand(entry: &Entry) -> bool {
    let demands = |effect: &Effect| {
        matches!(effect, Effect::Turn { .. } | Effect::Denied { .. } | Effect::Denials(_) | Effect::Leases(_))
    };
    entry.cause == Cause::Upkeep && entry.effects.iter().all(demands)
}

fn has_shadow(entry: &Entry) -> bool {
    entry.effects.iter().any(|effect| matches!(effect, Effect::Denials(run) if run.key.shadow))
}

fn event_of<'a>(events: &'a [Event], entry: &Entry) -> Option<&'a Event> {
    events.iter().find(|event| event.fact.dimensions == entry.dimensions)
}
