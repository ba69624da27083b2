//! A world's history for people: one line for each call, in the order they were made.

use super::{
    attempts::{Answer, Attempt},
    run::Cluster,
    script::Ask,
};
use domain::{entry::Effect, op::Charge};
use engine::requests::{Event, EventOutcome};

/// One line for everything that happened.
pub(super) fn lines(cluster: &Cluster) -> Vec<String> {
    let state = cluster.database.state();
    let mut lines: Vec<(u64, String)> =
        cluster.events.iter().map(|(tick, what)| (*tick, format!("{tick:>6} {what}"))).collect();
    for attempt in &cluster.attempts {
        let end = match &attempt.end {
            Some(end) => format!("{:>6}", end.tick),
            None => "     -".to_owned(),
        };
        let Attempt { number, tick, node, ask, .. } = attempt;
        let line = format!("{tick:>6}..{end} call {number} node {node}: {} -> {}", ask_line(ask), answer_line(attempt));
        lines.push((*tick, line));
    }
    for (tenant, row) in &state.tenants {
        for (seq, written) in (1..).zip(&row.entries) {
            let under = written.entry.under().map_or(String::new(), |epoch| format!(" under {epoch}"));
            let leases: Vec<_> =
                written.entry.effects.iter().filter(|effect| matches!(effect, Effect::Leases(_))).collect();
            let leases = if leases.is_empty() { String::new() } else { format!(" {leases:?}") };
            let (tick, attempt) = (written.tick, written.attempt);
            let by = written.entry.user.as_ref().map_or(String::new(), |user| format!(" by {user}"));
            let line = format!("{tick:>6} commit: {tenant} entry {seq} of call {attempt}{by}{under}{leases}");
            lines.push((written.tick, line));
        }
    }
    for catalog in &state.catalogs {
        lines.push((catalog.tick, format!("{:>6} catalog {} in force", catalog.tick, catalog.stored.version)));
    }
    lines.sort_by_key(|(tick, _)| *tick);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn charges(charges: &[Charge]) -> String {
    let named: Vec<String> = charges.iter().map(|charge| format!("{} {}", charge.amount, charge.meter)).collect();
    named.join(", ")
}

pub(super) fn ask_line(ask: &Ask) -> String {
    let by = |user: &Option<domain::id::UserId>| user.as_ref().map_or(String::new(), |user| format!(" by {user}"));
    match ask {
        Ask::Check(check) => {
            let id = check.id.as_ref().map_or(String::new(), |id| format!(" id {}", id.id));
            let verb = if check.consume { "consume" } else { "ask for" };
            let features: Vec<&str> = check.features.iter().map(|feature| feature.as_str()).collect();
            let asked = charges(&check.charges);
            format!("{} {verb} {asked}{}{}{id}", check.tenant, features.join(", "), by(&check.user))
        }
        Ask::Events(events) => {
            let named = |event: &Event| format!("{} {:?}{}", event.id.id, event.fact.movements, by(&event.user));
            let tenant = ask.tenant().map_or("", |tenant| tenant.as_str());
            format!("{tenant} events {}", events.iter().map(named).collect::<Vec<_>>().join("; "))
        }
        Ask::Adjust(tenant, user, adjustment, id) => {
            let id = id.as_ref().map_or(String::new(), |id| format!(" id {}", id.id));
            format!("{tenant} adjust {} {:?}{}{id}", adjustment.meter, adjustment.movement, by(user))
        }
        Ask::Put(tenant, change, _) => format!("{tenant} put {change:?}"),
        Ask::Usage(tenant, user) => format!("{tenant} usage{}", by(user)),
        Ask::Measured(tenant, user, charge) => {
            format!("{tenant} measured {}{}", charges(std::slice::from_ref(charge)), by(user))
        }
        Ask::RefundOldest(tenant) => format!("{tenant} refund"),
        Ask::Refund(tenant, user, _, attempt) => format!("{tenant} refund of call {attempt}{}", by(user)),
        other => format!("{other:?}"),
    }
}

pub(super) fn answer_line(attempt: &Attempt) -> String {
    match attempt.answer() {
        None => "nobody heard".to_owned(),
        Some(Answer::Admission(admission)) => {
            let decision = &admission.decision;
            let used: Vec<String> = decision
                .limits
                .iter()
                .map(|limit| format!("{} {}/{}", limit.name, limit.used, limit.max.map_or(-1, |max| max)))
                .collect();
            let repeated = if admission.repeated { " (repeat)" } else { "" };
            format!("{}{repeated} at {:?} [{}]", decision.code().word(), decision.at, used.join(", "))
        }
        Some(Answer::Recorded(outcomes)) => {
            let word = |outcome: &EventOutcome| match outcome {
                EventOutcome::Accepted => "accepted".to_owned(),
                EventOutcome::Duplicate => "duplicate".to_owned(),
                EventOutcome::Rejected(error) => format!("rejected ({error})"),
            };
            outcomes.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        Some(Answer::Usage(usage)) => format!("usage at {:?}", usage.1.at),
        Some(Answer::Failed(error)) => format!("failed: {error}"),
        Some(other) => format!("{other:?}"),
    }
}
