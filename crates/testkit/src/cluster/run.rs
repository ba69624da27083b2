//! What happens in a world, one thing after the other.

use super::{
    Plan,
    attempts::{Answer, Attempt, End, perform},
    chance::Chance,
    database::Database,
    history::{answer_line, ask_line},
    known::Known,
    nodes::{Makings, Node},
    script::{Ask, Step, beginning},
    tasks::Task,
};
use domain::catalog::Catalog;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

/// How many things may happen until everything is answered, once nothing goes wrong any more.
const CALM_TICKS_MAX: u64 = 60_000;
/// How often a client asks again.
const TRIES_MAX: usize = 8;

/// What a client will ask again.
struct Again {
    step: usize,
    changed: bool,
    ask: Ask,
    tries: usize,
}

/// A world.
pub(super) struct Cluster {
    pub(super) plan: Plan,
    pub(super) database: Arc<Database>,
    pub(super) chance: Arc<Chance>,
    pub(super) makings: Makings,
    pub(super) nodes: Vec<Node>,
    pub(super) attempts: Vec<Attempt>,
    /// Lives of nodes that were killed.
    pub(super) killed: Vec<u64>,
    /// What befell the world, and when.
    pub(super) events: Vec<(u64, String)>,
    tasks: Vec<Task<Answer>>,
    next: usize,
    has_begun: bool,
    again: VecDeque<Again>,
    known: Known,
    senders: u64,
    tries: Vec<usize>,
}

impl Cluster {
    pub(super) fn new(plan: &Plan) -> Self {
        let database = Database::new(beginning(), plan.bug);
        let chance = Chance::new(plan.seed, plan.weather);
        let registry = Arc::new(plan.catalogs.iter().cloned().collect());
        let first = plan.catalogs.first().map_or("", |(text, _)| text);
        database.state().publish(first, beginning(), None);
        let makings = Makings { database: database.clone(), chance: chance.clone(), registry, options: plan.options };
        let nodes = (1..=plan.size.nodes as u64).map(|sender| makings.node(sender, 0)).collect();
        Self {
            senders: plan.size.nodes as u64,
            plan: plan.clone(),
            database,
            chance,
            makings,
            nodes,
            attempts: Vec::new(),
            killed: Vec::new(),
            events: Vec::new(),
            tasks: Vec::new(),
            next: 0,
            has_begun: false,
            again: VecDeque::new(),
            known: Known::default(),
            tries: Vec::new(),
        }
    }

    /// Everything that is in the plan, and then until all is answered.
    pub(super) fn run(&mut self) -> Result<(), String> {
        if !self.has_default_plan() {
            self.chance.calm();
            for number in 1..=self.plan.size.tenants {
                let (change, tenant) = (crate::world::to_plan("free"), crate::world::tenant(&format!("t{number}")));
                self.ask_until_done(0, Ask::Put(tenant, change, None))?;
            }
            self.chance.set(self.plan.weather);
        }
        self.has_begun = true;
        let mut since = 0;
        while self.next < self.plan.script.len() {
            let before = self.next;
            self.tick();
            since = if self.next == before { since + 1 } else { 0 };
            if since > CALM_TICKS_MAX {
                return Err("no progress: nobody is answered any more".to_owned());
            }
        }
        self.chance.calm();
        self.database.state().set_down_until(0);
        self.nodes.iter_mut().for_each(|node| node.paused_until_ms = 0);
        self.settle()?;
        // Everybody can use every tenant on every node, and what is counted is written down.
        for node in 0..self.nodes.len() {
            for number in 1..=self.plan.size.tenants {
                let event = crate::world::event(&format!("t{number}"), &format!("last-{node}"), "tokens", 1);
                self.ask_until_done(node, Ask::Events(vec![event]))?;
            }
        }
        (0..self.nodes.len()).try_for_each(|node| self.ask_until_done(node, Ask::Drain))
    }

