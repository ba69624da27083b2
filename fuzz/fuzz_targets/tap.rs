//! Whatever an upstream sends: reading it neither panics nor depends on how it is cut into chunks.
//!
//!     cargo +nightly fuzz run tap -- -max_len=4096

#![no_main]

use gateway::tap::{Boundaries, Encoding, Format, Tap};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, size, body) = input;
    let format = if kind & 1 == 0 { Format::Events } else { Format::Json };
    let encoding =
        [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Brotli][usize::from(kind >> 1) % 4];
    let size = usize::from(size).max(1);
    let read = |size: usize| {
        let mut tap = Tap::new(format, encoding);
        body.chunks(size).for_each(|chunk| tap.feed(chunk));
        tap.usage(true)
    };
    let (whole, cut) = (read(body.len().max(1)), read(size));
    // How far an encoded body may unfold is bounded by the chunk.
    if encoding == Encoding::Identity {
        assert_eq!(whole, cut);
    }
    let mut boundaries = Boundaries::default();
    let mut rest = body;
    while let Some(length) = boundaries.next(rest) {
        assert!(length > 0 && boundaries.at_boundary());
        rest = &rest[length..];
    }
});
