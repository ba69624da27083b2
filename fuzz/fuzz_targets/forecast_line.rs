//! Whatever bytes a line of questions holds, reading it ends, never panics, and what is read makes sense.
//!
//!     cargo +nightly fuzz run forecast_line -- -max_len=4096

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::forecast_lines::{DAYS_MAX, VALUE_MAX, read};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read(text) {
        Ok(asked) => {
            assert!((1..=DAYS_MAX).contains(&asked.history.len()));
            assert!(asked.limit > 0.0 && asked.limit <= VALUE_MAX);
            assert!(asked.history.iter().all(|(_, value)| (0.0..=VALUE_MAX).contains(value)));
        }
        Err(wrong) => assert!(!wrong.detail.is_empty()),
    }
});
