//! What bounds a tenant, as the auditor knows it: the plan's limits, the tenant's own, and what sharing makes of them.

use super::{Asked, Book, Who};
use domain::{
    catalog::{Catalog, Limit, LimitWindow, Mode, Scope},
    decision::Code,
    entry::Status,
    id::{MeterKey, UserId},
    share::{Share, ShareMode},
    time::WindowKind,
};

/// Whether a limit is one of the windows that are sold by: grants add to it, and it can be shared.
fn is_quota(limit: &Limit) -> bool {
    let windows = [WindowKind::Period, WindowKind::Month, WindowKind::Day].map(LimitWindow::Of);
    limit.scope == Scope::Tenant && windows.contains(&limit.window)
}

/// What one user may use of what a limit allows the tenant; `None` is as much as all.
fn part_of(share: &Share, user: &UserId, limit: &Limit) -> Option<i64> {
    match &share.mode {
        _ if !is_quota(limit) || limit.mode != Mode::Hard => None,
        ShareMode::Pooled => None,
        ShareMode::Equal { seats } => limit.max.map(|max| max.div_euclid(*seats)),
        ShareMode::Custom { users, default } => users.get(user).or(default.as_ref()).copied(),
    }
}

impl Book {
    /// The limits that bound an operation of `who` on a meter.
    pub(super) fn limits(&self, who: &Who, meter: &MeterKey, now_ms: i64, catalog: &Catalog) -> Vec<Limit> {
        let mut limits: Vec<Limit> = catalog.plans[&self.plan].limits.iter().cloned().collect();
        for own in self.overrides.iter().filter(|own| own.until.is_none_or(|until| now_ms < until.ms())) {
            let same =
                |limit: &&mut Limit| (&limit.meter, limit.window, limit.scope) == (&own.meter, own.window, own.scope);
            match limits.iter_mut().find(same) {
                Some(limit) => (limit.max, limit.mode) = (own.max, own.mode),
                None => limits.push(Limit {
                    max: own.max,
                    mode: own.mode,
                    window: own.window,
                    scope: own.scope,
                    ..crate::catalog::limit(own.meter.as_str(), own.window.kind(), 0)
                }),
            }
        }
        limits.retain(|limit| limit.meter == *meter && (limit.scope == Scope::Tenant || who.is_some()));
        let parts = |share: &Share| -> Vec<Limit> {
            let Some(user) = who else { return Vec::new() };
            let part = |limit: &Limit| {
                part_of(share, user, limit).map(|max| Limit { max: Some(max), scope: Scope::User, ..limit.clone() })
            };
            limits.iter().filter_map(part).collect()
        };
        let shared = self.shares.iter().filter(|share| share.meter == *meter).flat_map(parts).collect::<Vec<_>>();
        limits.extend(shared);
        limits
    }

    /// Use that counts against a limit: what came out of grants does not.
    pub fn used_against(&self, who: &Who, limit: &Limit) -> i64 {
        match limit.window {
            LimitWindow::Concurrent => self.open_sessions(who, &limit.meter),
            LimitWindow::Of(kind) if is_quota(limit) => {
                (self.used(who, &limit.meter, Some(kind)) - self.drawn(&limit.meter, kind)).max(0)
            }
            window => self.used(who, &limit.meter, window.kind()),
        }
    }

    /// How far an amount would carry what is used and held past a limit; what is not past it is negative.
    pub(super) fn past(&self, who: &Who, limit: &Limit, amount: i64) -> Option<i64> {
        let account = if limit.scope == Scope::Tenant { &None } else { who };
        let taken = self.used_against(account, limit) + self.held(account, &limit.meter, limit.window.kind());
        let granted = if is_quota(limit) { self.left_of_grants(&limit.meter) } else { 0 };
        limit.max.map(|max| taken + amount - max - granted)
    }

    /// What use may still come out of the plan's own allowance, and when the window ends that bounds it most.
    pub(super) fn allowance(&self, meter: &MeterKey, catalog: &Catalog) -> Option<(i64, i64)> {
        let limits = self.limits(&None, meter, self.now_ms, catalog);
        let quotas = limits.iter().filter(|limit| is_quota(limit) && limit.mode == Mode::Hard);
        let rooms = quotas.filter_map(|limit| {
            let ends_ms = limit.window.kind().map_or(i64::MAX, |kind| self.windows[kind.index()].1);
            Some(((limit.max? - self.used_against(&None, limit)).max(0), ends_ms))
        });
        rooms.min_by_key(|(room, _)| *room)
    }

    /// The code of the refusal that comes first; [`Code::Allowed`] if there is none.
    pub fn verdict(&self, asked: &Asked<'_>, now_ms: i64, catalog: &Catalog) -> Code {
        let plan = &catalog.plans[&self.plan];
        if self.status == Status::Suspended {
            return Code::TenantSuspended;
        }
        if asked.features.iter().any(|feature| !plan.features.contains(feature)) {
            return Code::FeatureNotInPlan;
        }
        let mut codes = Vec::new();
        for charge in asked.charges.iter().filter(|charge| charge.amount > 0) {
            let limits = self.limits(asked.who, &charge.meter, now_ms, catalog);
            let hard = limits.iter().filter(|limit| limit.mode == Mode::Hard && !limit.window.is_of_sessions());
            for limit in hard.filter(|limit| self.past(asked.who, limit, charge.amount).is_some_and(|past| past > 0)) {
                codes.push(match limit.window.kind() {
                    None => Code::GaugeLimitReached,
                    Some(WindowKind::Hour | WindowKind::Minute) => Code::RateLimitReached,
                    Some(_) => Code::PeriodLimitReached,
                });
            }
        }
        codes.into_iter().min().unwrap_or(Code::Allowed)
    }
}
