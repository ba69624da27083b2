//! What clients ask, and what they are told.

use super::{Answer, Operation, Told, World};
use crate::{
    cluster::{script::mark, tasks::Task},
    world::{admit, by_user, charge, spend, with_id},
};
use domain::{entry::Cause, entry::Entry};
use engine::requests::{Admission, Check, EngineError};

impl World {
    pub(super) fn ask_new(&mut self, node: usize) {
        let number = self.operations.len();
        // Sometimes under the id of something else.
        let other = self.operations.get(self.chance.below(number)).filter(|_| self.chance.percent(10));
        let other = other.and_then(|other| Some((other.check.tenant.clone(), other.check.id.clone()?)));
        let check = self.chance.with(|random| {
            let (key, most) = *random.pick(&[("tokens", 5), ("tokens", 1), ("requests", 2), ("strict", 2)]);
            let amount = random.between(1, most);
            let check = spend(random.pick::<&str>(&["t1", "t2"]), vec![charge(key, amount)]);
            let check = if random.percent(50) { with_id(check, &format!("o{number}")) } else { check };
            let check = if random.percent(60) { by_user(check, random.pick::<&str>(&["al", "bo"])) } else { check };
            let check = match other {
                Some((tenant, id)) => Check { tenant, id: Some(id), ..check },
                None => check,
            };
            let cause = if check.id.is_none() { Cause::Gateway } else { Cause::Check };
            Check { cause, dimensions: mark(&number.to_string()), ..check }
        });
        self.operations.push(Operation {
            check,
            told: Vec::new(),
            known_by: Vec::new(),
            receipt: None,
            given_back: None,
        });
        self.ask(number, node);
    }

    /// Asks again what has an id; false if there is nothing.
    pub(super) fn ask_again(&mut self, node: usize) -> bool {
        let number = self.chance.below(self.operations.len());
        let found = self.operations.get(number).is_some_and(|known| known.check.id.is_some() && known.told.len() < 6);
        if found {
            self.ask(number, node);
        }
        found
    }

    fn ask(&mut self, number: usize, node: usize) {
        let (engine, check) = (self.members[node].node.engine.clone(), self.operations[number].check.clone());
        let known_by = &self.operations[number].known_by;
        let allowed = known_by.contains(&None) || known_by.contains(&Some(node));
        let work = async move { Answer::Decided(number, allowed, admit(&engine, &check).await.map(Box::new)) };
        self.tasks.push(Task::new(number as u64, node, work));
    }

    pub(super) fn give_back(&mut self, node: usize) -> bool {
        let number = self.chance.below(self.operations.len());
        let Some(operation) = self.operations.get_mut(number) else { return false };
        let Some(charged) = operation.receipt.take() else { return false };
        operation.given_back = Some(Told::Unknown);
        let (engine, check) = (self.members[node].node.engine.clone(), operation.check.clone());
        let work = async move {
            let done = match engine.refund(&check.tenant, check.user.as_ref(), &charged).await {
                Ok(commit) => commit.wait().await.map_err(EngineError::from),
                Err(error) => Err(error),
            };
            Answer::GivenBack(number, done)
        };
        self.tasks.push(Task::new(number as u64, node, work));
        true
    }

    pub(super) fn decided(
        &mut self,
        number: usize,
        node: usize,
        was_allowed: bool,
        decided: Result<Box<Admission>, EngineError>,
    ) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("operation {number}: {what}"));
        let operation = &mut self.operations[number];
        let admission = match decided {
            Ok(admission) => admission,
            // Something else was accepted under its id, though this may have passed before.
            Err(EngineError::IdempotencyConflict { .. }) => {
                operation.told.push(Told::Refused);
                return Ok(());
            }
            Err(EngineError::Ledger(_)) => {
                operation.told.push(Told::Unknown);
                return Ok(());
            }
            Err(error) => return wrong(&error.to_string()),
        };
        if !admission.decision.allowed {
            if was_allowed {
                return wrong("it was allowed, and is refused now");
            }
            operation.told.push(Told::Refused);
            return Ok(());
        }
        operation.told.push(Told::Allowed);
        operation.known_by.push(admission.outage.then_some(node));
        if admission.outage && !admission.repeated {
            self.passed += 1;
            if operation.check.charges.iter().any(|charge| charge.meter.as_str() == "strict") {
                return wrong("a closed limit let it through");
            }
            let is_its = |entry: &Entry| entry.dimensions == operation.check.dimensions;
            let state = self.database.state();
            let row = state.tenants.get(&operation.check.tenant);
            let committed = row.is_some_and(|row| row.entries.iter().any(|written| is_its(&written.entry)));
            if !committed && !self.members[node].spool.has(&operation.check.dimensions) {
                return wrong("it was let through, and is nowhere");
            }
        }
        operation.receipt = admission.charged.filter(|charged| !charged.is_nothing() && operation.check.id.is_none());
        Ok(())
    }
}
