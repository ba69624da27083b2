//! Price lists: nothing is free unless a table says 0, parts add up, more never costs less, and rounding is up, once.

use domain::{
    catalog::AMOUNT_MAX,
    cost::{CostError, CostRule, CostTable, Otherwise, Parts, Prices, Rates},
    id::{CostKey, MeterKey},
};
use proptest::prelude::*;
use std::sync::Arc;

use Otherwise::{Price, Refuse};

fn table(rule: CostRule) -> CostTable {
    CostTable { key: CostKey::trusted("request"), meter: MeterKey::trusted("credits"), rule }
}

fn prices<T>(property: &str, known: Vec<(&str, T)>, unknown: Otherwise<T>, missing: Otherwise<T>) -> Prices<T> {
    let known = known.into_iter().map(|(value, price)| (value.into(), price)).collect();
    Prices { property: property.into(), known, unknown, missing }
}

/// The seed's own list, with a policy.
fn request() -> CostTable {
    let mode = vec![("none", 0), ("analyst", 20), ("chat_with_file", 10)];
    let tool = vec![("general", 1), ("marketing_plan", 2), ("help_desk", 0)];
    let parts = vec![prices("mode", mode, Price(5), Refuse), prices("tool", tool, Refuse, Price(3))];
    table(CostRule::Parts(Parts { base: 1, parts }))
}

fn rates(per: i64, names: &[&str], rows: Vec<(&str, Vec<i64>)>, unknown: Otherwise<Vec<i64>>) -> CostTable {
    let quantities: Arc<[Arc<str>]> = names.iter().map(|name| Arc::from(*name)).collect();
    let rows = rows.into_iter().map(|(model, row)| (model, Arc::from(row))).collect();
    let unknown = match unknown {
        Refuse => Refuse,
        Price(row) => Price(Arc::from(row)),
    };
    table(CostRule::Rates(Rates { per, quantities, prices: prices("model", rows, unknown, Refuse) }))
}

fn tokens() -> CostTable {
    let rows = vec![("large", vec![5, 15]), ("small", vec![1, 2])];
    rates(1000, &["prompt_tokens", "completion_tokens"], rows, Price(vec![20, 60]))
}

/// `mode=analyst tool=general prompt_tokens:12`, as it is asked.
fn asked(table: &CostTable, words: &str) -> String {
    let properties: Vec<_> = words.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let quantities = words.split_whitespace().filter_map(|word| word.split_once(':'));
    let quantities: Vec<_> = quantities.map(|(name, amount)| (name, amount.parse().unwrap())).collect();
    match table.amount(&properties, &quantities) {
        Ok(charge) => format!("{} {}", charge.meter, charge.amount),
        Err(error) => error.to_string(),
    }
}

fn holds(table: &CostTable, lines: &str) {
    for line in lines.trim().lines() {
        let (words, expected) = line.trim().split_once(" -> ").unwrap();
        assert!(asked(table, words).starts_with(expected), "{line}\nbut: {}", asked(table, words));
    }
}

#[test]
fn parts_add_up_and_each_follows_its_own_policy() {
    holds(
        &request(),
        "mode=analyst tool=general -> credits 22
         mode=none tool=help_desk -> credits 1
         mode=analyst -> credits 24
         mode=new tool=general -> credits 7
         tool=general -> cost table request needs the property mode, which is missing
         mode=analyst tool=new -> cost table request has no price where tool is \"new\"
         mode=Analyst tool=general -> credits 7
         mode= tool= -> cost table request has no price where tool is \"\"
         mode=none tool=general tol=x -> cost table request has no property \"tol\"; it looks at mode, tool
         mode=none tool=general tokens:1 -> cost table request has no quantity \"tokens\"; it has no quantities",
    );
}

#[test]
fn quantities_are_charged_by_the_thousand_and_rounded_up_once() {
    holds(
        &tokens(),
        "model=large prompt_tokens:1000 completion_tokens:1000 -> credits 20
         model=large prompt_tokens:1 -> credits 1
         model=large prompt_tokens:0 -> credits 0
         model=large prompt_tokens:200 completion_tokens:0 -> credits 1
         model=large prompt_tokens:201 -> credits 2
         model=small prompt_tokens:500 completion_tokens:250 -> credits 1
         model=small prompt_tokens:501 completion_tokens:250 -> credits 2
         model=new completion_tokens:1000 -> credits 60
         model=large -> cost table request needs at least one of the quantities prompt_tokens, completion_tokens
         prompt_tokens:1 -> cost table request needs the property model
         model=large tokens:1 -> cost table request has no quantity \"tokens\"; it has prompt_tokens, completion_tokens
         model=large prompt_tokens:-1 -> the quantity prompt_tokens must be between 0 and 2^53 - 1
         model=large prompt_tokens:9007199254740992 -> the quantity prompt_tokens must be
         model=large prompt_tokens:9007199254740991 -> credits 45035996273705
         mode=large prompt_tokens:1 -> cost table request has no property \"mode\"; it looks at model",
    );
}

