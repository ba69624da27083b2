//! The `usage` of a JSON document, found as its bytes pass, in constant memory.
//!
//! Looked for at the top (`usage`, as chat completions have it) and in `response` (`response.usage`, as events of the
//! Responses API have it). Everything else is skipped: strings by their quotes, values by counting brackets. A document
//! that is not JSON ends the search; what was found before stays.

use super::Usage;
use domain::catalog::AMOUNT_MAX;

/// The longest key that means something, in bytes.
const KEY_MAX_BYTES: usize = "completion_tokens".len();

/// Finds the last `usage` of one JSON document.
#[derive(Debug, Clone, Default)]
pub struct UsageScan {
    state: State,
    level: Level,
    /// Whether the object that is open around `usage` is `response`.
    in_response: bool,
    key: [u8; KEY_MAX_BYTES],
    /// One more than fits means: too long to be anything we know.
    key_length: usize,
    /// Inside a string: whether the next character is escaped.
    escaped: bool,
    number: Option<i64>,
    open: Usage,
    found: Option<Usage>,
    choices_empty: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Top,
    Response,
    Usage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// A key, or the end of the object.
    Key,
    InKey,
    Colon,
    Value,
    /// In a string that stands so many brackets deep in a skipped value.
    InText(u32),
    /// In a skipped value, so many brackets deep.
    Skipped(u32),
    /// In a skipped number or word.
    Scalar,
    /// In a number that is wanted.
    Number,
    /// After `[` of `choices`.
    Choices,
    AfterValue,
    /// The document is whole, or is no JSON.
    Over,
}

/// What a key means where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    None,
    Object(Level),
    Choices,
    Prompt,
    Completion,
    Total,
}

impl UsageScan {
    /// The last `usage` that was reported whole.
    pub fn usage(&self) -> Option<Usage> {
        self.found
    }

    /// Whether the document has `"choices": []`.
    pub fn has_empty_choices(&self) -> bool {
        self.choices_empty
    }

    /// The next bytes of the document.
    pub fn feed(&mut self, mut rest: &[u8]) {
        while let Some((&byte, after)) = rest.split_first() {
            let jump = match self.state {
                State::Over => return,
                State::InText(_) => self.text_end(rest),
                State::Skipped(_) => rest.iter().position(|byte| is_structure(*byte)),
                _ => Some(0),
            };
            match jump {
                None => return,
                Some(0) => {
                    if self.step(byte) {
                        rest = after;
                    }
                }
                Some(jump) => rest = &rest[jump..],
            }
        }
    }

    /// Where a string may end. A backslash hides the byte after it.
    fn text_end(&mut self, rest: &[u8]) -> Option<usize> {
        if self.escaped { Some(0) } else { memchr::memchr2(b'"', b'\\', rest) }
    }

    /// Takes one byte; `false` where it is to be looked at again.
    fn step(&mut self, byte: u8) -> bool {
        match self.state {
            State::InKey => self.key_byte(byte),
            State::InText(depth) => self.text_byte(byte, depth),
            State::Skipped(depth) => self.skipped_byte(byte, depth),
            State::Number | State::Scalar => return self.scalar_byte(byte),
            _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
            State::Start => match byte {
                b'{' => self.state = State::Key,
                0xEF | 0xBB | 0xBF => {}
                _ => self.state = State::Over,
            },
            State::Key => match byte {
                b'"' => {
                    self.key_length = 0;
                    self.escaped = false;
                    self.state = State::InKey;
                }
                b'}' => self.close(),
                _ => self.state = State::Over,
            },
            State::Colon => self.state = if byte == b':' { State::Value } else { State::Over },
            State::Value => self.begin_value(byte),
            State::Choices => {
                self.choices_empty = byte == b']';
                self.state = if self.choices_empty { State::AfterValue } else { State::Skipped(1) };
                return self.choices_empty;
            }
            State::AfterValue => match byte {
                b',' => self.state = State::Key,
                b'}' => self.close(),
                _ => self.state = State::Over,
            },
            State::Over => {}
        }
        true
    }

