//! One tenant, folded anew from its opening and its entries, and compared with its rows.

use super::{queued::hour_of, reads::checked_entry};
use crate::{
    codec::{self, Malformed},
    denials::{RunFold, Runs, note_entry},
    rows::{listed_plan, read_tenant_row, read_user_row},
    verify::VerifyReport,
};
use domain::{
    entry::Entry,
    id::{TenantId, UserId},
    tenant::{ClosedTotal, Tenant, User},
    time::Instant,
};
use engine::ports::{DenialId, Seq, Stored, StoredDenial};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// What retention may have dropped already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) ids_from_hour: i32,
    pub(super) denials_from: Instant,
    pub(super) history_from: Instant,
}

/// A total of a closed window: its user (empty for the tenant's own), start, kind and meter; and its end and sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TotalRow {
    pub(super) user: Box<str>,
    pub(super) start_ms: i64,
    pub(super) kind: i16,
    pub(super) meter: Box<str>,
    pub(super) end_ms: i64,
    pub(super) used: i64,
    pub(super) denied: i64,
}

type Place = (Box<str>, i64, i16, Box<str>);

/// Something made anew, and whether its row was found.
struct Expected<T> {
    what: T,
    is_found: bool,
}

impl<T> Expected<T> {
    fn new(what: T) -> Self {
        Self { what, is_found: false }
    }
}

/// An id whose entry it does not lead to, unless it was dropped.
struct Lost {
    seq: Seq,
    hour: i32,
}

/// A tenant, folded anew.
pub(super) struct Refold {
    id: TenantId,
    /// The position behind which the journal is cut, and when that was.
    cut: Option<(Seq, Instant)>,
    tenant: Option<Stored<Tenant>>,
    users: FxHashMap<UserId, Expected<Stored<User>>>,
    history: BTreeMap<Place, Expected<TotalRow>>,
    runs: Runs,
    runs_found: FxHashSet<DenialId>,
    lost: Vec<Lost>,
    /// Positions that ids were bound to again, and those ids.
    rebound: FxHashMap<Seq, u128>,
    /// Whether something could not be read: what follows from it is not looked at.
    pub(super) is_broken: bool,
}

impl Refold {
    pub(super) fn new(id: TenantId) -> Self {
        Self {
            id,
            cut: None,
            tenant: None,
            users: FxHashMap::default(),
            history: BTreeMap::new(),
            runs: Runs::default(),
            runs_found: FxHashSet::default(),
            lost: Vec::new(),
            rebound: FxHashMap::default(),
            is_broken: false,
        }
    }

    /// The position of the last entry that was folded.
    pub(super) fn reached(&self) -> Seq {
        self.tenant.as_ref().map_or(0, |tenant| tenant.seq)
    }

    fn breaks(&mut self, report: &mut VerifyReport, what: impl std::fmt::Display) {
        self.is_broken = true;
        report.differs(format_args!("tenant {:?}: {what}", self.id));
    }

    /// Takes a row of the openings.
    pub(super) fn open(&mut self, user: &str, seq: i64, state: &[u8], report: &mut VerifyReport) {
        let read = if user.is_empty() {
            read_tenant_row(&self.id, seq, state).map(|stored| {
                self.cut = Some((stored.seq, stored.state.last));
                self.tenant = Some(stored);
            })
        } else {
            let user = UserId::trusted(user);
            read_user_row(&self.id, &user, seq, state).map(|stored| {
                self.users.insert(user, Expected::new(stored));
            })
        };
        if let Err(Malformed(why)) = read {
            self.breaks(report, format_args!("its opening (user {user:?}) can't be read: {why}"));
        }
    }

    /// Takes a total of the openings.
    pub(super) fn open_total(&mut self, row: TotalRow) {
        self.history.insert(place(&row), Expected::new(row));
    }

    /// The id that a row of the journal binds.
    pub(super) fn id_of(&self, seq: i64, at_ms: i64, body: &[u8]) -> Option<u128> {
        let body = checked_entry(self.id.as_str(), seq, at_ms, body).ok().filter(|_| !self.is_broken)?;
        codec::decode_binding(body).ok()?.map(|binding| binding.id)
    }

