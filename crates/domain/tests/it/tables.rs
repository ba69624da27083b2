//! The tables, by theme.

use crate::table::run;

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident, $test:ident, $file:literal;)*) => {
        $($(#[$doc])* pub const $constant: &str = include_str!(concat!("tables/", $file));)*

        /// Every table, with its name.
        pub const ALL: &[(&str, &str)] = &[$(($file, $constant)),*];

        $(#[test]
        fn $test() {
            run($constant);
        })*
    };
}

tables! {
    /// Every code, in order of precedence.
    PRECEDENCE, precedence, "precedence.txt";
    /// Windows that turn, across months, days and DST.
    WINDOWS, windows, "windows.txt";
    /// Another plan: use stays, limits change on the next request.
    PLAN_CHANGE, plan_change, "plan_change.txt";
    /// Another anchor or time zone: nothing is lost, nothing refills.
    REFRAMING, reframing, "reframing.txt";
    /// Levels that are set, moved and given back.
    GAUGES, gauges, "gauges.txt";
    /// Events into the window of their time.
    LATE_EVENTS, late_events, "late_events.txt";
    /// Limits of one tenant, and corrections.
    ADMINISTRATION, administration, "administration.txt";
    /// Use of days before there was this ledger.
    IMPORTED_DAYS, imported_days, "imported_days.txt";
    /// Soft and shadow limits, and observing.
    MODES, modes, "modes.txt";
    /// Unmet demand: counted in runs, written down later.
    DENIALS, denials, "denials.txt";
    /// Charges given back.
    REFUNDS, refunds, "refunds.txt";
    /// Amounts held, and settled in every way.
    HOLDS, holds, "holds.txt";
    /// Amounts on top of the plan: spent in order, kept over, past the limit.
    GRANTS, grants, "grants.txt";
    /// Time: opened, touched, closed, idle, at its limits.
    SESSIONS, sessions, "sessions.txt";
    /// Features, and the plan that would help.
    UPGRADES, upgrades, "upgrades.txt";
    /// What use is told of once: each part of a limit, in each window.
    WARNINGS, warnings, "warnings.txt";
    /// What a tenant may use, shared among its users.
    SHARES, shares, "shares.txt";
    /// Operations that have no meaning, and amounts at the end of the range.
    REFUSALS, refusals, "refusals.txt";
}
