//! `tidegate verify` of a ledger on PostgreSQL: every fold is made anew from openings and journal, and compared with the
//! tables. Nothing is changed, and nodes may go on writing.
//!
//! Tenants are taken in groups, each compared as of one snapshot, so that no snapshot is held for long. Of a tenant with
//! many entries those that its fold has are read before the snapshot: they don't change. If retention cuts the tenant's
//! journal meanwhile, the tenant is begun anew.

use super::{
    buckets, denials,
    errors::{Done, Failure},
    pool::{Conn, Pool},
    refold::{Kept, Refold, TotalRow},
    schema, snapshots, url,
    values::{Bits, get},
    verify_rows::{self as rows, Listed, PAGE_ROWS},
};
use crate::verify::{IDS_MAX, Progress, VerifyReport};
use domain::id::TenantId;
use engine::ports::{LedgerError, Seq};
use std::collections::BTreeMap;
use tokio_postgres::Row;

/// Entries of one group, about.
const GROUP_ENTRIES: u64 = 20_000;
/// Tenants of one group, at most.
const GROUP_TENANTS: usize = 100;
/// How often entries are read before the snapshot because the fold went on meanwhile, or was cut.
const ATTEMPTS: usize = 5;

const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Compares every fold of a ledger with its journal. Nodes may be at work on it.
///
/// # Errors
/// [`LedgerError::Unopenable`] where there is no ledger of this version; [`LedgerError::Unwritable`] where PostgreSQL can't
/// be asked. What is wrong inside the ledger is in the report.
pub async fn verify(url: &str, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, LedgerError> {
    let mut settings = url::parse(url)?;
    settings.config.application_name("tidegate verify");
    let pool = Pool::new(&settings)?;
    schema::check(&pool, &settings.schema).await?;
    let mut conn = pool.get().await?;
    let total = rows::entries_about(&mut conn).await?;
    let report = VerifyReport::default();
    let mut verification = Verification { conn, one_id_in: (total / IDS_MAX + 1).into(), total, report, progress };
    // What can't be read at all ends the comparison; it is a finding like others.
    match verification.run().await {
        Ok(()) => {}
        Err(Failure::Ledger(LedgerError::Damaged(why))) => verification.report.differs(why),
        Err(other) => return Err(other.into()),
    }
    let (done, report) = (verification.report.entries, verification.report);
    progress(Progress { done, total: done });
    Ok(report)
}

struct Verification<'a> {
    conn: Conn,
    /// Of so many ids one is looked up.
    one_id_in: u128,
    total: u64,
    report: VerifyReport,
    progress: &'a mut dyn FnMut(Progress),
}

/// Tenants of one group, in order.
type Group = BTreeMap<String, Refold>;

