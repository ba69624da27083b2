//! `tidegate simulate`: what other plans would have done with the history there is. Reads; changes nothing.

mod read;
pub mod report;
mod shown;

use crate::{catalog_file, client::Client, commands::wait_for};
use anyhow::bail;
use clap::{Args, ValueEnum};
use domain::{day::Day, id::PlanKey, time::Instant};
use report::Report;
use std::{collections::BTreeMap, path::PathBuf};

/// Arguments of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// The catalog with the proposed plans
    #[arg(long, value_name = "FILE")]
    pub plans: PathBuf,
    /// How many days of history are replayed, until yesterday
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3653))]
    pub days: u16,
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// Which proposed plan takes the place of one that has another name there; may be repeated
    #[arg(long = "move", value_name = "OLD=NEW", value_parser = renamed)]
    pub moves: Vec<(String, String)>,
    /// How the answer looks; --json is the same as --format json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Which node.
    #[command(flatten)]
    pub node: crate::cli::NodeArgs,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One line for each tenant and limit.
    Csv,
    /// For programs.
    Json,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let (old, new) = pair.ok_or_else(|| format!("{text:?} is not OLD=NEW, e.g. pro=professional"))?;
    Ok((old.to_owned(), new.to_owned()))
}

/// Replays what was recorded against the proposed plans.
///
/// # Errors
/// Where the proposed catalog is not valid, or lacks a plan that a tenant is on; those of the client.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let proposed = catalog_file::read(&args.plans)?.loaded.catalog;
    let client = Client::of(&args.node)?;
    let (current, (subjects, days)) = wait_for(async {
        let current = read::catalog_in_force(&client).await?;
        Ok((current, read::subjects(&client, args.tenant.as_deref(), args.days).await?))
    })?;
    let moves = plan_moves(args)?;
    let mut report = Report::new(current, proposed, moves, days);
    for subject in &subjects {
        report.add(subject)?;
    }
    let format = if args.node.json { Format::Json } else { args.format };
    shown::print(&report, format)
}

fn plan_moves(args: &SimulateArgs) -> anyhow::Result<BTreeMap<PlanKey, PlanKey>> {
    let mut moves = BTreeMap::new();
    for (old, new) in &args.moves {
        let key = |name: &str| PlanKey::new(name).map_err(|error| anyhow::anyhow!("--move {old}={new}: {error}"));
        if moves.insert(key(old)?, key(new)?).is_some() {
            bail!("--move names {old} twice");
        }
    }
    Ok(moves)
}

/// The first instant of a day.
fn start_of(day: Day) -> Instant {
    Instant::from_ms(i64::from(day.number()) * domain::time::DAY_MS)
}
