//! Tenants, their overrides and adjustments.

use super::{
    amount::Amount,
    check::{bad_name, clipped, known_meter},
    limit::{NO_WINDOW, Time},
    shares::{ShareAnswer, ShareRequest},
};
use crate::{problem::Problem, rescue};
use domain::{
    catalog::{Catalog, Enforce, LimitWindow, Mode, Scope},
    day::Day,
    entry::{Override, Status},
    id::{PlanKey, UserId},
    op::{Adjustment, Movement, OpError, ProfileChange},
    time::{Instant, WindowKind, Zone},
};
use engine::requests::TenantCard;
use serde::{Deserialize, Deserializer, Serialize};

/// What a tenant should be from now on; what is left out stays as it is.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantRequest)]
pub struct TenantRequest {
    /// What it bought.
    #[schema(example = "free")]
    pub plan: Option<String>,
    /// The IANA name of the zone its days and months are cut in.
    #[schema(example = "Europe/Madrid")]
    pub timezone: Option<String>,
    /// Where its billing period is anchored; at first, when it was created.
    #[schema(format = DateTime)]
    pub period_anchor: Option<String>,
    /// `active` or `suspended`.
    pub status: Option<String>,
    /// `on` or `observe`; null follows the catalog again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub enforce: Option<Option<String>>,
    /// The version of the catalog that decides for it, whatever is in force; null follows the one in force again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, example = 3)]
    pub catalog_pin: Option<Option<u32>>,
    /// How meters are shared among its users, all of them anew; null or an empty list shares nothing.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<ShareRequest>>)]
    pub shares: Option<Option<Vec<ShareRequest>>>,
}

/// Tells a null from what was left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn wrong(field: &str, value: &str, expected: &str) -> Problem {
    rescue::INVALID_BODY.problem(format!("\"{field}\" must be {expected}, not {:?}.", clipped(value)))
}

pub(super) fn instant(field: &str, text: &str) -> Result<Instant, Problem> {
    Instant::parse(text).ok_or_else(|| wrong(field, text, "an instant in RFC 3339 with an offset"))
}

impl TenantRequest {
    /// The change that is asked for.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn into_change(self) -> Result<ProfileChange, Problem> {
        // Whether there is such a plan is judged by the catalog that decides for the tenant.
        let plan = |name: String| {
            PlanKey::new(&name)
                .map_err(|_| rescue::problem_of_op(&OpError::UnknownPlan(PlanKey::trusted(clipped(&name)))))
        };
        let zone = |name: String| Zone::named(&name).ok_or_else(|| wrong("timezone", &name, "an IANA time zone"));
        let status = |word: String| {
            Status::from_word(&word).ok_or_else(|| wrong("status", &word, "\"active\" or \"suspended\""))
        };
        let enforce =
            |word: String| Enforce::from_word(&word).ok_or_else(|| wrong("enforce", &word, "\"on\" or \"observe\""));
        let shares = |shares: Option<Vec<ShareRequest>>| {
            shares.unwrap_or_default().into_iter().map(ShareRequest::into_share).collect::<Result<Vec<_>, _>>()
        };
        Ok(ProfileChange {
            shares: self.shares.map(shares).transpose()?,
            plan: self.plan.map(plan).transpose()?,
            catalog_pin: self.catalog_pin,
            zone: self.timezone.map(zone).transpose()?,
            anchor: self.period_anchor.map(|text| instant("period_anchor", &text)).transpose()?,
            status: self.status.map(status).transpose()?,
            enforce: self.enforce.map(|word| word.map(enforce).transpose()).transpose()?,
            ..ProfileChange::default()
        })
    }
}

/// A tenant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Tenant)]
pub struct TenantAnswer {
    /// Its id.
    #[schema(example = "acme")]
    pub tenant_id: String,
    /// What it bought.
    pub plan: String,
    /// `active` or `suspended`.
    pub status: &'static str,
    /// `on` or `observe`; null follows the catalog.
    pub enforce: Option<&'static str>,
    /// The version of the catalog that decides for it; null follows the one in force.
    pub catalog_pin: Option<u32>,
    /// In which zone its days and months are cut.
    pub timezone: String,
    /// Where its billing period is anchored.
    #[schema(value_type = String, format = DateTime)]
    pub period_anchor: Time,
    /// When it was first seen.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// Limits of its own.
    pub overrides: Vec<OverrideAnswer>,
    /// How meters are shared among its users.
    pub shares: Vec<ShareAnswer>,
}