    /// Folds a row of the journal. Where its id leads was noted before.
    pub(super) fn fold(&mut self, seq: i64, at_ms: i64, body: &[u8], report: &mut VerifyReport) {
        if self.is_broken {
            return;
        }
        let read = checked_entry(self.id.as_str(), seq, at_ms, body)
            .and_then(|body| codec::decode_entry(Instant::from_ms(at_ms), body));
        let entry = match read {
            Ok(entry) => entry,
            Err(Malformed(why)) => {
                return self.breaks(report, format_args!("entry {seq} can't be read: {why}"));
            }
        };
        if self.reached() + 1 != seq as Seq {
            let next = self.reached() + 1;
            return self.breaks(report, format_args!("entries {next} to {} are missing", seq - 1));
        }
        report.entries += 1;
        self.fold_entry(seq as Seq, &entry, report);
        note_entry(&mut self.runs, seq as Seq, &self.id, &entry);
        if let Some(expected) = self.rebound.remove(&(seq as Seq))
            && entry.binding.map(|binding| binding.id) != Some(expected)
        {
            report.differs(format_args!("tenant {:?}: an id leads to entry {seq}, which does not bind it", self.id));
        }
    }

    fn fold_entry(&mut self, seq: Seq, entry: &Entry, report: &mut VerifyReport) {
        if self.tenant.is_none() {
            match Tenant::born(self.id.clone(), entry) {
                Some(state) => self.tenant = Some(Stored { state, seq: 0 }),
                None => return self.breaks(report, "its first entry gives no profile"),
            }
        }
        let Some(tenant) = &mut self.tenant else { return };
        tenant.seq = seq;
        let mut user = entry.user.as_ref().map(|id| {
            let fresh = || Expected::new(Stored { state: User::new(id.clone()), seq: 0 });
            let user = &mut self.users.entry(id.clone()).or_insert_with(fresh).what;
            user.seq = seq;
            user
        });
        tenant.state.fold(user.as_mut().map(|user| &mut user.state), entry);
        gain(&mut self.history, "", tenant.state.accounts.take_closed());
        if let Some(user) = user {
            let gained = user.state.accounts.take_closed();
            gain(&mut self.history, user.state.id.as_str(), gained);
        }
    }

    /// Notes where the id of an entry leads.
    pub(super) fn note_id(&mut self, seq: Seq, at_ms: i64, id: u128, found: Option<Seq>, report: &mut VerifyReport) {
        report.ids += 1;
        match found {
            Some(found) if found == seq => {}
            // What was bound again after its time leads to the later entry.
            Some(found) if found > seq => drop(self.rebound.insert(found, id)),
            Some(found) => {
                report.differs(format_args!("tenant {:?}: the id of entry {seq} leads to entry {found}", self.id));
            }
            None => self.lost.push(Lost { seq, hour: hour_of(at_ms) }),
        }
    }

    /// Compares the row of the tenant; everything through its position must have been folded, and nothing more.
    pub(super) fn compare_fold(&mut self, row: Option<(i64, &[u8])>, report: &mut VerifyReport) {
        let Some((seq, state)) = row else {
            if self.cut.is_some() {
                self.breaks(report, "its journal was cut, but it has no row");
            }
            return;
        };
        report.tenants += 1;
        match read_tenant_row(&self.id, seq, state) {
            Err(Malformed(why)) => self.breaks(report, format_args!("its row can't be read: {why}")),
            Ok(_) if self.is_broken => {}
            Ok(row) if row.seq != self.reached() => {
                self.breaks(report, format_args!("its row is of position {seq}, which is not its own"));
            }
            Ok(row) if self.tenant.as_ref().is_none_or(|tenant| tenant.state != row.state) => {
                let id = &self.id;
                report.differs(format_args!("tenant {id:?}: its row at {seq} differs from the fold of its entries"));
            }
            Ok(_) => {}
        }
    }

    /// Compares the row of a user.
    pub(super) fn compare_user(&mut self, user: &str, seq: i64, state: &[u8], report: &mut VerifyReport) {
        report.users += 1;
        let (tenant, id) = (&self.id, UserId::trusted(user));
        let row = read_user_row(tenant, &id, seq, state);
        let expected = self.users.get_mut(&id);
        match (row, expected) {
            (Err(Malformed(why)), expected) => {
                report.differs(format_args!("user {user:?} of {tenant:?} can't be read: {why}"));
                expected.into_iter().for_each(|expected| expected.is_found = true);
            }
            (Ok(_), _) if self.is_broken => {}
            (Ok(row), Some(expected)) => {
                expected.is_found = true;
                if row != expected.what {
                    report.differs(format_args!(
                        "user {user:?} of {tenant:?}: its row at {seq} differs from the fold of its entries"
                    ));
                }
            }
            (Ok(_), None) => report.differs(format_args!("user {user:?} of {tenant:?} has a row, but no entries")),
        }
    }

