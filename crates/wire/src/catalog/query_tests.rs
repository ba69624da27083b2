#![allow(clippy::unwrap_used)]

use super::Query;
use crate::catalog::SourceKind::{self, Postgres, Sqlite};
use proptest::prelude::*;

fn written(sql: &str, kind: SourceKind) -> String {
    Query::new(sql, kind).with_day_end("<>")
}

#[test]
fn the_day_is_named_only_where_it_is_a_parameter() {
    for (sql, postgres, sqlite) in [
        ("at < :day_end AND b >= :day_end", "at < <> AND b >= <>", "at < <> AND b >= <>"),
        (":day_end", "<>", "<>"),
        ("(:day_end)::date", "(<>)::date", "(<>)::date"),
        ("x::day_end :day_ending :day_end2 :day_end$", "=", "="),
        // Texts.
        (
            "':day_end' || 'it''s :day_end' || :day_end",
            "':day_end' || 'it''s :day_end' || <>",
            "':day_end' || 'it''s :day_end' || <>",
        ),
        (r"E'\' :day_end' :day_end", r"E'\' :day_end' <>", r"E'\' <>' :day_end"),
        (r"e'\\' :day_end", r"e'\\' <>", r"e'\\' <>"),
        ("E'a'\n '\\' :day_end' :day_end", "E'a'\n '\\' :day_end' <>", "E'a'\n '\\' <>' :day_end"),
        (r"note'\' :day_end", r"note'\' <>", r"note'\' <>"),
        ("$$ :day_end $$ :day_end", "$$ :day_end $$ <>", "$$ <> $$ <>"),
        ("$q$ $$ :day_end $q $q$:day_end", "$q$ $$ :day_end $q $q$<>", "$q$ $$ <> $q $q$<>"),
        ("a$b$ :day_end $1 :day_end", "a$b$ <> $1 <>", "a$b$ <> $1 <>"),
        // Quoted names.
        (r#"":day_end" "a"" :day_end" :day_end"#, r#"":day_end" "a"" :day_end" <>"#, r#"":day_end" "a"" :day_end" <>"#),
        ("`:day_end` [:day_end] :day_end", "`<>` [<>] <>", "`:day_end` [:day_end] <>"),
        // Comments.
        ("-- :day_end's\n:day_end", "-- :day_end's\n<>", "-- :day_end's\n<>"),
        ("/* :day_end ' */ :day_end", "/* :day_end ' */ <>", "/* :day_end ' */ <>"),
        ("/* /* */ :day_end */ :day_end", "/* /* */ :day_end */ <>", "/* /* */ <> */ <>"),
        ("/*/ :day_end */ 1", "=", "="),
        ("1 - -:day_end / *", "1 - -<> / *", "1 - -<> / *"),
        // What has no end goes on to the end.
        ("' :day_end", "=", "="),
        ("/* :day_end", "=", "="),
        ("$x$ :day_end", "=", "$x$ <>"),
        ("\" é:day_end", "=", "="),
        ("", "=", "="),
    ] {
        for (kind, expected) in [(Postgres, postgres), (Sqlite, sqlite)] {
            let expected = if expected == "=" { sql } else { expected };
            assert_eq!(written(sql, kind), expected, "{sql} ({kind:?})");
            assert_eq!(Query::new(sql, kind).knows_days(), expected != sql, "{sql} ({kind:?})");
        }
    }
}

proptest! {
    /// Whatever stands in quotes and comments is left as it is, and whatever stands between them is not.
    #[test]
    fn what_is_quoted_is_never_touched(
        pieces in prop::collection::vec((0..6_usize, "[a-z:_ ]{0,6}(:day_end)?[a-z ]{0,4}"), 0..12),
    ) {
        let quotes = [("'", "'"), ("\"", "\""), ("-- ", "\n"), ("/* ", " */"), ("$q$", "$q$"), ("E'\\'", "'")];
        let (mut sql, mut expected) = (String::new(), String::new());
        for (quote, inside) in pieces {
            let (open, close) = quotes[quote];
            sql += &format!(" :day_end {open}{inside}{close}");
            expected += &format!(" <> {open}{inside}{close}");
        }
        prop_assert_eq!(written(&sql, Postgres), expected);
    }

    #[test]
    fn no_text_is_too_odd(sql in "[:a-zA-Z_$'\"`\\[\\]/*\\\\é\n -]{0,40}(:day_end)?[$'\"/*-]{0,4}") {
        for kind in [Postgres, Sqlite] {
            let query = Query::new(&sql, kind);
            prop_assert_eq!(query.with_day_end(":day_end"), sql.clone());
        }
    }
}