impl TenantAnswer {
    /// The shape of a tenant.
    pub fn of(card: &TenantCard) -> Self {
        let profile = &card.profile;
        Self {
            tenant_id: card.id.to_string(),
            plan: profile.plan.to_string(),
            status: profile.status.word(),
            enforce: profile.enforce.map(Enforce::word),
            catalog_pin: profile.catalog_pin,
            timezone: profile.zone.name().to_owned(),
            period_anchor: Time(profile.anchor),
            created_at: Time(profile.created_at),
            overrides: profile.overrides.iter().map(OverrideAnswer::of).collect(),
            shares: profile.shares.iter().map(ShareAnswer::of).collect(),
        }
    }
}

/// A limit of one tenant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Override)]
pub struct OverrideAnswer {
    /// Which meter.
    pub meter: String,
    /// In which window; `none` for a gauge.
    pub window: &'static str,
    /// `tenant` or `user`.
    pub scope: &'static str,
    /// The largest use allowed; null is unlimited.
    pub max: Option<i64>,
    /// `hard`, `soft` or `shadow`.
    pub mode: &'static str,
    /// When it stops applying; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Time>,
    /// Why it was given.
    pub reason: Option<String>,
}

impl OverrideAnswer {
    /// The shape of an override.
    pub fn of(own: &Override) -> Self {
        Self {
            meter: own.meter.to_string(),
            window: own.window.word(),
            scope: own.scope.word(),
            max: own.max,
            mode: own.mode.word(),
            until: own.until.map(Time),
            reason: own.reason.as_deref().map(str::to_owned),
        }
    }
}

/// Longest reason, in bytes.
pub const REASON_MAX_BYTES: usize = 500;

/// A limit of one tenant to put in place of the plan's.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OverrideRequest)]
pub struct OverrideRequest {
    /// Which meter.
    #[schema(example = "messages")]
    pub meter: String,
    /// `period`, `month`, `day`, `hour`, `minute`; left out or `none` for a gauge.
    #[schema(example = "day")]
    pub window: Option<String>,
    /// `tenant` (as when left out) or `user`.
    pub scope: Option<String>,
    /// The largest use allowed, or the word `unlimited`.
    #[schema(value_type = i64, example = 500)]
    pub max: MaxRequest,
    /// `hard` (as when left out), `soft` or `shadow`.
    pub mode: Option<String>,
    /// When it stops applying.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// Why it is given.
    pub reason: Option<String>,
}

/// An amount, or the word `unlimited`. Null is what answers show for unlimited, and may be sent back.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum MaxRequest {
    /// Bounded.
    Amount(Amount),
    /// A word.
    Word(String),
    /// Null.
    Null(()),
}

impl OverrideRequest {
    /// The override that is asked for.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn into_override(self, catalog: &Catalog) -> Result<Override, Problem> {
        let max = match self.max {
            MaxRequest::Amount(Amount(max)) => Some(max),
            MaxRequest::Null(()) => None,
            MaxRequest::Word(word) if word == "unlimited" => None,
            MaxRequest::Word(word) => return Err(wrong("max", &word, "an integer or \"unlimited\"")),
        };
        Ok(Override {
            meter: known_meter(catalog, &self.meter)?,
            window: limit_window(self.window.as_deref())?,
            scope: scope(self.scope.as_deref())?,
            max,
            mode: mode(self.mode.as_deref())?,
            until: self.until.map(|text| instant("until", &text)).transpose()?,
            reason: self.reason.as_deref().map(reason).transpose()?.map(Into::into),
        })
    }
}

/// What of a meter the limit with this window bounds; a level where none is given.
///
/// # Errors
/// A problem where there is no such window.
pub fn limit_window(word: Option<&str>) -> Result<LimitWindow, Problem> {
    let Some(word) = word else { return Ok(LimitWindow::Level) };
    let known = "period, month, day, hour, minute, session, concurrent or none";
    LimitWindow::from_word(word).ok_or_else(|| wrong("window", word, known))
}

