//! The spool: what was told of is there after a crash, what was not is wholly there or wholly absent, and it is one
//! node's and one ledger's.

use domain::{
    entry::Binding,
    id::{DimensionKey, MeterKey, TenantId, UserId},
    op::Charge,
    outage::Passed,
    time::Instant,
};
use engine::ports::{Commit, Spool, SpoolLine};
use std::{fs, path::Path, sync::Arc};
use stores::spool::FileSpool;

const SECRET: [u8; 32] = [7; 32];

fn open(path: &Path) -> Arc<FileSpool> {
    FileSpool::open(path, &SECRET, 100).unwrap()
}

fn line(number: u64) -> SpoolLine {
    let meter = |key: &str| MeterKey::new(key).unwrap();
    let user = number.is_multiple_of(2).then(|| UserId::new("ann").unwrap());
    let passed = Passed {
        user,
        charges: vec![
            Charge { meter: meter("messages"), amount: number as i64 },
            Charge { meter: meter("documents"), amount: -1 },
        ],
        at: Instant::from_ms(1_800_000_000_000 + number as i64),
        dimensions: vec![(DimensionKey::new("model").unwrap(), "large".into())],
        binding: Binding { id: u128::MAX - u128::from(number), fingerprint: u64::MAX },
    };
    SpoolLine::Passed(TenantId::new("acme").unwrap(), passed)
}

fn wait(commit: Commit) -> Result<(), engine::ports::LedgerError> {
    match commit {
        Commit::Done => Ok(()),
        Commit::Waiting(receiver) => receiver.blocking_recv().unwrap(),
    }
}

fn put(spool: &FileSpool, line: SpoolLine) -> u64 {
    let (number, commit) = spool.append(line).unwrap();
    wait(commit).unwrap();
    number
}

#[test]
fn lines_are_read_as_they_were_written_until_they_are_settled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path);
    let numbers: Vec<u64> = (0..4).map(|number| put(&spool, line(number))).collect();
    let back = put(&spool, SpoolLine::GivenBack(u128::MAX - 1));
    assert_eq!(spool.durable(), back);
    wait(spool.settle(vec![numbers[0]], vec![(numbers[2], "no such meter".to_owned())])).unwrap();
    drop(spool);
    let spool = open(&path);
    let expected = vec![(numbers[1], line(1)), (numbers[3], line(3)), (back, SpoolLine::GivenBack(u128::MAX - 1))];
    assert_eq!(spool.lines().unwrap(), expected);
    // A number is never given twice while a line has it.
    assert!(put(&spool, line(9)) > back);
}

#[test]
fn a_spool_has_one_holder_and_one_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let held = open(&path);
    let error = FileSpool::open(&path, &SECRET, 100).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(held);
    let error = FileSpool::open(&path, &[8; 32], 100).unwrap_err().to_string();
    assert!(error.contains("another ledger"), "{error}");
    drop(open(&path));
}

#[test]
fn a_full_spool_takes_no_more_until_something_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let spool = FileSpool::open(&folder.path().join("spool.db"), &SECRET, 2).unwrap();
    let first = put(&spool, line(1));
    put(&spool, line(2));
    let error = spool.append(line(3)).unwrap_err().to_string();
    assert!(error.contains("full"), "{error}");
    wait(spool.settle(vec![first], Vec::new())).unwrap();
    put(&spool, line(3));
}

#[test]
fn a_torn_tail_costs_only_what_was_not_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let with = |suffix: &str| format!("{}{suffix}", path.display());
    let spool = open(&path);
    let told: Vec<u64> = (0..5).map(|number| put(&spool, line(number))).collect();
    let acknowledged = fs::metadata(with("-wal")).unwrap().len() as usize;
    (5..9).for_each(|number| _ = put(&spool, line(number)));
    let (file, log) = (fs::read(&path).unwrap(), fs::read(with("-wal")).unwrap());
    assert!(log.len() > acknowledged);
    for cut in (acknowledged..=log.len()).step_by(97).chain([log.len()]) {
        let crashed = tempfile::tempdir().unwrap();
        let path = crashed.path().join("spool.db");
        fs::write(&path, &file).unwrap();
        fs::write(format!("{}-wal", path.display()), &log[..cut]).unwrap();
        let found = open(&path).lines().unwrap();
        assert!(found.len() >= told.len(), "cut at {cut}");
        for (index, (number, found)) in found.into_iter().enumerate() {
            assert_eq!((number, found), (index as u64 + 1, line(index as u64)), "cut at {cut}");
        }
    }
}

#[test]
fn a_line_that_was_changed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    put(&open(&path), line(1));
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("UPDATE lines SET tenant = 'other'", []).unwrap();
    drop(conn);
    let error = FileSpool::open(&path, &SECRET, 100).unwrap_err().to_string();
    assert!(error.contains("line 1 of the spool"), "{error}");
}
