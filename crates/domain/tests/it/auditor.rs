//! An independent model of the accounts: it never asks the core which window an instant is in, nor what was used. It
//! knows windows by their labels (the date on the wall, the number of months since the anchor), finds their ends by
//! walking the clock forward, and counts what was accepted. What the core decides, charges and shows is judged by it.

use crate::world::World;
use domain::{
    catalog::{Limit, Mode, Scope},
    decision::{Code, Decision},
    entry::{Override, Status},
    id::{MeterKey, UserId},
    op::{Charge, Movement},
    time::{Instant, WindowKind, Zone},
};
use jiff::{Timestamp, tz::TimeZone};
use std::{cell::Cell, collections::BTreeMap};

/// The owner of an account: the tenant (`None`) or a user.
pub type Owner = Option<&'static str>;

/// A window as the auditor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub start: i64,
    pub end: i64,
}

/// One of each kind.
pub type Buckets = [Bucket; WindowKind::COUNT];

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    start: i64,
    used: i64,
    denied: i64,
}

#[derive(Debug, Clone)]
pub struct Auditor {
    zone: Zone,
    clock: TimeZone,
    anchor: i64,
    last: i64,
    buckets: Buckets,
    walked: Cell<Option<(Instant, Buckets)>>,
    open: BTreeMap<(Owner, MeterKey, usize), Count>,
    /// Use and demand in windows that are over, by kind alone.
    closed: BTreeMap<(Owner, MeterKey, usize), (i64, i64)>,
    levels: BTreeMap<(Owner, MeterKey), (i64, i64)>,
    /// Meters whose use an administrator took away: their history needs not add up.
    pub corrected: Vec<MeterKey>,
}

const QUARTER_MS: i64 = 900_000;
const DAY_MS: i64 = 86_400_000;

/// What tells one window of a kind from the next. Zones and anchors of the properties lie on quarters of an hour.
fn label(kind: WindowKind, zone: &TimeZone, anchor: i64, at: i64) -> (i64, i64) {
    if kind == WindowKind::Period {
        return (months_since(anchor, at), 0);
    }
    let local = Timestamp::from_millisecond(at).unwrap().to_zoned(zone.clone());
    let month = i64::from(local.year()) * 12 + i64::from(local.month());
    match kind {
        WindowKind::Month => (month, 0),
        WindowKind::Day => (month, i64::from(local.day())),
        // An hour of the wall clock that happens twice has two offsets.
        WindowKind::Hour => {
            let hour = (month * 100 + i64::from(local.day())) * 100 + i64::from(local.hour());
            (hour, -i64::from(local.offset().seconds()))
        }
        WindowKind::Minute => (at.div_euclid(60_000), 0),
        WindowKind::Period => unreachable!("periods are counted above"),
    }
}

/// Year, month (from 0), day (from 0) and milliseconds of the day, by the rules of the calendar.
fn civil(at: i64) -> (i64, i64, i64, i64) {
    let (mut days, ms) = (at.div_euclid(DAY_MS), at.rem_euclid(DAY_MS));
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 0;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days, ms)
}

fn leap(year: i64) -> i64 {
    i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
}

fn days_in(year: i64, month: i64) -> i64 {
    [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize]
}

/// How many billing periods have begun: a month counts from the anchor's day (or its own last one) and time of day.
fn months_since(anchor: i64, at: i64) -> i64 {
    let ((year0, month0, day0, ms0), (year, month, day, ms)) = (civil(anchor), civil(at));
    let turns_on = day0.min(days_in(year, month) - 1);
    (year - year0) * 12 + month - month0 - i64::from((day, ms) < (turns_on, ms0))
}

impl Auditor {
    pub fn new(zone: Zone, anchor: Instant, now: Instant) -> Self {
        let mut auditor = Self {
            clock: TimeZone::get(zone.name()).unwrap(),
            zone,
            anchor: anchor.ms(),
            last: now.ms(),
            buckets: [Bucket { start: 0, end: 0 }; WindowKind::COUNT],
            walked: Cell::new(None),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            levels: BTreeMap::new(),
            corrected: Vec::new(),
        };
        auditor.buckets = auditor.walk_to(now);
        auditor
    }

    pub fn instant(&self, now: Instant) -> Instant {
        Instant::from_ms(now.ms().max(self.last))
    }

