use super::*;

fn part(budget: &PeekBudget, tenant: &str, body_max_bytes: usize) -> PeekPart {
    budget.part(&TenantId::trusted(tenant), body_max_bytes)
}

#[test]
fn one_tenant_takes_a_quarter_and_all_together_the_whole() {
    let budget = PeekBudget::new(400);
    let mut parts: Vec<PeekPart> = Vec::new();
    for tenant in ["a", "b", "c", "d"] {
        let (mut one, mut other) = (part(&budget, tenant, 40), part(&budget, tenant, 40));
        assert_eq!((one.take(60), other.take(40)), (Ok(()), Ok(())));
        assert_eq!(other.take(1), Err(if tenant == "d" { Full::ForAll } else { Full::ForTenant }));
        parts.extend([one, other]);
    }
    assert_eq!(part(&budget, "e", 40).take(1), Err(Full::ForAll));
    // What returns is free for its tenant, and for the others.
    parts.truncate(7);
    assert_eq!(part(&budget, "c", 40).take(1), Err(Full::ForTenant));
    assert_eq!(part(&budget, "d", 40).take(41), Err(Full::ForAll));
    let mut late = part(&budget, "e", 40);
    assert_eq!((late.take(30), late.take(11), late.take(10)), (Ok(()), Err(Full::ForAll), Ok(())));
    drop((parts, late));
    let taken = budget.0.taken.lock();
    assert_eq!((taken.bytes, taken.of_tenants.len()), (0, 0), "nothing is left behind");
}

#[test]
fn the_largest_body_of_a_route_always_has_room_in_a_tenants_share() {
    let budget = PeekBudget::new(400);
    let mut large = part(&budget, "a", 200);
    assert_eq!(large.take(250), Ok(()));
    assert_eq!((large.take(1), part(&budget, "a", 10).take(1)), (Err(Full::ForTenant), Err(Full::ForTenant)));
    assert_eq!(part(&budget, "b", 10).take(100), Ok(()));
    // But no more than there is.
    assert_eq!(part(&PeekBudget::new(400), "a", usize::MAX).take(401), Err(Full::ForAll));
}
