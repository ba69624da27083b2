//! Unmet demand: every refusal that was told is counted once. What a node had counted and not written down when it was
//! killed is lost; what it wrote down without being told so may be counted twice.

use super::Case;
use crate::{
    auditor::Who,
    cluster::{
        attempts::Answer,
        script::{Ask, demand},
    },
};
use domain::{
    id::{MeterKey, TenantId},
    op::Charge,
};
use engine::session::Touched;
use std::collections::BTreeMap;

type Account = (TenantId, Who, MeterKey);

/// By whom something is asked for, and how much that counts for if it is refused.
fn asked_for(case: &Case<'_>, ask: &Ask) -> Option<(Who, Vec<Charge>)> {
    let slice = |meter: &MeterKey| {
        let amount = case.catalogs.first()?.meters.get(meter)?.session.debit_interval_ms;
        Some(vec![Charge { meter: meter.clone(), amount }])
    };
    match ask {
        Ask::Check(check) if check.consume => {
            let asked = demand(check).map(|(meter, amount)| Charge { meter: meter.clone(), amount });
            Some((check.user.clone(), asked.collect()))
        }
        Ask::Open(ask) => Some((ask.user.clone(), slice(&ask.meter)?)),
        Ask::Touch(tenant, id, _) => {
            let life = case.replays.get(tenant)?.sessions.get(id)?;
            Some((life.user.clone(), slice(&life.meter)?))
        }
        _ => None,
    }
}

pub(super) fn judge(case: &Case<'_>) -> Result<(), String> {
    let mut least: BTreeMap<Account, i64> = BTreeMap::new();
    let mut most: BTreeMap<Account, i64> = BTreeMap::new();
    for attempt in &case.cluster.attempts {
        let Some((who, asked)) = asked_for(case, &attempt.ask) else { continue };
        let decision = match attempt.answer() {
            Some(Answer::Admission(admission)) => Some(&admission.decision),
            Some(Answer::Session(answer)) => answer.decision.as_ref(),
            Some(Answer::Touched(Touched::Now(answer))) => answer.decision.as_ref(),
            Some(Answer::Failed(_)) | None => None,
            Some(_) => continue,
        };
        if decision.is_some_and(|decision| decision.allowed) {
            continue;
        }
        let told = decision.is_some() && !case.cluster.killed.contains(&attempt.sender);
        let Some(tenant) = attempt.ask.tenant() else { continue };
        for Charge { meter, amount } in asked {
            let account = (tenant.clone(), who.clone(), meter);
            *most.entry(account.clone()).or_default() += amount;
            if told {
                *least.entry(account).or_default() += amount;
            }
        }
    }
    for (tenant, replay) in &case.replays {
        for ((who, meter), written) in &replay.denied {
            let most = most.get(&(tenant.clone(), who.clone(), meter.clone())).copied().unwrap_or(0);
            let twice = replay.uncertain.get(&(who.clone(), meter.clone())).copied().unwrap_or(0);
            if *written > most + twice {
                return Err(format!("{tenant}, {who:?}: {written} of {meter} count as denied, and {most} were"));
            }
        }
    }
    for ((tenant, who, meter), told) in least {
        let replay = case.replays.get(&tenant);
        let written = replay.and_then(|replay| replay.denied.get(&(who.clone(), meter.clone()))).copied().unwrap_or(0);
        if written < told {
            return Err(format!("{tenant}, {who:?}: {written} of {meter} count as denied, and {told} were"));
        }
    }
    Ok(())
}
