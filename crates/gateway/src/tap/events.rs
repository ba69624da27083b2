//! Server-sent events, read as their bytes pass: where each ends, and what the last one reported.
//!
//! Lines end with LF, CR or CRLF; an event ends with a blank line; a line that begins with a colon is a comment
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>). Nothing depends on how the bytes are cut.

use super::{Usage, UsageScan};
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// How much of an event that is not there whole is kept, in bytes. Of a larger one nothing is kept: it is searched as
/// it passes.
pub const EVENT_HELD_MAX_BYTES: usize = 64 * 1024;

/// No event reports usage without these bytes.
const USAGE_KEY: &[u8] = b"\"usage\"";

/// Made once: to make it takes longer than to search an event.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(USAGE_KEY));

/// Whether the bytes may report usage.
pub(super) fn may_report(bytes: &[u8]) -> bool {
    USAGE.find(bytes).is_some()
}

/// Whether what came in two parts may report usage because of the bytes where they meet.
pub(super) fn may_report_at_seam(held: &[u8], bytes: &[u8]) -> bool {
    (1..USAGE_KEY.len()).any(|length| {
        let (start, end) = USAGE_KEY.split_at(length);
        held.ends_with(start) && bytes.starts_with(end)
    })
}

/// Where the last blank line ends. Whatever came before, an event ends there.
pub(super) fn after_last_blank_line(bytes: &[u8]) -> Option<usize> {
    let mut lines = memchr::memrchr_iter(b'\n', bytes);
    let mut next = lines.next()?;
    for at in lines {
        if at + 1 == next {
            return Some(next + 1);
        }
        next = at;
    }
    None
}

/// Where events end.
#[derive(Debug, Clone, Default)]
pub struct Boundaries {
    /// Bytes of the current line were seen.
    in_line: bool,
    /// A line that is no comment was seen since the last event ended.
    in_event: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
}

impl Boundaries {
    /// Whether the bytes so far end between two events.
    pub fn at_boundary(&self) -> bool {
        !self.in_line && !self.in_event
    }

    /// Reads on to the next place between two events and gives how many bytes that took; `None` where there is none
    /// and all were read. A comment or blank line between events is a step of its own.
    pub fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        let first = bytes.first()?;
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) && *first == b'\n' {
            at = 1;
            if self.at_boundary() {
                return Some(at);
            }
        }
        while let Some(&first) = bytes.get(at) {
            let line = &bytes[at..];
            let length = memchr::memchr2(b'\n', b'\r', line);
            if length != Some(0) && !self.in_line {
                self.in_line = true;
                self.in_event |= first != b':';
            }
            at += length? + 1;
            let is_blank = !std::mem::take(&mut self.in_line);
            self.in_event &= !is_blank;
            if bytes.get(at - 1) == Some(&b'\r') {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if !self.in_event {
                return Some(at);
            }
        }
        None
    }
}

/// Finds the last `usage` that a stream of events reported.
#[derive(Debug, Default)]
pub struct EventReader {
    boundaries: Boundaries,
    /// The beginning of an event that is not there whole.
    held: Vec<u8>,
    /// Whether that may report usage by itself.
    held_reports: bool,
    /// The search in an event that is too large to be held.
    large: Option<Box<EventScan>>,
    last: Option<Usage>,
}

impl EventReader {
    /// What was reported by the events that have ended.
    pub fn usage(&self) -> Option<Usage> {
        self.last
    }

    /// What was reported, counting an event that no blank line closed.
    pub fn finish(&mut self) -> Option<Usage> {
        self.end_event(&[]);
        self.last
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// The next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        bytes = self.skip_plain(bytes);
        let mut has_ended = false;
        while let Some(length) = self.boundaries.next(bytes) {
            let (event, rest) = bytes.split_at(length);
            self.end_event(event);
            (bytes, has_ended) = (rest, true);
        }
        if has_ended {
            self.held_reports = self.held_reports && may_report(bytes);
        }
        self.hold(bytes);
    }

    /// The quick way through what has no `usage` in it: only what follows the last blank line is of interest.
    fn skip_plain<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.large.is_some() || self.held_reports || may_report_at_seam(&self.held, bytes) || may_report(bytes) {
            self.held_reports = true;
            return bytes;
        }
        match after_last_blank_line(bytes) {
            Some(at) => {
                self.boundaries = Boundaries::default();
                self.held.clear();
                &bytes[at..]
            }
            None => bytes,
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if let Some(large) = &mut self.large {
            return large.feed(bytes);
        }
        if self.held.len() + bytes.len() <= EVENT_HELD_MAX_BYTES {
            return self.held.extend_from_slice(bytes);
        }
        let mut large = Box::<EventScan>::default();
        large.feed(&self.held);
        large.feed(bytes);
        self.held = Vec::new();
        self.large = Some(large);
    }

    fn end_event(&mut self, rest: &[u8]) {
        let reported = if let Some(mut large) = self.large.take() {
            large.feed(rest);
            large.usage()
        } else if self.held.is_empty() {
            usage_of(rest)
        } else {
            self.held.extend_from_slice(rest);
            usage_of(&std::mem::take(&mut self.held))
        };
        self.last = reported.or(self.last);
    }
}

fn usage_of(event: &[u8]) -> Option<Usage> {
    may_report(event).then(|| {
        let mut scan = EventScan::default();
        scan.feed(event);
        scan.usage()
    })?
}

/// Searches the data of one event.
#[derive(Debug, Clone, Default)]
pub struct EventScan {
    json: UsageScan,
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data:` were seen.
    Name(usize),
    Data,
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

impl EventScan {
    /// What the event reports.
    pub fn usage(&self) -> Option<Usage> {
        self.json.usage()
    }

    /// Whether the event is there for its usage alone: it has `"choices": []`.
    pub fn is_usage_only(&self) -> bool {
        self.usage().is_some() && self.json.has_empty_choices()
    }

    /// The next bytes of the event.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, after)) = bytes.split_first() {
            match self.line {
                Line::Name(seen) => {
                    self.line = name_after(seen, byte);
                    bytes = after;
                }
                Line::Data | Line::Other => {
                    let end = memchr::memchr2(b'\n', b'\r', bytes);
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    // The space before the JSON, and the line ends in it, are space to JSON too.
                    if self.line == Line::Data {
                        self.json.feed(part);
                    }
                    if end.is_some() {
                        self.line = Line::Name(0);
                    }
                    bytes = rest;
                }
            }
        }
    }
}

fn name_after(seen: usize, byte: u8) -> Line {
    const NAME: &[u8] = b"data:";
    match byte {
        b'\n' | b'\r' => Line::Name(0),
        // A byte order mark may stand before the first line.
        0xEF | 0xBB | 0xBF if seen == 0 => Line::Name(0),
        byte if NAME.get(seen) == Some(&byte) && seen + 1 == NAME.len() => Line::Data,
        byte if NAME.get(seen) == Some(&byte) => Line::Name(seen + 1),
        _ => Line::Other,
    }
}
