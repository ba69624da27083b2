//! A ledger in a file as the one that is copied, or that is being made by a copy.

use super::{
    buckets, closed, denials,
    errors::{OrDamaged, damaged_row, unopenable},
    files, forecasts,
    ids::{self, IdIndex},
    reads,
    recover::{CUT_THROUGH, recover},
    schema, small, snapshots,
};
use crate::{
    codec,
    copy::{BATCH_ROWS, CopiedHistory, EntryRow, Small, StateRow, States, TotalRow, Totals},
    denials::RunFold,
    rows::HistoryRow,
};
use engine::ports::{Days, DenialId, LedgerError, Lookup, Seq, Snapshot, StoredDenial};
use rusqlite::{Connection, OpenFlags, Row, params};
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

type Done<T> = Result<T, LedgerError>;

/// A ledger that is read, or made.
pub(crate) struct SqliteSide {
    pub(super) conn: Connection,
    path: PathBuf,
    _lock: files::Lock,
    /// The position behind which the journal is cut.
    pub(super) cut: i64,
    /// The positions of each tenant's entries.
    pub(super) places: FxHashMap<Box<str>, Vec<i64>>,
    /// Through where `places` is.
    placed: i64,
    /// Denials that are not in their table yet.
    tail_denials: BTreeMap<DenialId, RunFold>,
    pub(super) index: Option<IdIndex>,
    pub(super) newest_ms: i64,
}

impl SqliteSide {
    /// The ledger in a file, with nodes kept out.
    pub(crate) fn source(path: &Path) -> Done<Self> {
        files::check_exists(path)?;
        let lock = files::lock(path)?;
        let conn = reads::open(path).or_damaged()?;
        schema::check(&conn, path)?;
        let mut side = Self::with(conn, path, lock)?;
        let last = side.last()? as Seq;
        let index = IdIndex::open(&side.conn, ids::Options::default())?.0;
        side.tail_denials = recover(&side.conn, &index, last)?.denials.into_iter().collect();
        Ok(side)
    }

