//! Whatever bytes a check holds, reading it ends, never panics, and what is read makes sense.
//!
//!     cargo +nightly fuzz run check -- -max_len=4096

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use wire::{
    catalog::Loaded,
    v1::check::{CHARGES_MAX, CheckRequest},
};

const AMOUNT_MAX: u64 = (1 << 53) - 1;

static CATALOG: LazyLock<Loaded> = LazyLock::new(|| {
    let text = include_str!("../../examples/chat/tidegate.toml");
    wire::catalog::load(text, "tidegate.toml").expect("the example loads")
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(request) = serde_json::from_str::<CheckRequest<'_>>(text) else { return };
    match request.into_check(None, &CATALOG.catalog) {
        Ok((check, _)) => {
            assert!(!check.tenant.as_str().is_empty());
            assert!(check.charges.len() <= CHARGES_MAX + 1);
            assert!(check.charges.iter().all(|charge| charge.amount.unsigned_abs() <= AMOUNT_MAX));
        }
        Err(problem) => assert!((400..500).contains(&problem.status)),
    }
});
