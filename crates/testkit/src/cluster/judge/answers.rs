//! Every answer against what the ledger held.

use super::{
    Case,
    in_flight::settlement_id,
    numbers::{decision_differs, find},
    replay::{Place, Replay, asked},
};
use crate::{
    auditor::{Asked, Book},
    cluster::{
        attempts::{Answer, Attempt, End},
        history::{answer_line, ask_line},
        script::{Ask, is_written},
    },
    simulation::verify::{are_used_and_held, limits_differ},
};
use domain::{
    catalog::{Catalog, MeterKind},
    decision::{Code, Decision},
    id::TenantId,
    op::OpError,
    time::WindowKind,
    view::Usage,
};
use engine::{
    ports::{DenialId, LedgerError},
    requests::{Admission, Check, EngineError, Event, EventOutcome, OpId},
};

/// Judges every answer; gives how many there were.
pub(super) fn judge(case: &Case<'_>) -> Result<u64, String> {
    let mut judged = 0;
    for attempt in &case.cluster.attempts {
        let Some(end) = &attempt.end else { continue };
        let Some(answer) = &end.answer else { continue };
        let wrong = |wrong: String| {
            format!("call {}, {} -> {}: {wrong}", attempt.number, ask_line(&attempt.ask), answer_line(attempt))
        };
        match attempt.ask.tenant() {
            None => of_nobody(case, attempt, end, answer).map_err(wrong)?,
            Some(tenant) => {
                let nothing;
                let replay = match case.replays.get(tenant) {
                    Some(replay) => replay,
                    None => {
                        nothing = Replay::of(case, tenant)?;
                        &nothing
                    }
                };
                Judge { case, attempt, end, replay, tenant }.answer(answer).map_err(wrong)?;
            }
        }
        judged += 1;
    }
    Ok(judged)
}

fn of_nobody(case: &Case<'_>, attempt: &Attempt, end: &End, answer: &Answer) -> Result<(), String> {
    match answer {
        Answer::Failed(EngineError::Ledger(LedgerError::Unwritable(_) | LedgerError::Overloaded { .. })) => Ok(()),
        Answer::Failed(error) => Err(format!("{error} is no answer to this")),
        Answer::Done if matches!(attempt.ask, Ask::Signals) => {
            let state = case.cluster.database.state();
            let known = state.catalogs.iter().filter(|catalog| catalog.tick < attempt.tick).count() as u32;
            match end.catalog >= known {
                true => Ok(()),
                false => Err(format!("the node decides by catalog {} still, not {known}", end.catalog)),
            }
        }
        _ => Ok(()),
    }
}

pub(super) struct Judge<'a> {
    pub(super) case: &'a Case<'a>,
    pub(super) attempt: &'a Attempt,
    pub(super) end: &'a End,
    pub(super) replay: &'a Replay,
    tenant: &'a TenantId,
}

