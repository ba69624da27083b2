//! `tidegate init`: the first thing a new user does.

use crate::{cli::InitArgs, output};
use anyhow::{Context, bail};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes the starter catalog, and says what to do next.
///
/// # Errors
/// Where the file exists, or can't be written.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    let path = target(&args.target)?;
    write_new(&path)?;
    let file = path.display();
    output::line(&format!(
        "Wrote {file}: it meters requests and refuses nothing yet (enforce = \"observe\").\n\n\
         Next:\n\n  \
         tidegate check-config {file}\n  \
         tidegate serve --config {file} --upstream http://127.0.0.1:3000   # where your own server listens\n  \
         tidegate usage demo                                               # in another shell, with TIDEGATE_API_KEY"
    ))
}

fn target(given: &Path) -> anyhow::Result<PathBuf> {
    let is_folder = given.is_dir() || given.as_os_str().to_string_lossy().ends_with('/');
    if !is_folder {
        return Ok(given.to_owned());
    }
    fs::create_dir_all(given).with_context(|| format!("the folder {} can't be made", given.display()))?;
    Ok(given.join("tidegate.toml"))
}

fn write_new(path: &Path) -> anyhow::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already, and is left as it is; name another file, or move it away", path.display())
        }
        Err(error) => bail!("{} can't be written: {error}", path.display()),
    };
    file.write_all(wire::catalog::starter().as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{} can't be written", path.display()))
}
