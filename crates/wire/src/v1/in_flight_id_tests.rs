#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const TENANT: &str = "[A-Za-z0-9_.:@|+=~$!*,-]{1,200}";

proptest! {
    #[test]
    fn a_name_leads_back_to_what_it_names(tenant in TENANT, number: u128) {
        let Ok(tenant) = TenantId::new(&tenant) else { return Ok(()) };
        let hold = hold_text(&tenant, HoldId(number));
        prop_assert_eq!(parse_hold(&hold), Some((tenant.clone(), HoldId(number))));
        prop_assert_eq!(parse_session(&hold), None);
        let session = session_text(&tenant, SessionId(number));
        prop_assert_eq!(parse_session(&session), Some((tenant, SessionId(number))));
        prop_assert_eq!(parse_hold(&session), None);
    }

    /// Whatever is read is written in one way alone: no two names are of one hold.
    #[test]
    fn there_is_one_name_for_each(name in "(hold|ses)_[0-9a-fA-F_+]{28,36}_[0-9a-fA-F]{0,12}") {
        if let Some((tenant, id)) = parse_hold(&name) {
            prop_assert_eq!(hold_text(&tenant, id), name);
        } else if let Some((tenant, id)) = parse_session(&name) {
            prop_assert_eq!(session_text(&tenant, id), name);
        }
    }

    #[test]
    fn nothing_from_outside_is_too_much(name in any::<String>()) {
        prop_assert_eq!(parse_hold(&name), None);
        prop_assert_eq!(parse_hold(&format!("hold_{name}")), None);
    }

    /// A name that was changed in one place is of something else, or of nothing.
    #[test]
    fn a_changed_name_is_of_something_else(number: u128, place in 0..45_usize, byte in 0x20..0x7f_u8) {
        let tenant = TenantId::new("acme").unwrap();
        let name = hold_text(&tenant, HoldId(number));
        let mut changed = name.clone().into_bytes();
        changed[place % name.len()] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(parse_hold(&changed) == Some((tenant, HoldId(number))), changed == name);
    }
}

#[test]
fn what_was_never_given_out_is_no_name() {
    let number = "0123456789abcdef0123456789abcdef";
    assert!(parse_hold(&format!("hold_{number}_61636d65")).is_some());
    for name in [
        "".to_owned(),
        "hold_".to_owned(),
        format!("hold_{number}"),
        format!("hold_{number}_"),
        format!("hold_{number}_6"),
        format!("hold_{number}_2e"),
        format!("hold_{number}_612f62"),
        format!("hold_{number}_ff"),
        format!("hold_{number}_61636D65"),
        format!("hold_{}_61636d65", number.to_uppercase()),
        format!("hold_+{}_61636d65", &number[1..]),
        format!("hold_{number}_61636d65_"),
        format!("hold_{number}_{}", "61".repeat(NAME_MAX_BYTES + 1)),
        format!(" hold_{number}_61636d65"),
        format!("ses_{number}_61636d65"),
    ] {
        assert_eq!(parse_hold(&name), None, "{name}");
    }
}
