//! A world that goes wrong, made as small as it can be while it still does.

use super::{Plan, Weather, script::Step};

/// How many worlds are tried at most.
const TRIES_MAX: usize = 600;

/// The history of a smaller world that goes wrong as well, one line for each call.
pub fn shrunken(plan: &Plan) -> String {
    let mut tries = TRIES_MAX;
    let mut smallest = plan.clone();
    let mut shrank = true;
    while shrank && tries > 0 {
        shrank = without_steps(&mut smallest, &mut tries);
        shrank |= in_better_weather(&mut smallest, &mut tries);
        shrank |= with_fewer(&mut smallest, &mut tries);
    }
    let (judged, history) = smallest.run_and_tell();
    let Plan { size, clients, weather, jitter_ms, .. } = &smallest;
    let steps = smallest.script.len();
    let wrong = judged.err().unwrap_or_default();
    format!(
        "the smallest like it: {} nodes, {clients} clients, {steps} steps, clocks off by {jitter_ms} ms at most, {weather:?}\n{}\n{wrong}",
        size.nodes,
        history.join("\n")
    )
}

fn fails(plan: &Plan, tries: &mut usize) -> bool {
    *tries = tries.saturating_sub(1);
    *tries > 0 && plan.run().is_err()
}

fn keep_if(smallest: &mut Plan, other: Plan, tries: &mut usize) -> bool {
    let keeps = fails(&other, tries);
    if keeps {
        *smallest = other;
    }
    keeps
}

fn without_steps(smallest: &mut Plan, tries: &mut usize) -> bool {
    let mut shrank = false;
    let mut length = smallest.script.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < smallest.script.len() && *tries > 0 {
            let mut other = smallest.clone();
            let until = (from + length).min(other.script.len());
            other.script.drain(from..until);
            match keep_if(smallest, other, tries) {
                true => shrank = true,
                false => from = until,
            }
        }
        length = if length == 1 { 0 } else { length.div_ceil(2) };
    }
    shrank
}

fn in_better_weather(smallest: &mut Plan, tries: &mut usize) -> bool {
    let better: [fn(&mut Weather); 9] = [
        |weather| weather.lost_requests = 0,
        |weather| weather.lost_replies = 0,
        |weather| weather.given_up = 0,
        |weather| weather.sent_again = 0,
        |weather| weather.refused_at_rows = 0,
        |weather| weather.overloaded = 0,
        |weather| weather.unsure = 0,
        |weather| weather.hung_up = 0,
        |weather| weather.slowness = 0,
    ];
    let mut shrank = false;
    for change in better {
        let mut other = smallest.clone();
        change(&mut other.weather);
        shrank |= other.weather != smallest.weather && keep_if(smallest, other, tries);
    }
    shrank
}

/// No clock is off, from the beginning on or after a step: the judge allows for no more than the plan says.
fn with_true_clocks(plan: &mut Plan) {
    plan.jitter_ms = 0;
    plan.script.retain(|(_, step)| !matches!(step, Step::Skew(..)));
}

fn with_fewer(smallest: &mut Plan, tries: &mut usize) -> bool {
    let fewer: [fn(&mut Plan); 4] = [
        |plan| plan.size.nodes = (plan.size.nodes - 1).max(1),
        |plan| plan.clients = plan.clients.div_ceil(2),
        with_true_clocks,
        |plan| plan.size.tenants = 1,
    ];
    let mut shrank = false;
    for change in fewer {
        let mut other = smallest.clone();
        change(&mut other);
        let before = (smallest.size, smallest.clients, smallest.jitter_ms);
        shrank |= before != (other.size, other.clients, other.jitter_ms) && keep_if(smallest, other, tries);
    }
    shrank
}
