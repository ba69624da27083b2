//! A spool in a file: an SQLite database of its own (WAL, `synchronous=FULL`), held by one process, written by one thread
//! that commits whatever waits. So what was told of survives the process and a power cut, and a line that was being
//! written when they came is not there.
//!
//! It belongs to one ledger: what passed on another is never recorded in this one.

mod lines;
mod writer;

use crate::sqlite::{
    errors::{OrDamaged, unopenable},
    files,
};
use engine::ports::{Commit, LedgerError, Spool, SpoolLine};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use siphasher::sip::SipHasher13;
use std::{
    fmt,
    hash::Hasher,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};
use tokio::sync::oneshot;
use writer::{Work, Writer};

/// How many lines a spool may have. One is about 200 bytes, in the file and in memory.
pub const LINES_MAX: u64 = 200_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta(format INTEGER NOT NULL, ledger INTEGER NOT NULL);
-- What passed (given_back = 0), and ids of what passed and is given back. Those with a reason were set aside.
CREATE TABLE IF NOT EXISTS lines(
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    given_back INTEGER NOT NULL,
    body BLOB NOT NULL,
    set_aside TEXT
);
";
const FORMAT: i64 = 1;

/// What the spool and its writer share.
struct Shared {
    /// The last durable line.
    durable: AtomicU64,
    lines: AtomicU64,
    /// Lines that could not be written, as stretches in order: first and last.
    lost: Mutex<Vec<(u64, u64)>>,
}

impl Shared {
    fn lose(&self, number: u64) {
        let mut lost = self.lost.lock();
        match lost.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => lost.push((number, number)),
        }
    }
}

/// A spool in a file.
pub struct FileSpool {
    shared: Arc<Shared>,
    lines_max: u64,
    found: Mutex<Vec<(u64, SpoolLine)>>,
    /// The next number, and the way to the writer: lines are sent in the order of their numbers.
    queue: Mutex<Queue>,
    writer: Option<thread::JoinHandle<()>>,
}

struct Queue {
    next: u64,
    work: Option<mpsc::Sender<Work>>,
}

impl fmt::Debug for FileSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSpool").field("lines", &self.shared.lines).finish_non_exhaustive()
    }
}

impl FileSpool {
    /// Opens the spool of the ledger with this secret, or makes one. The file is held until this is dropped.
    ///
    /// # Errors
    /// [`LedgerError::Unopenable`] where the file can't be used or another process has it, [`LedgerError::Damaged`] where
    /// a line can't be read.
    pub fn open(path: &Path, secret: &[u8; 32], lines_max: u64) -> Result<Arc<Self>, LedgerError> {
        let lock = files::lock(path)?;
        files::make(path)?;
        let conn = Connection::open(path).map_err(|error| unopenable(format_args!("{}: {error}", path.display())))?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").or_damaged()?;
        conn.execute_batch(TABLES).or_damaged()?;
        belongs(&conn, path, ledger_of(secret))?;
        files::sync_directory(path)
            .map_err(|error| unopenable(format_args!("the directory of {}: {error}", path.display())))?;
        let found = lines::read(&conn)?;
        let (last, count): (i64, i64) = conn
            .query_row("SELECT coalesce(max(number), 0), count(*) FROM lines", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .or_damaged()?;
        let (last, count) = (u64::try_from(last).unwrap_or(0), u64::try_from(count).unwrap_or(0));
        let shared =
            Arc::new(Shared { durable: AtomicU64::new(last), lines: AtomicU64::new(count), lost: Mutex::default() });
        let (work, waiting) = mpsc::channel();
        let writer = Writer { conn, waiting, shared: shared.clone(), _lock: lock };
        let writer = thread::Builder::new()
            .name("tidegate-spool".into())
            .spawn(|| writer.run())
            .map_err(|error| unopenable(format_args!("no thread could be started: {error}")))?;
        Ok(Arc::new(Self {
            shared,
            lines_max,
            found: Mutex::new(found),
            queue: Mutex::new(Queue { next: last + 1, work: Some(work) }),
            writer: Some(writer),
        }))
    }

    fn send(&self, queue: &Queue, work: Work) -> Result<(), LedgerError> {
        let gone = || LedgerError::Unwritable("the spool is closed".into());
        queue.work.as_ref().ok_or_else(gone)?.send(work).map_err(|_| gone())
    }
}

impl Drop for FileSpool {
    /// What was sent is written.
    fn drop(&mut self) {
        self.queue.lock().work = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Spool for FileSpool {
    fn lines(&self) -> Result<Vec<(u64, SpoolLine)>, LedgerError> {
        Ok(std::mem::take(&mut *self.found.lock()))
    }

    fn append(&self, line: SpoolLine) -> Result<(u64, Commit), LedgerError> {
        if self.shared.lines.load(Ordering::Acquire) >= self.lines_max {
            return Err(LedgerError::Unwritable("the spool is full".into()));
        }
        let (done, waiting) = oneshot::channel();
        let mut queue = self.queue.lock();
        let number = queue.next;
        self.send(&queue, Work::Line { number, line, done })?;
        queue.next += 1;
        self.shared.lines.fetch_add(1, Ordering::AcqRel);
        Ok((number, Commit::Waiting(waiting)))
    }

    fn flushed(&self) -> Commit {
        let (done, waiting) = oneshot::channel();
        // If nobody takes it the spool is closed, and the commit says so.
        let _ = self.send(&self.queue.lock(), Work::Nothing { done });
        Commit::Waiting(waiting)
    }

    fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    fn is_lost(&self, number: u64) -> bool {
        self.shared.lost.lock().iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    fn settle(&self, recorded: Vec<u64>, set_aside: Vec<(u64, String)>) -> Commit {
        let (done, waiting) = oneshot::channel();
        let _ = self.send(&self.queue.lock(), Work::Settle { recorded, set_aside, done });
        Commit::Waiting(waiting)
    }
}

/// Names a ledger without telling its secret.
fn ledger_of(secret: &[u8; 32]) -> i64 {
    let mut hasher = SipHasher13::new_with_keys(0x7370_6f6f_6c20_6f66, 0x2061_206c_6564_6765);
    hasher.write(secret);
    hasher.finish() as i64
}

fn belongs(conn: &Connection, path: &Path, ledger: i64) -> Result<(), LedgerError> {
    let known: Option<(i64, i64)> = conn
        .query_row("SELECT format, ledger FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .or_damaged()?;
    match known {
        None => {
            let insert = "INSERT INTO meta(format, ledger) VALUES (?1, ?2)";
            conn.execute(insert, params![FORMAT, ledger]).or_unwritable().map(|_| ())
        }
        Some((format, _)) if format != FORMAT => {
            Err(unopenable(format_args!("{} was written by a newer release", path.display())))
        }
        Some((_, whose)) if whose != ledger => Err(unopenable(format_args!(
            "{} is the spool of another ledger, and what is in it has to be recorded there; name another file",
            path.display()
        ))),
        Some(_) => Ok(()),
    }
}