    /// Compares a total of a closed window.
    pub(super) fn compare_total(&mut self, row: &TotalRow, kept: &Kept, report: &mut VerifyReport) {
        report.closed += 1;
        let expected = self.history.get_mut(&place(row));
        let agrees = expected.is_some_and(|expected| {
            expected.is_found = true;
            expected.what == *row
        });
        if !agrees && !self.is_broken && row.end_ms >= kept.history_from.ms() {
            self.names_history(row, report);
        }
    }

    fn names_history(&self, row: &TotalRow, report: &mut VerifyReport) {
        let whose = match &*row.user {
            "" => format!("tenant {:?}", self.id),
            user => format!("user {user:?} of {:?}", self.id),
        };
        let (meter, start) = (&row.meter, Instant::from_ms(row.start_ms));
        report.differs(format_args!("{whose}: its history of {meter} since {start:?} differs from its entries"));
    }

    /// What has no row, though everything through the tenant's row must be in one.
    pub(super) fn compare_missing(&mut self, kept: &Kept, report: &mut VerifyReport) {
        if self.is_broken {
            return;
        }
        for (user, expected) in self.users.iter().filter(|(_, expected)| !expected.is_found) {
            let (tenant, seq) = (&self.id, expected.what.seq);
            report.differs(format_args!("user {user:?} of {tenant:?} has no row, but entries through {seq}"));
        }
        let is_lost =
            |expected: &&Expected<TotalRow>| !expected.is_found && expected.what.end_ms >= kept.history_from.ms();
        let lost: Vec<TotalRow> = self.history.values().filter(is_lost).map(|lost| lost.what.clone()).collect();
        lost.iter().for_each(|row| self.names_history(row, report));
    }

    /// Compares a denial; all entries must have been folded.
    pub(super) fn compare_denial(&mut self, row: &StoredDenial, kept: &Kept, report: &mut VerifyReport) {
        report.denials += 1;
        self.runs_found.insert(row.id);
        // Of a run whose beginning was cut or dropped, only a part can be made anew.
        let cut_at = self.cut.map_or(Instant::from_ms(i64::MIN), |(_, at)| at);
        let is_whole = row.run.first_at > cut_at && row.run.last_at >= kept.denials_from;
        let made = self.runs.get(&row.id).map(|run: &RunFold| run.stored(row.id));
        if is_whole && !self.is_broken && made.as_ref() != Some(row) {
            report.differs(format_args!("denial {} of tenant {:?}: its row differs from its entries", row.id, self.id));
        }
    }

    /// What must be so when all entries are folded and all denials compared.
    pub(super) fn finish(&self, version: Option<i64>, plan: Option<&str>, kept: &Kept, report: &mut VerifyReport) {
        let id = &self.id;
        for lost in self.lost.iter().filter(|lost| lost.hour >= kept.ids_from_hour) {
            report.differs(format_args!("tenant {id:?}: the id of entry {} is not in the index", lost.seq));
        }
        if self.is_broken {
            return;
        }
        for seq in self.rebound.keys() {
            report.differs(format_args!("tenant {id:?}: an id leads to entry {seq}, which is not there"));
        }
        for (denial, run) in self.runs.iter().filter(|(denial, _)| !self.runs_found.contains(denial)) {
            if run.run.last_at >= kept.denials_from {
                report.differs(format_args!("denial {denial} of {id:?} has no row"));
            }
        }
        match version {
            None => report.differs(format_args!("tenant {id:?} has rows, but is not listed")),
            Some(version) if version as Seq != self.reached() => {
                let reached = self.reached();
                report.differs(format_args!("tenant {id:?}: it is listed at {version}, its last entry is {reached}"));
            }
            Some(_) => {}
        }
        let known = self.tenant.as_ref().map(|tenant| listed_plan(&tenant.state.profile));
        let known = known.as_ref().map(|plan| plan.as_str());
        if version.is_some() && plan != known {
            report.differs(format_args!("tenant {id:?} is listed under plan {plan:?}, its entries say {known:?}"));
        }
    }
}

fn place(row: &TotalRow) -> Place {
    (row.user.clone(), row.start_ms, row.kind, row.meter.clone())
}

fn gain(history: &mut BTreeMap<Place, Expected<TotalRow>>, user: &str, gained: Vec<ClosedTotal>) {
    for ClosedTotal { meter, closed, used, denied } in gained {
        let row = TotalRow {
            user: user.into(),
            start_ms: closed.window.start.ms(),
            kind: closed.kind.index() as i16,
            meter: meter.as_str().into(),
            end_ms: closed.window.end.ms(),
            used: 0,
            denied: 0,
        };
        let total = &mut history.entry(place(&row)).or_insert_with(|| Expected::new(row)).what;
        total.end_ms = closed.window.end.ms();
        total.used = total.used.saturating_add(used);
        total.denied = total.denied.saturating_add(denied);
    }
}
