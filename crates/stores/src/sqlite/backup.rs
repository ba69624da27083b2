//! `tidegate backup`: a consistent copy of a ledger, while a node writes to it at full load.
//!
//! Only short reads: a reader that stays open keeps the log from being reused. The parts of the copy are therefore of
//! different moments, and made to agree by what they are:
//!
//! 1. openings, and the position they are sealed for;
//! 2. the journal behind them, page by page, until its head is reached;
//! 3. the position through which folds are complete, and after it the folds, tenant by tenant, each with its users and
//!    history in one read. Rows are true for their own position, which is at or behind that one;
//!    So is `history`, page by page, each with the position that it is true for;
//! 4. the rest of the journal, through a head that is behind every row. From it all pages of history are brought to the
//!    position of the last one;
//! 5. snapshots, kept forecasts, keys and catalogs. The id index is made anew from the journal.
//!
//! If retention cuts the journal meanwhile, the copy begins anew.

use super::{
    backup_folds::{copy_denials, copy_folds, copy_forecasts, copy_openings, copy_snapshots},
    backup_history::CopiedHistory,
    checkpoint::COMPLETE_THROUGH,
    errors::{OrDamaged, unwritable},
    files,
    history::HISTORY_FROM_MS,
    ids::{self, IdIndex},
    reads,
    recover::CUT_THROUGH,
    retain::DENIALS_FROM_MS,
    schema, small,
};
use crate::{codec, verify::Progress};
use engine::ports::{LedgerError, Seq};
use rusqlite::{Connection, OpenFlags, params};
use std::{fs, path::Path, time::Duration};

/// Rows of the journal in one read.
const PAGE_ROWS: usize = 5_000;

/// How often a copy is begun anew because the journal was cut meanwhile.
const ATTEMPTS: usize = 5;

/// Idempotency keys stay in the copy's index until its own retention drops them.
const FOREVER_MS: i64 = 100 * 366 * domain::time::DAY_MS;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Entries.
    pub entries: u64,
    /// The last one.
    pub last: Seq,
    /// Tenants.
    pub tenants: u64,
    /// Size of the copy, bytes.
    pub bytes: u64,
}

/// Why an attempt ended.
pub(super) enum Ended {
    /// The journal was cut meanwhile.
    Cut,
    Failed(LedgerError),
}

impl From<LedgerError> for Ended {
    fn from(error: LedgerError) -> Self {
        Ended::Failed(error)
    }
}

/// Copies the ledger at `from`, which a node may be using, into a new file.
///
/// # Errors
/// [`LedgerError::Unopenable`] where `from` is no ledger or `to` is there already, [`LedgerError::Damaged`] where
/// something can't be read, [`LedgerError::Unwritable`] where the copy can't be written. No half copy is left at `to`.
pub fn backup(from: &Path, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, LedgerError> {
    files::check_exists(from)?;
    let source = reads::open(from).or_damaged()?;
    schema::check(&source, from)?;
    files::check_new(to)?;
    let partial = files::beside(to, ".partial");
    let result = copy(&source, &partial, progress).and_then(|mut report| {
        let failed = |error: std::io::Error| LedgerError::Unwritable(format!("{}: {error}", to.display()).into());
        fs::File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&partial, to).map_err(failed)?;
        files::sync_directory(to).map_err(failed)?;
        report.bytes = files::size(to);
        Ok(report)
    });
    if result.is_err() {
        remove(&partial);
    }
    result
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(files::beside(path, suffix));
    }
}

fn copy(source: &Connection, partial: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, LedgerError> {
    for _ in 0..ATTEMPTS {
        remove(partial);
        files::make(partial)?;
        match attempt(source, partial, progress) {
            Ok(report) => return Ok(report),
            Err(Ended::Cut) => tracing::info!("the journal was cut meanwhile: the copy begins anew"),
            Err(Ended::Failed(error)) => return Err(error),
        }
    }
    Err(LedgerError::Unwritable("retention cuts the journal faster than it can be copied".into()))
}

fn attempt(source: &Connection, partial: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, Ended> {
    let mut target = new_target(source, partial)?;
    let cut = schema::number(source, CUT_THROUGH).or_damaged()? as Seq;
    copy_openings(source, &target, cut)?;
    let (index, _) = IdIndex::open(&target, ids::Options::default())?;
    let mut journal = JournalCopy { source, cut, last: cut, newest_ms: 0, index, progress };
    journal.copy_through(&mut target, None)?;
    let complete_through = schema::number(source, COMPLETE_THROUGH).or_damaged()?;
    let tenants = copy_folds(source, &target)?;
    let history_from_ms = schema::number(source, HISTORY_FROM_MS).or_damaged()?;
    copy_denials(source, &target)?;
    let denials_from_ms = schema::number(source, DENIALS_FROM_MS).or_damaged()?;
    let history = CopiedHistory::read(source, &target)?;
    // Of a later moment than the folds: rows are facts of days that are over, and stand for themselves.
    copy_snapshots(source, &target)?;
    copy_forecasts(source, &target)?;
    copy_small(source, &target)?;
    let head = head(source)?.max(journal.last);
    journal.copy_through(&mut target, Some(head))?;
    journal.seal_ids(&mut target)?;
    history.catch_up(&target)?;
    schema::set_number(&target, COMPLETE_THROUGH, complete_through).or_unwritable()?;
    schema::set_number(&target, DENIALS_FROM_MS, denials_from_ms).or_unwritable()?;
    schema::set_number(&target, HISTORY_FROM_MS, history_from_ms).or_unwritable()?;
    let (entries, last) = (journal.last - cut, journal.last);
    drop(journal);
    target.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).or_unwritable()?;
    target.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).or_unwritable()?;
    target.close().map_err(|(_, error)| unwritable(&error))?;
    Ok(BackupReport { entries, last, tenants, bytes: 0 })
}

