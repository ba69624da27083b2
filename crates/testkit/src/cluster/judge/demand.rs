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
use domain::id::{MeterKey, TenantId};
use std::collections::BTreeMap;

type Account = (TenantId, Who, MeterKey);

pub(super) fn judge(case: &Case<'_>) -> Result<(), String> {
    let mut least: BTreeMap<Account, i64> = BTreeMap::new();
    let mut most: BTreeMap<Account, i64> = BTreeMap::new();
    for attempt in &case.cluster.attempts {
        let Ask::Check(check) = &attempt.ask else { continue };
        if !check.consume {
            continue;
        }
        let told = match attempt.answer() {
            Some(Answer::Admission(admission)) if admission.decision.allowed => continue,
            Some(Answer::Admission(_)) => !case.cluster.killed.contains(&attempt.sender),
            Some(Answer::Failed(_)) | None => false,
            Some(_) => continue,
        };
        for (meter, amount) in demand(check) {
            let account = (check.tenant.clone(), check.user.clone(), meter.clone());
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