    /// The windows around an instant that is not before the last entry. Walking the clock takes time: the last answer
    /// is kept.
    pub fn buckets_at(&self, at: Instant) -> Buckets {
        if let Some((_, buckets)) = self.walked.get().filter(|(known, _)| *known == at) {
            return buckets;
        }
        let buckets = self.walk_to(at);
        self.walked.set(Some((at, buckets)));
        buckets
    }

    fn walk_to(&self, at: Instant) -> Buckets {
        let mut buckets = self.buckets;
        for kind in WindowKind::ALL {
            let bucket = &mut buckets[kind.index()];
            if at.ms() >= bucket.end {
                let start = self.begin_of(kind, at.ms()).max(bucket.end);
                *bucket = Bucket { start, end: self.change_after(kind, at.ms()) };
            }
        }
        buckets
    }

    /// Walks the clock forward until the label changes: by days, then by quarters of an hour.
    fn change_after(&self, kind: WindowKind, at: i64) -> i64 {
        if kind == WindowKind::Minute {
            return at - at.rem_euclid(60_000) + 60_000;
        }
        let here = self.label(kind, at);
        let mut time = at;
        while kind != WindowKind::Hour && self.label(kind, time + DAY_MS) == here {
            time += DAY_MS;
        }
        time -= time.rem_euclid(QUARTER_MS);
        while self.label(kind, time) == here {
            time += QUARTER_MS;
        }
        time
    }

    fn begin_of(&self, kind: WindowKind, at: i64) -> i64 {
        if kind == WindowKind::Minute {
            return at - at.rem_euclid(60_000);
        }
        let here = self.label(kind, at);
        let mut time = at;
        while kind != WindowKind::Hour && self.label(kind, time - DAY_MS) == here {
            time -= DAY_MS;
        }
        time -= time.rem_euclid(QUARTER_MS);
        while self.label(kind, time - 1) == here {
            time -= QUARTER_MS;
        }
        time
    }

    fn label(&self, kind: WindowKind, at: i64) -> (i64, i64) {
        label(kind, &self.clock, self.anchor, at)
    }

    /// An entry was made: the windows of its instant are open now.
    pub fn entry_at(&mut self, at: Instant) {
        self.buckets = self.buckets_at(at);
        self.last = at.ms();
        self.walked.set(None);
    }

    /// Another zone or anchor: open windows end at the first boundary of the new frame that is not before their end.
    pub fn reframe(&mut self, zone: Zone, anchor: Instant) {
        if zone == self.zone && anchor.ms() == self.anchor {
            return;
        }
        self.clock = TimeZone::get(zone.name()).unwrap();
        (self.zone, self.anchor) = (zone, anchor.ms());
        self.walked.set(None);
        for kind in WindowKind::ALL {
            let end = self.buckets[kind.index()].end;
            if self.label(kind, end - 1) == self.label(kind, end) {
                self.buckets[kind.index()].end = self.change_after(kind, end);
            }
        }
    }

    pub fn used(&self, owner: Owner, meter: &MeterKey, window: Option<WindowKind>, at: Instant) -> i64 {
        let Some(kind) = window else { return self.level(owner, meter) };
        let start = self.buckets_at(at)[kind.index()].start;
        self.open
            .get(&(owner, meter.clone(), kind.index()))
            .filter(|count| count.start == start)
            .map_or(0, |count| count.used)
    }

    pub fn denied(&self, owner: Owner, meter: &MeterKey, at: Instant) -> i64 {
        let kind = WindowKind::Period.index();
        let start = self.buckets_at(at)[kind].start;
        self.open
            .get(&(owner, meter.clone(), kind))
            .filter(|count| count.start == start)
            .map_or(0, |count| count.denied)
    }

    pub fn level(&self, owner: Owner, meter: &MeterKey) -> i64 {
        self.levels.get(&(owner, meter.clone())).map_or(0, |(level, _)| *level)
    }

    /// All use and demand ever counted in windows of a kind.
    pub fn total(&self, owner: Owner, meter: &MeterKey, kind: WindowKind) -> (i64, i64) {
        let key = (owner, meter.clone(), kind.index());
        let closed = self.closed.get(&key).copied().unwrap_or_default();
        let open = self.open.get(&key).copied().unwrap_or_default();
        (closed.0 + open.used, closed.1 + open.denied)
    }

    /// Counts in the windows that are open at `at` and hold `happened`; in closed ones, what is kept.
    pub fn count(&mut self, owners: &[Owner], meter: &MeterKey, gain: (i64, i64), at: Instant, happened: Instant) {
        let buckets = self.buckets_at(at);
        self.count_in(owners, meter, gain, at, |kind| happened.ms() >= buckets[kind.index()].start);
    }

