//! Some of the tenants, folded anew and compared.

use super::{
    checkpoint::{COMPLETE_THROUGH, read_tenant_row, read_user_row},
    denials,
    errors::{OrDamaged, damaged_row},
    history::HISTORY_FROM_MS,
    openings,
    reads::{JournalRow, seq_and_body},
    retain::DENIALS_FROM_MS,
    schema,
    verify::live_totals,
};
use crate::{
    denials::{RunFold, Runs, add_to, note_entry},
    rows::listed_plan,
    verify::VerifyReport,
};
use domain::{
    id::{MeterKey, TenantId, UserId},
    tenant::{ClosedTotal, Tenant, User},
    time::Instant,
};
use engine::ports::{ClosedRow, DenialId, LedgerError, Seq, Stored};
use rusqlite::Connection;
use rustc_hash::{FxHashMap, FxHasher};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

/// Totals of closed windows, in the order in which they are listed.
type History = BTreeMap<(Instant, usize, MeterKey), ClosedRow>;

/// A state made anew, with the row it has to agree with.
struct Folded<T> {
    stored: Stored<T>,
    history: History,
    /// The last entry that must be in the row.
    covered: Seq,
    /// The position of the row, once it was compared.
    compared_at: Option<Seq>,
}

type UserKey = (TenantId, UserId);

/// Rows of the table that were not compared yet.
struct Rows<K, T>(FxHashMap<K, Stored<T>>);

pub(super) struct Part<'a> {
    conn: &'a Connection,
    part: u64,
    parts: u64,
    cut: Seq,
    complete_through: Seq,
    denials_from: Instant,
    history_from: Instant,
    tenants: FxHashMap<TenantId, Folded<Tenant>>,
    users: FxHashMap<UserKey, Folded<User>>,
    tenant_rows: Rows<TenantId, Tenant>,
    user_rows: Rows<UserKey, User>,
    runs: Runs,
    run_rows: FxHashMap<DenialId, RunFold>,
}

impl<'a> Part<'a> {
    /// The openings and the rows of the tenants of this part.
    pub(super) fn load(
        conn: &'a Connection,
        part: u64,
        parts: u64,
        report: &mut VerifyReport,
    ) -> Result<Self, LedgerError> {
        let mut loaded = Self {
            conn,
            part,
            parts,
            cut: report.cut_through,
            complete_through: (schema::number(conn, COMPLETE_THROUGH).or_damaged()? as Seq).max(report.cut_through),
            denials_from: Instant::from_ms(schema::number(conn, DENIALS_FROM_MS).or_damaged()?),
            history_from: Instant::from_ms(schema::number(conn, HISTORY_FROM_MS).or_damaged()?),
            tenants: FxHashMap::default(),
            users: FxHashMap::default(),
            tenant_rows: Rows(FxHashMap::default()),
            user_rows: Rows(FxHashMap::default()),
            runs: Runs::default(),
            run_rows: FxHashMap::default(),
        };
        loaded.load_rows(report)?;
        loaded.load_denials(report)?;
        loaded.load_openings(report)?;
        Ok(loaded)
    }

    fn is_here(&self, tenant: &str) -> bool {
        let mut hasher = FxHasher::default();
        tenant.hash(&mut hasher);
        self.parts == 1 || hasher.finish() % self.parts == self.part
    }