    /// A copy that is begun, or gone on with, beside `path`.
    pub(crate) fn target(path: &Path, secret: &[u8; 32], is_cut: bool) -> Done<Self> {
        files::check_new(path)?;
        let lock = files::lock(path)?;
        let beside = files::beside(path, ".copying");
        files::make(&beside)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&beside, flags).or_unwritable()?;
        schema::prepare_writer(&conn).or_unwritable()?;
        let is_new = schema::version_of(&conn, &beside)?.is_none();
        schema::prepare(&mut conn, &beside)?;
        if is_new {
            conn.execute("UPDATE meta SET value = ?1 WHERE key = 'secret'", [&secret[..]]).or_unwritable()?;
            schema::set_number(&conn, CUT_THROUGH, i64::from(is_cut)).or_unwritable()?;
        } else if schema::secret(&conn)? != *secret {
            return Err(unopenable(format_args!(
                "{} is the beginning of a copy of another ledger: remove it to begin anew",
                beside.display()
            )));
        }
        Self::with(conn, path, lock)
    }

    fn with(conn: Connection, path: &Path, lock: files::Lock) -> Done<Self> {
        let cut = schema::number(&conn, CUT_THROUGH).or_damaged()?;
        let path = path.to_owned();
        let (places, placed) = (FxHashMap::default(), cut);
        Ok(Self {
            conn,
            path,
            _lock: lock,
            cut,
            places,
            placed,
            tail_denials: BTreeMap::new(),
            index: None,
            newest_ms: 0,
        })
    }

    pub(super) fn last(&self) -> Done<i64> {
        let sql = "SELECT coalesce(max(seq), ?1) FROM journal";
        self.conn.query_row(sql, [self.cut], |row| row.get(0)).or_damaged()
    }

    fn base(&self) -> i64 {
        i64::from(self.cut > 0)
    }

    /// Learns where each tenant's entries are.
    pub(super) fn place_through(&mut self, through: i64) -> Done<()> {
        if self.placed >= through {
            return Ok(());
        }
        let sql = "SELECT seq, tenant FROM journal WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";
        let mut statement = self.conn.prepare_cached(sql).or_damaged()?;
        let mut rows = statement.query([self.placed, through]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let seq: i64 = row.get(0).or_damaged()?;
            let tenant = row.get_ref(1).or_damaged()?;
            let tenant =
                tenant.as_str().map_err(|_| damaged_row(format_args!("entry {seq}"), "its tenant is no text"))?;
            match self.places.get_mut(tenant) {
                Some(places) => places.push(seq),
                None => drop(self.places.insert(tenant.into(), vec![seq])),
            }
        }
        self.placed = through;
        Ok(())
    }

    /// The neutral position of a place in the file.
    fn neutral(&self, tenant: &str, seq: i64) -> i64 {
        let places = self.places.get(tenant).map_or(&[][..], Vec::as_slice);
        self.base() + places.partition_point(|place| *place <= seq) as i64
    }

    /// The place in the file of a neutral position.
    pub(super) fn place(&self, tenant: &str, neutral: i64) -> i64 {
        let number = usize::try_from(neutral - self.base() - 1).ok();
        number.and_then(|number| self.places.get(tenant)?.get(number).copied()).unwrap_or(self.cut)
    }

    pub(crate) fn count(&mut self) -> Done<u64> {
        Ok((self.last()? - self.cut) as u64)
    }

    pub(crate) fn rows(&mut self) -> Done<u64> {
        let tables = ["tenants", "users", "openings", "closed", "opening_closed", "denials", "snapshots", "history"];
        let counts = tables.map(|table| format!("(SELECT count(*) FROM {table})"));
        let sql = format!("SELECT {}", counts.join(" + "));
        self.conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(|count| count as u64).or_damaged()
    }

    pub(crate) fn is_cut(&mut self) -> Done<bool> {
        Ok(self.cut > 0)
    }

    pub(crate) fn entries(&mut self, after: u64, limit: usize) -> Done<Vec<EntryRow>> {
        let begin = self.cut + after as i64;
        self.place_through(begin + limit as i64)?;
        let mut rows = Vec::with_capacity(limit);
        let mut next = begin as Seq;
        reads::visit_journal(&self.conn, begin as Seq, limit, |row| {
            next += 1;
            if row.seq != next {
                return Err(damaged_row(format_args!("entries {next} to {}", row.seq - 1), "they are missing"));
            }
            let seq = self.neutral(row.tenant, row.seq as i64);
            rows.push(EntryRow { tenant: row.tenant.into(), seq, at_ms: row.at.ms(), body: row.body.to_vec() });
            Ok(())
        })?;
        Ok(rows)
    }

    pub(crate) fn states(&mut self, table: States, after: Option<&StateRow>) -> Done<Vec<StateRow>> {
        self.place_through(self.last()?)?;
        let sql = match table {
            States::Tenants => {
                "SELECT tenant, '', seq, body FROM tenants WHERE tenant > ?1 AND ?2 IS NOT NULL
                 ORDER BY tenant LIMIT ?3"
            }
            States::Users => {
                "SELECT tenant, user, seq, body FROM users WHERE (tenant, user) > (?1, ?2)
                 ORDER BY tenant, user LIMIT ?3"
            }
            States::Openings => {
                "SELECT tenant, user, seq, body FROM openings WHERE (tenant, user) > (?1, ?2)
                 ORDER BY tenant, user LIMIT ?3"
            }
        };
        let (tenant, user) = after.map_or(("", ""), |row| (&*row.tenant, &*row.user));
        let mut statement = self.conn.prepare_cached(sql).or_damaged()?;
        let mut rows = statement.query(params![tenant, user, BATCH_ROWS as i64]).or_damaged()?;
        let mut states = Vec::new();
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, user): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
            let (seq, body) = reads::seq_and_body(row, 2)?;
            let body = codec::checked(&names(&tenant, &user), &[seq], body)
                .map_err(|why| damaged_row(format_args!("{table:?}: {tenant:?} {user:?}"), why.0))?;
            let (seq, body) = (self.neutral(&tenant, seq), body.to_vec());
            states.push(StateRow { tenant: tenant.into(), user: user.into(), seq, body });
        }
        Ok(states)
    }

    pub(crate) fn totals(&mut self, table: Totals, after: Option<&TotalRow>) -> Done<Vec<TotalRow>> {
        let name = match table {
            Totals::Live => "closed",
            Totals::Opening => "opening_closed",
        };
        let sql = format!(
            "SELECT tenant, user, start_ms, kind, meter, end_ms, used, denied, checksum FROM {name}
             WHERE (tenant, user, start_ms, kind, meter) > (?1, ?2, ?3, ?4, ?5)
             ORDER BY tenant, user, start_ms, kind, meter LIMIT ?6"
        );
        let (tenant, user, meter) = after.map_or(("", "", ""), |row| (&*row.tenant, &*row.user, &*row.meter));
        let (start_ms, kind) = after.map_or((i64::MIN, 0), |row| (row.start_ms, row.kind));
        let mut statement = self.conn.prepare_cached(&sql).or_damaged()?;
        let limit = BATCH_ROWS as i64;
        let mut rows = statement.query(params![tenant, user, start_ms, kind, meter, limit]).or_damaged()?;
        let mut totals = Vec::new();
        while let Some(row) = rows.next().or_damaged()? {
            totals.push(total(row)?);
        }
        Ok(totals)
    }

    pub(crate) fn denials(&mut self, after: u128) -> Done<Vec<StoredDenial>> {
        let sql = "SELECT id, tenant, first_seq, seq, body FROM denials WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql).or_damaged()?;
        let mut rows = statement.query(params![after.to_be_bytes(), BATCH_ROWS as i64]).or_damaged()?;
        let mut folds = BTreeMap::new();
        while let Some(row) = rows.next().or_damaged()? {
            let (id, fold) = denials::read_row(row)?;
            folds.insert(id, fold);
        }
        // What is in the tail alone counts as well, as far as this batch goes.
        let is_last = folds.len() < BATCH_ROWS;
        let through = folds.last_key_value().filter(|_| !is_last).map_or(DenialId(u128::MAX), |(id, _)| *id);
        for (id, tail) in self.tail_denials.range(DenialId(after)..=through).filter(|(id, _)| id.0 > after) {
            folds.entry(*id).and_modify(|fold| fold.add(tail)).or_insert_with(|| tail.clone());
        }
        Ok(folds.iter().take(BATCH_ROWS).map(|(id, fold)| fold.stored(*id)).collect())
    }

    pub(crate) fn snapshots(&mut self, after: Option<&Snapshot>) -> Done<Vec<Snapshot>> {
        snapshots::after(&self.conn, after, BATCH_ROWS)
    }

    pub(crate) fn history(&mut self, after: Option<&HistoryRow>) -> Done<Vec<HistoryRow>> {
        buckets::after(&self.conn, after, BATCH_ROWS)
    }

    pub(crate) fn small(&mut self) -> Done<Small> {
        let (catalogs, keys) = (small::catalogs(&self.conn)?, small::keys(&self.conn)?);
        let runs = snapshots::runs(&self.conn, Days::ALL)?;
        let (scores, growth) = (forecasts::scores(&self.conn)?, forecasts::growth(&self.conn)?);
        let state = buckets::state(&self.conn).or_damaged()?;
        let entries = (state.through as i64).min(self.last()?).saturating_sub(self.cut).max(0) as u64;
        let history = CopiedHistory { entries, at: state.at, kept: state.kept };
        Ok(Small { secret: schema::secret(&self.conn)?, catalogs, keys, runs, scores, growth, history })
    }

    pub(crate) fn find(&mut self, ids: &[(&str, u128)]) -> Done<Vec<Option<i64>>> {
        if self.index.is_none() {
            self.index = Some(IdIndex::open(&self.conn, ids::Options::default())?.0);
        }
        let Some(index) = &self.index else { return Ok(Vec::new()) };
        let find = |(tenant, id): &(&str, u128)| {
            let found = match index.find(*id) {
                Lookup::Bound(seq) => Some(seq),
                Lookup::Fresh => None,
                Lookup::Unsure { .. } => index.find_on_disk(&self.conn, *id)?,
            };
            Ok(found.map(|seq| self.neutral(tenant, seq as i64)))
        };
        ids.iter().map(find).collect()
    }

    pub(crate) fn finish(&mut self) -> Done<()> {
        let beside = files::beside(&self.path, ".copying");
        self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).or_unwritable()?;
        self.index = None;
        let memory = Connection::open_in_memory().or_unwritable()?;
        let conn = std::mem::replace(&mut self.conn, memory);
        conn.close().map_err(|(_, error)| super::errors::unwritable(&error))?;
        let failed =
            |error: std::io::Error| LedgerError::Unwritable(format!("{}: {error}", self.path.display()).into());
        fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&beside, &self.path).map_err(failed)?;
        files::sync_directory(&self.path).map_err(failed)
    }
}

pub(super) fn names<'a>(tenant: &'a str, user: &'a str) -> Vec<&'a str> {
    [tenant, user].into_iter().filter(|name| !name.is_empty()).collect()
}

fn total(row: &Row<'_>) -> Done<TotalRow> {
    let (tenant, user): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
    let read = closed::read(&tenant, &user, row, 2)?;
    Ok(TotalRow {
        start_ms: read.closed.window.start.ms(),
        kind: read.closed.kind.index() as i16,
        meter: read.meter.as_str().into(),
        end_ms: read.closed.window.end.ms(),
        used: read.used,
        denied: read.denied,
        tenant: tenant.into(),
        user: user.into(),
    })
}
