//! What is shown: the same numbers that are checked, at an instant, changing nothing.

use crate::{
    catalog::{Catalog, Limits, Meter, MeterKind, Plan, SessionPolicy},
    decision::LimitState,
    id::PlanKey,
    tenant::{Tenant, User},
    time::{Instant, Window, WindowKind},
};
use std::sync::Arc;

/// A tenant's (or one user's) use of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The plan.
    pub plan: PlanKey,
    /// The billing period.
    pub period: Window,
    /// Every meter of the catalog, in order of key.
    pub meters: Vec<MeterUsage>,
    /// When this was true.
    pub at: Instant,
}

/// Use of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterUsage {
    /// The meter.
    pub meter: Arc<Meter>,
    /// Use in the billing period; a gauge's level.
    pub used: i64,
    /// Reserved for work in flight.
    pub held: i64,
    /// Unmet demand in the billing period.
    pub denied: i64,
    /// Its limits, with their numbers.
    pub limits: Vec<LimitState>,
}

impl Tenant {
    /// What was used, as it stands at `now`. Limits on sessions show the longest one that is open.
    pub fn usage(&self, user: Option<&User>, now: Instant, catalog: &Catalog) -> Usage {
        let at = self.instant(now);
        let windows = self.windows_at(at);
        let period = windows[WindowKind::Period.index()];
        let no_plan = || {
            let (key, label) = (self.profile.plan.clone(), "".into());
            Arc::new(Plan {
                key,
                label,
                rank: 0,
                price: None,
                public: false,
                features: vec![],
                limits: Limits::default(),
                sessions: SessionPolicy::default(),
            })
        };
        let plan = self.plan(catalog).cloned().unwrap_or_else(|_| no_plan());
        let meters = catalog.meters.values().map(|meter| {
            let accounts = user.map_or(&self.accounts, |user| &user.accounts);
            let pending = self.pending.denied(&meter.key, user.map(|user| &user.id), WindowKind::Period, period.start);
            let whose = user.map(|user| &user.id);
            let mut limits = Vec::new();
            let longest = self.longest_session(&meter.key, whose, at);
            self.push_session_limits(&mut limits, user, &plan, &meter.key, (&windows, at), longest);
            MeterUsage {
                meter: meter.clone(),
                used: match meter.kind {
                    MeterKind::Gauge => accounts.level(&meter.key),
                    MeterKind::Counter | MeterKind::Duration => accounts.used(&meter.key, WindowKind::Period, &period),
                },
                held: match meter.kind {
                    MeterKind::Gauge => self.in_flight.held_level(&meter.key, whose, at),
                    MeterKind::Counter | MeterKind::Duration => {
                        self.in_flight.held(&meter.key, whose, WindowKind::Period, &period, at)
                    }
                },
                denied: accounts.denied(&meter.key, WindowKind::Period, &period).saturating_add(pending),
                limits,
            }
        });
        Usage { plan: self.profile.plan.clone(), period, meters: meters.collect(), at }
    }
}
