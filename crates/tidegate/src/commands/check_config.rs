//! `tidegate check-config`: everything that is wrong with a catalog, at once.

use crate::{
    catalog_file::{self, Problems},
    cli::CheckConfigArgs,
    output,
};
use serde_json::{Value, json};
use std::process::ExitCode;
use wire::catalog::{Loaded, Problem};

/// Checks a catalog. Ends with 1 where something is wrong.
///
/// # Errors
/// Where the file can't be read.
pub fn run(args: &CheckConfigArgs) -> anyhow::Result<ExitCode> {
    match catalog_file::read(&args.file) {
        Ok(file) => {
            if args.json {
                output::json(&json!({"valid": true, "problems": [], "warnings": file.loaded.warnings}))?;
            } else {
                output::line(&summary(&args.file.display().to_string(), &file.loaded))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => match error.downcast::<Problems>() {
            Ok(problems) => {
                if args.json {
                    let list: Vec<Value> = problems.0.iter().map(problem_json).collect();
                    output::json(&json!({"valid": false, "problems": list, "warnings": []}))?;
                } else {
                    output::line(&format!("{problems}\n\n{}", counted(problems.0.len())))?;
                }
                Ok(ExitCode::FAILURE)
            }
            Err(error) => Err(error),
        },
    }
}

fn summary(file: &str, loaded: &Loaded) -> String {
    let catalog = &loaded.catalog;
    let mut text: String = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    text.push_str(&format!(
        "{file} is valid: {} meters, {} features, {} plans, {} routes; enforce = {}",
        catalog.meters.len(),
        catalog.features.len(),
        catalog.plans.len(),
        loaded.gateway.routes.len(),
        catalog.enforce.word(),
    ));
    text
}

fn counted(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": &*problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "help": problem.help,
    })
}
