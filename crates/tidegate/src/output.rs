//! What commands print: tables for people, JSON for programs.

use anyhow::Context;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// Prints a line. A reader that went away (`| head`) is no error.
///
/// # Errors
/// Where standard output can't be written.
pub fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Prints JSON, indented.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A table with aligned columns; columns of numbers are aligned to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; those that start with `>` are of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        Self { rows: vec![headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect()], right }
    }
    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
    /// The table as text, or `nothing` if it has no rows.
    pub fn shown(&self, nothing: &str) -> String {
        if self.rows.len() == 1 {
            return nothing.to_owned();
        }
        let widths: Vec<usize> = (0..self.right.len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let show_row = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if self.right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(show_row).collect::<Vec<_>>().join("\n")
    }
}

/// A text of a JSON value: `-` where there is none.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// A bar on standard error that shows how far a long command is; silent unless that is a terminal.
pub struct ProgressBar {
    label: &'static str,
    shown_percent: Option<u64>,
}

impl ProgressBar {
    /// A bar for `label`.
    pub fn new(label: &'static str) -> Self {
        Self { label, shown_percent: None }
    }
    /// `done` of `total` is done.
    pub fn at(&mut self, done: u64, total: u64) {
        let percent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
        if self.shown_percent == Some(percent) || !io::stderr().is_terminal() {
            return;
        }
        self.shown_percent = Some(percent);
        let filled = "#".repeat((percent / 4) as usize);
        eprint!("\r{} [{filled:<25}] {percent:>3} %", self.label);
    }
    /// Ends the bar's line.
    pub fn end(self) {
        if self.shown_percent.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["meter", ">used"]);
        assert_eq!(table.shown("nothing yet"), "nothing yet");
        table.row(vec!["messages".into(), "7".into()]);
        table.row(vec!["mail".into(), "12345".into()]);
        assert_eq!(table.shown(""), "meter      used\nmessages      7\nmail      12345");
    }
}
