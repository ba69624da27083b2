//! Worlds in which the database goes away and some limits are open: nodes let pass what they may, are killed meanwhile,
//! and record it when the database is back, while commits that were given up arrive late. An auditor of their own holds
//! the ledger against what was told.

mod clients;
mod judge;
mod spool;

use super::{
    bugs::Bug,
    chance::{Chance, Weather, give_way},
    database::Database,
    nodes::{Makings, Node},
    script::beginning,
    tasks::Task,
};
use crate::{
    catalog::{Draft, each_user, limit},
    random::Random,
};
use domain::{
    catalog::{Catalog, Limit, MeterKind, Outage, Scope},
    id::MeterKey,
    lease::Terms,
    time::WindowKind,
};
use engine::{
    EngineOptions, LeaseOptions,
    ports::{OutageOptions, Spool},
    requests::{Admission, Charged, Check, EngineError},
};
use spool::SimSpool;
use std::{sync::Arc, task::Poll};

const PATIENCE_MS: u64 = 30;
const TICKS_MAX: u64 = 400_000;

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Allowed,
    Refused,
    /// Nothing, or to come again.
    Unknown,
}

/// Something that clients wanted done once.
#[derive(Debug)]
struct Operation {
    check: Check,
    told: Vec<Told>,
    /// Who knows that it was allowed: everybody, or, until the ledger knows, one node.
    known_by: Vec<Option<usize>>,
    /// What it charged, if it can be given back and was not.
    receipt: Option<Charged>,
    /// What was told of giving it back, if that was asked.
    given_back: Option<Told>,
}

impl Operation {
    fn is_allowed(&self) -> bool {
        self.told.contains(&Told::Allowed)
    }

    fn may_be_charged(&self) -> bool {
        self.told.iter().any(|told| *told != Told::Refused)
    }
}

enum Answer {
    /// Of which operation, and whether the node knew that it was allowed when this was asked.
    Decided(usize, bool, Result<Box<Admission>, EngineError>),
    GivenBack(usize, Result<(), EngineError>),
    Kept,
}

struct Member {
    node: Node,
    spool: Arc<SimSpool>,
    /// Nothing that it sends arrives until then.
    mute_until_ms: i64,
}

/// A world.
struct World {
    database: Arc<Database>,
    chance: Arc<Chance>,
    makings: Makings,
    catalog: Catalog,
    members: Vec<Member>,
    operations: Vec<Operation>,
    tasks: Vec<Task<Answer>>,
    lives: u64,
    forgets: bool,
    /// How often something passed in an outage.
    passed: u64,
}

/// Runs the world of a seed, with something wrong with its database, or with spools that forget in a crash. Gives how
/// often something passed in an outage.
///
/// # Errors
/// What was wrong.
pub fn audit_outages(seed: u64, steps: usize, bug: Option<Bug>, forgets: bool) -> Result<u64, String> {
    let mut world = World::new(seed, bug, forgets);
    world.run(steps).and_then(|()| judge::judge(&world)).map_err(|wrong| format!("seed {seed}: {wrong}"))?;
    Ok(world.passed)
}

fn open(limit: Limit, allowance: i64) -> Limit {
    Limit { outage: Outage::Open { allowance }, ..limit }
}

