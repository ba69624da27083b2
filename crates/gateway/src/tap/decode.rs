//! Undoing content encodings on a copy of a body. Memory is bounded by the encodings' own windows; work by how much one
//! chunk may decode to, so that a small answer that unfolds without end costs neither.

use super::Reader;
use brotli_decompressor::{BrotliDecoderParameter, DecompressorWriter};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use std::io::{self, Write};

/// How much one chunk may decode to, in bytes. Past that the body is read no further.
const CHUNK_DECODED_MAX_BYTES: usize = 8 << 20;
/// The decoder's buffer, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// A content encoding (RFC 9110, 8.4.1) that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// `gzip`, or `x-gzip`.
    Gzip,
    /// `deflate`: the zlib format.
    Deflate,
    /// `br`.
    Brotli,
}

impl Encoding {
    /// The encoding of the body under this head; `None` where it is unknown, or several.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Some(Self::Identity) };
        let name = value.to_str().ok().filter(|_| values.next().is_none())?.trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            _ => None,
        }
    }
}

/// Hands what it decodes to a reader.
pub(super) struct Decoder {
    kind: Kind,
    /// It can't be decoded, or unfolds too far: what was read before stays.
    failed: bool,
}

enum Kind {
    Identity(Reader),
    Gzip(MultiGzDecoder<Bounded>),
    Deflate(ZlibDecoder<Bounded>),
    Brotli(Box<DecompressorWriter<Bounded>>),
}

impl Decoder {
    pub(super) fn new(encoding: Encoding, reader: Reader) -> Self {
        let bounded = |reader| Bounded { reader, left: 0 };
        let kind = match encoding {
            Encoding::Identity => Kind::Identity(reader),
            Encoding::Gzip => Kind::Gzip(MultiGzDecoder::new(bounded(reader))),
            Encoding::Deflate => Kind::Deflate(ZlibDecoder::new(bounded(reader))),
            Encoding::Brotli => {
                let mut decoder = DecompressorWriter::new(bounded(reader), BUFFER_BYTES);
                // Windows beyond 16 MiB are outside RFC 7932.
                decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
                Kind::Brotli(Box::new(decoder))
            }
        };
        Self { kind, failed: false }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        if let Some(bounded) = self.bounded_mut() {
            bounded.left = CHUNK_DECODED_MAX_BYTES;
        }
        self.failed = match &mut self.kind {
            Kind::Identity(reader) => {
                reader.feed(bytes);
                false
            }
            Kind::Gzip(decoder) => fails(decoder, bytes),
            Kind::Deflate(decoder) => fails(decoder, bytes),
            Kind::Brotli(decoder) => fails(decoder, bytes),
        };
    }

    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn reader_mut(&mut self) -> &mut Reader {
        match &mut self.kind {
            Kind::Identity(reader) => reader,
            Kind::Gzip(decoder) => &mut decoder.get_mut().reader,
            Kind::Deflate(decoder) => &mut decoder.get_mut().reader,
            Kind::Brotli(decoder) => &mut decoder.get_mut().reader,
        }
    }

    fn bounded_mut(&mut self) -> Option<&mut Bounded> {
        match &mut self.kind {
            Kind::Identity(_) => None,
            Kind::Gzip(decoder) => Some(decoder.get_mut()),
            Kind::Deflate(decoder) => Some(decoder.get_mut()),
            Kind::Brotli(decoder) => Some(decoder.get_mut()),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Decoder").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// Writes, and hands on at once what came of it: the last bytes of a body that breaks off count as well.
fn fails(decoder: &mut impl Write, bytes: &[u8]) -> bool {
    let written = decoder.write_all(bytes);
    decoder.flush().is_err() || written.is_err()
}

/// A reader that takes so much and no more.
struct Bounded {
    reader: Reader,
    left: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| {
            self.left = 0;
            io::Error::other("it decodes to more than a chunk may")
        })?;
        self.reader.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
