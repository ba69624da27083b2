//! Power loss, as the file sees it: the log cut or overwritten anywhere behind the last acknowledged sync.

use crate::world::{Random, States, World, done, wait};
use engine::ports::{Ledger, LedgerError, Seq};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use stores::sqlite::{SqliteLedger, SqliteOptions};

const HEADER_BYTES: usize = 32;
const FRAME_BYTES: usize = 24 + 4096;

/// The log stays as it is: what is cut off it must not be in the file already.
fn open(path: &Path) -> Result<Arc<SqliteLedger>, LedgerError> {
    SqliteLedger::open(path, SqliteOptions { log_pages: u64::MAX, ..SqliteOptions::default() })
}

/// The file and its log as they were at some moment.
struct Image {
    file: Vec<u8>,
    log: Vec<u8>,
}

impl Image {
    fn of(path: &Path) -> Self {
        Self { file: fs::read(path).unwrap(), log: fs::read(with(path, "-wal")).unwrap_or_default() }
    }

    fn open(&self, directory: &Path, log: &[u8]) -> Result<Arc<SqliteLedger>, LedgerError> {
        let path = directory.join("crashed.db");
        let _ = fs::remove_file(with(&path, "-shm"));
        fs::write(&path, &self.file).unwrap();
        fs::write(with(&path, "-wal"), log).unwrap();
        open(&path)
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// A run that was recorded: what was acknowledged, and what came after.
struct Recorded {
    world: World,
    acknowledged: Seq,
    acknowledged_log: usize,
    image: Image,
}

fn record(seed: u64) -> Recorded {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path).unwrap();
    let mut world = World::new(seed);
    world.steps(&*ledger, 60);
    done(world.checkpoint(&*ledger)).unwrap();
    world.steps(&*ledger, 60);
    let acknowledged = world.last();
    let acknowledged_log = Image::of(&path).log.len();
    for _ in 0..15 {
        world.steps(&*ledger, 1);
    }
    // A checkpoint of many transactions, as slices are, between commits.
    let through = world.last();
    for fold in world.take_folds(true) {
        let slice = ledger.checkpoint(vec![fold], None);
        world.steps(&*ledger, 1);
        done(slice).unwrap();
    }
    done(ledger.checkpoint(vec![], Some(through))).unwrap();
    world.steps(&*ledger, 5);
    let image = Image::of(&path);
    assert!(acknowledged_log > HEADER_BYTES && image.log.len() > acknowledged_log);
    Recorded { world, acknowledged, acknowledged_log, image }
}

/// Opens what is left; it must be what was appended through some position, exactly, with ids and all.
fn check(recorded: &Recorded, ledger: &SqliteLedger, what: &str) -> Seq {
    let journal = wait(ledger.journal(0, usize::MAX)).unwrap();
    let last = journal.last().map_or(0, |(seq, ..)| *seq);
    assert!(journal == recorded.world.log[..journal.len()], "{what}: another journal");
    assert!(States::of(ledger) == recorded.world.states(last), "{what}: another state at {last}");
    for (id, seq) in &recorded.world.bindings {
        let known = match ledger.find(&recorded.world.whose(*seq), *id) {
            engine::ports::Lookup::Fresh => None,
            engine::ports::Lookup::Bound(seq) => Some(seq),
            engine::ports::Lookup::Unsure { .. } => {
                wait(ledger.find_on_disk(&recorded.world.whose(*seq), *id)).unwrap()
            }
        };
        assert_eq!(known, (*seq <= last).then_some(*seq), "{what}: another binding");
    }
    last
}

#[test]
fn a_log_cut_behind_the_last_acknowledged_sync_opens_to_what_was_acknowledged() {
    let recorded = record(21);
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(21);
    let log = &recorded.image.log;
    let first = (recorded.acknowledged_log - HEADER_BYTES) / FRAME_BYTES;
    let boundaries = (first..).map(|frame| HEADER_BYTES + frame * FRAME_BYTES).take_while(|at| *at <= log.len());
    let mut cuts: Vec<usize> = boundaries.filter(|at| *at >= recorded.acknowledged_log).collect();
    let room = (log.len() - recorded.acknowledged_log) as u64;
    cuts.extend((0..40).map(|_| recorded.acknowledged_log + random.below(room) as usize));
    let mut seen = std::collections::BTreeSet::new();
    for cut in cuts {
        let what = format!("seed 21, log of {} bytes cut at {cut}", log.len());
        let ledger = recorded.image.open(directory.path(), &log[..cut]).expect(&what);
        let last = check(&recorded, &ledger, &what);
        assert!(last >= recorded.acknowledged, "{what}: {last} is before {}", recorded.acknowledged);
        seen.insert(last);
    }
    assert!(seen.len() > 10, "cuts fell between commits: {seen:?}");
}

#[test]
fn a_log_overwritten_behind_the_last_acknowledged_sync_opens_to_what_was_acknowledged() {
    let recorded = record(22);
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(22);
    for round in 0..60 {
        let mut log = recorded.image.log.clone();
        let room = (log.len() - recorded.acknowledged_log) as u64;
        let at = recorded.acknowledged_log + random.below(room) as usize;
        // A flipped bit, or a torn sector.
        let length = if random.one_in(2) { 1 } else { 512 };
        for byte in log.iter_mut().skip(at).take(length) {
            *byte ^= 1 << random.below(8);
        }
        let what = format!("seed 22, round {round}: {length} bytes changed at {at}");
        let ledger = recorded.image.open(directory.path(), &log).expect(&what);
        let last = check(&recorded, &ledger, &what);
        assert!(last >= recorded.acknowledged, "{what}: {last} is before {}", recorded.acknowledged);
    }
}

#[test]
fn a_log_damaged_before_that_is_refused_or_opens_to_something_that_was_true() {
    let recorded = record(23);
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(23);
    for round in 0..40 {
        let mut log = recorded.image.log.clone();
        let at = random.below(recorded.acknowledged_log as u64) as usize;
        log[at] ^= 1 << random.below(8);
        let what = format!("seed 23, round {round}: byte {at} changed");
        match recorded.image.open(directory.path(), &log) {
            Ok(ledger) => {
                check(&recorded, &ledger, &what);
            }
            Err(error) => assert!(!error.to_string().is_empty(), "{what}"),
        }
    }
}

#[test]
fn a_process_killed_while_it_commits_leaves_whole_entries() {
    // The file is copied while the writer runs: a moment that no transaction chose.
    let directory = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path).unwrap();
    let mut world = World::new(24);
    for round in 0..20 {
        world.steps(&*ledger, 10);
        let acknowledged = world.last();
        let commits: Vec<_> = (0..30).map(|_| world.step(&*ledger).unwrap().commit).collect();
        // The log is copied first: what it lacks, the file can't have, since nothing is copied back meanwhile.
        let log = fs::read(with(&path, "-wal")).unwrap();
        let image = Image { file: fs::read(&path).unwrap(), log: Vec::new() };
        commits.into_iter().for_each(|commit| done(commit).unwrap());
        let crashed = image.open(copies.path(), &log).unwrap();
        let journal = wait(crashed.journal(0, usize::MAX)).unwrap();
        assert!(journal.len() as Seq >= acknowledged, "round {round}");
        assert!(journal == world.log[..journal.len()], "round {round}");
        assert!(States::of(&*crashed) == world.states(journal.len() as Seq), "round {round}");
    }
}
