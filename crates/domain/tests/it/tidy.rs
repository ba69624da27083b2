//! The rules of the house as a test: which crate may use which, how long a file may be, what is not left lying about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use toml::Table;

/// Which of our crates each may use. A new edge is a decision: it is made here and explained in `ARCHITECTURE.md`.
const EDGES: [(&str, &[&str]); 10] = [
    ("domain", &[]),
    ("forecast", &["domain"]),
    ("engine", &["domain"]),
    ("stores", &["domain", "engine"]),
    ("wire", &["domain", "engine", "forecast"]),
    ("gateway", &["domain", "engine", "wire"]),
    ("api", &["domain", "engine", "forecast", "wire"]),
    ("workers", &["domain", "engine", "forecast", "wire"]),
    ("testkit", &["domain", "engine", "stores"]),
    ("tidegate", &["domain", "forecast", "engine", "stores", "wire", "gateway", "api", "workers"]),
];

/// The heavy ones, each in its room.
const ROOMS: [(&str, &[&str]); 7] = [
    ("rusqlite", &["stores", "workers"]),
    ("axum", &["api", "tidegate"]),
    ("hyper", &["gateway", "tidegate"]),
    ("jsonwebtoken", &["gateway"]),
    ("serde", &["wire", "gateway", "api"]),
    ("clap", &["tidegate"]),
    ("prometheus-client", &["tidegate"]),
];

const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn dependencies(krate: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("crates").join(krate).join("Cargo.toml")).unwrap();
    let manifest: Table = text.parse().unwrap();
    let named = |section: &str| manifest.get(section).and_then(|section| section.as_table()).cloned();
    ["dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(named)
        .flat_map(|table| table.into_iter())
        .map(|(name, _)| name)
        .collect()
}

fn crates() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let crates = entries.filter(|path| path.join("Cargo.toml").exists());
    crates.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Every text file of ours.
fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let ours = !name.starts_with('.') || matches!(&*name, ".ci" | ".github" | ".gitignore");
            if path.is_symlink() || !ours || matches!(&*name, "target" | "node_modules" | "regressions") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    files
}

#[test]
fn crates_use_only_what_they_may() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.into();
    let known: BTreeSet<String> = edges.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(crates(), known, "a crate is missing from the table of edges");
    for (krate, allowed) in EDGES {
        let used = dependencies(krate).intersection(&known).cloned().collect::<BTreeSet<_>>();
        let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
        let more: Vec<_> = used.difference(&allowed).collect();
        assert!(more.is_empty(), "{krate} must not use {more:?}");
    }
}

#[test]
fn the_core_has_two_dependencies() {
    assert_eq!(dependencies("domain"), BTreeSet::from(["jiff".to_owned(), "thiserror".to_owned()]));
}

#[test]
fn heavy_dependencies_stay_in_their_rooms() {
    for krate in crates() {
        let used = dependencies(&krate);
        for (heavy, rooms) in ROOMS {
            assert!(!used.contains(heavy) || rooms.contains(&&*krate), "{krate} must not use {heavy}");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for (path, text) in files() {
        let shown = path.to_string_lossy().replace('\\', "/");
        let tests = shown.contains("/tests/") || shown.ends_with("_tests.rs") || shown.contains("/benches/");
        let lines = text.lines().count();
        assert!(tests || !shown.ends_with(".rs") || lines <= LINES_MAX, "{shown} has {lines} lines: split it");
    }
}

#[test]
fn nothing_is_left_lying_about() {
    // In pieces, so that this file does not find itself.
    let left = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("db", "g!("),
        concat!("/work", "/main"),
        concat!("/work", "/shared"),
        concat!("/work", "/.library"),
        concat!("/ro", "ot/"),
    ];
    for (path, text) in files() {
        for (number, line) in text.lines().enumerate() {
            if let Some(found) = left.iter().find(|word| line.contains(**word)) {
                panic!("{}:{}: {found:?} is left lying about", path.display(), number + 1);
            }
        }
    }
}

/// `docs/guarantees.md` names the tests that try to break each promise.
#[test]
fn every_test_that_is_named_exists() {
    let files = files();
    let page = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let sources: Vec<&String> =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "rs")).map(|(_, text)| text).collect();
    let words = page.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = words.filter(|word| word.matches('_').count() >= 2 && is_a_name(word)).collect();
    assert!(tests.len() > 60, "the page names its tests: {}", tests.len());
    for test in tests {
        let heading = format!("fn {test}(");
        assert!(
            sources.iter().any(|text| text.contains(&heading)),
            "docs/guarantees.md names {test}, which is no test"
        );
    }
}

fn is_a_name(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
