//! A seeded world of tenants that makes entries and knows what their folds must be.

use crate::{granted, in_flight};
use domain::{
    decision::Code,
    entry::{Binding, Cause, ClosedWindow, DenialKey, DenialRun, Effect, Entry, KindSet, Profile, Status},
    history::{KeptFrom, Rows, fold},
    id::{DimensionKey, MeterKey, PlanKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::{DAY_MS, Instant, Window, WindowKind, Zone},
};
use engine::{
    denial_id,
    ports::{
        Append, Appended, Basis, ClosedRow, Commit, DenialId, Fold, Ledger, LedgerError, Line, Retention, Seq, Stored,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
};

/// Runs a future to its end.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits for a commit.
pub fn done(commit: Commit) -> Result<(), LedgerError> {
    wait(commit.wait())
}

/// Folds the whole journal into history, some entries at a time.
pub fn fold_history(ledger: &dyn Ledger) {
    let history = ledger.history().unwrap();
    loop {
        let state = wait(history.state()).unwrap();
        let lines = wait(ledger.journal(state.through, 37)).unwrap();
        let Some((through, ..)) = lines.last() else { return };
        let mut rows = Rows::new();
        lines.iter().for_each(|(_, tenant, entry)| fold(&mut rows, tenant, entry, &state.kept));
        let at = lines.iter().map(|(.., entry)| entry.at).max().unwrap_or_default();
        assert_eq!(wait(history.add(state.through, *through, at, rows)), Ok(true));
    }
}

/// Keeps history finer for longer than in the whole, as settings of before may have.
pub fn keep_finer_for_longer(ledger: &dyn Ledger, now: Instant) {
    fold_history(ledger);
    let kept = KeptFrom([60, 40, 20].map(|days| now.plus_ms(-days * DAY_MS - 1)));
    wait(ledger.history().unwrap().drop_before(kept)).unwrap();
}

/// Drops what is past its time, once everything is in history.
pub fn retain(ledger: &dyn Ledger, retention: Retention, now: Instant) -> Result<(), LedgerError> {
    fold_history(ledger);
    wait(ledger.retain(retention, now))
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
        match ledger.shared() {
            Some(_) => Self::of_shared(ledger),
            None => Self::of_embedded(ledger),
        }
    }

    fn of_embedded(ledger: &dyn Ledger) -> Self {
        let mut states = States::default();
        for id in wait(ledger.tenants(None, usize::MAX)).unwrap() {
            let tenant = wait(ledger.load_tenant(&id)).unwrap().unwrap();
            states.note_history(&id, None, wait(ledger.closed(&id, None)).unwrap());
            states.tenants.insert(id, tenant);
        }
        let users = all_lines(ledger).into_iter().filter_map(|(_, tenant, entry)| Some((tenant, entry.user?)));
        // Users are found by the journal, which these worlds do not cut before their users are known.
        states.load_users(ledger, users.collect());
        for (seq, tenant, entry) in ledger.tail().unwrap().entries().unwrap() {
            states.fold(seq, &tenant, &entry);
        }
        states.load_denials(ledger);
        states
    }

    /// Where other nodes write as well, each tenant comes with its own tail.
    fn of_shared(ledger: &dyn Ledger) -> Self {
        let mut states = States::default();
        let lines = all_lines(ledger);
        let users = lines.iter().filter_map(|(_, tenant, entry)| Some((tenant.clone(), entry.user.clone()?))).collect();
        let all: BTreeSet<TenantId> = wait(ledger.tenants(None, usize::MAX)).unwrap().into_iter().collect();
        assert!(lines.iter().all(|(_, tenant, _)| all.contains(tenant)), "whoever has an entry is listed");
        let mut tails = Vec::new();
        for id in all {
            let loaded = wait(ledger.shared().unwrap().load(&id, false)).unwrap();
            assert_eq!(loaded.fold, wait(ledger.load_tenant(&id)).unwrap());
            if let Some(tenant) = loaded.fold {
                states.note_history(&id, None, wait(ledger.closed(&id, None)).unwrap());
                states.tenants.insert(id.clone(), tenant);
            }
            tails.push((id, loaded.after));
        }
        states.load_users(ledger, users);
        for (id, tail) in tails {
            tail.iter().for_each(|(seq, entry)| states.fold(*seq, &id, entry));
        }
        states.load_denials(ledger);
        states
    }

    fn load_denials(&mut self, ledger: &dyn Ledger) {
        self.denials.clear();
        for shadow in [false, true] {
            let query = engine::ports::DenialQuery { shadow, limit: usize::MAX, ..Default::default() };
            for denial in wait(ledger.denials(&query)).unwrap() {
                self.denials.insert(denial.id, (denial.run.count, denial.run.amount));
            }
        }
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

/// The whole journal, page by page.
pub fn all_lines(ledger: &dyn Ledger) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |(seq, ..)| *seq);
        let page = wait(ledger.journal(after, 1000)).unwrap();
        if page.is_empty() {
            return lines;
        }
        lines.extend(page);
    }
}