    fn key_byte(&mut self, byte: u8) {
        if byte == b'"' && !self.escaped {
            self.state = State::Colon;
            return;
        }
        // A key with escapes is none that we know.
        self.escaped = byte == b'\\' && !self.escaped;
        match self.key.get_mut(self.key_length).filter(|_| byte != b'\\') {
            Some(slot) => {
                *slot = byte;
                self.key_length += 1;
            }
            None => self.key_length = KEY_MAX_BYTES + 1,
        }
    }

    fn meaning(&self) -> Meaning {
        let key = self.key.get(..self.key_length).unwrap_or_default();
        match (self.level, key) {
            (Level::Top, b"response") => Meaning::Object(Level::Response),
            (Level::Top | Level::Response, b"usage") => Meaning::Object(Level::Usage),
            (Level::Top, b"choices") => Meaning::Choices,
            (Level::Usage, b"prompt_tokens" | b"input_tokens") => Meaning::Prompt,
            (Level::Usage, b"completion_tokens" | b"output_tokens") => Meaning::Completion,
            (Level::Usage, b"total_tokens") => Meaning::Total,
            _ => Meaning::None,
        }
    }

    fn begin_value(&mut self, byte: u8) {
        let meaning = self.meaning();
        self.state = match (byte, meaning) {
            (b'{', Meaning::Object(level)) => {
                self.in_response = self.level == Level::Response;
                self.level = level;
                self.open = Usage::default();
                State::Key
            }
            (b'[', Meaning::Choices) => State::Choices,
            (b'{' | b'[', _) => State::Skipped(1),
            (b'"', _) => {
                self.escaped = false;
                State::InText(0)
            }
            (b'0'..=b'9', Meaning::Prompt | Meaning::Completion | Meaning::Total) => {
                self.number = Some(i64::from(byte - b'0'));
                State::Number
            }
            (b'0'..=b'9' | b'-' | b't' | b'f' | b'n', _) => State::Scalar,
            _ => State::Over,
        };
    }

    fn text_byte(&mut self, byte: u8, depth: u32) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.state = if depth == 0 { State::AfterValue } else { State::Skipped(depth) },
            _ => {}
        }
    }

    fn skipped_byte(&mut self, byte: u8, depth: u32) {
        self.state = match byte {
            b'"' => {
                self.escaped = false;
                State::InText(depth)
            }
            b'{' | b'[' => depth.checked_add(1).map_or(State::Over, State::Skipped),
            b'}' | b']' if depth == 1 => State::AfterValue,
            b'}' | b']' => State::Skipped(depth - 1),
            _ => State::Skipped(depth),
        };
    }

    fn scalar_byte(&mut self, byte: u8) -> bool {
        if matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n') {
            if self.state == State::Number {
                self.keep_number();
            }
            self.state = State::AfterValue;
            return false;
        }
        // Amounts are integers: what has a fraction or an exponent, or is too large, reports nothing.
        let digit = byte.is_ascii_digit().then(|| i64::from(byte.wrapping_sub(b'0')));
        self.number = self.number.zip(digit).and_then(|(number, digit)| number.checked_mul(10)?.checked_add(digit));
        true
    }

    fn keep_number(&mut self) {
        let number = self.number.filter(|number| *number <= AMOUNT_MAX);
        match self.meaning() {
            Meaning::Prompt => self.open.prompt_tokens = number,
            Meaning::Completion => self.open.completion_tokens = number,
            Meaning::Total => self.open.total_tokens = number,
            Meaning::None | Meaning::Object(_) | Meaning::Choices => {}
        }
    }

    /// The end of an object that is not skipped.
    fn close(&mut self) {
        self.state = State::AfterValue;
        self.level = match self.level {
            Level::Top => {
                self.state = State::Over;
                Level::Top
            }
            Level::Response => Level::Top,
            Level::Usage => {
                if !self.open.is_empty() {
                    self.found = Some(self.open);
                }
                if self.in_response { Level::Response } else { Level::Top }
            }
        };
    }
}

fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}
