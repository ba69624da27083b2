//! tmp
use crate::cli::BackupArgs;
pub fn run(_a:&BackupArgs)->anyhow::Result<()>{anyhow::bail!("tmp")}
