//! Every outcome appears in the tables, and the codes in order of precedence.

use crate::{table::run, tables};
use domain::{decision::Code, entry::Effect, op::OpError};
use std::collections::BTreeSet;

/// What happened while a table ran.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Codes in the order of their first appearance.
    pub codes: Vec<Code>,
    pub errors: BTreeSet<&'static str>,
    pub effects: BTreeSet<&'static str>,
}

impl Coverage {
    pub fn saw_code(&mut self, code: Code) {
        if !self.codes.contains(&code) {
            self.codes.push(code);
        }
    }
}

const ERRORS: [&str; 25] = [
    "UnknownMeter",
    "UnknownFeature",
    "UnknownPlan",
    "Empty",
    "NegativeAmount",
    "AmountTooLarge",
    "NotAGauge",
    "GaugeHasNoWindow",
    "Overflow",
    "TooLate",
    "TooEarly",
    "WindowDoesNotFit",
    "TooManyOverrides",
    "HoldTime",
    "NothingToHold",
    "TooManyInFlight",
    "UnknownHold",
    "NotHeld",
    "HoldExceeded",
    "NotADuration",
    "UnknownSession",
    "Shares",
    "UnknownGrant",
    "GrantOver",
    "TooManyGrants",
];

const EFFECTS: [&str; 16] = [
    "Profile",
    "Turn",
    "Use",
    "Level",
    "Denied",
    "Denials",
    "Leases",
    "Under",
    "Hold",
    "HoldSettled",
    "Session",
    "SessionClosed",
    "Grant",
    "GrantRevoked",
    "Draw",
    "Warned",
];

/// More than a table would want to hold: `in_flight` and `grants` reach them.
const TOO_MANY: [&str; 2] = ["TooManyInFlight", "TooManyGrants"];

/// Leases are of several nodes: `leases` plays with them.
const NOT_OF_ONE_NODE: [&str; 2] = ["Leases", "Under"];

/// The variant's name. A new variant does not compile here until it is named, and then must appear in a table.
pub fn error_name(error: &OpError) -> &'static str {
    let index = match error {
        OpError::UnknownMeter(_) => 0,
        OpError::UnknownFeature(_) => 1,
        OpError::UnknownPlan(_) => 2,
        OpError::Empty => 3,
        OpError::NegativeAmount(_) => 4,
        OpError::AmountTooLarge(_) => 5,
        OpError::NotAGauge(_) => 6,
        OpError::GaugeHasNoWindow(_) => 7,
        OpError::Overflow(_) => 8,
        OpError::TooLate { .. } => 9,
        OpError::TooEarly { .. } => 10,
        OpError::WindowDoesNotFit(_) => 11,
        OpError::TooManyOverrides(_) => 12,
        OpError::HoldTime { .. } => 13,
        OpError::NothingToHold => 14,
        OpError::TooManyInFlight(_) => 15,
        OpError::UnknownHold => 16,
        OpError::NotHeld(_) => 17,
        OpError::HoldExceeded { .. } => 18,
        OpError::NotADuration(_) => 19,
        OpError::UnknownSession => 20,
        OpError::Shares(_) => 21,
        OpError::UnknownGrant => 22,
        OpError::GrantOver => 23,
        OpError::TooManyGrants(_) => 24,
    };
    ERRORS[index]
}

/// The variant's name, as for errors.
pub fn effect_name(effect: &Effect) -> &'static str {
    let index = match effect {
        Effect::Profile(_) => 0,
        Effect::Turn { .. } => 1,
        Effect::Use { .. } => 2,
        Effect::Level { .. } => 3,
        Effect::Denied { .. } => 4,
        Effect::Denials(_) => 5,
        Effect::Leases(_) => 6,
        Effect::Under { .. } => 7,
        Effect::Hold(_) => 8,
        Effect::HoldSettled { .. } => 9,
        Effect::Session(_) => 10,
        Effect::SessionClosed(_) => 11,
        Effect::Grant(_) => 12,
        Effect::GrantRevoked { .. } => 13,
        Effect::Draw(_) => 14,
        Effect::Warned(_) => 15,
    };
    EFFECTS[index]
}

#[test]
fn codes_appear_in_order_of_precedence() {
    assert_eq!(run(tables::PRECEDENCE).codes, Code::ALL);
    assert!(Code::ALL.is_sorted(), "the order of the enum is the order of precedence");
}

#[test]
fn every_outcome_appears_in_the_tables() {
    let (mut codes, mut errors, mut effects) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (_, text) in tables::ALL {
        let seen = run(text);
        codes.extend(seen.codes);
        errors.extend(seen.errors);
        effects.extend(seen.effects);
    }
    errors.extend(TOO_MANY);
    effects.extend(NOT_OF_ONE_NODE);
    assert_eq!(codes, BTreeSet::from(Code::ALL));
    assert_eq!(errors, BTreeSet::from(ERRORS));
    assert_eq!(effects, BTreeSet::from(EFFECTS));
}
