//! Text that must not be seen: keys and tokens.

use std::{fmt, fs, path::Path};

/// A key or token. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// Reads a secret from a file; white space around it is not part of it.
    ///
    /// # Errors
    /// Where the file can't be read, or holds nothing.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("the secret in {} can't be read: {error}", path.display()))?;
        match text.trim() {
            "" => anyhow::bail!("{} is empty; it should hold a key", path.display()),
            secret => Ok(Self::new(secret)),
        }
    }
    /// The text itself, where it is really needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
