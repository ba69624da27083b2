//! One type per name, so that a tenant can't be passed where a user is meant.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Longest tenant or user name accepted from outside, in bytes.
pub const NAME_MAX_BYTES: usize = 200;

/// Why a name from outside was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The name is longer than [`NAME_MAX_BYTES`].
    #[error("a name must not be longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// The name holds a character that is not allowed.
    #[error("a name must not hold the character {0:?}")]
    Character(char),
}

/// Tenants and users are named by the customer's own ids: anything printable without white space, quotes,
/// slashes or other characters that change meaning inside a path, a header or a log line.
fn check_outside_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_MAX_BYTES {
        return Err(NameError::TooLong);
    }
    let refused = |c: char| !(c.is_ascii_alphanumeric() || "-_.:@|+=~$!*,".contains(c));
    match name.chars().find(|c| refused(*c)) {
        Some(c) => Err(NameError::Character(c)),
        None if name == "." || name == ".." => Err(NameError::Character('.')),
        None => Ok(()),
    }
}

/// Catalog keys are lower-case words: they become JSON keys, metric labels and header parameters.
fn check_catalog_key(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > 64 {
        return Err(NameError::TooLong);
    }
    let refused = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    match name.chars().find(|c| refused(*c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq)]
        pub struct $name(Arc<str>);

        // Most names that are compared come from one catalog, and so are one piece of memory.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            /// Takes a name from outside, or says why it can't be one.
            pub fn new(name: &str) -> Result<Self, NameError> {
                $check(name)?;
                Ok(Self(Arc::from(name)))
            }
            /// Takes a name that was checked before: one read back from a ledger.
            pub fn trusted(name: &str) -> Self {
                Self(Arc::from(name))
            }
            /// Whether both are one piece of memory, and so equal; names that are equal need not be.
            pub fn is_same(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0)
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The customer organization whose use is metered.
    TenantId, check_outside_name
);
name!(
    /// A person (or machine) inside a tenant.
    UserId, check_outside_name
);
name!(
    /// A quantity that is metered.
    MeterKey, check_catalog_key
);
name!(
    /// Something a plan has or has not.
    FeatureKey, check_catalog_key
);
name!(
    /// What a tenant bought.
    PlanKey, check_catalog_key
);
name!(
    /// A declared dimension that entries keep, such as `model` or `route`.
    DimensionKey, check_catalog_key
);
name!(
    /// A price list, such as `request` or `tokens`.
    CostKey, check_catalog_key
);
