//! One line of a table: what is done, to whom, when, and what should come of it.

use crate::world::{METERS, account, at, limit, meter};
use domain::{
    catalog::{Enforce, MeterKind, Mode},
    entry::{Binding, Cause, Override, Status},
    id::{FeatureKey, PlanKey},
    op::{Adjustment, Charge, Fact, Movement, ProfileChange, Spend},
    time::{Instant, WindowKind, Zone},
};

/// The words of a line: bare ones in order, and `key=value` ones.
pub struct Words<'a> {
    pub bare: Vec<&'a str>,
    pub named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    pub fn of(text: &'a str) -> Self {
        let mut words = Words { bare: vec![], named: vec![] };
        for word in text.split_whitespace() {
            match word.split_once('=').filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase())) {
                Some(named) => words.named.push(named),
                None => words.bare.push(word),
            }
        }
        words
    }

    pub fn all(&self, key: &'a str) -> impl Iterator<Item = &'a str> + '_ {
        self.named.iter().filter(move |(known, _)| *known == key).map(|(_, value)| *value)
    }

    pub fn one(&self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    fn instant(&self, key: &'a str) -> Option<Instant> {
        self.one(key).map(at)
    }

    /// `id=7` is bound to the fingerprint `print=`, 0 if there is none.
    fn binding(&self) -> Option<Binding> {
        let id = self.one("id")?.parse().unwrap();
        Some(Binding { id, fingerprint: self.one("print").map_or(0, |print| print.parse().unwrap()) })
    }

    /// `messages 3 documents set 5`
    fn movements(&self) -> Vec<(domain::id::MeterKey, Movement)> {
        let mut movements = Vec::new();
        let mut words = self.bare.iter();
        while let Some(key) = words.next() {
            let movement = match *words.next().unwrap_or_else(|| panic!("{key:?} has no amount")) {
                "set" => Movement::Set(words.next().unwrap().parse().unwrap()),
                amount => Movement::Add(amount.parse().unwrap_or_else(|_| panic!("{amount:?} is no amount"))),
            };
            movements.push((meter(key), movement));
        }
        movements
    }

    pub fn spend(&self, consume: bool) -> (Spend, Cause) {
        let charge = |(meter, movement)| match movement {
            Movement::Add(amount) => Charge { meter, amount },
            Movement::Set(_) => panic!("a charge can't set"),
        };
        let spend = Spend {
            refundable: true,
            charges: self.movements().into_iter().map(charge).collect(),
            features: self.all("feature").map(|key| FeatureKey::new(key).unwrap()).collect(),
            consume,
            enforce: self.one("enforce").map(|word| Enforce::from_word(word).unwrap()),
            dimensions: vec![],
            binding: self.binding(),
        };
        (spend, Cause::Check)
    }

    pub fn fact(&self) -> Fact {
        Fact { movements: self.movements(), time: self.instant("time"), dimensions: vec![], binding: self.binding() }
    }

    pub fn adjustment(&self) -> Adjustment {
        let (meter, movement) = self.movements().remove(0);
        let window = self.one("window").map(|word| WindowKind::from_word(word).unwrap());
        Adjustment { meter, movement, window, binding: self.binding() }
    }

    pub fn change(&self) -> ProfileChange {
        ProfileChange {
            plan: self.one("plan").map(|key| PlanKey::new(key).unwrap()),
            status: self.one("status").map(|word| Status::from_word(word).unwrap()),
            enforce: self.one("enforce").map(Enforce::from_word),
            zone: self.one("zone").map(|name| Zone::named(name).unwrap()),
            anchor: self.instant("anchor"),
            catalog_pin: None,
            put_overrides: self.all("override").flat_map(put_overrides).collect(),
            remove_overrides: self.all("unset").map(remove_override).collect(),
        }
    }
}

/// `everything` is one on every account there is.
fn put_overrides(text: &str) -> Vec<Override> {
    if text != "everything" {
        return vec![put_override(text)];
    }
    let counters = METERS.iter().filter(|(_, kind)| *kind != MeterKind::Gauge);
    let accounts = counters.flat_map(|(meter, _)| WindowKind::ALL.map(|kind| format!("{meter}<=1/{}", kind.word())));
    accounts.flat_map(|account| [put_override(&account), put_override(&format!("{account}/user"))]).collect()
}

/// `messages<=5/day:soft~2027-02-01T00:00Z`
fn put_override(text: &str) -> Override {
    let (text, until) = text.split_once('~').map_or((text, None), |(text, until)| (text, Some(at(until))));
    let limit = limit(text);
    let reason = Some("a table says so".into());
    Override {
        meter: limit.meter,
        window: limit.window,
        scope: limit.scope,
        max: limit.max,
        mode: limit.mode,
        until,
        reason,
    }
}

/// `messages/day/user`
fn remove_override(text: &str) -> Override {
    let mut parts = text.split('/');
    let meter = meter(parts.next().unwrap());
    let (window, scope) = account(parts);
    Override { meter, window, scope, max: None, mode: Mode::Hard, until: None, reason: None }
}