/// The world. What it appended has a *place*: 1 for the first entry. In a ledger with one writer that is the entry's
/// position; where there are many, positions are each tenant's own.
pub struct World {
    pub random: Random,
    pub now: Instant,
    /// Whether positions are each tenant's own.
    shared: bool,
    bases: BTreeMap<TenantId, Arc<Basis>>,
    /// The position of the last entry in the fold before.
    saved: BTreeMap<TenantId, Seq>,
    /// Everything that was appended, in order, with its position.
    pub log: Vec<(Seq, TenantId, Entry)>,
    /// As decided: closed totals are still inside.
    live: BTreeMap<TenantId, Stored<Tenant>>,
    live_users: BTreeMap<(TenantId, UserId), Stored<User>>,
    changed: BTreeSet<TenantId>,
    changed_users: BTreeSet<(TenantId, UserId)>,
    /// Ids and the places of the entries that bind them.
    pub bindings: Vec<(u128, Seq)>,
    tenants: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            now: Instant::from_ms(1_790_000_000_000),
            shared: false,
            bases: BTreeMap::new(),
            saved: BTreeMap::new(),
            log: Vec::new(),
            live: BTreeMap::new(),
            live_users: BTreeMap::new(),
            changed: BTreeSet::new(),
            changed_users: BTreeSet::new(),
            bindings: Vec::new(),
            tenants: 7,
        }
    }

    /// What everything through a place folds to.
    pub fn states(&self, place: Seq) -> States {
        let mut states = States::default();
        for (at, (seq, tenant, entry)) in (1..).zip(&self.log) {
            if (if self.shared { at } else { *seq }) <= place {
                states.fold(*seq, tenant, entry);
            }
        }
        states
    }

    /// The tenant of the entry at a place.
    pub fn whose(&self, place: Seq) -> TenantId {
        self.log[place as usize - 1].1.clone()
    }

    /// The position of the entry at a place.
    pub fn position(&self, place: Seq) -> Seq {
        if self.shared { self.log[place as usize - 1].0 } else { place }
    }

    /// The last place.
    pub fn last(&self) -> Seq {
        if self.shared { self.log.len() as Seq } else { self.log.last().map_or(0, |(seq, ..)| *seq) }
    }

    /// The position of a tenant's last entry.
    pub fn last_of(&self, tenant: &TenantId) -> Seq {
        self.live.get(tenant).map_or(0, |tenant| tenant.seq)
    }

    /// Whether lines are those that were appended from a place on. Where positions are each tenant's own, only the order
    /// of each tenant's entries is given, and positions in the order of all need not be without a gap.
    pub fn is_log_from(&self, place: Seq, lines: &[Line]) -> bool {
        let log = &self.log[place as usize - 1..];
        if !self.shared {
            return lines == log;
        }
        let by_tenant = |lines: &[Line]| {
            let mut found: BTreeMap<TenantId, Vec<Entry>> = BTreeMap::new();
            for (_, tenant, entry) in lines {
                found.entry(tenant.clone()).or_default().push(entry.clone());
            }
            found
        };
        lines.is_sorted_by(|(before, ..), (after, ..)| before < after) && by_tenant(lines) == by_tenant(log)
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
        self.shared = ledger.shared().is_some();
        let follows = self.last_of(&tenant);
        let basis = self.bases.entry(tenant.clone()).or_default().clone();
        let appended = ledger.append(Append { follows, basis, ..Append::new(tenant.clone(), entries) })?;
        assert_eq!(appended.last - appended.first + 1, logged.len() as Seq);
        if self.shared {
            assert_eq!(appended.first, follows + 1, "positions are the tenant's own, without a gap");
        }
        for (seq, entry) in (appended.first..).zip(logged) {
            self.stamp(seq, &tenant, &entry);
            self.log.push((seq, tenant.clone(), entry));
        }
        Ok(appended)
    }

    /// Changes what a tenant is, and waits for it.
    pub fn configure(&mut self, ledger: &dyn Ledger, id: &TenantId, profile: Profile) {
        let effects = vec![Effect::Profile(Box::new(profile))];
        let entry =
            Entry { binding: None, user: None, dimensions: vec![], note: None, effects, ..self.log[0].2.clone() };
        let entry = Entry { at: self.now, cause: Cause::Admin, ..entry };
        let tenant = self.live.get_mut(id).unwrap();
        tenant.state.fold(None, &entry);
        let (follows, basis) = (tenant.seq, self.bases.entry(id.clone()).or_default().clone());
        let append = Append { follows, basis, ..Append::new(id.clone(), vec![entry.clone()]) };
        let appended = ledger.append(append).unwrap();
        self.stamp(appended.last, id, &entry);
        self.log.push((appended.last, id.clone(), entry));
        done(appended.commit).unwrap();
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
        let place = if self.shared { self.log.len() as Seq + 1 } else { seq };
        self.bindings.extend(entry.binding.map(|binding| (binding.id, place)));
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
            cause: Cause::ALL[self.random.below(Cause::ALL.len() as u64) as usize],
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
                catalog_pin: None,
                shares: Vec::new(),
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
        if entry.binding.is_some() || self.random.one_in(2) {
            entry.effects.extend(in_flight::effect(&mut self.random, tenant, entry, windows));
        }
        if self.random.one_in(4) {
            entry.effects.extend(granted::effect(&mut self.random, tenant, entry));
        }
        if self.random.one_in(20) {
            entry.effects.push(granted::shared(&mut self.random, tenant));
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
            let from = self.saved.insert(id.clone(), fold.seq).unwrap_or(0);
            folds.push(Fold { tenant: fold, users, from, basis: self.bases.entry(id).or_default().clone() });
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
