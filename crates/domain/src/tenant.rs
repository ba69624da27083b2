//! The state of a tenant and of its users: the fold of their entries.

use crate::{
    catalog::Scope,
    demand::PendingDenials,
    entry::{ClosedWindow, Effect, Entry, KindSet, Profile},
    grant::Grants,
    id::{TenantId, UserId},
    in_flight::InFlight,
    lease::Lease,
    time::{Frame, Instant, Window, WindowKind},
    warning::Warnings,
};

pub use crate::account::{Account, Accounts, ClosedTotal, Slot};

/// The bounds of one window of each kind, at [`WindowKind::index`].
pub type Windows = [Window; WindowKind::COUNT];

/// A tenant: what it is, and what it used.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// What it is.
    pub profile: Profile,
    /// The instant of its last entry: the next can't be earlier.
    pub last: Instant,
    /// The windows that are open.
    pub windows: Windows,
    /// The windows that were open before.
    pub previous: Windows,
    /// What it used.
    pub accounts: Accounts,
    /// Room that is set aside for nodes that charge at once. Empty where there is only one.
    pub leases: Vec<Lease>,
    /// Holds and sessions.
    pub in_flight: InFlight,
    /// Amounts on top of what the plan allows.
    pub grants: Grants,
    /// What it was warned of.
    pub warnings: Warnings,
    /// Denials counted but not yet written down. Not part of the fold.
    pub pending: PendingDenials,
}

/// A user of a tenant: what it used. Its windows are the tenant's.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// What it used.
    pub accounts: Accounts,
    /// What it was warned of.
    pub warnings: Warnings,
}

impl User {
    /// A user of whom nothing is known yet.
    pub fn new(id: UserId) -> Self {
        Self { id, accounts: Accounts::default(), warnings: Warnings::default() }
    }
}

impl Tenant {
    /// A tenant before its first entry, which must be one that gives it a profile.
    pub fn unborn(id: TenantId, profile: Profile) -> Self {
        Self {
            id,
            profile,
            last: Instant::EPOCH,
            windows: Windows::default(),
            previous: Windows::default(),
            accounts: Accounts::default(),
            leases: Vec::new(),
            in_flight: InFlight::default(),
            grants: Grants::default(),
            warnings: Warnings::default(),
            pending: PendingDenials::default(),
        }
    }

    /// Builds a tenant from the first entry of its ledger; `None` if that entry gives no profile.
    pub fn born(id: TenantId, first: &Entry) -> Option<Self> {
        let profile = first.effects.iter().find_map(|effect| match effect {
            Effect::Profile(profile) => Some(profile.as_ref().clone()),
            _ => None,
        })?;
        Some(Self::unborn(id, profile))
    }

    /// What shapes the tenant's windows.
    pub fn frame(&self) -> Frame {
        Frame { anchor: self.profile.anchor, zone: self.profile.zone.clone() }
    }

    /// The instant an operation at `now` happens at: never before the tenant's last.
    pub fn instant(&self, now: Instant) -> Instant {
        now.max(self.last)
    }

    /// The windows that are open at `at`, which must not be before [`Tenant::last`].
    pub fn windows_at(&self, at: Instant) -> Windows {
        let mut windows = self.windows;
        if windows.iter().all(|window| at < window.end) {
            return windows;
        }
        let frame = self.frame();
        for kind in WindowKind::ALL {
            let open = &mut windows[kind.index()];
            if at >= open.end {
                let mut next = frame.window(kind, at);
                next.start = next.start.max(open.end);
                *open = next;
            }
        }
        windows
    }

    /// The effects that open the windows of `at`; empty while all are open still.
    pub(crate) fn turn_effects(&self, at: Instant) -> Vec<Effect> {
        if self.windows.iter().all(|window| at < window.end) {
            return Vec::new();
        }
        let windows = self.windows_at(at);
        let turned = |kind: &WindowKind| windows[kind.index()] != self.windows[kind.index()];
        WindowKind::ALL
            .into_iter()
            .filter(turned)
            .map(|kind| Effect::Turn { kind, window: windows[kind.index()] })
            .collect()
    }

    /// Sorts the windows that `then` (a set of window bounds of the past) stands for into those that are still open
    /// among `now` and those that are closed and kept. The minute is named too: it says when it was
    /// ([`history`](crate::history)).
    pub(crate) fn split_windows(then: &Windows, now: &Windows) -> (KindSet, Vec<ClosedWindow>) {
        let mut open = KindSet::NONE;
        let mut closed = Vec::new();
        for kind in WindowKind::ALL {
            let window = then[kind.index()];
            if window.start == now[kind.index()].start {
                open = open.with(kind);
            } else if kind.is_kept() || kind == WindowKind::Minute {
                closed.push(ClosedWindow { kind, window });
            }
        }
        (open, closed)
    }

