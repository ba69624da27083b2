//! `GET /api/v1/entries`: the journal, line by line.

use super::{limit::Time, shares::in_journal};
use domain::{
    entry::{ClosedWindow, Effect, Entry, KindSet},
    hold::HeldCharge,
    id::UserId,
    lease::{Lease, Slice},
    time::WindowKind,
};
use engine::ports::Line;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One line of the journal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Entry)]
pub struct EntryShape<'a> {
    /// Its position.
    pub seq: u64,
    /// Whose.
    pub tenant_id: &'a str,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// `check`, `event`, `gateway`, `refund`, `admin` or `upkeep`.
    pub cause: &'static str,
    /// The catalog's version it was decided on.
    pub catalog_version: u32,
    /// The user it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    /// Declared dimensions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<&'a str, &'a str>,
    /// Who asked and why, for administration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'a str>,
    /// What changed, in order.
    #[schema(value_type = Vec<Object>)]
    pub effects: Vec<Value>,
}

impl<'a> EntryShape<'a> {
    /// The shape of a line.
    pub fn of((seq, tenant, entry): &'a Line) -> Self {
        let Entry { at, catalog, cause, user, dimensions, note, effects, .. } = entry;
        Self {
            seq: *seq,
            tenant_id: tenant.as_str(),
            at: Time(*at),
            cause: cause.word(),
            catalog_version: *catalog,
            user_id: user.as_ref().map(UserId::as_str),
            dimensions: dimensions.iter().map(|(key, value)| (key.as_str(), &**value)).collect(),
            note: note.as_deref(),
            effects: effects.iter().map(effect).collect(),
        }
    }
}

fn windows(open: KindSet, closed: &[ClosedWindow]) -> (Vec<&'static str>, Vec<Value>) {
    let open = WindowKind::ALL.into_iter().filter(|kind| open.has(*kind)).map(WindowKind::word).collect();
    let closed = closed
        .iter()
        .map(|closed| json!({ "window": closed.kind.word(), "start": Time(closed.window.start), "end": Time(closed.window.end) }))
        .collect();
    (open, closed)
}

fn effect(effect: &Effect) -> Value {
    match effect {
        Effect::Profile(profile) => json!({
            "effect": "profile", "plan": profile.plan.as_str(), "status": profile.status.word(),
            "timezone": profile.zone.name(), "period_anchor": Time(profile.anchor),
            "overrides": profile.overrides.len(), "catalog_pin": profile.catalog_pin,
            "shares": profile.shares.iter().map(in_journal).collect::<Vec<_>>(),
        }),
        Effect::Turn { kind, window } => json!({
            "effect": "turn", "window": kind.word(), "start": Time(window.start), "end": Time(window.end),
        }),
        Effect::Use { meter, amount, open, closed } => {
            let (open, closed) = windows(*open, closed);
            json!({ "effect": "use", "meter": meter.as_str(), "amount": amount, "open": open, "closed": closed })
        }
        Effect::Denied { meter, amount, open, closed } => {
            let (open, closed) = windows(*open, closed);
            json!({ "effect": "denied", "meter": meter.as_str(), "amount": amount, "open": open, "closed": closed })
        }
        Effect::Level { meter, tenant_delta, user_delta, set_at } => json!({
            "effect": "level", "meter": meter.as_str(), "tenant_delta": tenant_delta, "user_delta": user_delta,
            "set_at": set_at.map(Time),
        }),
        Effect::Denials(run) => json!({
            "effect": "denials", "code": run.key.code.word(), "count": run.count, "amount": run.amount,
            "shadow": run.key.shadow,
        }),
        Effect::Leases(leases) => {
            json!({ "effect": "leases", "leases": leases.iter().map(lease).collect::<Vec<_>>() })
        }
        Effect::Under { epoch } => json!({ "effect": "under", "epoch": epoch }),
        Effect::Hold(hold) => json!({
            "effect": "hold", "hold": hex(hold.id.0), "expires_at": Time(hold.expires_at), "lapsed": hold.lapsed,
            "charges": hold.charges.iter().map(held).collect::<Vec<_>>(),
        }),
        Effect::Grant(grant) => json!({
            "effect": "grant", "grant": hex(grant.id.0), "meter": grant.meter.as_str(), "amount": grant.amount,
            "left": grant.left, "priority": grant.priority, "expires_at": grant.expires_at.map(Time),
            "reason": grant.reason,
        }),
        Effect::Warned(warning) => json!({
            "effect": "warned", "limit": warning.limit, "meter": warning.meter.as_str(), "window": warning.window.word(),
            "scope": warning.scope.word(), "percent": warning.percent, "used": warning.used, "max": warning.max,
            "start": warning.during.map(|window| Time(window.start)), "end": warning.during.map(|window| Time(window.end)),
        }),
        Effect::GrantRevoked { id } => json!({ "effect": "grant_revoked", "grant": hex(id.0) }),
        Effect::Draw(draw) => json!({
            "effect": "draw", "grant": hex(draw.grant.0), "meter": draw.meter.as_str(), "amount": draw.amount,
        }),
        Effect::HoldSettled { id } => json!({ "effect": "hold_settled", "hold": hex(id.0) }),
        Effect::Session(session) => json!({
            "effect": "session", "session": hex(session.id.0), "key": session.key, "meter": session.meter.as_str(),
            "opened_at": Time(session.opened_at), "touched_at": Time(session.touched_at),
            "accrued_ms": session.accrued_ms, "overage_ms": session.overage_ms, "held_ms": session.held_ms,
        }),
        Effect::SessionClosed(end) => json!({
            "effect": "session_closed", "session": hex(end.id.0), "key": end.key, "meter": end.meter.as_str(),
            "opened_at": Time(end.opened_at), "ended_at": Time(end.ended_at),
            "accrued_ms": end.accrued_ms, "overage_ms": end.overage_ms, "reason": end.reason.word(),
        }),
    }
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

fn held(part: &HeldCharge) -> Value {
    json!({ "meter": part.meter.as_str(), "amount": part.amount })
}

fn lease(lease: &Lease) -> Value {
    let slice = |slice: &Slice| json!({ "meter": slice.meter.as_str(), "window": slice.kind.word(), "size": slice.size, "left": slice.left });
    json!({
        "epoch": lease.epoch, "granted_at": Time(lease.granted_at),
        "slices": lease.slices.iter().map(slice).collect::<Vec<_>>(),
    })
}
