//! What all nodes share: tenants with their entries, ids and folds, catalogs, keys and jobs, and a clock of its own.

use super::bugs::Bug;
use domain::{
    entry::{Effect, Entry},
    id::{MeterKey, PlanKey, TenantId, UserId},
    tenant::{ClosedTotal, Tenant, User},
    time::{Instant, WindowKind},
};
use engine::ports::{ApiKey, ClosedRow, Fold, JobLease, LedgerError, Loaded, Published, Seq, Stored, StoredCatalog};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeMap, sync::Arc};
use stores::memory::MemorySnapshots;

/// How long a row is kept for who asked for it.
pub const HOLD_MS: i64 = 250;

/// A committed entry, and what the judge has to know about it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The entry.
    pub entry: Entry,
    /// The attempt that made it.
    pub attempt: u64,
    /// When it was decided.
    pub decided: Decided,
    /// Which life of which node did.
    pub sender: u64,
    /// Names the part it was sent in.
    pub token: u64,
    /// When it was committed.
    pub tick: u64,
    /// When that was, by the database's clock.
    pub at_ms: i64,
    /// The catalog that was in force then.
    pub in_force: u32,
}

/// When something was decided on a node.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    /// By its clock on the wall.
    pub by_clock_ms: i64,
    /// By the one that does not jump.
    pub steady_ms: i64,
}

/// Entries of one tenant on their way to the database.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) tenant: TenantId,
    pub(super) follows: Seq,
    /// The lease it was made under; it follows as many entries under it then.
    pub(super) under: Option<u64>,
    /// Each with the attempt that made it, and when.
    pub(super) entries: Vec<(Entry, u64, Decided)>,
    pub(super) token: u64,
    /// Which node sends it; a node that was started again is another.
    pub(super) sender: u64,
    /// Whether an earlier one may have been written.
    pub(super) again: bool,
}

/// What the database says to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// After this position.
    Written(Seq),
    Stale,
    Bound(Vec<(u128, Seq)>),
    Behind {
        in_force: u32,
    },
}

#[derive(Debug, Clone, Copy)]
struct Held {
    by: u64,
    until_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) entries: Vec<Written>,
    ids: BTreeMap<u128, Seq>,
    /// Leases, and how many entries were made under each.
    leases: Vec<(u64, u64)>,
    plan: Option<PlanKey>,
    fold: Option<Stored<Tenant>>,
    held: Option<Held>,
}

type ClosedKey = (TenantId, Option<UserId>, WindowKind, Instant, MeterKey);

/// A catalog, and since when it is in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The catalog.
    pub stored: StoredCatalog,
    /// Since when.
    pub tick: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) now_ms: i64,
    pub(super) tick: u64,
    /// The attempt that is being polled: what is appended now is its.
    pub(super) attempt: u64,
    pub(super) down_until_ms: i64,
    pub(super) tenants: BTreeMap<TenantId, Row>,
    pub(super) order: Vec<(TenantId, Seq)>,
    users: BTreeMap<(TenantId, UserId), Stored<User>>,
    closed: BTreeMap<ClosedKey, ClosedRow>,
    pub(super) catalogs: Vec<InForce>,
    pub(super) keys: BTreeMap<Arc<str>, ApiKey>,
    pub(super) keys_version: u64,
    jobs: BTreeMap<String, (JobLease, i64)>,
    /// Messages whose sender does not wait for them any more.
    pub(super) astray: Vec<Message>,
    /// Bytes that were appended twice or lost would show in these.
    pub(super) folds_written: u64,
    bug: Option<Bug>,
}

/// A database in memory.
pub struct Database {
    state: Mutex<State>,
    snapshots: MemorySnapshots,
}

