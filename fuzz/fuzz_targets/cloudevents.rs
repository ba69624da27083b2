//! Whatever bytes a batch of events holds, reading it ends, never panics, and what is read makes sense.
//!
//!     cargo +nightly fuzz run cloudevents -- -max_len=8192

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use wire::{
    catalog::Loaded,
    cloudevents::{BATCH_MAX, Batch, Envelope, Reader, read_batch},
};

static CATALOG: LazyLock<Loaded> = LazyLock::new(|| {
    let text = include_str!("../../examples/chat/tidegate.toml");
    wire::catalog::load(text, "tidegate.toml").expect("the example loads")
});

fn read<'a>(reader: &mut Reader<'_, 'a>, envelope: &Envelope<'a>, plain: bool) {
    match reader.event(envelope, plain) {
        Ok(event) => {
            assert!(!event.id.id.is_empty());
            assert!(plain || !event.id.source.is_empty());
            assert!(!event.fact.movements.is_empty());
        }
        Err(problem) => assert!((400..500).contains(&problem.status)),
    }
}

fuzz_target!(|data: &[u8]| {
    for plain in [false, true] {
        let mut reader = Reader::new(&CATALOG.catalog);
        match read_batch(data, plain) {
            Ok(Batch::One(envelope)) => read(&mut reader, &envelope, plain),
            Ok(Batch::Many(envelopes)) => {
                assert!(envelopes.len() <= BATCH_MAX);
                envelopes.iter().for_each(|envelope| read(&mut reader, envelope, plain));
            }
            Err(problem) => assert!((400..500).contains(&problem.status)),
        }
    }
});
