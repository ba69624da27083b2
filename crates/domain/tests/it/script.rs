//! One line of a table: what is done, to whom, when, and what should come of it.

use crate::world::{METERS, account, at, limit, meter};
use domain::{
    catalog::{Enforce, MeterKind, Mode},
    day::Day,
    entry::{Binding, Cause, Override, Status},
    grant::{Grant, GrantChange, GrantId, GrantSource},
    hold::{Excess, HoldId, HoldTerms, Settle, Settlement},
    id::{FeatureKey, PlanKey, UserId},
    op::{Adjustment, Charge, Fact, Movement, ProfileChange, Spend},
    session::{CloseReason, OpenSession, SessionId, TouchSession},
    share::{Share, ShareMode},
    time::{Instant, WindowKind, Zone},
};
use std::{collections::BTreeMap, sync::Arc};

/// `90s`, `5m`, `2h` or `250ms`.
pub fn milliseconds(text: &str) -> i64 {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("{text:?} has no unit"));
    let (number, unit) = text.split_at(split);
    let unit_ms =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)].into_iter().find(|(word, _)| *word == unit);
    number.parse::<i64>().unwrap() * unit_ms.unwrap_or_else(|| panic!("{unit:?} is no unit")).1
}

/// The number in a name such as `h1` or `s2`.
fn number(name: &str) -> u128 {
    name[1..].parse().unwrap_or_else(|_| panic!("{name:?} has no number"))
}

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
            hold: self.hold(),
        };
        (spend, Cause::Check)
    }

    /// `hold=h1 ttl=60s excess=room`: its number is its name.
    fn hold(&self) -> Option<HoldTerms> {
        let id = HoldId(number(self.one("hold")?));
        let ttl_ms = self.one("ttl").map_or(60_000, milliseconds);
        let excess = self.one("excess").map(|word| Excess::from_word(word).unwrap()).unwrap_or_default();
        Some(HoldTerms { id, ttl_ms, excess })
    }

    /// `grant g1 messages 5 priority=1 until=2027-02-01T00:00Z`
    pub fn grant(&self) -> GrantChange {
        let grant = Grant {
            id: self.grant_id(),
            meter: meter(self.bare[1]),
            amount: self.bare[2].parse().unwrap(),
            left: 0,
            priority: self.one("priority").map_or(0, |number| number.parse().unwrap()),
            granted_at: Instant::EPOCH,
            expires_at: self.instant("until"),
            source: GrantSource::Given,
            reason: "a table says so".into(),
        };
        GrantChange::Put { grant, binding: None }
    }

    pub fn grant_id(&self) -> GrantId {
        GrantId(number(self.bare[0]))
    }

    /// `commit h1 messages 2`, `release h1`
    pub fn settle(&self, is_release: bool) -> Settle {
        let id = HoldId(number(self.bare[0]));
        let rest = Words { bare: self.bare[1..].to_vec(), named: vec![] };
        let how = match is_release {
            true => Settlement::Release,
            false => Settlement::Commit(rest.spend(false).0.charges),
        };
        Settle { id, how, binding: None }
    }

    /// `open time s1 key=chat`: a session is called as its key, and so is its number.
    pub fn open(&self) -> OpenSession {
        OpenSession {
            id: SessionId(number(self.bare[1])),
            key: self.one("key").unwrap_or(self.bare[1]).into(),
            meter: meter(self.bare[0]),
            enforce: self.one("enforce").map(|word| Enforce::from_word(word).unwrap()),
            dimensions: vec![],
            ran_ms: self.one("ran").map(milliseconds),
            binding: None,
        }
    }

    /// `touch s1 ran=10s`, `close s1`
    pub fn touch(&self, close: Option<CloseReason>) -> TouchSession {
        TouchSession {
            id: SessionId(number(self.bare[0])),
            ran_ms: self.one("ran").map(milliseconds),
            close,
            enforce: self.one("enforce").map(|word| Enforce::from_word(word).unwrap()),
            binding: None,
        }
    }

    pub fn fact(&self) -> Fact {
        Fact { movements: self.movements(), time: self.instant("time"), dimensions: vec![], binding: self.binding() }
    }

    pub fn adjustment(&self) -> Adjustment {
        let (meter, movement) = self.movements().remove(0);
        let window = self.one("window").map(|word| WindowKind::from_word(word).unwrap());
        let on = self.one("on").map(|day| Day::parse(day).unwrap());
        Adjustment { meter, movement, window, on, binding: self.binding() }
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
            shares: self.one("shares").map(shares),
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

/// `messages:pooled`, `messages:equal:3` or `messages:custom:ann~5+bob~2+*~1`, `;` between them; `none`.
pub fn shares(text: &str) -> Vec<Share> {
    if text == "none" {
        return vec![];
    }
    text.split(';').map(share).collect()
}

fn share(text: &str) -> Share {
    let mut words = text.splitn(3, ':');
    let (key, word, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
    let mode = match word {
        "pooled" => ShareMode::Pooled,
        "equal" => ShareMode::Equal { seats: rest.parse().unwrap() },
        "custom" => {
            let numbers = rest.split('+').filter(|part| !part.is_empty()).map(|part| part.split_once('~').unwrap());
            let mut users: BTreeMap<&str, i64> =
                numbers.map(|(user, number)| (user, number.parse().unwrap())).collect();
            let default = users.remove("*");
            // A crowd: `crowd~1000` stands for so many users.
            let crowd = users.remove("crowd").unwrap_or(0);
            let users = users.into_iter().map(|(user, number)| (UserId::new(user).unwrap(), number));
            let crowd = (0..crowd).map(|number| (UserId::new(&format!("u{number}")).unwrap(), 1));
            ShareMode::Custom { users: Arc::new(users.chain(crowd).collect()), default }
        }
        _ => panic!("{text:?} is no share"),
    };
    Share { meter: meter(key), mode }
}

/// `messages/day/user`
fn remove_override(text: &str) -> Override {
    let mut parts = text.split('/');
    let meter = meter(parts.next().unwrap());
    let (window, scope) = account(parts);
    Override { meter, window, scope, max: None, mode: Mode::Hard, until: None, reason: None }
}