impl Database {
    /// An empty one whose clock stands at an instant; with something wrong with it, if told so.
    pub fn new(at: Instant, bug: Option<Bug>) -> Arc<Self> {
        let state = Mutex::new(State { now_ms: at.ms(), bug, ..State::default() });
        Arc::new(Self { state, snapshots: MemorySnapshots::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn snapshots(&self) -> &MemorySnapshots {
        &self.snapshots
    }

    /// What its clock says.
    pub fn now_ms(&self) -> i64 {
        self.state.lock().now_ms
    }
}

impl State {
    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Is away until then; gives until when it was to be.
    pub(super) fn set_down_until(&mut self, until_ms: i64) -> i64 {
        std::mem::replace(&mut self.down_until_ms, until_ms)
    }

    pub(super) fn in_force(&self) -> u32 {
        self.catalogs.last().map_or(0, |catalog| catalog.stored.version)
    }

    pub(super) fn check(&self) -> Result<(), LedgerError> {
        match self.now_ms < self.down_until_ms {
            true => Err(LedgerError::Unwritable("the database is away".into())),
            false => Ok(()),
        }
    }

    /// Whether another than `sender` keeps the tenant's row.
    pub(super) fn is_kept_from(&self, tenant: &TenantId, sender: u64) -> bool {
        let held = self.tenants.get(tenant).and_then(|row| row.held);
        held.is_some_and(|held| held.by != sender && (self.now_ms < held.until_ms || self.has(Bug::EndlessHold)))
    }

    /// Writes a message, or says why not.
    pub(super) fn write(&mut self, message: &Message) -> Verdict {
        let (tick, at_ms, in_force) = (self.tick, self.now_ms, self.in_force());
        let (unfenced, twice) = (self.has(Bug::NotFenced), self.has(Bug::RetryCommitsTwice) && message.again);
        let settled_twice = self.has(Bug::HoldSettledTwice);
        let (own_ids, no_catalog_fence) = (self.has(Bug::OwnIdsOnly), self.has(Bug::NoCatalogFence));
        let (by_node_clock, no_lease) = (self.has(Bug::LeaseByNodeClock), self.has(Bug::LeaseNotFenced));
        let row = self.tenants.entry(message.tenant.clone()).or_default();
        let is_mine = row.held.is_some_and(|held| held.by == message.sender);
        let before = row.entries.iter().position(|written| written.token == message.token);
        if let Some(before) = before.filter(|_| message.again && !twice) {
            return Verdict::Written(before as Seq);
        }
        let settles = |(entry, ..): &(Entry, u64, Decided)| {
            entry.effects.iter().any(|effect| matches!(effect, Effect::HoldSettled { .. }))
        };
        let twice = twice || settled_twice && message.entries.iter().any(settles);
        let last = row.entries.len() as Seq;
        let follows = match message.under {
            None => last == message.follows,
            Some(epoch) => match row.leases.iter().find(|(known, _)| *known == epoch) {
                Some((_, entries)) => *entries == message.follows,
                None => no_lease,
            },
        };
        let verdict = if !no_catalog_fence && message.entries.iter().any(|(entry, ..)| entry.catalog < in_force) {
            Verdict::Behind { in_force }
        } else if !follows && !unfenced && !twice {
            Verdict::Stale
        } else {
            let ids = message.entries.iter().filter_map(|(entry, ..)| entry.binding).map(|binding| binding.id);
            let bound: Vec<_> = ids.filter_map(|id| row.ids.get(&id).map(|seq| (id, *seq))).collect();
            if bound.is_empty() || own_ids || twice { Verdict::Written(last) } else { Verdict::Bound(bound) }
        };
        if is_mine && follows && message.under.is_none() {
            row.held = None;
        }
        if !matches!(verdict, Verdict::Written(_)) {
            return verdict;
        }
        if let Some((_, entries)) = row.leases.iter_mut().find(|(known, _)| Some(*known) == message.under) {
            *entries += message.entries.len() as u64;
        }
        for (entry, attempt, decided) in &message.entries {
            let seq = row.entries.len() as Seq + 1;
            if let Some(binding) = entry.binding {
                row.ids.insert(binding.id, seq);
            }
            for effect in &entry.effects {
                match effect {
                    Effect::Profile(profile) => {
                        row.plan = profile.catalog_pin.is_none().then(|| profile.plan.clone());
                    }
                    Effect::Leases(leases) => {
                        let there: Vec<(u64, u64)> = leases.iter().map(|lease| (lease.epoch, lease.entries)).collect();
                        let is_kept =
                            |(known, _): &(u64, u64)| by_node_clock && there.iter().all(|(epoch, _)| epoch != known);
                        row.leases.retain(is_kept);
                        row.leases.extend(there);
                    }
                    _ => {}
                }
            }
            let (attempt, decided, token, sender) = (*attempt, *decided, message.token, message.sender);
            row.entries.push(Written { entry: entry.clone(), attempt, decided, sender, token, tick, at_ms, in_force });
            self.order.push((message.tenant.clone(), seq));
        }
        verdict
    }

    /// A tenant, and its row kept for `holder`.
    pub(super) fn load(&mut self, tenant: &TenantId, holder: Option<u64>) -> Loaded {
        let until_ms = self.now_ms + HOLD_MS;
        let Some(row) = self.tenants.get_mut(tenant).filter(|row| !row.entries.is_empty()) else {
            return Loaded { fold: None, after: Vec::new() };
        };
        if let Some(by) = holder {
            row.held = Some(Held { by, until_ms });
        }
        let folded = row.fold.as_ref().map_or(0, |fold| fold.seq);
        let after = (1..).zip(&row.entries).skip(folded as usize);
        let after = after.map(|(seq, written)| (seq, written.entry.clone())).collect();
        let (mut loaded, has_leases) = (Loaded { fold: row.fold.clone(), after }, !row.leases.is_empty());
        if let Some(bug) = self.bug {
            loaded.fold.iter_mut().for_each(|fold| bug.misremember(&mut fold.state));
            bug.misread_all(&mut loaded.after, has_leases);
        }
        loaded
    }

    /// Nobody keeps any row.
    pub(super) fn let_go(&mut self) {
        self.tenants.values_mut().for_each(|row| row.held = None);
    }

    pub(super) fn fold(&self, tenant: &TenantId) -> Option<Stored<Tenant>> {
        self.tenants.get(tenant)?.fold.clone()
    }

    pub(super) fn user(&self, tenant: &TenantId, user: &UserId) -> Option<Stored<User>> {
        let shares = |fold: &Stored<Tenant>| !fold.state.profile.shares.is_empty();
        let refills = self.has(Bug::ShareRefills) && self.fold(tenant).as_ref().is_some_and(shares);
        self.users.get(&(tenant.clone(), user.clone())).filter(|_| !refills).cloned()
    }

    pub(super) fn entry(&self, tenant: &TenantId, seq: Seq) -> Option<Entry> {
        let row = self.tenants.get(tenant)?;
        row.entries.get(seq.checked_sub(1)? as usize).map(|written| written.entry.clone())
    }

    pub(super) fn bound(&self, tenant: &TenantId, id: u128) -> Option<Seq> {
        self.tenants.get(tenant)?.ids.get(&id).copied()
    }

    /// Writes a fold; false if it goes on from another than the one there is.
    pub(super) fn write_fold(&mut self, fold: &Fold) -> bool {
        let Fold { tenant, users, from, .. } = fold.clone();
        let id = tenant.state.id.clone();
        let anywhere = self.has(Bug::FoldFromAnywhere);
        let Some(row) = self.tenants.get_mut(&id) else { return false };
        let folded = row.fold.as_ref().map_or(0, |fold| fold.seq);
        if from != folded && !anywhere || tenant.seq <= folded || tenant.seq > row.entries.len() as Seq {
            return false;
        }
        let Stored { mut state, seq } = tenant;
        let gained = state.accounts.take_closed();
        state.pending = Default::default();
        row.fold = Some(Stored { state, seq });
        self.folds_written += 1;
        self.add_closed(&id, None, gained);
        for mut user in users {
            let key = (id.clone(), user.state.id.clone());
            let gained = user.state.accounts.take_closed();
            self.add_closed(&id, Some(&key.1), gained);
            self.users.insert(key, user);
        }
        true
    }

    fn add_closed(&mut self, tenant: &TenantId, user: Option<&UserId>, gained: Vec<ClosedTotal>) {
        for ClosedTotal { meter, closed, used, denied } in gained {
            let key = (tenant.clone(), user.cloned(), closed.kind, closed.window.start, meter.clone());
            let row = self.closed.entry(key).or_insert(ClosedRow { meter, closed, used: 0, denied: 0 });
            row.closed.window.end = closed.window.end;
            row.used += used;
            row.denied += denied;
        }
    }

    pub(super) fn closed(&self, tenant: &TenantId, user: Option<&UserId>) -> Vec<ClosedRow> {
        let of_account = self.closed.iter().filter(|(key, _)| key.0 == *tenant && key.1.as_ref() == user);
        let mut rows: Vec<ClosedRow> = of_account.map(|(_, row)| row.clone()).collect();
        rows.sort_by_key(|row| (row.closed.window.start, row.closed.kind.index(), row.meter.clone()));
        rows
    }

    pub(super) fn plans(&self) -> Vec<PlanKey> {
        let mut plans: Vec<PlanKey> = self.tenants.values().filter_map(|row| row.plan.clone()).collect();
        plans.sort();
        plans.dedup();
        plans
    }

    pub(super) fn publish(&mut self, text: &str, at: Instant, plans: Option<&[PlanKey]>) -> Published {
        let lacks = |plan: &PlanKey| plans.is_some_and(|plans| !plans.contains(plan));
        let missing: Vec<PlanKey> = self.plans().into_iter().filter(lacks).collect();
        if !missing.is_empty() {
            return Published::PlansInUse(missing);
        }
        let version = self.in_force() + 1;
        let stored = StoredCatalog { version, text: text.into(), applied_at: at };
        self.catalogs.push(InForce { stored, tick: self.tick });
        Published::Version(version)
    }

    pub(super) fn claim(&mut self, job: &str, node: &str, ttl_ms: i64) -> Option<JobLease> {
        let now_ms = self.now_ms;
        let epoch = match self.jobs.get(job) {
            Some((lease, until_ms)) if now_ms < *until_ms && *lease.node != *node => return None,
            Some((lease, until_ms)) if now_ms < *until_ms => lease.epoch,
            Some((lease, _)) => lease.epoch + 1,
            None => 1,
        };
        let lease = JobLease { job: job.into(), node: node.into(), epoch };
        self.jobs.insert(job.to_owned(), (lease.clone(), now_ms + ttl_ms));
        Some(lease)
    }

    pub(super) fn release(&mut self, lease: &JobLease) {
        if let Some((known, until_ms)) = self.jobs.get_mut(&*lease.job)
            && known == lease
        {
            *until_ms = 0;
        }
    }
}
