#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn durations_have_a_unit() {
    for (text, ms) in [("500ms", 500), ("60s", 60_000), ("15m", 900_000), ("12h", 43_200_000), ("35d", 3_024_000_000)] {
        assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
    }
    for text in ["", "5", "s", "-1s", "1.5h", "1w", "99999999999999999999d", "9223372036854775807d"] {
        assert!(parse_duration_ms(text).is_err(), "{text}");
    }
}

#[test]
fn ledger_urls_say_what_is_possible() {
    assert_eq!(LedgerUrl::parse("memory:").unwrap(), LedgerUrl::Memory);
    assert_eq!(LedgerUrl::parse("sqlite:a/b.db").unwrap(), LedgerUrl::Sqlite("a/b.db".into()));
    assert_eq!(LedgerUrl::parse("sqlite:///a/b.db").unwrap(), LedgerUrl::Sqlite("/a/b.db".into()));
    let postgres = LedgerUrl::parse("postgres://me:hunter2@localhost/x").unwrap();
    assert!(postgres.is_shared());
    assert!(!format!("{postgres} {postgres:?}").contains("hunter2"), "a password must not be shown");
    for wrong in ["sqlite:", "tidegate.db", "mysql://x", ""] {
        assert!(LedgerUrl::parse(wrong).unwrap_err().to_string().contains("sqlite:"), "{wrong}");
    }
}

#[test]
fn upstreams_are_addresses_of_servers() {
    assert!(parse_upstream("X", "http://127.0.0.1:3000").is_ok());
    assert!(parse_upstream("X", "https://api.example.com/v2").is_ok());
    for wrong in ["localhost:3000", "ftp://x", "http://", "http://x/?q=1", "/path"] {
        assert!(parse_upstream("X", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let secret = Secret::new("tg_very_secret");
    assert!(!format!("{secret:?}").contains("very"));
}

#[test]
fn no_catalog_may_name_the_nodes_own_variables() {
    for beginning in ["TIDEGATE_SOURCE_", "APP_", "TIDEGATE_SNAPSHOTS_OF_"] {
        assert_eq!(source_variables(beginning).unwrap(), beginning);
    }
    for beginning in ["TIDEGATE_", "T", "", "TIDEGATE_ADMIN_KEY", "TIDEGATE_LEDGER_"] {
        let told = source_variables(beginning).unwrap_err().to_string();
        assert!(told.contains("TIDEGATE_SNAPSHOTS_VARIABLES") && told.contains("TIDEGATE_SOURCE_"), "{told}");
    }
}
