//! What is asked of a tenant, and whether its plan and limits allow it. Nothing is changed here.

use crate::{
    catalog::{Catalog, Enforce, Meter, MeterKind, Mode, Plan},
    decision::{Code, Decision, Denial, LimitState},
    entry::Status,
    id::{FeatureKey, MeterKey},
    limits::{SessionUse, code_of, refuses},
    tenant::{Tenant, User, Windows},
    time::Instant,
};

/// What is asked of one meter. It is the catalog's own meter: accounts that come of it share the memory of its key.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) meter: &'a Meter,
    pub(crate) amount: i64,
}

/// What is asked, and when.
pub(crate) struct Ask<'a> {
    pub(crate) features: &'a [FeatureKey],
    pub(crate) charges: &'a [Asked<'a>],
    pub(crate) windows: &'a Windows,
    pub(crate) at: Instant,
    /// Of which session, if it is one that asks: then limits on sessions apply.
    pub(crate) session: Option<SessionUse>,
}

/// What is answered, and whether all leases end for it.
pub(crate) struct Judged {
    pub(crate) decision: Decision,
    pub(crate) ends_leases: bool,
}

struct Verdict {
    refused: Option<Box<Denial>>,
    shadowed: Option<Box<Denial>>,
}

impl Verdict {
    fn refused(denial: Box<Denial>) -> Self {
        Self { refused: Some(denial), shadowed: None }
    }
}

impl Ask<'_> {
    fn denial(&self, code: Code) -> Box<Denial> {
        let first = self.charges.first();
        Box::new(Denial {
            code,
            limit: None,
            feature: None,
            meter: first.map(|charge| charge.meter.key.clone()),
            amount: first.map_or(0, |charge| charge.amount),
            waiting_helps: false,
            retry_at: None,
            upgrade: None,
        })
    }

    /// The refusal that comes first in order of precedence among the limits of this mode; of several with the same
    /// code, the one that lasts longest. Waiting helps only where it helps with every one of them.
    pub(crate) fn first_refusal(&self, limits: &[LimitState], mode: Mode) -> Option<Box<Denial>> {
        let mut first: Option<(usize, Code)> = None;
        let mut waiting_helps = true;
        let mut retry_at: Option<Instant> = None;
        for (index, state) in limits.iter().enumerate() {
            if state.mode != mode {
                continue;
            }
            let amount = amount_on(self.charges, &state.meter);
            if !refuses(state, amount) {
                continue;
            }
            let code = code_of(state.window);
            waiting_helps &= code.waiting_helps() && state.max.is_some_and(|max| amount <= max);
            retry_at = retry_at.max(state.resets_at);
            let precedes = match first {
                None => true,
                Some((known, first)) => code < first || code == first && state.resets_at > limits[known].resets_at,
            };
            if precedes {
                first = Some((index, code));
            }
        }
        let (index, code) = first?;
        let mut denial = self.denial(code);
        denial.limit = Some(index);
        denial.meter = Some(limits[index].meter.clone());
        denial.amount = amount_on(self.charges, &limits[index].meter);
        denial.waiting_helps = waiting_helps;
        denial.retry_at = retry_at.filter(|_| waiting_helps);
        Some(denial)
    }
}