fn drawn_catalog(random: &mut Random) -> Catalog {
    let (month, mut bounds) = (WindowKind::Month, |from, to| random.between(from, to));
    let tokens = open(limit("tokens", month, bounds(20, 200)), bounds(0, 30));
    let each = open(each_user(limit("requests", month, bounds(10, 60))), bounds(0, 10));
    let all = limit("requests", month, bounds(50, 300));
    let all = if bounds(0, 1) == 0 { all } else { open(all, bounds(0, 20)) };
    let limits = vec![tokens, each, all, limit("strict", month, 100)];
    let draft = ["tokens", "requests", "strict"].into_iter();
    let draft = draft.fold(Draft::default(), |draft, key| draft.meter(key, MeterKind::Counter));
    draft.plan("free", &[], limits).default_plan("free").done()
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, forgets: bool) -> Self {
        let mut random = Random::new(seed ^ 0x0007_a6e5);
        let catalog = drawn_catalog(&mut random);
        let weather = Weather { hung_up: 0, overloaded: 0, unsure: 0, ..Weather::draw(&mut random) };
        let (count, lines_max) = (2 + random.below(2), *random.pick(&[6, 1_000]));
        let (database, chance) = (Database::new(beginning(), bug), Chance::new(seed, weather));
        database.state().publish("catalog", beginning(), None);
        let registry = Arc::new([("catalog".to_owned(), catalog.clone())].into());
        let leases = LeaseOptions {
            lost_within_ms: *random.pick(&[1_000, i64::MAX]),
            terms: *random.pick(&[Terms { first: 4, least: 1, share: 2, stale_ms: 500 }, Terms::DEFAULT]),
            ..LeaseOptions::DEFAULT
        };
        let options = EngineOptions { leases, ..EngineOptions::default() };
        let makings = Makings { database: database.clone(), chance: chance.clone(), registry, options };
        let mut world = Self {
            database,
            chance,
            makings,
            catalog,
            members: Vec::new(),
            operations: Vec::new(),
            tasks: Vec::new(),
            lives: 0,
            forgets,
            passed: 0,
        };
        for _ in 0..count {
            let spool = SimSpool::new(world.chance.clone(), lines_max);
            let node = world.life(&spool);
            world.members.push(Member { node, spool, mute_until_ms: 0 });
        }
        world
    }

    /// A node that starts with what is in its spool.
    fn life(&mut self, spool: &Arc<SimSpool>) -> Node {
        self.lives += 1;
        let node = self.makings.node(self.lives, 0);
        let (database, life, ids) = (self.database.clone(), u128::from(self.lives), parking_lot::Mutex::new(0_u128));
        let options = OutageOptions {
            patience_ms: PATIENCE_MS,
            ids: Arc::new(move || {
                *ids.lock() += 1;
                life << 64 | *ids.lock()
            }),
            timer: Arc::new(move |ms| {
                let database = database.clone();
                let until_ms = database.now_ms() + ms as i64;
                Box::pin(async move {
                    while database.now_ms() < until_ms {
                        give_way().await;
                    }
                })
            }),
        };
        node.engine.set_spool(spool.clone() as Arc<dyn Spool>, options).expect("a spool that can be read");
        node
    }

    /// The largest use that a tenant, or each of its users, may make of a meter.
    fn max_of(&self, meter: &MeterKey, of_user: bool) -> Option<i64> {
        let scope = if of_user { Scope::User } else { Scope::Tenant };
        let limits = self.catalog.plan("free")?.limits.on(meter);
        limits.iter().find(|limit| limit.scope == scope).and_then(|limit| limit.max)
    }

    fn run(&mut self, steps: usize) -> Result<(), String> {
        let mut done = 0;
        while done < steps {
            done += usize::from(self.tick(true)?);
        }
        self.chance.calm();
        self.database.state().set_down_until(0);
        self.members.iter_mut().for_each(|member| member.mute_until_ms = 0);
        for _ in 0..TICKS_MAX {
            let is_empty = |member: &Member| member.spool.len() == 0 && member.spool.is_idle();
            let idle = self.members.iter().all(|member| member.node.ledger.is_idle() && is_empty(member));
            if idle && self.tasks.is_empty() && self.database.state().astray.is_empty() {
                let mut aside = self.members.iter().flat_map(|member| member.spool.aside());
                return aside.next().map_or(Ok(()), |why| Err(format!("something was set aside: {why}")));
            }
            self.tick(false)?;
        }
        let lines: Vec<usize> = self.members.iter().map(|member| member.spool.len()).collect();
        Err(format!("no progress: {} calls are under way, and the spools have {lines:?} lines", self.tasks.len()))
    }

    /// One thing happens; whether it was something new.
    fn tick(&mut self, goes_on: bool) -> Result<bool, String> {
        let passes_ms = self.chance.with(|random| *random.pick(&[0, 0, 0, 0, 0, 1, 2, 5]));
        let now_ms = {
            let mut state = self.database.state();
            state.tick += 1;
            state.now_ms += passes_ms;
            state.now_ms
        };
        self.allowances_hold()?;
        match self.chance.below(100) {
            0..12 if goes_on => {
                self.something_new(now_ms);
                return Ok(true);
            }
            12..16 => self.keep(),
            16..24 => self.any().spool.clone().step(),
            24..62 => self.poll_one()?,
            62..97 => {
                let member = self.any();
                if now_ms >= member.mute_until_ms && !member.node.ledger.is_idle() {
                    member.node.ledger.step();
                }
            }
            _ => self.arrive_late(),
        }
        Ok(false)
    }

    fn any(&mut self) -> &mut Member {
        let place = self.chance.below(self.members.len());
        &mut self.members[place]
    }

    fn something_new(&mut self, now_ms: i64) {
        let node = self.chance.below(self.members.len());
        match self.chance.below(100) {
            0..2 => self.crash(node),
            2..6 => {
                _ = self.database.state().set_down_until(now_ms + self.chance.with(|random| random.between(5, 400)))
            }
            6..10 => self.members[node].mute_until_ms = now_ms + self.chance.with(|random| random.between(20, 300)),
            10..40 if self.ask_again(node) => {}
            40..50 if self.give_back(node) => {}
            _ => self.ask_new(node),
        }
    }

    /// What a node does unasked.
    fn keep(&mut self) {
        let node = self.chance.below(self.members.len());
        let engine = self.members[node].node.engine.clone();
        let reconciles = self.chance.percent(70);
        let work = async move {
            // It says what is wrong, and the next round tries again.
            match reconciles {
                true => _ = engine.reconcile().await,
                false => _ = engine.upkeep().await,
            }
            Answer::Kept
        };
        self.tasks.push(Task::new(u64::MAX, node, work));
    }

    fn poll_one(&mut self) -> Result<(), String> {
        let ready: Vec<usize> = (0..self.tasks.len()).filter(|place| self.tasks[*place].is_woken()).collect();
        let Some(place) = ready.get(self.chance.below(ready.len())).copied() else { return Ok(()) };
        let Poll::Ready(answer) = self.tasks[place].poll() else { return Ok(()) };
        let node = self.tasks.swap_remove(place).node;
        match answer {
            Answer::Kept => Ok(()),
            Answer::GivenBack(number, done) => {
                let told = if done.is_ok() { Told::Allowed } else { Told::Unknown };
                self.operations[number].given_back = Some(told);
                Ok(())
            }
            Answer::Decided(number, allowed, decided) => self.decided(number, node, allowed, decided),
        }
    }

    fn crash(&mut self, place: usize) {
        let gone: Vec<usize> =
            self.tasks.iter().filter(|task| task.node == place).map(|task| task.attempt as usize).collect();
        self.tasks.retain(|task| task.node != place);
        for number in gone {
            if let Some(operation) = self.operations.get_mut(number) {
                operation.told.push(Told::Unknown);
            }
        }
        self.members[place].node.ledger.crash();
        self.members[place].spool.crash(self.forgets);
        let spool = self.members[place].spool.clone();
        self.members[place].node = self.life(&spool);
    }

    fn arrive_late(&mut self) {
        let mut state = self.database.state();
        if state.astray.is_empty() {
            return;
        }
        let place = self.chance.below(state.astray.len());
        if state.is_kept_from(&state.astray[place].tenant, state.astray[place].sender) {
            return;
        }
        let message = state.astray.swap_remove(place);
        if self.chance.percent(70) {
            state.write(&message);
        }
    }

    /// What is in a spool is never more than the allowances.
    fn allowances_hold(&self) -> Result<(), String> {
        let Some(plan) = self.catalog.plan("free") else { return Ok(()) };
        for member in &self.members {
            for ((tenant, user, meter), amount) in member.spool.outstanding() {
                let scope = if user.is_some() { Scope::User } else { Scope::Tenant };
                let of_scope = plan.limits.on(&meter).iter().filter(|limit| limit.scope == scope);
                for limit in of_scope {
                    match limit.outage {
                        Outage::Open { allowance } if amount <= allowance => {}
                        other => {
                            return Err(format!("{amount} of {meter} of {tenant} are in a spool, under {other:?}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "outages_tests.rs"]
mod tests;
