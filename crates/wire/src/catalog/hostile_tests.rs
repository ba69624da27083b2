//! Goal: whatever a file holds, loading it ends soon, never panics, and every problem has a place inside the file.
//! Method: arbitrary text, text made of TOML's own pieces, and the examples with arbitrary cuts and changes.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::{fmt::Write, time::Instant};

const SAMPLES: [&str; 3] = [
    include_str!("starter.toml"),
    include_str!("../../../../examples/chat/tidegate.toml"),
    include_str!("../../../../examples/bakery/tidegate.toml"),
];

fn check(text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    let Err(problems) = load(text, "f") else { return };
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(problem.line >= 1 && problem.line <= lines.len(), "{problem:?}");
        assert!(problem.column <= lines[problem.line - 1].chars().count() + 1, "{problem:?}");
        assert!(problem.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{problem}");
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "\"",
        "'",
        "\"\"\"",
        "#",
        "\\u0000",
        "\\",
        "-1",
        "0x",
        "1e9",
        "9999999999999999999",
        "true",
        "nan",
        "inf",
        "1979-05-27",
        "meters",
        "plans",
        "free",
        "limits",
        "max",
        "per",
        "day",
        "\"unlimited\"",
        "routes",
        "match",
        "\"GET /{a}/*\"",
        "charge",
        "identity",
        "type",
        "\"jwt\"",
        "é",
        "\r\n",
        "kind",
        "\"gauge\"",
        "rank",
        "price",
        "amount",
        "from",
        "features",
        "dimensions",
        "values",
        "\u{202e}",
        "\u{0}",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..60).prop_map(|words| words.concat())
}

/// A sample with some stretches cut out, doubled or replaced.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..40_usize, 0..3_u8, "[\\PC\n]{0,6}");
    (0..SAMPLES.len(), proptest::collection::vec(edit, 1..8)).prop_map(|(sample, edits)| {
        let mut chars: Vec<char> = SAMPLES[sample].chars().collect();
        for (at, length, kind, text) in edits {
            let start = at.index(chars.len().max(1)).min(chars.len());
            let end = (start + length).min(chars.len());
            let replacement: Vec<char> = match kind {
                0 => Vec::new(),
                1 => chars[start..end].iter().chain(&chars[start..end]).copied().collect(),
                _ => text.chars().collect(),
            };
            chars.splice(start..end, replacement);
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn pieces_of_toml_never_panic(text in pieces()) {
        check(&text);
    }

    #[test]
    fn a_changed_example_never_panics(text in mutated()) {
        check(&text);
    }

    #[test]
    fn every_value_of_the_wrong_type_is_told(
        line in any::<prop::sample::Index>(),
        value in proptest::sample::select(vec!["1979-05-27", "nan", "[[]]", "{ a = { b = [1] } }"]),
    ) {
        let everything = include_str!("problem_cases/every_key.toml");
        let lines: Vec<&str> = everything.lines().collect();
        let changeable: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(" = ")).collect();
        let at = changeable[line.index(changeable.len())];
        let (key, _) = lines[at].split_once(" = ").unwrap();
        let changed = format!("{key} = {value}");
        let text: String = lines.iter().enumerate().map(|(index, line)| if index == at { &changed } else { *line }).flat_map(|line| [line, "\n"]).collect();
        prop_assert!(load(&text, "f").is_err(), "{changed}");
        check(&text);
    }
}

/// Each would be slow or deep if something were quadratic or recursive. The bound is generous for a debug build.
#[test]
fn large_and_deep_files_end_soon() {
    let room = CATALOG_MAX_BYTES - 2000;
    let filled = |unit: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        (0..)
            .map(unit)
            .take_while(|line| {
                text.push_str(line);
                text.len() < room
            })
            .for_each(drop);
        text
    };
    let plans = "[plans.free]\nrank = 0\n";
    let cases = [
        filled(&|index| format!("key{index} = 1\n")),
        filled(&|index| format!("[meters.m{index}]\nkind = \"x\"\n")),
        format!("{plans}{}", filled(&|index| format!("[[routes]]\nmatch = \"GET /{index}\"\n"))),
        format!("{plans}{}", filled(&|index| format!("[[routes]]\nmatch = \"/{{a{index}}}\"\n"))),
        format!("{plans}limits = [{}]", filled(&|_| "{ meter = \"m\", max = 1 },".to_owned())),
        format!("{plans}features = [{}]", filled(&|index| format!("\"f{index}\","))),
        format!("a = {}{}", "[".repeat(room / 2), "]".repeat(room / 2)),
        format!("a = {}", "{a=".repeat(room / 3)),
        format!("{} = 1", "a.".repeat(room / 2) + "a"),
        format!("[[routes]]\nmatch = \"/{}\"", "a/".repeat(room / 2)),
        format!("default_plan = \"{}\"", "x".repeat(room)),
        "\"".repeat(room),
        "[".repeat(room),
        "\n".repeat(room) + "x",
    ];
    for text in cases {
        let mut head = String::new();
        write!(head, "{:.40}", text.escape_debug().to_string()).unwrap();
        let begun = Instant::now();
        assert!(load(&text, "f").is_err(), "{head}");
        assert!(begun.elapsed().as_secs() < 20, "{head} took {:?}", begun.elapsed());
    }
}