pub(crate) fn amount_on(charges: &[Asked<'_>], meter: &MeterKey) -> i64 {
    charges.iter().find(|charge| charge.meter.key == *meter).map_or(0, |charge| charge.amount)
}

impl Tenant {
    /// The answer to what is asked, as if nothing were charged yet.
    pub(crate) fn judge(
        &self,
        user: Option<&User>,
        plan: &Plan,
        ask: &Ask<'_>,
        observed: bool,
        catalog: &Catalog,
    ) -> Judged {
        let mut limits = self.limit_states(user, plan, ask);
        let mut verdict = self.verdict(plan, ask, &limits);
        let mut ends_leases = false;
        if verdict.refused.is_some() && limits.iter().any(|state| state.set_aside > 0) {
            // Nobody is refused for what is only set aside: all leases end, and there is room.
            limits.iter_mut().for_each(|state| state.set_aside = 0);
            verdict = self.verdict(plan, ask, &limits);
            // What is only observed is charged whatever refuses it.
            ends_leases = verdict.refused.is_none() || observed;
        }
        let (denial, shadow) = match verdict {
            Verdict { refused: Some(denial), .. } if !observed => (Some(denial), None),
            Verdict { refused, shadowed } => (None, refused.or(shadowed)),
        };
        let denial = denial.map(|denial| self.with_upgrade(denial, user, plan, ask, catalog));
        let (allowed, plan, at) = (denial.is_none(), plan.key.clone(), ask.at);
        Judged { decision: Decision { allowed, plan, denial, shadow, limits, charged: false, at }, ends_leases }
    }

    /// Observing anywhere on the path of a request observes; a tenant that is switched on is refused even while the
    /// catalog as a whole observes.
    pub(crate) fn enforce(&self, route: Option<Enforce>, catalog: &Catalog) -> Enforce {
        match route {
            Some(Enforce::Observe) => Enforce::Observe,
            route => self.profile.enforce.or(route).unwrap_or(catalog.enforce),
        }
    }

    /// Every limit on every meter asked for, before anything is spent.
    fn limit_states(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> Vec<LimitState> {
        let mut states = Vec::with_capacity(ask.charges.len() * 3);
        for charge in ask.charges {
            let meter = &charge.meter.key;
            match ask.session {
                Some(session) if charge.meter.kind == MeterKind::Duration => {
                    self.push_session_limits(&mut states, user, plan, meter, (ask.windows, ask.at), session);
                }
                _ => self.push_limit_states(&mut states, user, plan, meter, ask.windows, ask.at),
            }
        }
        states
    }

    /// As [`Tenant::limit_states`], as if nothing were set aside for anybody.
    fn limits_of_all(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> Vec<LimitState> {
        let mut states = self.limit_states(user, plan, ask);
        states.iter_mut().for_each(|state| state.set_aside = 0);
        states
    }

    fn verdict(&self, plan: &Plan, ask: &Ask<'_>, limits: &[LimitState]) -> Verdict {
        if self.profile.status == Status::Suspended {
            return Verdict::refused(ask.denial(Code::TenantSuspended));
        }
        if let Some(feature) = ask.features.iter().find(|feature| !plan.has(feature)) {
            let mut denial = ask.denial(Code::FeatureNotInPlan);
            denial.feature = Some(feature.clone());
            return Verdict::refused(denial);
        }
        // Nearly always nothing refuses, and that is seen in one look.
        if !limits.iter().any(|state| refuses(state, amount_on(ask.charges, &state.limit.meter))) {
            return Verdict { refused: None, shadowed: None };
        }
        Verdict { refused: ask.first_refusal(limits, Mode::Hard), shadowed: ask.first_refusal(limits, Mode::Shadow) }
    }

    /// Adds the cheapest public plan under which the same request would pass with today's use.
    fn with_upgrade(
        &self,
        mut denial: Box<Denial>,
        user: Option<&User>,
        plan: &Plan,
        ask: &Ask<'_>,
        catalog: &Catalog,
    ) -> Box<Denial> {
        if denial.code != Code::TenantSuspended {
            denial.upgrade = catalog
                .upgrades_from(plan.rank)
                .into_iter()
                .find(|plan| self.would_pass(user, plan, ask))
                .map(|plan| plan.key.clone());
        }
        denial
    }

    fn would_pass(&self, user: Option<&User>, plan: &Plan, ask: &Ask<'_>) -> bool {
        ask.features.iter().all(|feature| plan.has(feature))
            && ask.first_refusal(&self.limits_of_all(user, plan, ask), Mode::Hard).is_none()
    }
}
