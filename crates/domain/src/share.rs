//! How what a tenant may use is shared among its users. A share is a limit on users that is made from one on the tenant,
//! over the same window. What each user used is counted whether or not anything is shared, so another mode finds the use
//! that was made, and nothing is lost or refilled.

use crate::{
    catalog::{AMOUNT_MAX, Catalog, Limit, MeterKind, Mode, Scope},
    id::{MeterKey, UserId},
    op::OpError,
    time::WindowKind,
};
use std::{collections::BTreeMap, sync::Arc};

/// How many meters of one tenant may be shared.
pub const SHARES_MAX: usize = 32;
/// How many users all shares of one tenant may name together.
pub const SHARE_USERS_MAX: usize = 1000;
/// How many seats an equal share may have.
pub const SEATS_MAX: i64 = 1_000_000;

/// How one meter is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which meter.
    pub meter: MeterKey,
    /// How.
    pub mode: ShareMode,
}

/// Why shares have no meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// More than [`SHARES_MAX`].
    #[error("a tenant may share at most {SHARES_MAX} meters")]
    TooMany,
    /// More users than [`SHARE_USERS_MAX`].
    #[error("the shares of a tenant may name at most {SHARE_USERS_MAX} users together; give the others the `default`")]
    TooManyUsers,
    /// Two shares of one meter.
    #[error("{0} is shared twice; give it one mode")]
    Twice(MeterKey),
    /// No number of seats.
    #[error("an equal share needs a number of seats between 1 and {SEATS_MAX}")]
    Seats,
}

/// Who may use how much of what the tenant may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareMode {
    /// Whoever comes first.
    Pooled,
    /// Each user one part in so many, rounded down. 1 to [`SEATS_MAX`].
    Equal {
        /// How many parts there are, whoever has one.
        seats: i64,
    },
    /// Each user a number of its own, in every window that the tenant's use is limited in.
    Custom {
        /// The numbers, 0 to [`AMOUNT_MAX`].
        users: Arc<BTreeMap<UserId, i64>>,
        /// That of users who have none; `None` bounds them by the tenant's limits alone.
        default: Option<i64>,
    },
}

impl ShareMode {
    /// The word used on the wire.
    pub fn word(&self) -> &'static str {
        match self {
            ShareMode::Pooled => "pooled",
            ShareMode::Equal { .. } => "equal",
            ShareMode::Custom { .. } => "custom",
        }
    }

    /// What a user may use where the tenant may use `max`; `None` is no limit of its own.
    pub fn part(&self, user: &UserId, max: Option<i64>) -> Option<i64> {
        match self {
            ShareMode::Pooled => None,
            ShareMode::Equal { seats } => max.map(|max| max / (*seats).max(1)),
            ShareMode::Custom { users, default } => users.get(user).copied().or(*default),
        }
    }
}

impl Share {
    /// The limit on a user that this makes of one on the tenant, if it makes one: of hard ones over a period, a month or a
    /// day on its meter.
    pub(crate) fn limit_of(&self, user: &UserId, limit: &Limit) -> Option<Limit> {
        let is_quota = matches!(limit.window.kind(), Some(WindowKind::Period | WindowKind::Month | WindowKind::Day));
        if !is_quota || limit.scope != Scope::Tenant || limit.mode != Mode::Hard || limit.meter != self.meter {
            return None;
        }
        let max = self.mode.part(user, limit.max)?;
        Some(Limit {
            name: format!("{}_share", limit.name).into(),
            max: Some(max),
            scope: Scope::User,
            ..limit.clone()
        })
    }
}

/// The shares of one tenant, if they have a meaning.
///
/// # Errors
/// [`OpError`], where they have none, and where there are too many of something.
pub(crate) fn checked(shares: &[Share], catalog: &Catalog) -> Result<Vec<Share>, OpError> {
    if shares.len() > SHARES_MAX {
        return Err(ShareError::TooMany.into());
    }
    let mut named = 0;
    let mut checked: Vec<Share> = Vec::with_capacity(shares.len());
    for share in shares {
        let meter = catalog.meters.get(&share.meter).ok_or_else(|| OpError::UnknownMeter(share.meter.clone()))?;
        if meter.kind == MeterKind::Gauge {
            return Err(OpError::GaugeHasNoWindow(meter.key.clone()));
        }
        if checked.iter().any(|known| known.meter == meter.key) {
            return Err(ShareError::Twice(meter.key.clone()).into());
        }
        match &share.mode {
            ShareMode::Pooled => {}
            ShareMode::Equal { seats } if (1..=SEATS_MAX).contains(seats) => {}
            ShareMode::Equal { .. } => return Err(ShareError::Seats.into()),
            ShareMode::Custom { users, default } => {
                named += users.len();
                for amount in users.values().chain(default) {
                    check_part(&meter.key, *amount)?;
                }
            }
        }
        checked.push(Share { meter: meter.key.clone(), mode: share.mode.clone() });
    }
    match named {
        0..=SHARE_USERS_MAX => Ok(checked),
        _ => Err(ShareError::TooManyUsers.into()),
    }
}

fn check_part(meter: &MeterKey, amount: i64) -> Result<(), OpError> {
    match amount {
        0..=AMOUNT_MAX => Ok(()),
        ..0 => Err(OpError::NegativeAmount(meter.clone())),
        _ => Err(OpError::AmountTooLarge(meter.clone())),
    }
}