    /// Gives back to the windows of a charge: to those of them that are still open, and to the closed ones.
    pub fn give_back(&mut self, owners: &[Owner], meter: &MeterKey, amount: i64, at: Instant, then: &[Bucket]) {
        let buckets = self.buckets_at(at);
        self.count_in(owners, meter, (-amount, 0), at, |kind| buckets[kind.index()].start == then[kind.index()].start);
    }

    pub fn correct(&mut self, owners: &[Owner], meter: &MeterKey, amount: i64, at: Instant, only: Option<WindowKind>) {
        let buckets = self.buckets_at(at);
        self.corrected.push(meter.clone());
        for kind in WindowKind::ALL.into_iter().filter(|kind| only.is_none_or(|only| only == *kind)) {
            for owner in owners {
                self.count_open(*owner, meter, kind, (amount, 0), buckets[kind.index()]);
            }
        }
    }

    fn count_in(
        &mut self,
        owners: &[Owner],
        meter: &MeterKey,
        gain: (i64, i64),
        at: Instant,
        is_open: impl Fn(WindowKind) -> bool,
    ) {
        let buckets = self.buckets_at(at);
        for kind in WindowKind::ALL {
            for owner in owners {
                if is_open(kind) {
                    self.count_open(*owner, meter, kind, gain, buckets[kind.index()]);
                } else {
                    let closed = self.closed.entry((*owner, meter.clone(), kind.index())).or_default();
                    *closed = (closed.0 + gain.0, closed.1 + gain.1);
                }
            }
        }
    }

    fn count_open(&mut self, owner: Owner, meter: &MeterKey, kind: WindowKind, gain: (i64, i64), bucket: Bucket) {
        let key = (owner, meter.clone(), kind.index());
        let count = self.open.entry(key.clone()).or_default();
        if count.start != bucket.start {
            let closed = self.closed.entry(key).or_default();
            *closed = (closed.0 + count.used, closed.1 + count.denied);
            *count = Count { start: bucket.start, used: 0, denied: 0 };
        }
        count.used = (count.used + gain.0).max(0);
        count.denied += gain.1;
    }

    pub fn move_level(&mut self, owners: &[Owner], meter: &MeterKey, amount: i64) {
        for owner in owners {
            let level = self.levels.entry((*owner, meter.clone())).or_default();
            level.0 = (level.0 + amount).max(0);
        }
    }

    /// The owner's level was observed; the tenant's moves by as much.
    pub fn set_level(&mut self, owners: &[Owner], meter: &MeterKey, value: i64, happened: Instant) {
        let owner = owners[owners.len() - 1];
        let known = self.levels.entry((owner, meter.clone())).or_default();
        if happened.ms() < known.1 {
            return;
        }
        let delta = value - known.0;
        *known = (value, happened.ms());
        self.move_level(&owners[..owners.len() - 1], meter, delta);
    }

    pub fn apply(&mut self, owners: &[Owner], meter: &MeterKey, movement: Movement, at: Instant, happened: Instant) {
        match (is_gauge(meter), movement) {
            (true, Movement::Add(amount)) => self.move_level(owners, meter, amount),
            (true, Movement::Set(value)) => self.set_level(owners, meter, value, happened),
            (false, Movement::Add(amount)) => self.count(owners, meter, (amount, 0), at, happened),
            (false, Movement::Set(_)) => panic!("a counter can't be set by an event"),
        }
    }
}

pub fn is_gauge(meter: &MeterKey) -> bool {
    matches!(meter.as_str(), "documents" | "seats")
}

