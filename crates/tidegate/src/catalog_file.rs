//! The catalog file: read, checked whole, and refused with everything that is wrong in it.

use anyhow::bail;
use domain::catalog::Catalog;
use engine::ports::CatalogReader;
use std::{fmt, fs, io, path::Path, sync::Arc};
use wire::catalog::{Loaded, Problem};

/// A catalog file with its text, which is what the ledger keeps.
pub struct CatalogFile {
    /// As it is written.
    pub text: String,
    /// What it means.
    pub loaded: Loaded,
}

/// Every problem of a file.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let space = if index > 0 { "\n\n" } else { "" };
            write!(f, "{space}{problem}")?;
        }
        Ok(())
    }
}
impl std::error::Error for Problems {}

/// Reads a catalog.
///
/// # Errors
/// [`Problems`] where it is not valid, a sentence where it can't be read.
pub fn read(path: &Path) -> anyhow::Result<CatalogFile> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no catalog at {}; write one with `tidegate init {0}`", path.display())
        }
        Err(error) => bail!("the catalog {} can't be read: {error}", path.display()),
    };
    parse(text, &path.display().to_string())
}

/// Checks a catalog's text.
///
/// # Errors
/// [`Problems`] where it is not valid.
pub fn parse(text: String, name: &str) -> anyhow::Result<CatalogFile> {
    let loaded = wire::catalog::load(&text, name).map_err(Problems)?;
    Ok(CatalogFile { text, loaded })
}

/// Reads the catalogs that tenants are pinned to.
pub struct Reader;

impl CatalogReader for Reader {
    fn read(&self, text: &str) -> Result<Catalog, Arc<str>> {
        let read = wire::catalog::load(text, "the catalog").map(|loaded| loaded.catalog);
        read.map_err(|problems| Problems(problems).to_string().into())
    }
}