    fn load_rows(&mut self, report: &mut VerifyReport) -> Result<(), LedgerError> {
        let mut statement = self.conn.prepare("SELECT tenant, plan, seq, body FROM tenants").or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (id, plan): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
            if !self.is_here(&id) {
                continue;
            }
            let id = TenantId::trusted(&id);
            let (seq, body) = seq_and_body(row, 2)?;
            match read_tenant_row(&id, seq, body) {
                Ok(stored) => {
                    if listed_plan(&stored.state.profile).as_str() != plan {
                        report.differs(format_args!("tenant {id:?}: its row is listed under plan {plan:?}"));
                    }
                    self.tenant_rows.0.insert(id, stored);
                }
                Err(why) => report.differs(format_args!("tenant {id:?} can't be read: {}", why.0)),
            }
        }
        let mut statement = self.conn.prepare("SELECT tenant, user, seq, body FROM users").or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, id): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
            if !self.is_here(&tenant) {
                continue;
            }
            let key = (TenantId::trusted(&tenant), UserId::trusted(&id));
            let (seq, body) = seq_and_body(row, 2)?;
            match read_user_row(&key.0, &key.1, seq, body) {
                Ok(stored) => {
                    self.user_rows.0.insert(key, stored);
                }
                Err(why) => report.differs(format_args!("user {id:?} of {tenant:?} can't be read: {}", why.0)),
            }
        }
        Ok(())
    }

    fn load_denials(&mut self, report: &mut VerifyReport) -> Result<(), LedgerError> {
        let mut statement = self.conn.prepare("SELECT id, tenant, first_seq, seq, body FROM denials").or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            match denials::read_row(row) {
                Ok((id, run)) if self.is_here(run.tenant.as_str()) => {
                    self.run_rows.insert(id, run);
                }
                Ok(_) => {}
                Err(error) if self.part == 0 => report.differs(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn load_openings(&mut self, report: &mut VerifyReport) -> Result<(), LedgerError> {
        let conn = self.conn;
        let mut statement = conn.prepare("SELECT tenant, user, seq, body FROM openings").or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, user): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
            if !self.is_here(&tenant) {
                continue;
            }
            let history: History =
                openings::closed_of(conn, &tenant, &user)?.into_iter().map(|row| (place(&row), row)).collect();
            let (seq, body) = seq_and_body(row, 2)?;
            let damaged =
                |why: crate::codec::Malformed| damaged_row(format_args!("the opening of {tenant:?} {user:?}"), why.0);
            let id = TenantId::trusted(&tenant);
            let covered = seq as Seq;
            if user.is_empty() {
                let stored = read_tenant_row(&id, seq, body).map_err(damaged)?;
                let mut folded = Folded { stored, history, covered, compared_at: None };
                self.tenant_rows.compare(conn, &id, &mut folded, self.history_from, report)?;
                self.tenants.insert(id, folded);
            } else {
                let user = UserId::trusted(&user);
                let stored = read_user_row(&id, &user, seq, body).map_err(damaged)?;
                let mut folded = Folded { stored, history, covered, compared_at: None };
                let key = (id, user);
                self.user_rows.compare(conn, &key, &mut folded, self.history_from, report)?;
                self.users.insert(key, folded);
            }
        }
        Ok(())
    }

    /// Folds an entry, if it is of a tenant of this part.
    pub(super) fn fold(&mut self, row: &JournalRow<'_>, report: &mut VerifyReport) -> Result<(), LedgerError> {
        if !self.is_here(row.tenant) {
            return Ok(());
        }
        let entry = row.entry()?;
        let id = TenantId::trusted(row.tenant);
        if !self.tenants.contains_key(&id) {
            let state = Tenant::born(id.clone(), &entry).ok_or_else(|| {
                damaged_row(format_args!("entry {}", row.seq), "it is its tenant's first and gives no profile")
            })?;
            self.tenants.insert(id.clone(), Folded::new(state));
        }
        let Some(tenant) = self.tenants.get_mut(&id) else { return Ok(()) };
        let mut user = entry.user.as_ref().map(|user| {
            let key = (id.clone(), user.clone());
            self.users.entry(key).or_insert_with(|| Folded::new(User::new(user.clone())))
        });
        tenant.stored.state.fold(user.as_mut().map(|user| &mut user.stored.state), &entry);
        let covers = row.seq <= self.complete_through;
        let gained = tenant.stored.state.accounts.take_closed();
        tenant.moved(row.seq, covers, gained);
        self.tenant_rows.compare(self.conn, &id, tenant, self.history_from, report)?;
        if let Some(user) = user {
            let gained = user.stored.state.accounts.take_closed();
            user.moved(row.seq, covers, gained);
            let key = (id.clone(), user.stored.state.id.clone());
            self.user_rows.compare(self.conn, &key, user, self.history_from, report)?;
        }
        self.fold_denials(row.seq, &id, &entry, report);
        Ok(())
    }

    fn fold_denials(&mut self, seq: Seq, tenant: &TenantId, entry: &domain::entry::Entry, report: &mut VerifyReport) {
        let mut noted = Runs::default();
        note_entry(&mut noted, seq, tenant, entry);
        for (id, run) in noted {
            add_to(&mut self.runs, id, run);
            if self.run_rows.get(&id).is_none_or(|row| row.seq != seq) {
                continue;
            }
            let (Some(row), Some(run)) = (self.run_rows.remove(&id), self.runs.get(&id)) else { continue };
            report.denials += 1;
            // Of a run whose beginning was cut or dropped, only a part can be made anew.
            let whole = row.first_seq > self.cut && row.run.last_at >= self.denials_from;
            if whole && row != *run {
                report.differs(format_args!("denial {id} of {tenant:?}: its row differs from its entries"));
            }
        }
    }

    /// What is left over: rows without entries, entries without rows.
    pub(super) fn finish(self, report: &mut VerifyReport) -> Result<(), LedgerError> {
        self.tenant_rows.finish(&self.tenants, report);
        self.user_rows.finish(&self.users, report);
        for (id, row) in &self.run_rows {
            if row.seq > self.cut && row.run.last_at >= self.denials_from {
                report
                    .differs(format_args!("denial {id}: its row is of position {}, which does not add to it", row.seq));
            }
        }
        let complete_through = self.complete_through;
        for (id, run) in self.runs.iter().filter(|(_, run)| run.seq <= complete_through) {
            let kept = run.run.last_at >= self.denials_from;
            if kept && denials::seq_of(self.conn, *id)?.is_none() {
                report.differs(format_args!("denial {id} of {:?} has no row", run.tenant));
            }
        }
        Ok(())
    }
}

