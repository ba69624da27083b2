//! `cargo run -p testkit --bin sim -- --seeds N [--from M] [--steps K] [--files]`: simulated worlds until one goes wrong;
//! with `--files`, on a file each; with `--outages`, of nodes that let pass what they may while their database is away. With `--nodes N` (0 leaves it to the seed), worlds of so many nodes on one database.

mod progress;

use progress::Progress;
use std::{process::ExitCode, time::Instant};
use stores::sqlite::{SqliteLedger, SqliteOptions};
use testkit::{
    cluster::{self, Bug, Plan, Tally},
    simulation::{audit, audit_on},
};

const USAGE: &str =
    "usage: sim [--nodes N [--bug NAME]] [--seeds N] [--seed S | --from SEED] [--steps K] [--files | --outages]";

struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let place = self.0.iter().position(|argument| argument == name)?;
        self.0.get(place + 1).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> Option<u64> {
        self.text(name).map_or(Some(otherwise), |text| text.parse().ok())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let one = arguments.has("--seed");
    let from = arguments.number("--from", 0).and_then(|from| arguments.number("--seed", from));
    let (Some(seeds), Some(from), Some(steps), Some(nodes)) = (
        arguments.number("--seeds", if one { 1 } else { 1_000 }),
        from,
        arguments.number("--steps", 300),
        arguments.number("--nodes", 0),
    ) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.has("--nodes") {
        let bug = arguments.text("--bug").map(|name| Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name));
        return match bug {
            Some(None) => {
                eprintln!("the bugs are {:?}", Bug::ALL);
                ExitCode::from(2)
            }
            bug => of_nodes(from..from + seeds, nodes as usize, steps as usize, bug.flatten(), &arguments),
        };
    }
    if arguments.has("--outages") {
        return of_outages(from..from + seeds, steps as usize);
    }
    let mut progress = Progress::of(seeds);
    for seed in from..from + seeds {
        let on_file = arguments.has("--files");
        let world = if on_file { on_a_file(seed, steps as usize).await } else { audit(seed, steps as usize).await };
        if let Err(wrong) = world {
            drop(progress);
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
        progress.step();
    }
    drop(progress);
    println!("{seeds} worlds of {steps} steps: the books agree");
    ExitCode::SUCCESS
}

fn of_nodes(
    seeds: std::ops::Range<u64>,
    nodes: usize,
    steps: usize,
    bug: Option<Bug>,
    arguments: &Arguments,
) -> ExitCode {
    let (count, began) = (seeds.end - seeds.start, Instant::now());
    let (mut sum, mut progress) = (Tally::default(), Progress::of(count));
    for seed in seeds {
        let plan = Plan::draw(seed, nodes, steps, bug);
        match plan.run() {
            Ok(tally) => {
                sum.add(&tally);
                progress.step();
            }
            Err(wrong) => {
                drop(progress);
                eprintln!("seed {seed}: {wrong}\nlooking for a smaller world like it...");
                match arguments.has("--whole") {
                    true => plan.run_and_tell().1.iter().for_each(|line| eprintln!("{line}")),
                    false => eprintln!("{}", cluster::shrunken(&plan)),
                }
                return ExitCode::FAILURE;
            }
        }
    }
    drop(progress);
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("{count} worlds of {steps} steps, {rate:.1} a second: the books agree ({sum:?})");
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

fn of_outages(seeds: std::ops::Range<u64>, steps: usize) -> ExitCode {
    let (mut passed, count) = (0, seeds.end - seeds.start);
    let mut progress = Progress::of(count);
    for seed in seeds {
        match cluster::audit_outages(seed, steps, None, false) {
            Ok(more) => {
                passed += more;
                progress.step();
            }
            Err(wrong) => {
                drop(progress);
                eprintln!("{wrong}");
                return ExitCode::FAILURE;
            }
        }
    }
    drop(progress);
    println!("{count} worlds, and {passed} charges that passed in outages, each recorded once");
    ExitCode::SUCCESS
}
