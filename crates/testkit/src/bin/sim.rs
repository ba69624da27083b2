//! `cargo run -p testkit --bin sim -- --seeds N [--from M] [--steps K]`: simulated worlds until one goes wrong.

use std::process::ExitCode;

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
        eprintln!("usage: sim [--seeds N] [--from SEED] [--steps K]");
        return ExitCode::from(2);
    };
    for seed in from..from + seeds {
        if let Err(wrong) = testkit::simulation::audit(seed, steps as usize).await {
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
    }
    println!("{seeds} worlds of {steps} steps: the books agree");
    ExitCode::SUCCESS
}
