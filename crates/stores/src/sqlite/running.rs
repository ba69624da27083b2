//! An open file: its writer, its readers, its queue.

use super::{
    errors::OrDamaged,
    files,
    ids::IdIndex,
    ledger::SqliteOptions,
    log::Log,
    queue::Queue,
    reads::Readers,
    recover::{Recovered, recover},
    schema,
    writer::Writer,
};
use engine::ports::{LedgerError, TailLines};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicI64},
    thread::JoinHandle,
};

/// Ids are kept this long until retention says otherwise.
const FOREVER_MS: i64 = 100 * 366 * domain::time::DAY_MS;

/// What upkeep of the id index has to know.
pub(super) struct Times {
    /// How long an id stays bound.
    pub(super) dedupe_ms: AtomicI64,
    /// The newest instant the ledger was told of.
    pub(super) now_ms: AtomicI64,
    /// Before this instant it is no use looking for entries to cut.
    pub(super) cut_not_before_ms: AtomicI64,
}

pub(super) struct Running {
    pub(super) queue: Arc<Queue>,
    pub(super) readers: Readers,
    pub(super) ids: Arc<IdIndex>,
    pub(super) times: Arc<Times>,
    pub(super) secret: [u8; 32],
    /// The tail as it was when the file was opened, until it is taken.
    pub(super) tail: Mutex<TailLines>,
    log: Arc<Log>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    /// Opens the file, which is made where it is missing, unless it `must_exist`: one that vanishes while it is in use
    /// must not be replaced by an empty one.
    pub(super) fn open(path: &Path, options: &SqliteOptions, must_exist: bool) -> Result<Self, LedgerError> {
        match must_exist {
            true => files::check_exists(path)?,
            false => files::make(path)?,
        }
        let mut conn =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .or_damaged()?;
        schema::version_of(&conn, path)?;
        schema::prepare_writer(&conn).or_unwritable()?;
        if let Some(pages) = options.max_pages {
            conn.pragma_update(None, "max_page_count", pages).or_unwritable()?;
        }
        schema::prepare(&mut conn, path)?;
        settle_log(&conn)?;
        let secret = schema::secret(&conn)?;
        let (ids, ids_after) = IdIndex::open(&conn, options.ids)?;
        let Recovered { last, newest_ms, complete_through, denials, tail } = recover(&conn, &ids, ids_after)?;
        let ids = Arc::new(ids);
        let times = Arc::new(Times {
            dedupe_ms: FOREVER_MS.into(),
            now_ms: newest_ms.into(),
            cut_not_before_ms: AtomicI64::new(0),
        });
        let queue = Arc::new(Queue::new(last, complete_through, denials, options.queue_entries_max));
        let log = Log::new(options.log_pages);
        let copier = open_again(path)?;
        let copier_log = log.clone();
        let writer = Writer::new(conn, queue.clone(), ids.clone(), times.clone(), log.clone());
        let threads =
            vec![start("ledger", move || writer.run())?, start("ledger-log", move || copier_log.run(&copier))?];
        let readers = Readers::new(path);
        let threads = Mutex::new(threads);
        Ok(Self { queue, readers, ids, times, secret, tail: Mutex::new(tail), log, threads })
    }

    /// Commits what is queued, does the tasks that wait, and closes the file.
    pub(super) fn close(&self) {
        self.queue.stop();
        self.log.stop();
        // One that is idle would keep the log from being copied into the file when the writer closes it.
        self.readers.close();
        // The writer closes the file last.
        for thread in self.threads.lock().drain(..).rev() {
            // A writer that panicked has told everybody who waited.
            let _ = thread.join();
        }
        self.readers.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LedgerError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(|error| super::errors::unopenable(format_args!("its thread can't be started: {error}")))
}

/// A second connection that may write.
fn open_again(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).or_damaged()?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -64; PRAGMA journal_size_limit = 67108864;")
        .or_unwritable()?;
    Ok(conn)
}

/// Copies the log into the file and syncs it. What a process found in the log may never have reached the disk: it could
/// have died before the sync, or the sync could have failed.
fn settle_log(conn: &Connection) -> Result<(), LedgerError> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).or_unwritable()
}
