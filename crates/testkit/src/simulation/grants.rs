//! Grants: given, spent with whatever is charged, taken back.

use super::Simulation;
use crate::{workload, world::tenant};
use domain::op::OpError;
use engine::{ports::Clock, requests::EngineError};

impl Simulation {
    pub(super) async fn grant(&mut self, customer: usize) -> Result<(), String> {
        let number = u128::from(self.operations) << 32 | 3;
        let grant = workload::grant(&mut self.random, self.world.clock.now(), number);
        let mut book = self.accounts[customer].book().clone();
        book.turn(self.now_ms());
        book.granted(&grant);
        let operation = self.push(customer, book);
        self.accounts[customer].grants.push(grant.id);
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        let given = self.drive(engine.put_grant(&name, grant, (None, number), "test")).await;
        if let Some((_, repeated)) = self.settled(given).await? {
            self.accounts[customer].acknowledge(operation);
            if repeated {
                return Err("a fresh grant was taken for a repeat".to_owned());
            }
        }
        Ok(())
    }

    /// Takes back what is left of a grant, if anything is.
    pub(super) async fn revoke(&mut self, customer: usize) -> Result<(), String> {
        if self.accounts[customer].grants.is_empty() {
            return Ok(());
        }
        let id = *self.random.pick(&self.accounts[customer].grants);
        let mut book = self.accounts[customer].book().clone();
        book.turn(self.now_ms());
        let operation = book.revoked(id).then(|| self.push(customer, book));
        let (engine, name) = (self.world.engine.clone(), tenant(&self.accounts[customer].name));
        match (self.drive(engine.revoke_grant(&name, id, "test")).await, operation) {
            (Err(EngineError::Op(OpError::UnknownGrant)), None) => self.settled(Ok(())).await.map(drop),
            (Ok(()), None) => Err(format!("{id:?} was not there, and is taken back")),
            (revoked, Some(operation)) => {
                if self.settled(revoked).await?.is_some() {
                    self.accounts[customer].acknowledge(operation);
                }
                Ok(())
            }
            (Err(error), None) => Err(format!("{id:?} was not there: {error}")),
        }
    }
}
