//! Afterwards: what the ledger holds of each operation, against what was told of it.

use super::{Told, World};
use domain::{
    entry::{Cause, Effect, Entry},
    id::{MeterKey, TenantId, UserId},
};
use std::collections::{BTreeMap, BTreeSet};

/// Judges a world in which everything is answered and every spool is empty.
pub(super) fn judge(world: &World) -> Result<(), String> {
    let state = world.database.state();
    let mut charged: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut given_back: BTreeMap<String, i64> = BTreeMap::new();
    for (tenant, row) in &state.tenants {
        let entries: Vec<&Entry> = row.entries.iter().map(|written| &written.entry).collect();
        ids_are_bound_once(tenant, &entries)?;
        nothing_but_outages_exceeds(world, tenant, &entries)?;
        for entry in entries {
            let amount: i64 = uses(entry).map(|(_, amount)| amount).sum();
            match (entry.cause, entry.dimensions.first()) {
                (Cause::Refund, _) => *given_back.entry(tenant.to_string()).or_default() -= amount,
                (_, Some((_, mark))) => charged.entry(mark.to_string()).or_default().push(amount),
                _ => {}
            }
        }
    }
    for (number, operation) in world.operations.iter().enumerate() {
        let found = charged.get(&number.to_string()).map_or(&[][..], Vec::as_slice);
        let wrong = |what: &str| Err(format!("operation {number}, {:?}: {what}: {found:?}", operation));
        let amount: i64 = operation.check.charges.iter().map(|charge| charge.amount).sum();
        match found {
            [] if operation.is_allowed() => return wrong("it was allowed, and is not in the ledger"),
            [] => {}
            [once] if *once == amount && operation.may_be_charged() => {}
            [once] if *once == amount => return wrong("it was refused, and is in the ledger"),
            _ => return wrong("it should be there once"),
        }
    }
    for tenant in state.tenants.keys().map(TenantId::to_string) {
        let of_tenant = || world.operations.iter().filter(|operation| operation.check.tenant.as_str() == tenant);
        let sum = |told: fn(&Told) -> bool| -> i64 {
            let is_so = |operation: &&super::Operation| operation.given_back.as_ref().is_some_and(told);
            of_tenant().filter(is_so).flat_map(|operation| &operation.check.charges).map(|charge| charge.amount).sum()
        };
        let (least, most) = (sum(|told| *told == Told::Allowed), sum(|_| true));
        let found = given_back.get(&tenant).copied().unwrap_or(0);
        if !(least..=most).contains(&found) {
            return Err(format!("{tenant}: {found} were given back, which should be {least} to {most}"));
        }
    }
    Ok(())
}

fn uses(entry: &Entry) -> impl Iterator<Item = (&MeterKey, i64)> {
    entry.effects.iter().filter_map(|effect| match effect {
        Effect::Use { meter, amount, .. } => Some((meter, *amount)),
        _ => None,
    })
}

fn ids_are_bound_once(tenant: &TenantId, entries: &[&Entry]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match entries.iter().filter_map(|entry| entry.binding).find(|binding| !seen.insert(binding.id)) {
        Some(binding) => Err(format!("{tenant}: {:032x} is bound twice", binding.id)),
        None => Ok(()),
    }
}

/// What was decided with the ledger never carries use past a limit, whatever passed without it.
fn nothing_but_outages_exceeds(world: &World, tenant: &TenantId, entries: &[&Entry]) -> Result<(), String> {
    let mut used: BTreeMap<(Option<UserId>, MeterKey), i64> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate() {
        for (meter, amount) in uses(entry) {
            let users: BTreeSet<Option<UserId>> = [None, entry.user.clone()].into();
            for user in users {
                let sum = used.entry((user.clone(), meter.clone())).or_default();
                *sum += amount;
                let decided = matches!(entry.cause, Cause::Check | Cause::Gateway);
                let max = world.max_of(meter, user.is_some());
                if decided && max.is_some_and(|max| *sum > max) {
                    return Err(format!("{tenant}: entry {} carries {meter} of {user:?} to {sum}", place + 1));
                }
            }
        }
    }
    Ok(())
}
