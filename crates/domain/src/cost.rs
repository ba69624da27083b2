//! Price lists: from what a request says of itself to an amount of one meter.
//!
//! Nothing is free by accident. A value without a price, a property that is not there and a name that a table does not
//! know each follow what the table says about them, and where it says nothing they are refused.

use crate::{
    catalog::AMOUNT_MAX,
    id::{CostKey, MeterKey},
    op::Charge,
};
use std::{collections::BTreeMap, sync::Arc};

/// How much of a word from outside an error repeats, in characters.
const REPEATED_MAX: usize = 64;

/// One price list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostTable {
    /// Its key.
    pub key: CostKey,
    /// The counter that is charged.
    pub meter: MeterKey,
    /// How the amount is made.
    pub rule: CostRule,
}

/// How an amount is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostRule {
    /// Prices of properties add up.
    Parts(Parts),
    /// Quantities at a price per so many of them.
    Rates(Rates),
}

/// What happens to what a table has no price for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise<T> {
    /// It is refused.
    Refuse,
    /// It has this price.
    Price(T),
}

/// Prices by the value of one property. All are at least 0 and at most [`AMOUNT_MAX`], in the meter's smallest unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices<T> {
    /// The name of the property.
    pub property: Arc<str>,
    /// The price of each value.
    pub known: BTreeMap<Arc<str>, T>,
    /// Where the value is none of these.
    pub unknown: Otherwise<T>,
    /// Where the property is not there.
    pub missing: Otherwise<T>,
}

impl<T> Prices<T> {
    /// The price of a value, or of none; `None` where it is refused.
    fn price(&self, value: Option<&str>) -> Option<&T> {
        let (known, otherwise) = match value {
            None => (None, &self.missing),
            Some(value) => (self.known.get(value), &self.unknown),
        };
        known.or(match otherwise {
            Otherwise::Refuse => None,
            Otherwise::Price(price) => Some(price),
        })
    }
}

/// A sum of prices, one of each property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What it costs in any case.
    pub base: i64,
    /// What is added.
    pub parts: Vec<Prices<i64>>,
}

/// Quantities at prices that follow a property: tokens by model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// How many of a quantity one price is for. At least 1.
    pub per: i64,
    /// The names of the quantities.
    pub quantities: Arc<[Arc<str>]>,
    /// The prices of the quantities, in their order.
    pub prices: Prices<Arc<[i64]>>,
}

/// The prices that hold for one request, before its quantities are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    table: CostKey,
    meter: MeterKey,
    per: i64,
    quantities: Arc<[Arc<str>]>,
    prices: Arc<[i64]>,
}

/// Why something has no price. Words from outside are shortened, and escaped where they are shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// The catalog has no such table.
    #[error("the catalog has no cost table {0:?}")]
    UnknownTable(CostKey),
    /// A value has no price.
    #[error(
        "cost table {table} has no price where {property} is {value:?}; send one that has a price, or add this one (or \
         an amount for `unknown`) to the catalog"
    )]
    UnknownValue {
        /// The table.
        table: CostKey,
        /// The property.
        property: Arc<str>,
        /// Its value.
        value: Arc<str>,
    },
    /// A property is not there.
    #[error("cost table {table} needs the property {property}, which is missing; send it, or give `missing` an amount")]
    MissingProperty {
        /// The table.
        table: CostKey,
        /// The property.
        property: Arc<str>,
    },
    /// A property that the table does not look at.
    #[error("cost table {table} has no property {name:?}; it looks at {known}")]
    UnknownProperty {
        /// The table.
        table: CostKey,
        /// What was named.
        name: Arc<str>,
        /// What the table looks at.
        known: Arc<str>,
    },
    /// A quantity that the table has no prices for.
    #[error("cost table {table} has no quantity {name:?}; {known}")]
    UnknownQuantity {
        /// The table.
        table: CostKey,
        /// What was named.
        name: Arc<str>,
        /// What there is.
        known: Arc<str>,
    },
    /// No quantity at all.
    #[error("cost table {table} needs at least one of the quantities {known}")]
    NoQuantity {
        /// The table.
        table: CostKey,
        /// What there is.
        known: Arc<str>,
    },
    /// A quantity below 0 or beyond [`AMOUNT_MAX`].
    #[error("the quantity {name} must be between 0 and 2^53 - 1")]
    QuantityOutOfRange {
        /// The quantity.
        name: Arc<str>,
        /// How much of it.
        amount: i64,
    },
    /// The amount is beyond [`AMOUNT_MAX`].
    #[error("the amount that cost table {0} comes to is beyond 2^53 - 1")]
    AmountTooLarge(CostKey),
}

impl CostError {
    pub(crate) fn unknown_table(key: &str) -> Self {
        Self::UnknownTable(CostKey::trusted(&repeated(key)))
    }
}

impl CostTable {
    /// What something with these properties, in these quantities, costs.
    ///
    /// # Errors
    /// [`CostError`]: for what has no price, and where an amount or a quantity is out of range.
    pub fn amount(&self, properties: &[(&str, &str)], quantities: &[(&str, i64)]) -> Result<Charge, CostError> {
        match &self.rule {
            CostRule::Parts(parts) => {
                self.check_quantities(&[], quantities)?;
                self.sum(parts, properties)
            }
            CostRule::Rates(rates) => {
                self.check_quantities(&rates.quantities, quantities)?;
                let rate = self.rate_of(rates, properties)?;
                let given = |name: &str| quantities.iter().find(|(given, _)| *given == name).map(|(_, amount)| *amount);
                self.charge(rate.total(given)?)
            }
        }
    }