    /// The windows around an instant of the past, given the windows that are open `now`.
    pub(crate) fn windows_of_past(&self, at: Instant, now: &Windows) -> Windows {
        if now.iter().all(|window| window.start <= at) {
            return *now;
        }
        let frame = self.frame();
        let mut windows = *now;
        for kind in WindowKind::ALL {
            let open = now[kind.index()];
            // When windows have just turned, what was open is now the one before.
            let before = if self.windows[kind.index()].start == open.start {
                self.previous[kind.index()]
            } else {
                self.windows[kind.index()]
            };
            if open.start <= at {
                continue;
            }
            windows[kind.index()] = if before.contains(at) {
                before
            } else {
                let mut window = frame.window(kind, at);
                if at >= before.end {
                    window.start = window.start.max(before.end);
                    window.end = window.end.min(open.start);
                } else {
                    window.end = window.end.min(before.start);
                }
                window
            };
        }
        windows
    }

    /// Folds an entry into the state, and into that of the user it names. This is the only place where state changes,
    /// live and on replay alike.
    pub fn fold(&mut self, user: Option<&mut User>, entry: &Entry) {
        debug_assert_eq!(entry.user.as_ref(), user.as_deref().map(|user| &user.id), "the entry's user must be at hand");
        self.fold_tenant(entry);
        if let Some(user) = user {
            user.fold(entry, &self.windows);
        }
    }

    fn fold_tenant(&mut self, entry: &Entry) {
        self.last = self.last.max(entry.at);
        if let Some(epoch) = entry.under()
            && let Some(lease) = self.leases.iter_mut().find(|lease| lease.epoch == epoch)
        {
            lease.take(entry);
        }
        for effect in &entry.effects {
            match effect {
                Effect::Profile(profile) => self.profile = profile.as_ref().clone(),
                Effect::Turn { kind, window } => {
                    let open = &mut self.windows[kind.index()];
                    if open.start != window.start {
                        self.previous[kind.index()] = *open;
                    }
                    *open = *window;
                    self.warnings.turn(&self.windows);
                }
                Effect::Use { meter, amount, open, closed } => {
                    self.accounts.add_use(meter, *amount, *open, closed, &self.windows);
                }
                Effect::Denied { meter, amount, open, closed } => {
                    self.accounts.add_denied(meter, *amount, *open, closed, &self.windows);
                }
                Effect::Level { meter, tenant_delta, set_at, .. } => {
                    let set_at = set_at.filter(|_| entry.user.is_none());
                    self.accounts.move_level(meter, *tenant_delta, set_at);
                    self.warnings.fall(meter, self.accounts.level(meter));
                }
                Effect::Leases(leases) => self.leases.clone_from(leases),
                Effect::Hold(hold) => self.in_flight.put_hold(hold.as_ref().clone(), entry.at),
                Effect::HoldSettled { id } => drop(self.in_flight.remove_hold(*id)),
                Effect::Session(session) => self.in_flight.put_session(session.as_ref().clone()),
                Effect::SessionClosed(end) => drop(self.in_flight.remove_session(end.id)),
                Effect::Grant(grant) => self.grants.put(grant.as_ref().clone(), entry.at),
                Effect::GrantRevoked { id } => self.grants.remove(*id),
                Effect::Draw(draw) => self.grants.draw(draw, &self.windows),
                Effect::Warned(warning) if warning.scope == Scope::Tenant => self.warnings.put(warning, &self.windows),
                Effect::Denials(_) | Effect::Under { .. } | Effect::Warned(_) => {}
            }
        }
    }
}

impl User {
    /// Folds what an entry changes of its user. `windows` are the tenant's, as the entry left them.
    fn fold(&mut self, entry: &Entry, windows: &Windows) {
        for effect in &entry.effects {
            match effect {
                Effect::Use { meter, amount, open, closed } => {
                    self.accounts.add_use(meter, *amount, *open, closed, windows);
                }
                Effect::Denied { meter, amount, open, closed } => {
                    self.accounts.add_denied(meter, *amount, *open, closed, windows);
                }
                Effect::Level { meter, user_delta, set_at, .. } => {
                    self.accounts.move_level(meter, *user_delta, *set_at);
                    self.warnings.fall(meter, self.accounts.level(meter));
                }
                Effect::Warned(warning) if warning.scope == Scope::User => self.warnings.put(warning, windows),
                Effect::Profile(_)
                | Effect::Warned(_)
                | Effect::Turn { .. }
                | Effect::Denials(_)
                | Effect::Leases(_)
                | Effect::Under { .. }
                | Effect::Hold(_)
                | Effect::HoldSettled { .. }
                | Effect::Session(_)
                | Effect::SessionClosed(_)
                | Effect::Grant(_)
                | Effect::GrantRevoked { .. }
                | Effect::Draw(_) => {}
            }
        }
    }
}
