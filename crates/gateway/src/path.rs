//! Paths, read strictly. Whatever an upstream might read in another way than we did is refused with 400: empty and dot
//! segments, encoded dots, slashes, backslashes, semicolons and percent signs before hexadecimal digits, parameters
//! after `;`, control characters, raw bytes beyond ASCII, and what is not percent-encoded UTF-8. One slash at the end
//! is allowed and means nothing, since most upstreams treat both spellings alike.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("a path must begin with a slash")]
    NotAbsolute,
    /// Two slashes in a row.
    #[error("a path must not hold empty segments (//)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("a path must not hold the segments . and ..")]
    DotSegment,
    /// An encoded character that some servers decode before they split the path.
    #[error("a path must not hold encoded dots, slashes, backslashes, semicolons or doubly encoded characters")]
    EncodedDelimiter,
    /// A raw character that some servers read as a delimiter, or that has no place in a path.
    #[error("a path must not hold backslashes, semicolons, control characters or raw characters beyond ASCII")]
    Character,
    /// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("a path must be percent-encoded UTF-8")]
    Encoding,
}

/// Bytes that need no second look.
const fn is_plain(byte: u8) -> bool {
    byte > b' '
        && byte < 0x7f
        && !matches!(byte, b'%' | b'\\' | b';' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// The decoded segments of a path. `/` has none.
///
/// # Errors
/// [`PathError`] where the path can be read in more than one way.
pub fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, PathError> {
    let inner = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return if path.len() > 2 || path == "//" { Err(PathError::EmptySegment) } else { Ok(Vec::new()) };
    }
    let mut segments = Vec::with_capacity(8);
    for raw in inner.split('/') {
        segments.push(segment(raw)?);
    }
    Ok(segments)
}

fn segment(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw.is_empty() {
        return Err(PathError::EmptySegment);
    }
    let decoded = if raw.bytes().all(is_plain) { Cow::Borrowed(raw) } else { Cow::Owned(decoded(raw)?) };
    if decoded == "." || decoded == ".." {
        return Err(PathError::DotSegment);
    }
    Ok(decoded)
}

fn decoded(raw: &str) -> Result<String, PathError> {
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        if byte != b'%' {
            // Unwise but unambiguous characters such as braces pass; delimiters, controls and raw UTF-8 do not.
            if byte <= b' ' || byte >= 0x7f || byte == b'\\' || byte == b';' {
                return Err(PathError::Character);
            }
            decoded.push(byte);
            index += 1;
            continue;
        }
        let value = hex_pair(bytes, index + 1).ok_or(PathError::Encoding)?;
        let doubly = value == b'%' && hex_pair(bytes, index + 3).is_some();
        if matches!(value, b'.' | b'/' | b'\\' | b';') || doubly {
            return Err(PathError::EncodedDelimiter);
        }
        if value < b' ' || value == 0x7f {
            return Err(PathError::Character);
        }
        decoded.push(value);
        index += 3;
    }
    String::from_utf8(decoded).map_err(|_| PathError::Encoding)
}

fn hex_pair(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
    Some((digit(at)? * 16 + digit(at + 1)?) as u8)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