/// What the decision should have been, from the plan, the overrides and the auditor's own numbers.
pub fn judge(auditor: &Auditor, world: &World, decision: &Decision, charges: &[Charge], lacks: bool, owner: Owner) {
    let tenant = &world.state.tenant;
    let limits = limits_in_force(world, decision.at);
    let mut refused: Vec<Code> = Vec::new();
    if tenant.profile.status == Status::Suspended {
        refused.push(Code::TenantSuspended);
    }
    if lacks {
        refused.push(Code::FeatureNotInPlan);
    }
    for limit in limits.iter().filter(|limit| limit.scope == Scope::Tenant || owner.is_some()) {
        let amount: i64 = charges.iter().filter(|charge| charge.meter == limit.meter).map(|charge| charge.amount).sum();
        if !charges.iter().any(|charge| charge.meter == limit.meter) {
            continue;
        }
        let whose = if limit.scope == Scope::User { owner } else { None };
        let used = auditor.used(whose, &limit.meter, limit.window.kind(), decision.at);
        let state = decision
            .limits
            .iter()
            .find(|state| state.meter == limit.meter && state.window == limit.window && state.scope == limit.scope)
            .unwrap_or_else(|| panic!("the decision leaves out {limit:?}"));
        let charged = if decision.charged { amount } else { 0 };
        assert_eq!(state.used, (used + charged).max(0), "what is shown is what is counted: {limit:?}");
        assert_eq!(state.max, limit.max);
        let Some(max) = limit.max else { continue };
        assert_eq!(state.remaining(), Some((max - state.used).max(0)));
        if limit.mode == Mode::Hard && amount > 0 && used + amount > max {
            refused.push(match limit.window.kind() {
                None => Code::GaugeLimitReached,
                Some(WindowKind::Hour | WindowKind::Minute) => Code::RateLimitReached,
                Some(_) => Code::PeriodLimitReached,
            });
        }
    }
    assert_eq!(decision.limits.len(), limits_asked(&limits, charges, owner), "no limit twice, none too many");
    let first = refused.into_iter().min().unwrap_or(Code::Allowed);
    match decision.shadow.as_ref().filter(|_| decision.allowed) {
        Some(shadow) if first != Code::Allowed => assert_eq!(shadow.code, first, "what is observed is decided alike"),
        _ => assert_eq!(decision.code(), first, "{decision:?}"),
    }
}

fn limits_asked(limits: &[Limit], charges: &[Charge], owner: Owner) -> usize {
    let asked = |limit: &&Limit| charges.iter().any(|charge| charge.meter == limit.meter);
    limits.iter().filter(asked).filter(|limit| limit.scope == Scope::Tenant || owner.is_some()).count()
}

pub fn limits_in_force(world: &World, at: Instant) -> Vec<Limit> {
    let profile = &world.state.tenant.profile;
    let mut limits = world.catalog.plans[&profile.plan].limits.iter().cloned().collect::<Vec<_>>();
    for own in profile.overrides.iter().filter(|own: &&Override| own.until.is_none_or(|until| at < until)) {
        limits.retain(|limit| !(limit.meter == own.meter && limit.window == own.window && limit.scope == own.scope));
        limits.push(Limit {
            name: "".into(),
            meter: own.meter.clone(),
            max: own.max,
            window: own.window,
            scope: own.scope,
            mode: own.mode,
            answer_402: false,
            outage: Default::default(),
            quota: Default::default(),
        });
    }
    limits
}

/// What is stored and what is shown is what the auditor counted, and nothing is negative.
pub fn check_accounts(auditor: &Auditor, world: &World, users: &[&'static str], now: Instant) {
    let state = &world.state;
    let at = state.tenant.instant(now);
    for owner in [None].into_iter().chain(users.iter().map(|user| Some(*user))) {
        let user = owner.and_then(|name| state.users.get(&UserId::new(name).unwrap()));
        if owner.is_some() && user.is_none() {
            continue;
        }
        let (windows, buckets) = (state.tenant.windows_at(at), auditor.buckets_at(at));
        let accounts = user.map_or(&state.tenant.accounts, |user| &user.accounts);
        for (meter, account) in accounts.all() {
            assert!(account.level >= 0 && account.slots.iter().all(|slot| slot.used >= 0 && slot.denied >= 0));
            assert_eq!(account.level, auditor.level(owner, meter), "the level of {meter} of {owner:?}");
            for kind in WindowKind::ALL {
                let (window, bucket) = (windows[kind.index()], buckets[kind.index()]);
                assert_eq!((window.start.ms(), window.end.ms()), (bucket.start, bucket.end), "{kind:?} at {at:?}");
                let used = accounts.used(meter, kind, &window);
                assert_eq!(used, auditor.used(owner, meter, Some(kind), at), "{meter} of {owner:?} in {kind:?}");
            }
        }
        let usage = state.tenant.usage(user, now, &world.catalog);
        for shown in usage.meters.iter().filter(|shown| !is_gauge(&shown.meter.key)) {
            let key = &shown.meter.key;
            assert_eq!(shown.used, auditor.used(owner, key, Some(WindowKind::Period), at));
            assert_eq!(shown.denied, auditor.denied(owner, key, at), "unmet demand of {key} of {owner:?}");
        }
    }
}