    fn has_default_plan(&self) -> bool {
        self.plan.catalogs.first().is_some_and(|(_, catalog)| catalog.default_plan.is_some())
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..CALM_TICKS_MAX {
            let idle = self.nodes.iter().all(|node| node.ledger.is_idle());
            if self.tasks.is_empty() && self.again.is_empty() && idle && self.database.state().astray.is_empty() {
                return Ok(());
            }
            self.tick();
        }
        let waiting = self.tasks.first().map_or("nobody".to_owned(), |task| format!("call {}", task.attempt));
        Err(format!("no progress: {waiting} waits, and nothing goes wrong any more"))
    }

    fn ask_until_done(&mut self, node: usize, ask: Ask) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..4 {
            let number = self.begin(usize::MAX, node, ask.clone(), false, TRIES_MAX);
            self.settle()?;
            let attempt = &self.attempts[number as usize - 1];
            if !attempt.is_open() {
                return Ok(());
            }
            last = format!("call {number}, {}, gets {}", ask_line(&ask), answer_line(attempt));
        }
        Err(format!("no progress: {last}, and nothing goes wrong any more"))
    }

    /// One thing happens.
    fn tick(&mut self) {
        let passes_ms = self.chance.with(|random| match random.below(10) {
            0..7 => 0,
            7 => 1,
            8 => 2,
            _ => random.between(0, 8),
        });
        let now_ms = {
            let mut state = self.database.state();
            state.tick += 1;
            state.now_ms += passes_ms;
            state.now_ms
        };
        match self.chance.below(100) {
            0..12 => self.something_new(),
            12..58 => self.poll_one(now_ms),
            58..97 => self.step_ledger(now_ms),
            97..99 => self.arrive_late(),
            _ if self.chance.percent(self.chance.weather().hung_up * 20) => self.hang_up(),
            _ => {}
        }
    }

    /// A client asks again, or the next thing of the script happens.
    fn something_new(&mut self) {
        let busy = self.tasks.len() >= self.plan.clients;
        let node = self.chance.below(self.nodes.len());
        if !self.again.is_empty() && !busy && self.chance.percent(50) {
            let place = self.chance.below(self.again.len());
            if let Some(again) = self.again.remove(place) {
                self.begin(again.step, node, again.ask, again.changed, again.tries);
            }
            return;
        }
        let Some((number, step)) = self.plan.script.get(self.next).filter(|_| self.has_begun).cloned() else { return };
        if matches!(step, Step::Ask(..)) && busy {
            return;
        }
        self.next += 1;
        if !matches!(step, Step::Ask(..)) {
            let tick = self.database.state().tick;
            self.events.push((tick, format!("{step:?}")));
        }
        match step {
            Step::Ask(node, ask) => self.ask(number, node % self.nodes.len(), ask),
            Step::Pause(node, ms) => {
                let until_ms = self.database.now_ms() + ms;
                let node = node % self.nodes.len();
                self.nodes[node].paused_until_ms = until_ms;
            }
            Step::Crash(node) => self.crash(node % self.nodes.len()),
            Step::Away(ms) => {
                let mut state = self.database.state();
                let until_ms = state.now_ms + ms;
                state.set_down_until(until_ms);
            }
            Step::Jump(ms) => self.database.state().now_ms += ms,
            Step::Skew(node, ms) => {
                let node = node % self.nodes.len();
                self.nodes[node].clock.ahead_ms.store(ms, Ordering::Relaxed);
            }
        }
    }

    fn ask(&mut self, step: usize, node: usize, ask: Ask) {
        if let Some(ask) = self.known.resolved(ask, self.database.now_ms()) {
            self.begin(step, node, ask, false, 0);
        }
    }

    fn begin(&mut self, step: usize, node: usize, ask: Ask, changed: bool, tries: usize) -> u64 {
        let number = self.attempts.len() as u64 + 1;
        let work = perform(&self.nodes[node], ask.clone(), &self.plan.catalogs);
        self.tasks.push(Task::new(number, node, work));
        let state = self.database.state();
        let (tick, at_ms) = (state.tick, state.now_ms);
        drop(state);
        let (sender, catalog) = (self.nodes[node].ledger.sender, self.nodes[node].engine.catalog().version);
        self.attempts.push(Attempt { number, step, changed, ask, node, sender, tick, at_ms, catalog, end: None });
        self.tries.push(tries);
        number
    }

    fn poll_one(&mut self, now_ms: i64) {
        let is_paused = |task: &Task<Answer>| now_ms < self.nodes[task.node].paused_until_ms;
        let ready: Vec<usize> = (0..self.tasks.len())
            .filter(|place| self.tasks[*place].is_woken() && !is_paused(&self.tasks[*place]))
            .collect();
        if ready.is_empty() {
            return;
        }
        let place = ready[self.chance.below(ready.len())];
        self.database.state().attempt = self.tasks[place].attempt;
        let polled = self.tasks[place].poll();
        self.database.state().attempt = 0;
        if let Poll::Ready(answer) = polled {
            let task = self.tasks.swap_remove(place);
            self.end(task.attempt, Some(answer));
        }
    }

    fn end(&mut self, number: u64, answer: Option<Answer>) {
        let state = self.database.state();
        let (tick, at_ms) = (state.tick, state.now_ms);
        drop(state);
        let attempt = &mut self.attempts[number as usize - 1];
        let catalog = self.nodes[attempt.node].engine.catalog().version;
        attempt.end = Some(End { tick, at_ms, catalog, answer });
        self.known.remember(attempt);
        let (is_open, ask, step, changed) = (attempt.is_open(), attempt.ask.clone(), attempt.step, attempt.changed);
        let tries = self.tries[number as usize - 1] + 1;
        if !ask.has_id() || tries > TRIES_MAX {
            return;
        }
        let differs = !changed && self.chance.percent(6);
        if is_open && self.chance.percent(90) || !is_open && tries < 3 && self.chance.percent(15) || differs {
            let ask = if differs { ask.changed() } else { ask };
            self.again.push_back(Again { step, changed: changed || differs, ask, tries });
        }
    }

    fn step_ledger(&mut self, now_ms: i64) {
        let busy: Vec<usize> = (0..self.nodes.len())
            .filter(|node| now_ms >= self.nodes[*node].paused_until_ms && !self.nodes[*node].ledger.is_idle())
            .collect();
        if !busy.is_empty() {
            self.nodes[busy[self.chance.below(busy.len())]].ledger.step();
        }
    }

    /// A message arrives whose sender has given it up.
    fn arrive_late(&mut self) {
        let mut state = self.database.state();
        if state.astray.is_empty() {
            return;
        }
        let place = self.chance.below(state.astray.len());
        let message = &state.astray[place];
        if state.is_kept_from(&message.tenant, message.sender) {
            return;
        }
        let message = state.astray.swap_remove(place);
        if self.chance.percent(70) {
            state.write(&message);
        }
    }

    /// A client goes away.
    fn hang_up(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let place = self.chance.below(self.tasks.len());
        let number = self.tasks[place].attempt;
        if matches!(self.attempts[number as usize - 1].ask, Ask::Upkeep | Ask::Drain) {
            return;
        }
        drop(self.tasks.swap_remove(place));
        self.end(number, None);
    }

    fn crash(&mut self, node: usize) {
        let gone: Vec<u64> = self.tasks.iter().filter(|task| task.node == node).map(|task| task.attempt).collect();
        self.tasks.retain(|task| task.node != node);
        self.nodes[node].ledger.crash();
        self.killed.push(self.nodes[node].ledger.sender);
        gone.into_iter().for_each(|number| self.end(number, None));
        self.senders += 1;
        let ahead_ms = self.nodes[node].clock.ahead_ms.load(Ordering::Relaxed);
        self.nodes[node] = self.makings.node(self.senders, ahead_ms);
    }

    /// The catalog of a version.
    pub(super) fn catalog(&self, version: u32) -> Option<Catalog> {
        let state = self.database.state();
        let stored = &state.catalogs.iter().find(|catalog| catalog.stored.version == version)?.stored;
        super::nodes::parsed(&self.makings.registry, stored)
    }
}
