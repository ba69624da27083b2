//! A charge by a price list.

use super::amount::Amount;
use crate::{problem::Problem, rescue};
use domain::{catalog::Catalog, id::MeterKey, op::Charge};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// How many properties, and how many quantities, one cost may name.
pub const COST_WORDS_MAX: usize = 32;

/// What a price list looks at.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cost)]
pub struct CostRequest<'a> {
    /// Which price list.
    #[serde(borrow)]
    #[schema(example = "request")]
    pub table: Cow<'a, str>,
    /// What the request says of itself: by each property, its value.
    #[serde(default)]
    #[schema(example = json!({"mode": "analyst", "tool": "general"}))]
    pub properties: BTreeMap<String, String>,
    /// How much of each quantity, for a price list that has prices per so many of them.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, i64>)]
    pub quantities: BTreeMap<String, Amount>,
}

impl CostRequest<'_> {
    /// What was asked for, whatever it costs: every word with its length, so that no two different ones read the same.
    pub fn sent(&self) -> Arc<str> {
        let mut text = String::new();
        let mut push = |word: &str| text.push_str(&format!("{}:{word}", word.len()));
        push(&self.table);
        for (name, value) in &self.properties {
            push(name);
            push(value);
        }
        // No property has an empty name: these are quantities.
        push("");
        for (name, amount) in &self.quantities {
            push(name);
            push(&amount.0.to_string());
        }
        text.into()
    }

    /// What stands for its charge where nobody knows what it comes to.
    pub(super) fn stand_in() -> Charge {
        Charge { meter: MeterKey::trusted("cost"), amount: 0 }
    }

    /// What it comes to by this catalog.
    ///
    /// # Errors
    /// A problem where the catalog has no such price list, or no price.
    pub fn charge(&self, catalog: &Catalog) -> Result<Charge, Problem> {
        if self.properties.len() > COST_WORDS_MAX || self.quantities.len() > COST_WORDS_MAX {
            let message = format!("A cost may hold at most {COST_WORDS_MAX} properties and as many quantities.");
            return Err(rescue::INVALID_BODY.problem(message));
        }
        let properties: Vec<(&str, &str)> =
            self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let quantities: Vec<(&str, i64)> =
            self.quantities.iter().map(|(name, amount)| (name.as_str(), amount.0)).collect();
        let charge = catalog.cost(&self.table).and_then(|table| table.amount(&properties, &quantities));
        charge.map_err(|error| rescue::problem_of_cost(&error))
    }
}
