//! A seeded world of tenants that makes entries and knows what their folds must be.

use domain::{
    decision::Code,
    entry::{Binding, Cause, ClosedWindow, DenialKey, DenialRun, Effect, Entry, KindSet, Profile, Status},
    id::{DimensionKey, MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::{DAY_MS, Instant, Window, WindowKind, Zone},
};
use engine::{
    denial_id,
    ports::{Append, Appended, ClosedRow, Commit, DenialId, Fold, Ledger, LedgerError, Seq, Stored},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

/// Runs a future to its end.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits for a commit.
pub fn done(commit: Commit) -> Result<(), LedgerError> {
    wait(commit.wait())
}

/// Small, seeded, good enough.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

type HistoryKey = (TenantId, Option<UserId>, Instant, usize, MeterKey);

/// States, folded from entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct States {
    pub tenants: BTreeMap<TenantId, Stored<Tenant>>,
    pub users: BTreeMap<(TenantId, UserId), Stored<User>>,
    /// Totals of closed windows.
    pub history: BTreeMap<HistoryKey, (i64, i64)>,
    /// Counts and amounts of denials.
    pub denials: BTreeMap<DenialId, (i64, i64)>,
}

impl States {
    /// Folds an entry, as the engine does.
    pub fn fold(&mut self, seq: Seq, id: &TenantId, entry: &Entry) {
        let tenant = self
            .tenants
            .entry(id.clone())
            .or_insert_with(|| Stored { state: Tenant::born(id.clone(), entry).unwrap(), seq: 0 });
        if tenant.seq >= seq {
            return;
        }
        tenant.seq = seq;
        let mut user = entry.user.as_ref().map(|user| {
            let key = (id.clone(), user.clone());
            self.users.entry(key).or_insert_with(|| Stored { state: User::new(user.clone()), seq: 0 })
        });
        if let Some(user) = &mut user {
            user.seq = seq;
        }
        tenant.state.fold(user.as_mut().map(|user| &mut user.state), entry);
        let mut gained = Vec::new();
        gained.extend(tenant.state.accounts.take_closed().into_iter().map(|total| (None, total)));
        if let Some(user) = user {
            let of_user = user.state.accounts.take_closed().into_iter();
            gained.extend(of_user.map(|total| (entry.user.clone(), total)));
        }
        for (user, total) in gained {
            let key = (id.clone(), user, total.closed.window.start, total.closed.kind.index(), total.meter.clone());
            let sums = self.history.entry(key).or_default();
            sums.0 += total.used;
            sums.1 += total.denied;
        }
        for effect in &entry.effects {
            if let Effect::Denials(run) = effect {
                let sums = self.denials.entry(denial_id(id, &run.key)).or_default();
                sums.0 += run.count;
                sums.1 += run.amount;
            }
        }
    }

    /// What a ledger knows: its rows, and the tail folded into them.
    pub fn of(ledger: &dyn Ledger) -> Self {
        let mut states = States::default();
        for id in wait(ledger.tenants(None, usize::MAX)).unwrap() {
            let tenant = wait(ledger.load_tenant(&id)).unwrap().unwrap();
            states.note_history(&id, None, wait(ledger.closed(&id, None)).unwrap());
            states.tenants.insert(id, tenant);
        }
        // Users are found by the journal, which these worlds do not cut before their users are known.
        let mut users = BTreeSet::new();
        let mut after = 0;
        loop {
            let page = wait(ledger.journal(after, 1000)).unwrap();
            let Some(last) = page.last() else { break };
            after = last.0;
            users.extend(page.into_iter().filter_map(|(_, tenant, entry)| Some((tenant, entry.user?))));
        }
        states.load_users(ledger, users);
        for (seq, tenant, entry) in ledger.tail().unwrap().entries().unwrap() {
            states.fold(seq, &tenant, &entry);
        }
        states.denials.clear();
        for shadow in [false, true] {
            let query = engine::ports::DenialQuery { shadow, limit: usize::MAX, ..Default::default() };
            for denial in wait(ledger.denials(&query)).unwrap() {
                states.denials.insert(denial.id, (denial.run.count, denial.run.amount));
            }
        }
        states
    }

    pub fn load_users(&mut self, ledger: &dyn Ledger, users: BTreeSet<(TenantId, UserId)>) {
        for (tenant, id) in users {
            if let Some(user) = wait(ledger.load_user(&tenant, &id)).unwrap() {
                self.note_history(&tenant, Some(&id), wait(ledger.closed(&tenant, Some(&id))).unwrap());
                self.users.insert((tenant, id), user);
            }
        }
    }

    fn note_history(&mut self, tenant: &TenantId, user: Option<&UserId>, rows: Vec<ClosedRow>) {
        for row in rows {
            let key =
                (tenant.clone(), user.cloned(), row.closed.window.start, row.closed.kind.index(), row.meter.clone());
            self.history.insert(key, (row.used, row.denied));
        }
    }
}

/// The world.
pub struct World {
    pub random: Random,
    pub now: Instant,
    /// Everything that was appended, in order.
    pub log: Vec<(Seq, TenantId, Entry)>,
    /// As decided: closed totals are still inside.
    live: BTreeMap<TenantId, Stored<Tenant>>,
    live_users: BTreeMap<(TenantId, UserId), Stored<User>>,
    changed: BTreeSet<TenantId>,
    changed_users: BTreeSet<(TenantId, UserId)>,
    pub bindings: Vec<(u128, Seq)>,
    tenants: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            now: Instant::from_ms(1_790_000_000_000),
            log: Vec::new(),
            live: BTreeMap::new(),
            live_users: BTreeMap::new(),
            changed: BTreeSet::new(),
            changed_users: BTreeSet::new(),
            bindings: Vec::new(),
            tenants: 7,
        }
    }

    /// What everything through `seq` folds to.
    pub fn states(&self, seq: Seq) -> States {
        let mut states = States::default();
        for (at, tenant, entry) in self.log.iter().filter(|(at, ..)| *at <= seq) {
            states.fold(*at, tenant, entry);
        }
        states
    }

    /// The tenant of the entry at `seq`.
    pub fn whose(&self, seq: Seq) -> TenantId {
        self.log[seq as usize - 1].1.clone()
    }

    pub fn last(&self) -> Seq {
        self.log.last().map_or(0, |(seq, ..)| *seq)
    }

    /// A tenant of the world.
    pub fn tenant(&mut self) -> TenantId {
        TenantId::new(&format!("tenant-{}", self.random.below(self.tenants))).unwrap()
    }

    /// Decides something and appends it.
    pub fn step(&mut self, ledger: &dyn Ledger) -> Result<Appended, LedgerError> {
        self.now = match self.random.below(40) {
            0 => self.now.plus_ms(DAY_MS),
            1 => self.now.plus_ms(9 * DAY_MS),
            _ => self.now.plus_ms(self.random.below(90_000) as i64),
        };
        let tenant = self.tenant();
        let mut entries = Vec::new();
        for _ in 0..=self.random.below(3) {
            entries.push(self.entry(&tenant));
        }
        let logged = entries.clone();
        let appended = ledger.append(Append::new(tenant.clone(), entries))?;
        assert_eq!(appended.last - appended.first + 1, logged.len() as Seq);
        for (seq, entry) in (appended.first..).zip(logged) {
            self.stamp(seq, &tenant, &entry);
            self.log.push((seq, tenant.clone(), entry));
        }
        Ok(appended)
    }

    /// As [`World::step`], many times; waits for all.
    pub fn steps(&mut self, ledger: &dyn Ledger, count: usize) {
        let commits: Vec<Commit> = (0..count).map(|_| self.step(ledger).unwrap().commit).collect();
        commits.into_iter().for_each(|commit| done(commit).unwrap());
    }

    fn stamp(&mut self, seq: Seq, id: &TenantId, entry: &Entry) {
        self.live.get_mut(id).unwrap().seq = seq;
        self.changed.insert(id.clone());
        if let Some(user) = &entry.user {
            let key = (id.clone(), user.clone());
            self.live_users.get_mut(&key).unwrap().seq = seq;
            self.changed_users.insert(key);
        }
        self.bindings.extend(entry.binding.map(|binding| (binding.id, seq)));
    }

    fn entry(&mut self, id: &TenantId) -> Entry {
        let now = self.now;
        let user = self.random.one_in(2).then(|| UserId::new(&format!("user-{}", self.random.below(4))).unwrap());
        let binding = self.random.one_in(2).then(|| Binding {
            id: u128::from(self.random.next()) << 64 | u128::from(self.random.next()),
            fingerprint: self.random.next(),
        });
        let mut entry = Entry {
            at: now,
            catalog: 1,
            cause: Cause::ALL[self.random.below(6) as usize],
            binding,
            user,
            dimensions: vec![],
            note: None,
            effects: vec![],
        };
        if self.random.one_in(3) {
            entry.dimensions.push((DimensionKey::new("model").unwrap(), "tide-1".into()));
        }
        if !self.live.contains_key(id) {
            let profile = Profile {
                plan: PlanKey::new("free").unwrap(),
                status: Status::Active,
                enforce: None,
                zone: Zone::named("America/Sao_Paulo").unwrap(),
                anchor: now,
                created_at: now,
                overrides: vec![],
            };
            entry.effects.push(Effect::Profile(Box::new(profile)));
            entry.note = Some("key_1: created".into());
            self.live.insert(id.clone(), Stored { state: Tenant::born(id.clone(), &entry).unwrap(), seq: 0 });
        }
        let mut tenant = self.live.remove(id).unwrap();
        self.push_effects(&mut tenant.state, &mut entry);
        let key = entry.user.as_ref().map(|user| (id.clone(), user.clone()));
        let user = key.map(|key| {
            let fresh = Stored { state: User::new(key.1.clone()), seq: 0 };
            &mut self.live_users.entry(key).or_insert(fresh).state
        });
        tenant.state.fold(user, &entry);
        self.live.insert(id.clone(), tenant);
        entry
    }

    fn push_effects(&mut self, tenant: &mut Tenant, entry: &mut Entry) {
        let windows = tenant.windows_at(entry.at);
        for kind in WindowKind::ALL {
            let window = windows[kind.index()];
            if window != tenant.windows[kind.index()] {
                entry.effects.push(Effect::Turn { kind, window });
            }
        }
        let meter = MeterKey::new(["messages", "documents", "storage"][self.random.below(3) as usize]).unwrap();
        let amount = 1 + self.random.below(1000) as i64;
        let day = windows[WindowKind::Day.index()].start;
        let late = Window { start: day.plus_ms(-DAY_MS), end: day };
        let closed = match self.random.below(5) {
            0 => vec![ClosedWindow { kind: WindowKind::Day, window: late }],
            _ => vec![],
        };
        let open = KindSet::ALL;
        match self.random.below(6) {
            0 => entry.effects.push(Effect::Level { meter, tenant_delta: amount, user_delta: amount, set_at: None }),
            1 => {
                entry.effects.push(Effect::Denied { meter: meter.clone(), amount, open, closed });
                entry.effects.push(Effect::Denials(Box::new(self.denials(entry, meter, amount))));
            }
            _ => entry.effects.push(Effect::Use { meter, amount, open, closed }),
        }
    }

    fn denials(&mut self, entry: &Entry, meter: MeterKey, amount: i64) -> DenialRun {
        let minute = Instant::from_ms(entry.at.ms() / 60_000 * 60_000);
        let key = DenialKey {
            minute,
            shadow: self.random.one_in(4),
            code: Code::PeriodLimitReached,
            user: entry.user.clone(),
            subject: "messages-day".into(),
        };
        DenialRun {
            key,
            count: 1 + self.random.below(5) as i64,
            amount,
            meter: Some(meter),
            feature: None,
            plan: PlanKey::new("free").unwrap(),
            used: 50,
            max: Some(50),
            resets_at: Some(minute.plus_ms(60_000)),
            first_at: entry.at,
            last_at: entry.at,
        }
    }

    /// The folds of what changed, or of some of it.
    pub fn take_folds(&mut self, all: bool) -> Vec<Fold> {
        let changed: Vec<TenantId> = self.changed.iter().cloned().collect();
        let taken: Vec<TenantId> = changed.into_iter().filter(|_| all || self.random.one_in(2)).collect();
        let mut folds = Vec::new();
        for id in taken {
            self.changed.remove(&id);
            let tenant = self.live.get_mut(&id).unwrap();
            let fold = tenant.clone();
            tenant.state.accounts.take_closed();
            let mut users = Vec::new();
            let of_tenant: Vec<_> = self.changed_users.iter().filter(|(tenant, _)| *tenant == id).cloned().collect();
            for key in of_tenant {
                self.changed_users.remove(&key);
                let user = self.live_users.get_mut(&key).unwrap();
                users.push(user.clone());
                user.state.accounts.take_closed();
            }
            folds.push(Fold { tenant: fold, users, from: 0, basis: Default::default() });
        }
        folds
    }

    /// Writes down everything that changed.
    pub fn checkpoint(&mut self, ledger: &dyn Ledger) -> Commit {
        let through = self.last();
        let folds = self.take_folds(true);
        ledger.checkpoint(folds, Some(through))
    }
}
