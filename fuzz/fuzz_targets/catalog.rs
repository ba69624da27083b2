//! Whatever a catalog file holds, loading it ends, never panics, and every problem has a place inside the file.
//!
//!     mkdir -p fuzz/corpus/catalog && cp examples/*/tidegate.toml crates/wire/src/catalog/starter.toml fuzz/corpus/catalog/
//!     cargo +nightly fuzz run catalog -- -dict=fuzz/catalog.dict -max_len=8192

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match wire::catalog::load(text, "tidegate.toml") {
        Ok(loaded) => {
            // What loads has been validated whole.
            assert!(!loaded.catalog.plans.is_empty());
            let routes = &loaded.gateway.routes;
            for (index, route) in routes.iter().enumerate() {
                for later in &routes[index + 1..] {
                    assert!(!route.conflicts_with(later), "{route:?} {later:?}");
                    assert!(!later.is_within(route), "{later:?} is hidden by {route:?}");
                }
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = text.split('\n').count();
            for problem in problems {
                assert!((1..=lines).contains(&problem.line));
                assert!(problem.to_string().chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }
});