fn place(row: &ClosedRow) -> (Instant, usize, MeterKey) {
    (row.closed.window.start, row.closed.kind.index(), row.meter.clone())
}

impl<T> Folded<T> {
    fn new(state: T) -> Self {
        Self { stored: Stored { state, seq: 0 }, history: History::new(), covered: 0, compared_at: None }
    }

    fn moved(&mut self, seq: Seq, covers: bool, gained: Vec<ClosedTotal>) {
        self.stored.seq = seq;
        if covers {
            self.covered = seq;
        }
        for ClosedTotal { meter, closed, used, denied } in gained {
            let row = ClosedRow { meter, closed, used: 0, denied: 0 };
            let total = self.history.entry(place(&row)).or_insert(row);
            total.closed.window.end = closed.window.end;
            total.used = total.used.saturating_add(used);
            total.denied = total.denied.saturating_add(denied);
        }
    }
}

/// What the two tables of folds have in common.
trait Key: Hash + Eq {
    fn names(&self) -> (&str, &str);
    fn show(&self) -> String {
        match self.names() {
            (tenant, "") => format!("tenant {tenant:?}"),
            (tenant, user) => format!("user {user:?} of {tenant:?}"),
        }
    }
    fn count(&self, report: &mut VerifyReport) {
        match self.names() {
            (_, "") => report.tenants += 1,
            _ => report.users += 1,
        }
    }
}

impl Key for TenantId {
    fn names(&self) -> (&str, &str) {
        (self.as_str(), "")
    }
}

impl Key for UserKey {
    fn names(&self) -> (&str, &str) {
        (self.0.as_str(), self.1.as_str())
    }
}

impl<K: Key, T: PartialEq> Rows<K, T> {
    /// Compares a row with the fold, once that has come to the row's position.
    fn compare(
        &mut self,
        conn: &Connection,
        key: &K,
        folded: &mut Folded<T>,
        history_from: Instant,
        report: &mut VerifyReport,
    ) -> Result<(), LedgerError> {
        if self.0.get(key).is_none_or(|row| row.seq != folded.stored.seq) {
            return Ok(());
        }
        let Some(row) = self.0.remove(key) else { return Ok(()) };
        key.count(report);
        folded.compared_at = Some(row.seq);
        if row.state != folded.stored.state {
            report.differs(format_args!("{}: its row at {} differs from the fold of its entries", key.show(), row.seq));
        }
        let (tenant, user) = key.names();
        match live_totals(conn, tenant, user) {
            Ok(totals) => {
                report.closed += totals.len() as u64;
                // What is older may be dropped already, or not yet.
                let kept = |total: &&ClosedRow| total.closed.window.end >= history_from;
                if !totals.iter().filter(kept).eq(folded.history.values().filter(kept)) {
                    report.differs(format_args!("{}: its history at {} differs from its entries", key.show(), row.seq));
                }
            }
            Err(error) => report.differs(error),
        }
        Ok(())
    }

    fn finish(&self, folded: &FxHashMap<K, Folded<T>>, report: &mut VerifyReport) {
        for (key, row) in &self.0 {
            report.differs(format_args!("{}: its row is of position {}, which is not its own", key.show(), row.seq));
        }
        for (key, folded) in folded.iter().filter(|(key, folded)| folded.covered > 0 && !self.0.contains_key(key)) {
            let covered = folded.covered;
            match folded.compared_at {
                Some(at) if at >= covered => {}
                Some(at) => report.differs(format_args!("{}: its row ends at {at}, before {covered}", key.show())),
                None => {
                    report.differs(format_args!("{} has no readable row, but entries through {covered}", key.show()))
                }
            }
        }
    }
}