    /// The prices for something with these properties, whose quantities are told later. `None` for a table that knows
    /// the amount at once.
    ///
    /// # Errors
    /// [`CostError`], for what has no price.
    pub fn rate(&self, properties: &[(&str, &str)]) -> Result<Option<Rate>, CostError> {
        match &self.rule {
            CostRule::Parts(_) => Ok(None),
            CostRule::Rates(rates) => self.rate_of(rates, properties).map(Some),
        }
    }

    /// The properties it looks at.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        let (parts, rates) = match &self.rule {
            CostRule::Parts(parts) => (&parts.parts[..], None),
            CostRule::Rates(rates) => (&[][..], Some(&*rates.prices.property)),
        };
        parts.iter().map(|part| &*part.property).chain(rates)
    }

    /// Whether it has a price where a property has this value, or is missing (`None`).
    pub fn has_price(&self, property: &str, value: Option<&str>) -> bool {
        match &self.rule {
            CostRule::Parts(parts) => {
                parts.parts.iter().any(|part| *part.property == *property && part.price(value).is_some())
            }
            CostRule::Rates(Rates { prices, .. }) => *prices.property == *property && prices.price(value).is_some(),
        }
    }

    fn sum(&self, parts: &Parts, properties: &[(&str, &str)]) -> Result<Charge, CostError> {
        self.check_properties(properties)?;
        let mut total = i128::from(parts.base);
        for part in &parts.parts {
            total += i128::from(*self.price(part, properties)?);
        }
        self.charge(total)
    }

    fn rate_of(&self, rates: &Rates, properties: &[(&str, &str)]) -> Result<Rate, CostError> {
        self.check_properties(properties)?;
        let prices = self.price(&rates.prices, properties)?;
        Ok(Rate {
            table: self.key.clone(),
            meter: self.meter.clone(),
            per: rates.per,
            quantities: Arc::clone(&rates.quantities),
            prices: Arc::clone(prices),
        })
    }

    fn price<'a, T>(&self, prices: &'a Prices<T>, properties: &[(&str, &str)]) -> Result<&'a T, CostError> {
        let value = properties.iter().find(|(name, _)| *name == &*prices.property).map(|(_, value)| *value);
        prices.price(value).ok_or_else(|| {
            let (table, property) = (self.key.clone(), Arc::clone(&prices.property));
            match value {
                None => CostError::MissingProperty { table, property },
                Some(value) => CostError::UnknownValue { table, property, value: repeated(value) },
            }
        })
    }

    /// A name the table does not look at is a mistake: what was meant would be missing.
    fn check_properties(&self, properties: &[(&str, &str)]) -> Result<(), CostError> {
        match properties.iter().find(|(name, _)| self.properties().all(|known| known != *name)) {
            None => Ok(()),
            Some((name, _)) => Err(CostError::UnknownProperty {
                table: self.key.clone(),
                name: repeated(name),
                known: listed(self.properties()),
            }),
        }
    }

    fn check_quantities(&self, known: &[Arc<str>], quantities: &[(&str, i64)]) -> Result<(), CostError> {
        let names = || known.iter().map(|name| &**name);
        match quantities.iter().find(|(name, _)| names().all(|known| known != *name)) {
            None if quantities.is_empty() && !known.is_empty() => {
                Err(CostError::NoQuantity { table: self.key.clone(), known: listed(names()) })
            }
            None => Ok(()),
            Some((name, _)) => Err(CostError::UnknownQuantity {
                table: self.key.clone(),
                name: repeated(name),
                known: match known.is_empty() {
                    true => "it has no quantities".into(),
                    false => format!("it has {}", listed(names())).into(),
                },
            }),
        }
    }

    fn charge(&self, total: i128) -> Result<Charge, CostError> {
        charge(&self.key, &self.meter, total)
    }
}

impl Rate {
    /// The meter that is charged.
    pub fn meter(&self) -> &MeterKey {
        &self.meter
    }

    /// The names of the quantities that have a price.
    pub fn quantities(&self) -> impl Iterator<Item = &str> {
        self.quantities.iter().map(|name| &**name)
    }

    /// What the quantities cost that `given` knows; those it does not know count as 0. Rounded up once, over all.
    ///
    /// # Errors
    /// [`CostError`], where a quantity or the amount is out of range.
    pub fn amount(&self, given: impl Fn(&str) -> Option<i64>) -> Result<Charge, CostError> {
        charge(&self.table, &self.meter, self.total(given)?)
    }

    fn total(&self, given: impl Fn(&str) -> Option<i64>) -> Result<i128, CostError> {
        let mut total = 0_i128;
        for (name, price) in self.quantities.iter().zip(&*self.prices) {
            let amount = given(name).unwrap_or(0);
            if !(0..=AMOUNT_MAX).contains(&amount) {
                return Err(CostError::QuantityOutOfRange { name: Arc::clone(name), amount });
            }
            // At most 2^53 of at most 2^53: their sum over a few names stays far within i128.
            total += i128::from(amount) * i128::from(*price);
        }
        let per = i128::from(self.per.max(1));
        Ok((total + per - 1) / per)
    }
}

fn charge(table: &CostKey, meter: &MeterKey, total: i128) -> Result<Charge, CostError> {
    match i64::try_from(total) {
        Ok(amount) if amount <= AMOUNT_MAX => Ok(Charge { meter: meter.clone(), amount }),
        _ => Err(CostError::AmountTooLarge(table.clone())),
    }
}

/// As much of a word from outside as an error repeats.
fn repeated(word: &str) -> Arc<str> {
    word.char_indices().nth(REPEATED_MAX).map_or(word, |(end, _)| &word[..end]).into()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Arc<str> {
    names.collect::<Vec<_>>().join(", ").into()
}
