//! Whether everybody was told once of what use has reached, and of nothing else: a tenant's journal is gone through by who
//! knows what was told before, and looks after each entry at what it has moved. Numbers are those of the fold, which the
//! [books](super::Book) judge; what is due is worked out here.

use super::Who;
use domain::{
    catalog::{Catalog, LimitWindow, Mode, Scope},
    decision::LimitState,
    entry::{Effect, Entry, KindSet},
    id::{MeterKey, TenantId, UserId},
    tenant::{Tenant, User},
    time::{Instant, WindowKind},
    warning::Warning,
};
use std::{collections::BTreeMap, sync::Arc};

/// Whose limit on which meter, by its name, over what, and which part of it in percent.
type Name = (Who, MeterKey, Arc<str>, LimitWindow, u16);

/// What was told: the limit's maximum then, and when the window began; a level has none.
type Told = (i64, Option<Instant>);

/// How what was told as used is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// It is all that was used.
    Exactly,
    /// Others may have charged something under leases meanwhile.
    AtMost,
}

/// Judges a journal from its beginning; gives how many warnings there are. Catalogs are asked for by version.
///
/// # Errors
/// A warning that is missing, repeated, or of what use had not reached.
pub fn judge<'a>(
    tenant: &TenantId,
    entries: impl IntoIterator<Item = &'a Entry>,
    catalog: impl Fn(u32) -> Option<&'a Catalog>,
    used: Used,
) -> Result<u64, String> {
    let mut entries = entries.into_iter().peekable();
    let Some(first) = entries.peek() else { return Ok(0) };
    let born = Tenant::born(tenant.clone(), first).ok_or("nobody made the tenant")?;
    let mut reader = Reader { tenant: born, users: BTreeMap::new(), told: BTreeMap::new(), used };
    let mut count = 0;
    for (place, entry) in entries.enumerate() {
        let catalog = catalog(entry.catalog).ok_or_else(|| format!("there is no catalog {}", entry.catalog))?;
        let read = reader.next(entry, catalog);
        count += read.map_err(|wrong| format!("{tenant}, entry {}, {entry:?}: {wrong}", place + 1))?;
    }
    Ok(count)
}

/// Who reads a journal.
struct Reader {
    tenant: Tenant,
    users: BTreeMap<UserId, User>,
    told: BTreeMap<Name, Told>,
    used: Used,
}

impl Reader {
    fn next(&mut self, entry: &Entry, catalog: &Catalog) -> Result<u64, String> {
        let user = entry.user.as_ref().map(|id| self.users.entry(id.clone()).or_insert_with(|| User::new(id.clone())));
        self.tenant.fold(user, entry);
        self.forget_levels();
        let mut due = self.due(entry, catalog);
        let mut count = 0;
        for warning in entry.effects.iter().filter_map(warning_of) {
            let who = entry.user.clone().filter(|_| warning.scope == Scope::User);
            let name = (who, warning.meter.clone(), warning.limit.clone(), warning.window, warning.percent);
            let Some((told, reached)) = due.remove(&name) else {
                return Err(format!("{name:?} is told, and was told before, or is not reached"));
            };
            let is_used = match self.used {
                Used::Exactly => warning.used == reached,
                Used::AtMost => (reached_at(told.0, warning.percent)..=reached).contains(&warning.used),
            };
            if (warning.max, warning.during.map(|window| window.start)) != told || !is_used || warning.at != entry.at {
                return Err(format!("{warning:?} is told, where {reached} are used, and {told:?} is right"));
            }
            self.told.insert(name, told);
            count += 1;
        }
        match due.pop_first() {
            None => Ok(count),
            Some((name, (told, reached))) => Err(format!("{name:?} is not told: {reached} are used of {told:?}")),
        }
    }

    /// What the entry that was just folded has to tell, with what is used.
    fn due(&self, entry: &Entry, catalog: &Catalog) -> BTreeMap<Name, (Told, i64)> {
        let mut due = BTreeMap::new();
        if !entry.effects.iter().any(moves_something) {
            return due;
        }
        let user = entry.user.as_ref().and_then(|id| self.users.get(id));
        let windows = self.tenant.windows_at(self.tenant.instant(entry.at));
        let usage = self.tenant.usage(user, entry.at, catalog);
        let states = usage.meters.iter().flat_map(|meter| &meter.limits);
        for state in states.filter(|state| warns(state) && is_moved(entry, &state.meter)) {
            let who = entry.user.clone().filter(|_| state.scope == Scope::User);
            if state.scope == Scope::User && who.is_none() {
                continue;
            }
            let (max, start) =
                (state.max.unwrap_or(i64::MAX), state.window.kind().map(|kind| windows[kind.index()].start));
            for percent in &catalog.warnings {
                let name = (who.clone(), state.meter.clone(), state.name.clone(), state.window, *percent);
                let is_told = self.told.get(&name).is_some_and(|told| told.0 >= max && told.1 == start);
                if state.used >= reached_at(max, *percent) && !is_told {
                    due.insert(name, ((max, start), state.used));
                }
            }
        }
        due
    }

    /// What has fallen is told again when it has risen again.
    fn forget_levels(&mut self) {
        let level = |who: &Who, meter: &MeterKey| match who {
            None => self.tenant.accounts.level(meter),
            Some(id) => self.users.get(id).map_or(0, |user| user.accounts.level(meter)),
        };
        self.told.retain(|(who, meter, _, window, percent), (max, _)| {
            *window != LimitWindow::Level || level(who, meter) >= reached_at(*max, *percent)
        });
    }
}

/// The first amount that is so many percent, and something at all.
fn reached_at(max: i64, percent: u16) -> i64 {
    let hundredths = i128::from(max) * i128::from(percent);
    let whole = hundredths / 100;
    let amount = if whole * 100 == hundredths { whole } else { whole + 1 };
    i64::try_from(amount).unwrap_or(i64::MAX).max(1)
}

/// Whether a limit is one that is warned of: not a rate, nothing of sessions, and nobody's business but the operator's.
fn warns(limit: &LimitState) -> bool {
    let is_long = match limit.window {
        LimitWindow::Level => true,
        LimitWindow::Of(kind) => !matches!(kind, WindowKind::Hour | WindowKind::Minute),
        LimitWindow::Session | LimitWindow::Concurrent => false,
    };
    is_long && limit.max.is_some() && limit.mode != Mode::Shadow
}

fn warning_of(effect: &Effect) -> Option<&Warning> {
    match effect {
        Effect::Warned(warning) => Some(warning),
        _ => None,
    }
}

/// Whether an effect counts in a window that is open, or changes what the tenant is.
fn moves_something(effect: &Effect) -> bool {
    match effect {
        Effect::Use { open, .. } => *open != KindSet::NONE,
        Effect::Level { .. } | Effect::Profile(_) => true,
        _ => false,
    }
}

fn is_moved(entry: &Entry, meter: &MeterKey) -> bool {
    entry.effects.iter().filter(|effect| moves_something(effect)).any(|effect| match effect {
        Effect::Use { meter: moved, .. } | Effect::Level { meter: moved, .. } => moved == meter,
        _ => true,
    })
}
