//! The file, its lock, and what can be said about them before SQLite looks.

use super::errors::unopenable;
use engine::ports::LedgerError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Holds the ledger for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// `<path><suffix>`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes the ledger for this process, or says who has it. SQLite would let a second process in.
pub(crate) fn lock(path: &Path) -> Result<Lock, LedgerError> {
    check_directory(path)?;
    let lock_path = beside(path, ".lock");
    let mut file = private(&lock_path)
        .map_err(|error| unopenable(format_args!("its lock file {} can't be made: {error}", lock_path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { String::new() } else { format!(" ({holder})") };
            return Err(unopenable(format_args!(
                "{} is in use by another process{holder}; only one node may hold a ledger",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => {
            return Err(unopenable(format_args!("{} can't be locked: {error}", lock_path.display())));
        }
    }
    // Who holds it is only for people: a failure to write it down is no reason to refuse.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "process {}", std::process::id()));
    Ok(Lock { _file: file })
}

/// Makes the file if there is none, readable and writable by its owner alone, and checks that it can be written.
pub(crate) fn make(path: &Path) -> Result<(), LedgerError> {
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            return Err(unopenable(format_args!("{} is a directory; name a file inside it", path.display())));
        }
        Ok(found) if found.permissions().readonly() => {
            return Err(unopenable(format_args!("{} is read-only", path.display())));
        }
        _ => {}
    }
    let file = private(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            unopenable(format_args!("{} can't be written by this user: {error}", path.display()))
        }
        _ => unopenable(format_args!("{} can't be opened: {error}", path.display())),
    })?;
    drop(file);
    Ok(())
}

/// Refuses a path that is there already, or where nothing can be made.
pub(crate) fn check_new(path: &Path) -> Result<(), LedgerError> {
    check_directory(path)?;
    match path.exists() {
        true => Err(unopenable(format_args!("{} exists already; name a new file", path.display()))),
        false => Ok(()),
    }
}

/// Refuses a path that is not there.
pub(crate) fn check_exists(path: &Path) -> Result<(), LedgerError> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(unopenable(format_args!("{} is not a file", path.display()))),
        Err(error) => Err(unopenable(format_args!("{}: {error}", path.display()))),
    }
}

fn check_directory(path: &Path) -> Result<(), LedgerError> {
    let directory = directory_of(path);
    match directory.metadata() {
        Ok(found) if !found.is_dir() => Err(unopenable(format_args!("{} is not a directory", directory.display()))),
        Ok(found) if found.permissions().readonly() => {
            Err(unopenable(format_args!("the directory {} is read-only", directory.display())))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(unopenable(format_args!("the directory {} does not exist; create it first", directory.display())))
        }
        Err(error) => Err(unopenable(format_args!("the directory {}: {error}", directory.display()))),
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the directory entry of a new file durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Bytes of the file and its log.
pub(crate) fn size(path: &Path) -> u64 {
    let length = |path: &Path| path.metadata().map_or(0, |found| found.len());
    length(path) + length(&beside(path, "-wal"))
}