/// The window with this word; none for a gauge.
///
/// # Errors
/// A problem where there is no such window.
pub fn window(word: Option<&str>) -> Result<Option<WindowKind>, Problem> {
    match word {
        None | Some(NO_WINDOW) => Ok(None),
        Some(word) => match WindowKind::from_word(word) {
            Some(kind) => Ok(Some(kind)),
            None => Err(wrong("window", word, "period, month, day, hour, minute or none")),
        },
    }
}

/// The scope with this word; the tenant's where none is given.
///
/// # Errors
/// A problem where there is no such scope.
pub fn scope(word: Option<&str>) -> Result<Scope, Problem> {
    match word {
        None | Some("tenant") => Ok(Scope::Tenant),
        Some("user") => Ok(Scope::User),
        Some(word) => Err(wrong("scope", word, "tenant or user")),
    }
}

fn mode(word: Option<&str>) -> Result<Mode, Problem> {
    match word {
        None | Some("hard") => Ok(Mode::Hard),
        Some("soft") => Ok(Mode::Soft),
        Some("shadow") => Ok(Mode::Shadow),
        Some(word) => Err(wrong("mode", word, "hard, soft or shadow")),
    }
}

pub(super) fn reason(text: &str) -> Result<&str, Problem> {
    let fits = !text.trim().is_empty() && text.len() <= REASON_MAX_BYTES && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(wrong("reason", text, "a line of at most 500 bytes")) }
}

/// A correction: exactly one of `set` and `add`, and why.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdjustmentRequest)]
pub struct AdjustmentRequest {
    /// Which meter.
    #[schema(example = "messages")]
    pub meter: String,
    /// Moves the account by this much; negative takes use away.
    #[schema(value_type = Option<i64>)]
    pub add: Option<Amount>,
    /// Sets the account to this value.
    #[schema(value_type = Option<i64>)]
    pub set: Option<Amount>,
    /// On which day of the tenant's time zone, such as `2026-03-01`: what is added is use of that day alone, as when history is
    /// brought along. Left out, it is now.
    #[schema(value_type = Option<String>, format = Date)]
    pub on: Option<String>,
    /// In which window alone. Left out, `add` counts in every open window and `set` in the billing period.
    pub window: Option<String>,
    /// Whose account within the tenant.
    pub user_id: Option<String>,
    /// Why; it is kept with the entry.
    #[schema(example = "opening balance")]
    pub reason: String,
    /// The idempotency key; the same thing as the header `Idempotency-Key`.
    pub id: Option<String>,
}

/// A correction, read.
#[derive(Debug)]
pub struct AdjustmentAsked {
    /// What to correct.
    pub adjustment: Adjustment,
    /// Whose account within the tenant.
    pub user: Option<UserId>,
    /// Why.
    pub reason: String,
    /// The id in the body.
    pub id: Option<String>,
}

impl AdjustmentRequest {
    /// The correction that is asked for.
    ///
    /// # Errors
    /// A problem that names the field that can't be used.
    pub fn into_asked(self, catalog: &Catalog) -> Result<AdjustmentAsked, Problem> {
        let movement = match (self.add, self.set) {
            (Some(Amount(add)), None) => Movement::Add(add),
            (None, Some(Amount(set))) => Movement::Set(set),
            _ => return Err(rescue::INVALID_BODY.problem("Give either \"add\" or \"set\".")),
        };
        let on = self.on.as_deref().map(|text| {
            Day::parse(text).ok_or_else(|| {
                rescue::INVALID_BODY.problem(format!("\"on\" is {text:?}; write a date such as 2026-03-01."))
            })
        });
        let on = on.transpose()?;
        if on.is_some() && (self.window.is_some() || self.set.is_some()) {
            return Err(rescue::INVALID_BODY.problem("\"on\" goes with \"add\", and with no \"window\"."));
        }
        let adjustment = Adjustment {
            meter: known_meter(catalog, &self.meter)?,
            movement,
            window: window(self.window.as_deref())?,
            on,
            binding: None,
        };
        let user = self.user_id.as_deref().map(UserId::new).transpose().map_err(|error| bad_name("user_id", &error))?;
        reason(&self.reason)?;
        Ok(AdjustmentAsked { adjustment, user, reason: self.reason, id: self.id })
    }
}
