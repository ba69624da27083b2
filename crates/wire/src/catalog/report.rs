//! Collects every problem of a file, so that all are told at once.

use super::problem::{Excerpt, Problem, closest, line_may_hold_secret, listed, printable, quoted};
use std::{ops::Range, sync::Arc};

/// A stretch of the file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: usize,
    /// First byte after.
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// How many problems are told; past it they are only counted, so that a hostile file costs little.
const TOLD_MAX: usize = 100;

/// A line longer than this is not shown.
const SHOWN_MAX_BYTES: usize = 4096;

struct Found {
    span: Span,
    message: String,
    help: Option<String>,
    /// Whether the line may hold a secret and must not be shown.
    veiled: bool,
}

/// The problems found so far in one file.
pub(super) struct Report<'s> {
    file: Arc<str>,
    text: &'s str,
    line_starts: Vec<usize>,
    errors: Vec<Found>,
    untold: usize,
    warnings: Vec<Found>,
}

impl<'s> Report<'s> {
    /// A report on this file, with nothing found yet.
    pub(super) fn new(file: &str, text: &'s str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        let file: String = file.chars().map(printable).collect();
        Self { file: file.into(), text, line_starts, errors: Vec::new(), untold: 0, warnings: Vec::new() }
    }

    /// Notes an error.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.push(Found { span, message: message.into(), help: None, veiled: false });
    }

    /// Notes an error, and what would help.
    pub(super) fn error_help(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Found { span, message: message.into(), help: Some(help.into()), veiled: false });
    }

    /// Notes an error whose line must not be shown, because it may hold a secret.
    pub(super) fn error_veiled(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Found { span, message: message.into(), help: Some(help.into()), veiled: true });
    }

    /// Notes something that is allowed but probably not meant.
    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if self.warnings.len() < TOLD_MAX {
            self.warnings.push(Found { span, message: message.into(), help: Some(help.into()), veiled: false });
        }
    }

    fn push(&mut self, found: Found) {
        if self.errors.len() < TOLD_MAX {
            self.errors.push(found);
        } else {
            self.untold += 1;
        }
    }

    /// Notes that a name refers to nothing, with the name that was probably meant.
    pub(super) fn unknown<'c>(
        &mut self,
        span: Span,
        message: String,
        plural: &str,
        name: &str,
        candidates: impl Iterator<Item = &'c str> + Clone,
    ) {
        if self.errors.len() >= TOLD_MAX {
            self.untold += 1;
            return;
        }
        let help = match closest(name, candidates.clone()) {
            Some(meant) => format!("did you mean {}?", quoted(meant)),
            None => match listed(candidates) {
                known if known.is_empty() => format!("there are no {plural}"),
                known => format!("the {plural} are {known}"),
            },
        };
        self.error_help(span, message, help);
    }

    /// Whether anything makes the catalog unusable.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The line of a span, from 1.
    pub(super) fn line(&self, span: Span) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start)
    }

    /// What was found: errors, then warnings, each in the order of the file.
    pub(super) fn finish(mut self) -> (Vec<Problem>, Vec<Problem>) {
        let mut errors = std::mem::take(&mut self.errors);
        let mut warnings = std::mem::take(&mut self.warnings);
        errors.sort_by_key(|found| found.span.start);
        errors.dedup_by(|one, other| one.span == other.span && one.message == other.message);
        warnings.sort_by_key(|found| found.span.start);
        let mut told: Vec<Problem> = errors.into_iter().map(|found| self.problem(found)).collect();
        if self.untold > 0 {
            let span = Span { start: self.text.len(), end: self.text.len() };
            let message = format!("and {} more problems", self.untold);
            told.push(self.problem(Found { span, message, help: None, veiled: true }));
        }
        (told, warnings.into_iter().map(|found| self.problem(found)).collect())
    }

    fn problem(&self, found: Found) -> Problem {
        let line = self.line(found.span);
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        let line_text = self.text[start..end].trim_end_matches('\r');
        let at = char_boundary(line_text, found.span.start - start);
        let marked = &line_text[at..char_boundary(line_text, found.span.end.saturating_sub(start).max(at))];
        let shown = !found.veiled
            && line_text.len() <= SHOWN_MAX_BYTES
            && !line_text.trim().is_empty()
            && !line_may_hold_secret(line_text);
        let before = line_text[..at].chars().count();
        let excerpt = shown.then(|| excerpt(line_text, before, marked.chars().count()));
        let Found { message, help, .. } = found;
        Problem { file: self.file.clone(), line, column: before + 1, message, help, excerpt }
    }
}

/// The last place at or before byte `at` where a character begins.
fn char_boundary(line: &str, at: usize) -> usize {
    let at = at.min(line.len());
    (0..=at).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0)
}

/// The part of a line around the marked characters.
fn excerpt(line: &str, before: usize, marked: usize) -> Excerpt {
    const WIDTH: usize = 110;
    const LEAD: usize = 40;
    let total = line.chars().count();
    let skip = if total <= WIDTH { 0 } else { before.saturating_sub(LEAD) };
    let mut text: String = line.chars().skip(skip).take(WIDTH).map(printable).collect();
    if total > skip + WIDTH {
        text.push('…');
    }
    let mut indent = before - skip;
    if skip > 0 {
        text.insert(0, '…');
        indent += 1;
    }
    let room = text.chars().count().saturating_sub(indent);
    Excerpt { text, indent, width: marked.clamp(1, room.max(1)) }
}
