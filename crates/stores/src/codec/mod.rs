//! How entries and states are written as bytes: compact, versioned, checked.
//!
//! Every value begins with a version byte. Integers are LEB128 varints (signed ones zigzagged), texts and lists are
//! prefixed with their length, enums are their position in the domain's list. Decoding is total: bytes that were not
//! written by this module give [`Malformed`], never a panic, and never an allocation larger than the input. Rows carry
//! [`checksum`] over their place and their bytes, so that a row that was changed, or put in another's place, is found.

mod entry;
mod grants;
mod in_flight;
mod shares;
mod state;
mod warnings;

pub(crate) use entry::{decode_binding, decode_entry, decode_run, encode_entry, encode_run, has_denials, read_entry};
pub(crate) use state::{decode_tenant, decode_user, encode_tenant, encode_user};

use domain::{
    entry::ClosedWindow,
    time::{Instant, Window, WindowKind},
};
use siphasher::sip::SipHasher13;
use std::{hash::Hasher, sync::Arc};

/// Bytes that are not what this module writes, and where that was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) type Decoded<T> = Result<T, Malformed>;

/// Bytes of a checksum.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// Detects damage to a row: over the names and numbers that place it and its bytes.
pub(crate) fn checksum(names: &[&str], numbers: &[i64], bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = SipHasher13::new_with_keys(0x7469_6465_6761_7465, names.len() as u64);
    for name in names {
        hasher.write_u32(name.len() as u32);
        hasher.write(name.as_bytes());
    }
    for number in numbers {
        hasher.write_i64(*number);
    }
    hasher.write(bytes);
    (hasher.finish() as u32).to_le_bytes()
}

/// Splits a checked row into what was written and nothing else.
pub(crate) fn checked<'a>(names: &[&str], numbers: &[i64], row: &'a [u8]) -> Decoded<&'a [u8]> {
    let length = row.len().checked_sub(CHECKSUM_BYTES).ok_or(Malformed("too short"))?;
    let (bytes, sum) = row.split_at(length);
    if checksum(names, numbers, bytes) == sum { Ok(bytes) } else { Err(Malformed("the checksum does not match")) }
}

/// Appends a row's checksum to its bytes.
pub(crate) fn seal(names: &[&str], numbers: &[i64], bytes: &mut Vec<u8>) {
    let sum = checksum(names, numbers, bytes);
    bytes.extend_from_slice(&sum);
}

pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_instant(out: &mut Vec<u8>, instant: Instant) {
    put_i64(out, instant.ms());
}

fn put_window(out: &mut Vec<u8>, window: Window) {
    put_instant(out, window.start);
    put_i64(out, window.end.ms().wrapping_sub(window.start.ms()));
}

fn put_closed(out: &mut Vec<u8>, closed: &ClosedWindow) {
    out.push(closed.kind.index() as u8);
    put_window(out, closed.window);
}

/// Writes an optional value: 0, or 1 and the value.
fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// Reads bytes from the front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn byte(&mut self) -> Decoded<u8> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        if count > self.rest.len() {
            return Err(Malformed("ends too early"));
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed("ends too early"))
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed("a number is too large"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(crate) fn i64(&mut self) -> Decoded<i64> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn u32(&mut self) -> Decoded<u32> {
        self.u64()?.try_into().map_err(|_| Malformed("a number is too large"))
    }

    pub(crate) fn text(&mut self) -> Decoded<&'a str> {
        let length = self.u64()?;
        let bytes = self.take(usize::try_from(length).map_err(|_| Malformed("a text is too long"))?)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn shared_text(&mut self) -> Decoded<Arc<str>> {
        self.text().map(Arc::from)
    }

    fn flag(&mut self) -> Decoded<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    /// The element of a list that stands for an enum.
    fn one_of<T: Copy>(&mut self, all: &[T]) -> Decoded<T> {
        all.get(usize::from(self.byte()?)).copied().ok_or(Malformed("an unknown kind"))
    }

    fn instant(&mut self) -> Decoded<Instant> {
        self.i64().map(Instant::from_ms)
    }

    fn window(&mut self) -> Decoded<Window> {
        let start = self.i64()?;
        let end = start.wrapping_add(self.i64()?);
        Ok(Window { start: Instant::from_ms(start), end: Instant::from_ms(end) })
    }

    fn closed(&mut self) -> Decoded<ClosedWindow> {
        Ok(ClosedWindow { kind: self.one_of(&WindowKind::ALL)?, window: self.window()? })
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Decoded<T>) -> Decoded<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list; each element takes at least a byte, so its length can't exceed what is left.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.u64()?;
        if count > self.rest.len() as u64 {
            return Err(Malformed("a list is too long"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// The version byte, of which there is one so far.
    fn version(&mut self, known: u8) -> Decoded<()> {
        if self.byte()? == known { Ok(()) } else { Err(Malformed("an unknown version")) }
    }

    pub(crate) fn end(&self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
