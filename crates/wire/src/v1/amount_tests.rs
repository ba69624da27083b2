use super::*;

#[test]
fn integers_within_the_range_are_amounts_whatever_they_look_like() {
    for (text, amount) in [
        ("0", Some(0)),
        ("5", Some(5)),
        ("5.0", Some(5)),
        ("5e2", Some(500)),
        ("-3", Some(-3)),
        ("-0.0", Some(0)),
        ("9007199254740991", Some(9_007_199_254_740_991)),
        ("-9007199254740991", Some(-9_007_199_254_740_991)),
        ("9007199254740992", None),
        ("-9007199254740992", None),
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("1e300", None),
        ("5.5", None),
        ("\"5\"", None),
        ("true", None),
        ("null", None),
        ("[1]", None),
    ] {
        assert_eq!(serde_json::from_str::<Amount>(text).ok().map(|amount| amount.0), amount, "{text}");
    }
}
