//! What of a node a catalog may name as a source. Whoever holds an admin key can put a catalog in force, so the operator of
//! the node says which variables and files are there for it, and what else the node knows stays with the node.

use std::path::{Component, Path, PathBuf};
use wire::catalog::{Setting, SnapshotRules, Source, SourceKind};

/// The beginning of the names of variables that a catalog may name, where the node does not say otherwise.
pub const VARIABLES: &str = "TIDEGATE_SOURCE_";
/// The settings of the node that are named in what is told.
const VARIABLES_SETTING: &str = "TIDEGATE_SNAPSHOTS_VARIABLES";
const SECRETS_SETTING: &str = "TIDEGATE_SNAPSHOTS_SECRETS";
const SQLITE_SETTING: &str = "TIDEGATE_SNAPSHOTS_SQLITE";

/// More than any URL or header has.
const SECRET_MAX_BYTES: u64 = 16 * 1024;

/// What a catalog may name.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// How the names of variables must begin.
    pub variables: String,
    /// The directory below which files of secrets lie; without one, none may be named.
    pub secrets: Option<PathBuf>,
    /// The directory below which SQLite files lie; without one, none may be asked.
    pub sqlite: Option<PathBuf>,
    /// The ledger's own file, which is never asked.
    pub ledger: Option<PathBuf>,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { variables: VARIABLES.into(), secrets: None, sqlite: None, ledger: None }
    }
}

impl Allowed {
    /// What the rules name that is not allowed: a sentence each, with the source and the setting that would allow it. What
    /// only shows when a file is looked for is not among them.
    pub fn refusals(&self, rules: &SnapshotRules) -> Vec<String> {
        let refused = |(name, source): (&std::sync::Arc<str>, &Source)| {
            let settings = [Some(&source.url), source.authorization.as_ref()];
            let named = settings.into_iter().flatten().map(|setting| self.may_name(setting));
            let why = named.chain([self.may_ask(source.kind)]).find_map(Result::err)?;
            Some(format!("the source {name:?} of [snapshots] will not be asked: {why}"))
        };
        rules.sources.iter().filter_map(refused).collect()
    }

    fn may_name(&self, setting: &Setting) -> Result<(), String> {
        match setting {
            Setting::Environment(name) if !name.starts_with(&self.variables) => Err(format!(
                "the variable {name} is not one that this node reads for a catalog: call it {}..., or set \
                 {VARIABLES_SETTING} to what such names begin with",
                self.variables
            )),
            Setting::File(_) if self.secrets.is_none() => Err(format!(
                "this node reads no files for a catalog: set {SECRETS_SETTING} to the directory that holds those of its \
                 sources and nothing else"
            )),
            _ => Ok(()),
        }
    }

    fn may_ask(&self, kind: SourceKind) -> Result<(), String> {
        match kind {
            SourceKind::Sqlite if self.sqlite.is_none() => Err(format!(
                "this node opens no SQLite files for a catalog: set {SQLITE_SETTING} to the directory below which they lie"
            )),
            _ => Ok(()),
        }
    }

    /// The value of a setting, without white space around it.
    ///
    /// # Errors
    /// Why it can't be had, and which setting of the node to change where it is not allowed.
    pub(super) fn read(&self, setting: &Setting) -> Result<String, String> {
        self.may_name(setting)?;
        let text = match setting {
            Setting::Plain(text) => text.to_string(),
            Setting::Environment(name) => {
                std::env::var(&**name).map_err(|_| format!("the variable {name} is not set for this node"))?
            }
            Setting::File(path) => {
                let found = self.secrets.as_deref().and_then(|directory| file_below(directory, path));
                let outside = || format!("there is no file {path} in the directory that {SECRETS_SETTING} names");
                let text = content(&found.ok_or_else(outside)?);
                text.map_err(|error| format!("the file {path} can't be read: {error}"))?
            }
        };
        let text = text.trim();
        if text.is_empty() { Err("it is empty where its address should be".into()) } else { Ok(text.to_owned()) }
    }

    /// The SQLite file at a path, which may be relative to the directory in which they are allowed. No link is left in it.
    ///
    /// # Errors
    /// Which setting of the node to change where it is not allowed. The path is not told: it may be a secret.
    pub(super) fn sqlite_file(&self, path: &str) -> Result<PathBuf, String> {
        self.may_ask(SourceKind::Sqlite)?;
        let path = path.strip_prefix("sqlite:").unwrap_or(path);
        let path = path.strip_prefix("//").unwrap_or(path);
        let found = self.sqlite.as_deref().and_then(|directory| file_below(directory, path));
        let outside = || format!("SQLite: there is no such file in the directory that {SQLITE_SETTING} names");
        let found = found.ok_or_else(outside)?;
        match self.ledger.as_deref().is_some_and(|ledger| is_same_file(&found, ledger)) {
            true => Err("SQLite: it is the ledger's own file, which is never asked: name the app's database".into()),
            false => Ok(found),
        }
    }
}

/// The file that a path means, if it lies below the directory whatever links lead to it.
fn file_below(directory: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let directory = directory.canonicalize().ok()?;
    let file = directory.join(path).canonicalize().ok()?;
    (file.starts_with(&directory) && file.is_file()).then_some(file)
}

/// Whether two paths lead to one file, by whatever links.
#[cfg(unix)]
fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |path: &Path| path.metadata().map(|of| (of.dev(), of.ino()));
    matches!((place(one), place(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether two paths lead to one file.
#[cfg(not(unix))]
fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn content(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[path = "allowed_tests.rs"]
mod tests;