#[test]
fn what_is_too_much_is_an_error() {
    let parts = vec![prices("mode", vec![("dear", AMOUNT_MAX)], Price(AMOUNT_MAX), Refuse)];
    let sum = table(CostRule::Parts(Parts { base: 1, parts }));
    assert!(matches!(sum.amount(&[("mode", "dear")], &[]), Err(CostError::AmountTooLarge(_))));
    let dear = rates(1, &["a", "b"], vec![("m", vec![AMOUNT_MAX; 2])], Refuse);
    let most = [("a", AMOUNT_MAX), ("b", AMOUNT_MAX)];
    assert!(matches!(dear.amount(&[("model", "m")], &most), Err(CostError::AmountTooLarge(_))));
}

#[test]
fn words_from_outside_are_shortened_and_escaped() {
    let long = "x".repeat(10_000);
    let error = request().amount(&[("mode", "none"), ("tool", &long)], &[]).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    let error = request().amount(&[("mode", "none"), ("tool", "\u{1b}[31m\n\u{202e}")], &[]).unwrap_err();
    assert!(error.to_string().chars().all(|c| !c.is_control() && c != '\u{202e}'), "{error}");
}

#[test]
fn a_rate_says_what_its_table_says() {
    let tokens = tokens();
    let rate = tokens.rate(&[("model", "small")]).unwrap().unwrap();
    assert_eq!(rate.quantities().collect::<Vec<_>>(), ["prompt_tokens", "completion_tokens"]);
    let reported = |name: &str| Some(if name == "prompt_tokens" { 700 } else { 40 });
    let quantities = [("prompt_tokens", 700), ("completion_tokens", 40)];
    assert_eq!(rate.amount(reported), tokens.amount(&[("model", "small")], &quantities));
    assert_eq!(request().rate(&[]).unwrap(), None);
}

type Row = (Vec<(String, i64)>, Option<i64>, Option<i64>);

/// A table of up to three parts, and a value (or none) for each.
fn sums() -> impl Strategy<Value = (i64, Vec<(Row, Option<String>)>)> {
    let known = prop::collection::vec(("[ab]{1,2}", 0..1000_i64), 1..5);
    let row = (known, prop::option::of(0..1000_i64), prop::option::of(0..1000_i64));
    (0..1000_i64, prop::collection::vec((row, prop::option::of("[abc]{0,2}")), 1..4))
}

proptest! {
    #![proptest_config(crate::config(256, "costs"))]

    /// The amount is the base and one price of each part: its own where the value has one, else what the policy says;
    /// and it is refused if and only if some policy refuses. So nothing is free that no table calls free.
    #[test]
    fn the_sum_of_the_parts((base, rows) in sums()) {
        let policy = |amount: Option<i64>| amount.map_or(Refuse, Price);
        let mut expected = Some(base);
        let mut parts = Vec::new();
        let names: Vec<String> = (0..rows.len()).map(|index| format!("p{index}")).collect();
        let mut properties = Vec::new();
        for (((known, unknown, missing), value), name) in rows.iter().zip(&names) {
            let pairs = known.iter().map(|(value, price)| (value.as_str(), *price)).collect();
            parts.push(prices(name, pairs, policy(*unknown), policy(*missing)));
            let price = match value {
                None => *missing,
                // Of a value named twice the last price is kept, as in any map.
                Some(value) => known.iter().rev().find(|(known, _)| known == value).map(|(_, price)| *price).or(*unknown),
            };
            expected = expected.zip(price).map(|(sum, price)| sum + price);
            properties.extend(value.as_deref().map(|value| (name.as_str(), value)));
        }
        let amount = table(CostRule::Parts(Parts { base, parts })).amount(&properties, &[]);
        prop_assert_eq!(amount.ok().map(|charge| charge.amount), expected);
    }

    /// More of anything never costs less; the amount is the exact quotient rounded up, so something that has a price
    /// costs at least 1; and cutting a request in two never makes it cheaper.
    #[test]
    fn rates_are_monotone_and_never_free(
        per in 1..5000_i64,
        row in prop::collection::vec(0..10_000_i64, 3),
        one in prop::collection::vec(0..1_000_000_i64, 3),
        other in prop::collection::vec(0..1_000_000_i64, 3),
    ) {
        let names = ["a", "b", "c"];
        let table = rates(per, &names, vec![("m", row.clone())], Refuse);
        let amount = |quantities: &[i64]| {
            let quantities: Vec<_> = names.into_iter().zip(quantities.iter().copied()).collect();
            table.amount(&[("model", "m")], &quantities).unwrap().amount
        };
        let both: Vec<i64> = one.iter().zip(&other).map(|(one, other)| one + other).collect();
        prop_assert!(amount(&both) >= amount(&one));
        prop_assert!(amount(&one) + amount(&other) >= amount(&both));
        let exact: i64 = one.iter().zip(&row).map(|(quantity, price)| quantity * price).sum();
        let rounded = amount(&one);
        prop_assert!(rounded * per >= exact && (rounded - 1) * per < exact || exact == 0 && rounded == 0);
    }
}