/// An empty ledger with the source's secret. It is synced once, when it is whole.
fn new_target(source: &Connection, path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(path, flags).or_unwritable()?;
    target
        .execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;")
        .or_unwritable()?;
    target.set_prepared_statement_cache_capacity(64);
    schema::prepare(&mut target, path)?;
    let secret = schema::secret(source)?;
    target.execute("UPDATE meta SET value = ?1 WHERE key = 'secret'", [&secret[..]]).or_unwritable()?;
    Ok(target)
}

fn head(source: &Connection) -> Result<Seq, LedgerError> {
    let head: Option<i64> = source.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0)).or_damaged()?;
    Ok(head.unwrap_or(0) as Seq)
}

fn copy_small(source: &Connection, target: &Connection) -> Result<(), LedgerError> {
    for catalog in small::catalogs(source)? {
        small::put_catalog(target, &catalog).or_unwritable()?;
    }
    for key in small::keys(source)? {
        small::put_key(target, &key).or_unwritable()?;
    }
    Ok(())
}

struct JournalCopy<'a> {
    source: &'a Connection,
    cut: Seq,
    last: Seq,
    newest_ms: i64,
    index: IdIndex,
    progress: &'a mut dyn FnMut(Progress),
}

impl JournalCopy<'_> {
    /// Copies through a position, or until the head is reached (or would never be).
    fn copy_through(&mut self, target: &mut Connection, through: Option<Seq>) -> Result<(), Ended> {
        let first_head = head(self.source)?;
        let enough = through.unwrap_or(first_head.saturating_add(first_head.saturating_sub(self.cut)));
        loop {
            let wanted = through.map_or(Seq::MAX, |through| through.saturating_sub(self.last));
            let limit = usize::try_from(wanted).unwrap_or(usize::MAX).min(PAGE_ROWS);
            let count = self.copy_page(target, limit)?;
            let total = through.unwrap_or(first_head).max(self.last) - self.cut;
            (self.progress)(Progress { done: self.last - self.cut, total });
            if count < PAGE_ROWS || self.last >= enough {
                return Ok(());
            }
        }
    }

    fn copy_page(&mut self, target: &mut Connection, limit: usize) -> Result<usize, Ended> {
        let transaction = target.transaction().or_unwritable()?;
        let (mut last, mut newest_ms, mut was_cut) = (self.last, self.newest_ms, false);
        let index = &self.index;
        let mut body = Vec::new();
        let mut insert = transaction
            .prepare_cached("INSERT INTO journal(seq, tenant, at_ms, body) VALUES (?1, ?2, ?3, ?4)")
            .or_unwritable()?;
        let (_, count) = reads::visit_journal(self.source, last, limit, |row| {
            was_cut |= row.seq != last + 1;
            if was_cut {
                return Ok(());
            }
            last = row.seq;
            newest_ms = newest_ms.max(row.at.ms());
            body.clear();
            body.extend_from_slice(row.body);
            codec::seal(&[row.tenant], &[row.seq as i64, row.at.ms()], &mut body);
            if let Ok(Some(binding)) = codec::decode_binding(row.body) {
                index.insert(binding.id, row.seq);
            }
            insert.execute(params![row.seq as i64, row.tenant, row.at.ms(), body]).or_unwritable().map(|_| ())
        })?;
        drop(insert);
        if was_cut || schema::number(self.source, CUT_THROUGH).or_damaged()? as Seq > last {
            return Err(Ended::Cut);
        }
        transaction.commit().or_unwritable()?;
        (self.last, self.newest_ms) = (last, newest_ms);
        self.index.maintain(target, last, newest_ms, FOREVER_MS, Duration::from_millis(20))?;
        Ok(count)
    }

    /// Writes what is left of the id index.
    fn seal_ids(&mut self, target: &mut Connection) -> Result<(), LedgerError> {
        while self.index.maintain(target, self.last, self.newest_ms, FOREVER_MS, Duration::from_secs(1))? {}
        Ok(())
    }
}
