//! `tidegate init`: the first thing a new user does.

use crate::{cli::InitArgs, config, output};
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
    let upstream = config::parse_upstream("--upstream", &args.upstream)?;
    let path = target(&args.target)?;
    // A URL without a path is shown with one; people write it without.
    let upstream = upstream.to_string().trim_end_matches('/').to_owned();
    write_new(&path, &wire::catalog::starter(&upstream))?;
    let file = path.display();
    output::line(&format!(
        "Wrote {file}. It meters what passes and refuses nothing yet (enforce = \"observe\"). Next:\n\n\
         # see that it is valid, after every change\n\
         tidegate check-config {file}\n\n\
         # run it in front of your server at {upstream}\n\
         tidegate serve --config {file}\n\n\
         # in another terminal: a key for one of your customers\n\
         tidegate keys create --scope tenant --tenant acme"
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

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already, and is left as it is; name another file, or move it away", path.display())
        }
        Err(error) => bail!("{} can't be written: {error}", path.display()),
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{} can't be written", path.display()))
}
