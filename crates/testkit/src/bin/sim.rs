//! `cargo run -p testkit --bin sim -- --seeds N [--from M] [--steps K] [--files]`: simulated worlds until one goes wrong;
//! with `--files`, on a file each.

use std::process::ExitCode;
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::simulation::{audit, audit_on};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: u64| {
        let place = arguments.iter().position(|argument| argument == name);
        place.and_then(|place| arguments.get(place + 1)).map_or(Some(otherwise), |text| text.parse().ok())
    };
    let (Some(seeds), Some(from), Some(steps)) =
        (number("--seeds", 1_000), number("--from", 0), number("--steps", 300))
    else {
        eprintln!("usage: sim [--seeds N] [--from SEED] [--steps K] [--files]");
        return ExitCode::from(2);
    };
    for seed in from..from + seeds {
        let on_file = arguments.iter().any(|argument| argument == "--files");
        let world = if on_file { on_a_file(seed, steps as usize).await } else { audit(seed, steps as usize).await };
        if let Err(wrong) = world {
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
    }
    println!("{seeds} worlds of {steps} steps: the books agree");
    ExitCode::SUCCESS
}

async fn on_a_file(seed: u64, steps: usize) -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("tidegate-sim-{}-{seed}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let path = directory.join("ledger.db");
    let ledger = SqliteLedger::open(&path, SqliteOptions::default()).map_err(|error| error.to_string())?;
    // What went wrong leaves its file behind, to be looked at.
    audit_on(seed, steps, ledger).await.map_err(|wrong| format!("{wrong} ({})", path.display()))?;
    std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())
}