impl Judge<'_> {
    fn answer(&self, answer: &Answer) -> Result<(), String> {
        match (&self.attempt.ask, answer) {
            (_, Answer::Failed(error)) => self.failed(error),
            (Ask::Check(check), Answer::Admission(admission)) => self.admission(check, admission),
            (Ask::Events(events), Answer::Recorded(outcomes)) => self.recorded(events, outcomes),
            (Ask::Adjust(.., id), Answer::Adjusted(repeated)) => match (id, repeated) {
                (Some(id), _) => self.once(id, *repeated),
                (None, false) => self.done().map(|_| ()),
                (None, true) => Err("it has no id, and can't be a repeat".to_owned()),
            },
            (Ask::Put(..), Answer::Put(created)) => match self.done()? {
                1 if !created => Err("it made the tenant, and says that it did not".to_owned()),
                2.. if *created => Err("it says that it made the tenant, which was there".to_owned()),
                _ => Ok(()),
            },
            (Ask::Usage(_, who), Answer::Usage(usage)) => {
                let (_, usage) = &**usage;
                self.at_some_time(usage.at, |book, _| usage_differs(book, who, usage))
            }
            (Ask::Measured(..) | Ask::Refund(..) | Ask::Revoke(..), Answer::Done) => self.done().map(|_| ()),
            (Ask::Settle(_, id, _), Answer::Settled(settled)) => self.once(&settlement_id(*id), settled.repeated),
            (Ask::Open(ask), Answer::Session(answer)) => self.opened(ask, answer),
            (Ask::Touch(_, id, _), Answer::Touched(touched)) => self.touched(*id, touched),
            (Ask::Grant(.., id), Answer::Granted(grant, repeated)) => self.granted(id.as_ref(), *grant, *repeated),
            (_, other) => Err(format!("{other:?} is no answer to this")),
        }
    }

    /// Whether what was answered is committed by then.
    pub(super) fn is_known_by(&self, seq: usize) -> Result<(), String> {
        match self.replay.written.get(seq - 1) {
            Some(written) if written.tick <= self.end.tick => Ok(()),
            Some(_) => Err(format!("it was answered before entry {seq} was committed")),
            None => Err(format!("there is no entry {seq}")),
        }
    }

    /// It is done, by an entry of its own.
    pub(super) fn done(&self) -> Result<usize, String> {
        let seq = self.replay.place_of(self.attempt.number).ok_or("it was answered, and is not in the ledger")?;
        self.is_known_by(seq).map(|()| seq)
    }

    pub(super) fn place(&self, id: &OpId) -> Option<Place> {
        self.replay.bound.get(&(id.source.to_string(), id.id.to_string())).copied()
    }

    /// An operation with an id was done, now or before.
    pub(super) fn once(&self, id: &OpId, repeated: bool) -> Result<(), String> {
        let place = self.place(id).ok_or_else(|| format!("{} was accepted, and is not in the ledger", id.id))?;
        self.is_known_by(place.seq)?;
        let by = &self.case.cluster.attempts[place.attempt as usize - 1];
        if !self.is_same(by) {
            return Err(format!("{} is bound to something else, by call {}", id.id, by.number));
        }
        match (repeated, place.attempt == self.attempt.number) {
            (false, false) => Err(format!("{} was done by call {}, and this is no repeat", id.id, by.number)),
            // It may have been done by this very call, which did not know.
            _ => Ok(()),
        }
    }

    /// Whether another attempt under the same id asked for the same.
    fn is_same(&self, other: &Attempt) -> bool {
        match (&self.attempt.ask, &other.ask) {
            (Ask::Settle(.., how), Ask::Settle(.., other)) => how == other,
            _ => other.changed == self.attempt.changed,
        }
    }

    fn conflict(&self, id: &OpId) -> Result<(), String> {
        let place = self.place(id).ok_or_else(|| format!("{} is bound to nothing", id.id))?;
        self.is_known_by(place.seq)?;
        let by = &self.case.cluster.attempts[place.attempt as usize - 1];
        match self.is_same(by) {
            true => Err(format!("{} is bound to the same payload, by call {}", id.id, by.number)),
            false => Ok(()),
        }
    }

    fn failed(&self, error: &EngineError) -> Result<(), String> {
        let ask = &self.attempt.ask;
        match (error, ask) {
            (EngineError::Ledger(LedgerError::Unwritable(_) | LedgerError::Overloaded { .. }), _) => Ok(()),
            // The node knew that it was behind, and could not read what it should follow.
            (EngineError::Ledger(LedgerError::CatalogBehind { in_force }), _) => match self.case.catalog(*in_force) {
                Ok(_) if *in_force > self.attempt.catalog => Ok(()),
                _ => Err("it was not behind".to_owned()),
            },
            (EngineError::IdempotencyConflict { .. }, Ask::Check(check)) => {
                self.conflict(check.id.as_ref().ok_or("it has no id")?)
            }
            (EngineError::IdempotencyConflict { .. }, Ask::Adjust(.., Some(id)) | Ask::Grant(.., Some(id))) => {
                self.conflict(id)
            }
            (EngineError::IdempotencyConflict { .. }, Ask::Open(ask)) => {
                self.conflict(ask.id.as_ref().ok_or("it has no id")?)
            }
            (EngineError::IdempotencyConflict { .. }, Ask::Settle(_, id, _)) => self.conflict(&settlement_id(*id)),
            (EngineError::Op(error), Ask::Settle(..) | Ask::Grant(..) | Ask::Revoke(..)) => self.has_no_meaning(error),
            (EngineError::UnknownTenant(_), _) => {
                let first = self.replay.written.first();
                let since = first.is_none_or(|first| first.at_ms + self.recent_ms() >= self.attempt.at_ms);
                if since { Ok(()) } else { Err("the tenant was there".to_owned()) }
            }
            (EngineError::Op(OpError::UnknownPlan(plan)), Ask::Put(..)) => {
                let mut versions = self.attempt.catalog..=self.end.catalog;
                let lacks = |version| self.case.catalog(version).is_ok_and(|catalog| !catalog.plans.contains_key(plan));
                if versions.any(lacks) { Ok(()) } else { Err("the plan was there".to_owned()) }
            }
            _ => Err(format!("{error} is no answer to this")),
        }
    }

    fn recent_ms(&self) -> i64 {
        self.case.cluster.plan.options.recent_ms
    }

    pub(super) fn at_some_time(
        &self,
        at: domain::time::Instant,
        mut differs: impl FnMut(&mut Book, &Catalog) -> Option<String>,
    ) -> Result<(), String> {
        let versions = self.attempt.catalog..=self.end.catalog;
        let catalogs: Vec<&Catalog> = versions.map(|version| self.case.catalog(version)).collect::<Result<_, _>>()?;
        find(self.case, self.attempt, self.replay, at, |book| {
            let mut why = None;
            for catalog in &catalogs {
                why = match catalog.plans.contains_key(&book.plan) {
                    true => differs(&mut book.clone(), catalog),
                    false => Some(format!("the catalog lacks {}", book.plan)),
                };
                why.as_ref()?;
            }
            why
        })
    }

    fn admission(&self, check: &Check, admission: &Admission) -> Result<(), String> {
        let decision = &admission.decision;
        let code = decision.code();
        if admission.repeated {
            let id = check.id.as_ref().ok_or("it has no id, and can't be a repeat")?;
            self.once(id, true)?;
            let place = self.place(id).ok_or("it is in the ledger")?;
            self.held(admission, &self.replay.written[place.seq - 1].entry)?;
            if admission.leased {
                return self.was_so(None, decision);
            }
            return self.at_some_time(decision.at, |book, _| decision_differs(book, &check.user, decision));
        }
        if code == Code::Allowed && is_written(check) {
            if let Some(id) = &check.id {
                self.once(id, false)?;
            }
            let seq = self.done()?;
            let entry = &self.replay.written[seq - 1].entry;
            self.held(admission, entry)?;
            if entry.at != decision.at {
                return Err(format!("the entry is dated {:?}", entry.at));
            }
            let book = self.replay.states[seq].as_ref().ok_or("there is no tenant")?;
            if admission.leased != entry.under().is_some() {
                return Err("it does not say whether it was made under a lease".to_owned());
            }
            if admission.leased {
                return if decision.plan == book.plan { Ok(()) } else { Err(format!("the plan is {}", book.plan)) };
            }
            return decision_differs(book, &check.user, decision).map_or(Ok(()), Err);
        }
        self.is_explained(admission.denial_id.filter(|_| code != Code::Allowed))?;
        if admission.leased {
            return self.was_so(Some(check), decision);
        }
        self.at_some_time(decision.at, |book, catalog| {
            let mut asked = asked(check);
            asked.consume = false;
            let (expected, _) = book.spend(&asked, decision.at.ms(), catalog, check.enforce);
            if expected != code {
                return Some(format!("{code:?} should be {expected:?}"));
            }
            decision_differs(book, &check.user, decision)
        })
    }

    /// A denial that was told can be looked up.
    pub(super) fn is_explained(&self, denial: Option<DenialId>) -> Result<(), String> {
        let Some(id) = denial else { return Ok(()) };
        let seq = self.replay.runs.get(&id).ok_or_else(|| format!("{id} can't be explained"))?;
        self.is_known_by(*seq).map_err(|wrong| format!("{id}: {wrong}"))
    }

    /// What is told beside a lease may lack what others did lately, so that its numbers are nobody's; but it was so not
    /// long ago.
    fn was_so(&self, check: Option<&Check>, decision: &Decision) -> Result<(), String> {
        if decision.denial.as_ref().is_some_and(|denial| denial.limit.is_some()) {
            return Err("nothing is refused for use that is seen from a lease".to_owned());
        }
        let from_ms = self.attempt.at_ms - self.recent_ms() - self.case.cluster.plan.options.leases.lasts_ms;
        let first = self.replay.written.partition_point(|written| written.at_ms < from_ms);
        let last = self.replay.written.partition_point(|written| written.tick <= self.end.tick);
        let versions = self.attempt.catalog..=self.end.catalog;
        let catalogs: Vec<&Catalog> = versions.map(|version| self.case.catalog(version)).collect::<Result<_, _>>()?;
        let is_right = |book: &Book, catalog: &Catalog| {
            let mut book = book.clone();
            let at_ms = decision.at.ms().max(book.windows.iter().map(|window| window.0).max().unwrap_or(0));
            book.turn(at_ms);
            let expected = check.map(|check| {
                let asked = Asked { consume: false, ..asked(check) };
                book.spend(&asked, at_ms, catalog, check.enforce).0
            });
            book.plan == decision.plan && expected.is_none_or(|expected| expected == decision.code())
        };
        let states = (first..=last.max(first)).filter_map(|number| self.replay.states.get(number)?.as_ref());
        let known = |book: &Book, catalog: &&&Catalog| catalog.plans.contains_key(&book.plan);
        let mut right =
            states.flat_map(|book| catalogs.iter().filter(move |c| known(book, c)).map(move |c| is_right(book, c)));
        if right.any(|right| right) { Ok(()) } else { Err("it was so at none of these times".to_owned()) }
    }

    fn recorded(&self, events: &[Event], outcomes: &[EventOutcome]) -> Result<(), String> {
        for (index, (event, outcome)) in events.iter().zip(outcomes).enumerate() {
            let judged = match outcome {
                EventOutcome::Accepted => self.once(&event.id, false),
                EventOutcome::Duplicate => self.once(&event.id, true),
                EventOutcome::Rejected(EngineError::IdempotencyConflict { .. }) => self.conflict(&event.id),
                EventOutcome::Rejected(EngineError::Op(OpError::TooLate { at, late_ms })) => {
                    let now_ms = self.end.at_ms + self.case.cluster.plan.jitter_ms;
                    if at.ms() < now_ms - late_ms { Ok(()) } else { Err("it was in time".to_owned()) }
                }
                EventOutcome::Rejected(error @ EngineError::UnknownTenant(_)) => self.failed(error),
                EventOutcome::Rejected(error) => Err(format!("{error} is no answer to this")),
            };
            judged.map_err(|wrong| format!("event {index} of {}: {wrong}", self.tenant))?;
        }
        if events.len() != outcomes.len() {
            return Err("not every event is answered".to_owned());
        }
        Ok(())
    }
}

fn usage_differs(book: &Book, who: &Option<domain::id::UserId>, usage: &Usage) -> Option<String> {
    if usage.plan != book.plan {
        return Some(format!("the plan is {}, not {}", usage.plan, book.plan));
    }
    if (usage.period.start.ms(), usage.period.end.ms()) != book.windows[WindowKind::Period.index()] {
        return Some(format!("the period is {:?}", usage.period));
    }
    usage.meters.iter().find_map(|meter| {
        let key = &meter.meter.key;
        let window = (meter.meter.kind != MeterKind::Gauge).then_some(WindowKind::Period);
        let should = (book.used(who, key, window), book.held(who, key, window));
        if !are_used_and_held(book, (who, key), (meter.used, meter.held), should) {
            return Some(format!("{key} has used and held {}, {}, not {should:?}", meter.used, meter.held));
        }
        let period = book.windows[WindowKind::Period.index()].0;
        let denied = book.denied.get(&(who.clone(), key.clone(), period)).copied().unwrap_or(0);
        if meter.denied < denied {
            return Some(format!("{key} was denied {}, and {denied} is written down", meter.denied));
        }
        limits_differ(book, who, &meter.limits)
    })
}