impl Verification<'_> {
    async fn run(&mut self) -> Done<()> {
        let (in_force, newest) = rows::catalogs(&mut self.conn).await?;
        if in_force != newest {
            self.report.differs(format_args!("catalog {in_force} is said to be in force, the newest is {newest}"));
        }
        let mut after = String::new();
        loop {
            let listed = rows::tenants(&mut self.conn, &after).await?;
            let Some(last) = listed.last() else {
                snapshots::check(&mut self.conn, &mut self.report).await?;
                return buckets::check(&mut self.conn, &mut self.report).await;
            };
            after.clone_from(&last.tenant);
            for group in groups(&listed) {
                self.group(group).await?;
            }
        }
    }

    async fn group(&mut self, listed: &[Listed]) -> Done<()> {
        let names: Vec<&str> = listed.iter().map(|listed| listed.tenant.as_str()).collect();
        let ahead = match listed {
            [one] if one.entries > GROUP_ENTRIES => self.ahead(&one.tenant).await?,
            _ => None,
        };
        self.conn.begin(SNAPSHOT).await?;
        let mut group = match ahead {
            // What was read ahead holds, unless its beginning was cut meanwhile.
            Some((group, cut)) if rows::positions(&mut self.conn, names[0]).await?.1 == cut => group,
            _ => self.opened(&names).await?,
        };
        self.compare(&names, &mut group).await?;
        self.conn.roll_back().await?;
        self.tell();
        Ok(())
    }

    fn tell(&mut self) {
        let done = self.report.entries;
        (self.progress)(Progress { done, total: self.total.max(done) });
    }

    /// Folds what is in a tenant's fold, in short reads; gives the position it is cut at as well. `None` where that moved
    /// each time.
    async fn ahead(&mut self, name: &str) -> Done<Option<(Group, Seq)>> {
        let before = self.report.clone();
        let mut known: Option<(Group, Seq)> = None;
        for _ in 0..ATTEMPTS {
            let (through, cut) = rows::positions(&mut self.conn, name).await?;
            let mut group = match known.take() {
                Some((group, cut_before)) if cut_before == cut => group,
                _ => {
                    self.report = before.clone();
                    self.conn.begin(SNAPSHOT).await?;
                    let group = self.opened(&[name]).await?;
                    self.conn.roll_back().await?;
                    group
                }
            };
            if self.stretch(name, &mut group, through).await? {
                return Ok(Some((group, cut)));
            }
            known = Some((group, cut));
        }
        self.report = before;
        Ok(None)
    }

    /// Folds entries through a position. True if few were missing, so that the rest can be read in one snapshot.
    async fn stretch(&mut self, name: &str, group: &mut Group, through: Seq) -> Done<bool> {
        let reached = |group: &Group| group.get(name).map_or(through, Refold::reached);
        if reached(group) + PAGE_ROWS as Seq >= through || group.values().any(|refold| refold.is_broken) {
            return Ok(true);
        }
        while reached(group) < through {
            let after = reached(group) as i64;
            let page = rows::stretch(&mut self.conn, name, after, through as i64).await?;
            // Otherwise it was cut, or is damaged: the next look tells.
            if page.first().map(|row| get::<i64>(row, 1)).transpose()? != Some(after + 1) {
                break;
            }
            self.fold(&page, group).await?;
            self.tell();
            if group.values().any(|refold| refold.is_broken) {
                break;
            }
        }
        Ok(false)
    }

    /// The openings of some tenants.
    async fn opened(&mut self, names: &[&str]) -> Done<Group> {
        let fresh = |name: &&str| ((*name).to_owned(), Refold::new(TenantId::trusted(name)));
        let mut group: Group = names.iter().map(fresh).collect();
        let mut after = (String::new(), String::new());
        loop {
            let page = rows::states(&mut self.conn, "openings", names, &after).await?;
            for row in &page {
                after = (get(row, 0)?, get(row, 1)?);
                if let Some(refold) = group.get_mut(&after.0) {
                    refold.open(&after.1, get(row, 2)?, get(row, 3)?, &mut self.report);
                }
            }
            if page.len() < PAGE_ROWS {
                break;
            }
        }
        let mut after = no_total();
        loop {
            let page = rows::totals(&mut self.conn, "opening_closed", names, &after).await?;
            let last = page.get(PAGE_ROWS - 1).cloned();
            for (tenant, row) in page {
                if let Some(refold) = group.get_mut(&tenant) {
                    refold.open_total(row);
                }
            }
            match last {
                Some(last) => after = last,
                None => return Ok(group),
            }
        }
    }

    /// Looks the ids of a page of entries up, and folds it.
    async fn fold(&mut self, page: &[Row], group: &mut Group) -> Done<()> {
        let (mut tenants, mut ids, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for row in page {
            let (tenant, seq, at_ms): (&str, i64, i64) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
            let id = group.get(tenant).and_then(|refold| refold.id_of(seq, at_ms, get(row, 3).ok()?));
            if let Some(id) = id.filter(|id| id % self.one_id_in == 0) {
                tenants.push(tenant);
                ids.push(Bits(id));
                places.push((seq as Seq, at_ms));
            }
        }
        if !ids.is_empty() {
            let found = rows::find(&mut self.conn, &tenants, &ids).await?;
            for (((tenant, id), (seq, at_ms)), found) in tenants.iter().zip(&ids).zip(places).zip(found) {
                if let Some(refold) = group.get_mut(*tenant) {
                    refold.note_id(seq, at_ms, id.0, found, &mut self.report);
                }
            }
        }
        for row in page {
            if let Some(refold) = group.get_mut(get::<&str>(row, 0)?) {
                refold.fold(get(row, 1)?, get(row, 2)?, get(row, 3)?, &mut self.report);
            }
        }
        Ok(())
    }

    /// Folds the entries of a group that are in folds, or those that are not; none that were read ahead.
    async fn fold_group(&mut self, names: &[&str], group: &mut Group, folded: bool) -> Done<()> {
        let first = group.first_key_value();
        let mut after = first.map_or_else(Default::default, |(name, refold)| (name.clone(), refold.reached() as i64));
        loop {
            let page = rows::entries(&mut self.conn, names, (&after.0, after.1), folded).await?;
            self.fold(&page, group).await?;
            let Some(last) = page.last().filter(|_| page.len() == PAGE_ROWS) else { return Ok(()) };
            after = (get(last, 0)?, get(last, 1)?);
        }
    }

    /// Compares a group as of the snapshot that was begun.
    async fn compare(&mut self, names: &[&str], group: &mut Group) -> Done<()> {
        let kept = rows::kept(&mut self.conn).await?;
        self.fold_group(names, group, true).await?;
        let tenants = rows::folds(&mut self.conn, names).await?;
        for row in &tenants {
            let fold = get::<Option<i64>>(row, 3)?.zip(get::<Option<&[u8]>>(row, 4)?);
            if let Some(refold) = group.get_mut(get::<&str>(row, 0)?) {
                refold.compare_fold(fold, &mut self.report);
            }
        }
        self.compare_users(names, group).await?;
        self.compare_totals(names, group, &kept).await?;
        group.values_mut().for_each(|refold| refold.compare_missing(&kept, &mut self.report));
        self.fold_group(names, group, false).await?;
        self.compare_denials(names, group, &kept).await?;
        for row in &tenants {
            if let Some(refold) = group.get(get::<&str>(row, 0)?) {
                refold.finish(get(row, 1)?, get(row, 2)?, &kept, &mut self.report);
            }
        }
        Ok(())
    }

    async fn compare_users(&mut self, names: &[&str], group: &mut Group) -> Done<()> {
        let mut after = (String::new(), String::new());
        loop {
            let page = rows::states(&mut self.conn, "user_folds", names, &after).await?;
            for row in &page {
                after = (get(row, 0)?, get(row, 1)?);
                if let Some(refold) = group.get_mut(&after.0) {
                    refold.compare_user(&after.1, get(row, 2)?, get(row, 3)?, &mut self.report);
                }
            }
            if page.len() < PAGE_ROWS {
                return Ok(());
            }
        }
    }

    async fn compare_totals(&mut self, names: &[&str], group: &mut Group, kept: &Kept) -> Done<()> {
        let mut after = no_total();
        loop {
            let page = rows::totals(&mut self.conn, "closed", names, &after).await?;
            for (tenant, row) in &page {
                if let Some(refold) = group.get_mut(tenant) {
                    refold.compare_total(row, kept, &mut self.report);
                }
            }
            match page.into_iter().nth(PAGE_ROWS - 1) {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    async fn compare_denials(&mut self, names: &[&str], group: &mut Group, kept: &Kept) -> Done<()> {
        let mut after = (String::new(), 0);
        loop {
            let page = denials::of_tenants(&mut self.conn, names, (&after.0, after.1), PAGE_ROWS).await?;
            for row in &page {
                after = (get(row, 1)?, get::<Bits>(row, 0)?.0);
                match denials::read(row) {
                    Ok(denial) => {
                        if let Some(refold) = group.get_mut(&after.0) {
                            refold.compare_denial(&denial, kept, &mut self.report);
                        }
                    }
                    Err(Failure::Ledger(LedgerError::Damaged(why))) => self.report.differs(why),
                    Err(other) => return Err(other),
                }
            }
            if page.len() < PAGE_ROWS {
                return Ok(());
            }
        }
    }
}

/// Consecutive tenants, few enough to be read in one snapshot.
fn groups(listed: &[Listed]) -> impl Iterator<Item = &[Listed]> {
    let mut rest = listed;
    std::iter::from_fn(move || {
        let mut entries = 0;
        let fits = |listed: &&Listed| {
            let is_first = entries == 0;
            entries += listed.entries.max(1);
            is_first || entries <= GROUP_ENTRIES
        };
        let count = rest.iter().take(GROUP_TENANTS).take_while(fits).count();
        let (group, after) = rest.split_at(count);
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}

/// Before all totals.
fn no_total() -> (String, TotalRow) {
    let none = Box::<str>::default();
    let (user, meter) = (none.clone(), none);
    (String::new(), TotalRow { user, start_ms: i64::MIN, kind: 0, meter, end_ms: 0, used: 0, denied: 0 })
}
