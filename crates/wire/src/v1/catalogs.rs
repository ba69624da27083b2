//! Catalogs as they are listed, and what is wrong with one.

use super::limit::Time;
use crate::catalog::Problem;
use engine::ports::StoredCatalog;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// A catalog without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogAnswer {
    /// 1 for the first.
    pub version: u32,
    /// When it was put in force.
    #[schema(value_type = String, format = DateTime)]
    pub applied_at: Time,
    /// Whether this node decides by it.
    pub in_force: bool,
    /// How long its text is.
    pub bytes: usize,
}

impl CatalogAnswer {
    /// Of what is stored.
    pub fn of(stored: &StoredCatalog, in_force: u32) -> Self {
        Self {
            version: stored.version,
            applied_at: Time(stored.applied_at),
            in_force: stored.version == in_force,
            bytes: stored.text.len(),
        }
    }
}

/// A catalog with its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogText {
    /// What is listed.
    #[serde(flatten)]
    pub catalog: CatalogAnswer,
    /// As it was written.
    pub text: String,
}

impl CatalogText {
    /// Of what is stored.
    pub fn of(stored: &StoredCatalog, in_force: u32) -> Self {
        Self { catalog: CatalogAnswer::of(stored, in_force), text: stored.text.to_string() }
    }
}

/// A catalog was put in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppliedAnswer {
    /// Its version.
    pub version: u32,
}

/// Everything that is wrong with a catalog.
pub fn problems(problems: &[Problem]) -> Value {
    let rows = problems.iter().map(|problem| {
        let Problem { line, column, message, help, .. } = problem;
        json!({"line": line, "column": column, "message": message, "help": help, "shown": problem.to_string()})
    });
    rows.collect()
}
