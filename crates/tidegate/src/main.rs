//! The binary: command line, settings, wiring, logs and figures. The only place where a door meets a store.

mod bootstrap;
mod catalog_file;
mod cli;
mod client;
mod clock;
mod commands;
mod config;
mod demo;
mod following;
mod kept;
mod keys;
mod listen;
mod observe;
mod outages;
mod output;
mod remembering;
mod secret;
mod serve;
mod snapshots;
mod wiring;

use clap::Parser;
use cli::{Cli, Command};
use config::WrongSetting;
use std::process::ExitCode;

/// Requests are many small allocations that are made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line or a setting is wrong. (`clap` ends with the same code.)
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider of cryptography, chosen here: libraries that choose by themselves choose differently.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let wrong_usage = error.chain().any(|cause| cause.is::<WrongSetting>());
            if wrong_usage { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => return serve::run(&args),
        Command::Demo(args) => return demo::run(&args),
        Command::CheckConfig(args) => return commands::check_config::run(&args),
        Command::Verify(args) => return commands::verify::run(&args),
        Command::Import(args) => return commands::import::run(&args),
        Command::Snapshot(args) => return commands::snapshot::run(&args),
        Command::Forecast(args) if args.jsonl => return commands::forecast::run(&args),
        Command::Forecast(args) => commands::foresight::run(&args)?,
        Command::Export(args) => commands::export::run(&args)?,
        Command::Init(args) => commands::init::run(&args)?,
        Command::Catalog(command) => commands::catalog::run(&command)?,
        Command::Keys(command) => commands::keys::run(&command)?,
        Command::Token(args) => commands::keys::token(&args)?,
        Command::Tenants(command) => commands::tenants::run(&command)?,
        Command::Usage(args) => commands::usage::run(&args)?,
        Command::Sessions(command) => commands::sessions::run(&command)?,
        Command::Simulate(args) => commands::simulate::run(&args)?,
        Command::Denials(args) => commands::denials::list(&args)?,
        Command::Explain(args) => commands::denials::explain(&args)?,
        Command::Events(args) => commands::events::run(&args)?,
        Command::Backup(args) => commands::backup::run(&args)?,
        Command::Copy(args) => commands::copy::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
