//! Runs a table. A line is `TIME VERB WORDS -> OUTCOME`; what comes out must be what it says. Lines without a time
//! change the catalog: `plan NAME RANK +FEATURE LIMIT...`, `catalog observe`, `catalog warn 80 100`. After every line the fold of all entries
//! must be the state, so that every table proves that as well.

use crate::{
    coverage::{Coverage, effect_name, error_name},
    script::{Words, milliseconds},
    world::{World, add_plan, at, catalog, meter},
};
use domain::{
    catalog::{Catalog, Enforce, Limit, Meter, Mode, OnLimit, Plan, Quota, SessionPolicy, Source, Unsettled},
    decision::{Decision, Denial, LimitState},
    entry::{Effect, Entry, KindSet},
    grant::{Grant, GrantChange, GrantId},
    id::UserId,
    in_flight::Lapse,
    op::{Op, OpError, Outcome, Receipt},
    session::{CloseReason, SessionOp, SessionState},
    tenant::Accounts,
    time::{Instant, WindowKind},
};
use std::collections::BTreeMap;

/// Runs a table and fails where an outcome differs, showing the whole table as it would have to be.
pub fn run(text: &str) -> Coverage {
    let mut table = Table::default();
    let mut actual = String::new();
    let mut failed = false;
    for line in text.lines() {
        let line = line.trim();
        let (asked, expected) = line.split_once(" -> ").unwrap_or((line, ""));
        let outcome = table.line(asked.trim());
        failed |= outcome != expected.trim();
        let arrow = if outcome.is_empty() { "" } else { " -> " };
        let mark = if outcome == expected.trim() { "" } else { "   <<<<" };
        actual.push_str(&format!("{}{arrow}{outcome}{mark}\n", asked.trim_end()));
        if let Some(world) = &table.world {
            world.check_replay();
        }
    }
    assert!(!failed, "the table does not hold; what happened instead is marked:\n{actual}");
    table.coverage
}

struct Table {
    catalog: Catalog,
    world: Option<World>,
    receipts: BTreeMap<String, Receipt>,
    coverage: Coverage,
}

impl Default for Table {
    fn default() -> Self {
        // Tables are of one thing each: those about warnings say so.
        let catalog = Catalog { warnings: vec![], ..catalog() };
        Self { catalog, world: None, receipts: BTreeMap::new(), coverage: Coverage::default() }
    }
}

impl Table {
    fn line(&mut self, line: &str) -> String {
        if line.is_empty() || line.starts_with('#') {
            return String::new();
        }
        let (first, rest) = line.split_once(' ').unwrap();
        if matches!(first, "plan" | "catalog" | "meter" | "sessions" | "quota") {
            self.change_catalog(first, &Words::of(rest));
            return String::new();
        }
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let known = self.world.as_ref().filter(|_| verb != "create").map_or(0, |world| world.entries.len());
        let words = Words::of(rest);
        let outcome = match verb {
            "create" => self.create(&words, at(first)),
            _ => self.act(verb, &words, at(first)),
        };
        let entries = self.world.iter().flat_map(|world| world.entries.iter().skip(known));
        self.coverage.effects.extend(entries.flat_map(|entry| &entry.effects).map(effect_name));
        outcome.unwrap_or_else(|error| {
            self.coverage.errors.insert(error_name(&error));
            format!("error {}", error_name(&error))
        })
    }

    fn change_catalog(&mut self, what: &str, words: &Words<'_>) {
        match (what, words.bare.as_slice()) {
            ("plan", [key, rank, rest @ ..]) => {
                let (features, limits): (Vec<&str>, Vec<&str>) = rest.iter().partition(|word| word.starts_with('+'));
                let features: Vec<&str> = features.iter().map(|word| &word[1..]).collect();
                add_plan(&mut self.catalog, key, rank.parse().unwrap(), &features, &limits);
            }
            ("meter", [key, "gone"]) => drop(self.catalog.meters.remove(*key)),
            ("meter", [key]) => {
                let known = self.catalog.meters.get_mut(*key).unwrap();
                let mut meter = Meter::clone(known);
                let ms = |key| words.one(key).map(milliseconds);
                meter.session.idle_timeout_ms = ms("idle").unwrap_or(meter.session.idle_timeout_ms);
                meter.session.debit_interval_ms = ms("slice").unwrap_or(meter.session.debit_interval_ms);
                meter.session.counted_by = words.one("counted").map(crate::world::meter);
                meter.unsettled = words.one("unsettled").map_or(Unsettled::Release, |_| Unsettled::Charge);
                *known = meter.into();
            }
            ("sessions", [key]) => {
                let known = self.catalog.plans.get_mut(*key).unwrap();
                let on_limit =
                    words.one("finish").map(milliseconds).map_or(OnLimit::Cut, |max_ms| OnLimit::Finish { max_ms });
                *known =
                    Plan { sessions: SessionPolicy { on_limit, warn_before_ms: None }, ..Plan::clone(known) }.into();
            }
            ("quota", [key]) => {
                let known = self.catalog.plans.get_mut(*key).unwrap();
                let number = |key| words.one(key).map(|number| number.parse().unwrap());
                let quota = Quota { overdraft: number("overdraft").unwrap_or(0), rollover_max: number("rollover") };
                let limits = known.limits.iter().cloned().map(|limit| Limit { quota, ..limit }).collect();
                *known = Plan { limits, ..Plan::clone(known) }.into();
            }
            (_, ["warn", percents @ ..]) => {
                self.catalog.warnings = percents.iter().map(|percent| percent.parse().unwrap()).collect();
            }
            (_, [word]) => self.catalog.enforce = Enforce::from_word(word).unwrap(),
            _ => panic!("a catalog line makes no sense"),
        }
        self.catalog.version += 1;
        if let Some(world) = &mut self.world {
            world.catalog = self.catalog.clone();
        }
    }

    fn create(&mut self, words: &Words<'_>, now: Instant) -> Result<String, OpError> {
        self.world = World::create(self.catalog.clone(), &words.change(), now)?;
        Ok(if self.world.is_some() { "created" } else { "no plan" }.into())
    }

    fn act(&mut self, verb: &str, words: &Words<'_>, now: Instant) -> Result<String, OpError> {
        let user = words.one("user");
        let world = self.world.as_mut().expect("a table creates its tenant first");
        let op = match verb {
            "check" | "spend" => {
                let (spend, cause) = words.spend(verb == "spend");
                Op::Spend(spend, cause)
            }
            "event" => Op::Record(words.fact()),
            "configure" => Op::Configure(words.change()),
            "adjust" => Op::Adjust(words.adjustment()),
            "commit" | "release" => Op::Settle(words.settle(verb == "release")),
            "open" => Op::Session(SessionOp::Open(words.open())),
            "touch" => Op::Session(SessionOp::Touch(words.touch(None))),
            "close" => Op::Session(SessionOp::Touch(words.touch(Some(CloseReason::Closed)))),
            "grant" => Op::Grant(words.grant()),
            "revoke" => Op::Grant(GrantChange::Revoke(words.grant_id())),
            "grants" => return Ok(show_grants(world)),
            "lapse" => return Ok(lapse(world, user, now)),
            "refund" => Op::Refund(self.receipts[words.bare[0]].clone()),
            "flush" => return Ok(world.flush(user, now).map_or("nothing".into(), |entry| show_entry(&entry))),
            "usage" => return Ok(show_usage(world, words, now)),
            "window" => return Ok(show_window(world, words, now)),
            "warnings" => return Ok(show_warnings(world, words, now)),
            "history" => return Ok(show_history(world, words)),
            "closed" => return Ok(show_closed(world, words)),
            _ => panic!("{verb:?} is no verb"),
        };
        let times = words.one("times").map_or(1, |times| times.parse().unwrap());
        let mut outcome = world.apply(user, &op, now)?;
        for _ in 1..times {
            outcome = world.apply(user, &op, now)?;
        }
        if let (Some(name), Some(receipt)) = (words.one("receipt"), &outcome.receipt) {
            self.receipts.insert(name.to_owned(), Receipt::clone(receipt));
        }
        if let Some(decision) = &outcome.decision {
            self.coverage.saw_code(decision.code());
        }
        if let Some(state) = &outcome.session {
            return Ok(show_session(state, &outcome));
        }
        if let (Op::Settle(_), Some(entry)) = (&op, &outcome.entry) {
            return Ok(show_entry(entry));
        }
        Ok(show_outcome(&outcome, matches!(verb, "spend" | "check")) + &show_warned(&outcome))
    }
}

/// Writes down whatever has lapsed of this user, or of nobody.
fn lapse(world: &mut World, user: Option<&str>, now: Instant) -> String {
    let due: Vec<Lapse> = world.state.tenant.in_flight.lapsed(now).collect();
    let mut shown = Vec::new();
    for lapse in due {
        let in_flight = &world.state.tenant.in_flight;
        let whose = match lapse {
            Lapse::Hold(id) => in_flight.hold(id).and_then(|hold| hold.user.clone()),
            Lapse::Session(id) => in_flight.session(id).and_then(|session| session.user.clone()),
        };
        if whose.as_ref().map(|user| user.as_str()) == user {
            let outcome = world.apply(user, &Op::Lapse(lapse), now).unwrap();
            shown.extend(outcome.entry.iter().map(show_entry));
        }
    }
    if shown.is_empty() { "nothing".into() } else { shown.join(" ") }
}

fn show_grants(world: &World) -> String {
    let grant = |grant: &Grant| format!("{}={}/{}", show_grant(grant.id), grant.left, grant.amount);
    let shown: Vec<String> = world.state.tenant.grants.iter().map(grant).collect();
    if shown.is_empty() { "none".into() } else { shown.join(" ") }
}

/// Those that were given are numbered, those that were rolled over are of a period.
fn show_grant(id: GrantId) -> String {
    if id.0 < 1 << 32 { format!("g{}", id.0) } else { "rollover".into() }
}

fn show_session(state: &SessionState, outcome: &Outcome) -> String {
    let decision = outcome.decision.as_ref();
    let mut text = decision.map_or("gone".into(), show_decision);
    let session = &state.session;
    text += &format!(" | s{} {}", session.id.0, if state.was_open { "goes on" } else { "opened" });
    text += &format!(" took {}", seconds(session.accrued_ms));
    if session.overage_ms > 0 {
        text += &format!(" over {}", seconds(session.overage_ms));
    }
    match &state.ended {
        Some(end) => text += &format!(" ended {} {}", end.reason.word(), short(end.ended_at)),
        None => {
            text += &format!(" holds {}", seconds(session.held_ms));
            let by = state.limited_by.and_then(|place| decision?.limits.get(place));
            text += &match (state.may_run_ms, by) {
                (None, _) => " may run".to_owned(),
                (Some(ms), None) => format!(" may finish {}", seconds(ms)),
                (Some(ms), Some(limit)) => format!(" may run {} by {}", seconds(ms), limit.name),
            };
        }
    }
    text
}

fn seconds(ms: i64) -> String {
    if ms % 1000 == 0 { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

fn show_outcome(outcome: &Outcome, decided: bool) -> String {
    match (&outcome.decision, &outcome.entry) {
        (Some(decision), entry) => {
            let noted = entry.is_some() && !decision.charged;
            show_decision(decision) + if noted { " noted" } else { "" }
        }
        (None, Some(entry)) if !decided => show_entry(entry),
        _ => "nothing".into(),
    }
}

/// What a charge was the first to find due; of other entries all effects are shown.
fn show_warned(outcome: &Outcome) -> String {
    let effects = outcome.entry.iter().filter(|_| outcome.decision.is_some()).flat_map(|entry| &entry.effects);
    let warned = effects.filter(|effect| matches!(effect, Effect::Warned(_))).filter_map(show_effect);
    warned.map(|text| format!(" {text}")).collect()
}

fn show_decision(decision: &Decision) -> String {
    let mut text = decision.code().word().to_owned();
    if let Some(denial) = &decision.denial {
        text += &show_denial(denial, decision);
    }
    for limit in &decision.limits {
        text += &format!(" {}", show_limit(limit));
    }
    if let Some(denial) = &decision.denial {
        match decision.retry_after_s() {
            Some(seconds) => text += &format!(" wait {seconds}s"),
            None => text += " no-wait",
        }
        text += &denial.upgrade.as_ref().map_or(String::new(), |plan| format!(" upgrade {plan}"));
    }
    if let Some(shadow) = &decision.shadow {
        text += &format!(" shadow {}{}", shadow.code.word(), show_denial(shadow, decision));
    }
    text
}

fn show_denial(denial: &Denial, decision: &Decision) -> String {
    match (denial.limit, &denial.feature) {
        (Some(limit), _) => format!(" by {}", decision.limits[limit].name),
        (None, Some(feature)) => format!(" lacks {feature}"),
        (None, None) => String::new(),
    }
}

/// `messages_day=3/50`, `*` for an override, `!` in front of one that warns at 80 %.
fn show_limit(limit: &LimitState) -> String {
    let warns = limit.mode != Mode::Shadow && limit.percent().is_some_and(|percent| percent >= 80);
    let max = limit.max.map_or("unlimited".into(), |max| max.to_string());
    let own = if limit.source == Source::Override { "*" } else { "" };
    let held = if limit.held == 0 { String::new() } else { format!("+{}", limit.held) };
    let granted = if limit.granted == 0 { String::new() } else { format!("(+{})", limit.granted) };
    format!("{}{}={}{held}/{max}{granted}{own}", if warns { "!" } else { "" }, limit.name, limit.used)
}

/// The effects of an entry in order.
fn show_entry(entry: &Entry) -> String {
    let mut shown: Vec<String> = entry.effects.iter().filter_map(show_effect).collect();
    if shown.is_empty() {
        shown.push("recorded".into());
    }
    shown.join(" ")
}

fn show_effect(effect: &Effect) -> Option<String> {
    let windows = |open: &KindSet, closed: &[domain::entry::ClosedWindow]| {
        let mut text = match *open {
            KindSet::ALL => "[all]".to_owned(),
            set => {
                let kinds: Vec<&str> = WindowKind::ALL.into_iter().filter(|k| set.has(*k)).map(|k| k.word()).collect();
                format!("[{}]", kinds.join(","))
            }
        };
        for late in closed {
            text += &format!("[{}@{}]", late.kind.word(), short(late.window.start));
        }
        text
    };
    match effect {
        Effect::Profile(_) => Some("profile".into()),
        // Turns are shown by `window` lines.
        Effect::Turn { .. } => None,
        Effect::Use { meter, amount, open, closed } => Some(format!("{meter}{amount:+}{}", windows(open, closed))),
        Effect::Denied { meter, amount, open, closed } => {
            Some(format!("denied:{meter}{amount:+}{}", windows(open, closed)))
        }
        Effect::Level { meter, tenant_delta, user_delta, set_at } => {
            let set = set_at.map_or(String::new(), |at| format!("@{}", short(at)));
            Some(format!("{meter}{tenant_delta:+}/user{user_delta:+}{set}"))
        }
        Effect::Leases(leases) => {
            let slice = |slice: &domain::lease::Slice| format!("{}/{}:{}", slice.meter, slice.kind.word(), slice.left);
            let lease = |lease: &domain::lease::Lease| {
                format!("{}({})", lease.epoch, lease.slices.iter().map(slice).collect::<Vec<_>>().join(","))
            };
            Some(format!("leases:[{}]", leases.iter().map(lease).collect::<Vec<_>>().join(",")))
        }
        Effect::Under { epoch } => Some(format!("under:{epoch}")),
        Effect::Hold(hold) if hold.lapsed => Some(format!("lapsed:h{}", hold.id.0)),
        Effect::Hold(hold) => Some(format!("hold:h{}", hold.id.0)),
        Effect::HoldSettled { id } => Some(format!("settled:h{}", id.0)),
        Effect::Grant(grant) => Some(format!("{}:{}+{}", show_grant(grant.id), grant.meter, grant.left)),
        Effect::GrantRevoked { id } => Some(format!("revoked:{}", show_grant(*id))),
        Effect::Draw(draw) => Some(format!("from:{}:{:+}", show_grant(draw.grant), draw.amount)),
        Effect::Warned(warning) => {
            Some(format!("warned:{}:{}%:{}/{}", warning.limit, warning.percent, warning.used, warning.max))
        }
        Effect::Session(session) => Some(format!("session:s{}", session.id.0)),
        Effect::SessionClosed(end) => {
            let took = seconds(end.accrued_ms);
            Some(format!("closed:s{}:{}:{took}@{}", end.id.0, end.reason.word(), short(end.ended_at)))
        }
        Effect::Denials(run) => {
            let shadow = if run.key.shadow { "shadow:" } else { "" };
            let user = run.key.user.as_ref().map_or(String::new(), |user| format!("/{user}"));
            Some(format!("{shadow}{}:{}{user}x{}", run.key.code.word(), run.key.subject, run.count))
        }
    }
}

fn show_usage(world: &World, words: &Words<'_>, now: Instant) -> String {
    let user = words.one("user").map(|name| UserId::new(name).unwrap());
    let user = user.map(|id| world.state.users.get(&id).cloned().unwrap_or_else(|| domain::tenant::User::new(id)));
    let usage = world.state.tenant.usage(user.as_ref(), now, &world.catalog);
    let key = meter(words.bare[0]);
    let meter = usage.meters.iter().find(|meter| meter.meter.key == key).unwrap();
    let limits = meter.limits.iter().map(|limit| format!(" {}", show_limit(limit)));
    let held = if meter.held == 0 { String::new() } else { format!(" held {}", meter.held) };
    format!("used {}{held} denied {}{}", meter.used, meter.denied, limits.collect::<String>())
}

fn show_warnings(world: &World, words: &Words<'_>, now: Instant) -> String {
    let tenant = &world.state.tenant;
    let user = words.one("user").map(|name| &world.state.users[&UserId::new(name).unwrap()]);
    let given = tenant.warnings_at(user, now);
    let shown: Vec<String> =
        given.iter().map(|one| format!("{}:{}%@{}", one.limit, one.percent, short(one.at))).collect();
    if shown.is_empty() { "none".into() } else { shown.join(" ") }
}

fn show_window(world: &World, words: &Words<'_>, now: Instant) -> String {
    let tenant = &world.state.tenant;
    let windows = tenant.windows_at(tenant.instant(now));
    let kinds = words.bare.iter().map(|word| WindowKind::from_word(word).unwrap());
    let shown = kinds.map(|kind| windows[kind.index()]).map(|w| format!("{}..{}", short(w.start), short(w.end)));
    shown.collect::<Vec<_>>().join(" ")
}

/// Every window of a kind in which a meter was used or refused, closed or open.
fn show_history(world: &World, words: &Words<'_>) -> String {
    let accounts = match words.one("user") {
        None => &world.state.tenant.accounts,
        Some(name) => &world.state.users[&UserId::new(name).unwrap()].accounts,
    };
    let kind = WindowKind::from_word(words.bare[1]).unwrap();
    let rows = history(accounts, words.bare[0], kind);
    if rows.is_empty() {
        return "nothing".into();
    }
    let shown = rows.into_iter().map(|(start, (used, denied))| {
        let denied = if denied == 0 { String::new() } else { format!("(-{denied})") };
        format!("{}={used}{denied}", short(start))
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The windows whose totals went to history, as they were when they closed.
fn show_closed(world: &World, words: &Words<'_>) -> String {
    let (key, kind) = (meter(words.bare[0]), WindowKind::from_word(words.bare[1]).unwrap());
    let rows = world.state.tenant.accounts.closed().iter();
    let rows = rows.filter(|total| total.meter == key && total.closed.kind == kind);
    let shown = rows.map(|total| (total.closed.window, total.used));
    shown
        .map(|(window, used)| format!("{}..{}={used}", short(window.start), short(window.end)))
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn history(accounts: &Accounts, key: &str, kind: WindowKind) -> BTreeMap<Instant, (i64, i64)> {
    let key = meter(key);
    let mut rows: BTreeMap<Instant, (i64, i64)> = BTreeMap::new();
    let mut add = |start, used, denied| {
        let row = rows.entry(start).or_default();
        *row = (row.0 + used, row.1 + denied);
    };
    for total in accounts.closed().iter().filter(|total| total.meter == key && total.closed.kind == kind) {
        add(total.closed.window.start, total.used, total.denied);
    }
    if let Some(account) = accounts.get(&key) {
        let slot = account.slots[kind.index()];
        add(slot.window.start, slot.used, slot.denied);
    }
    rows.retain(|_, row| *row != (0, 0));
    rows
}

/// Without seconds where there are none.
fn short(at: Instant) -> String {
    let text = at.rfc3339();
    text.strip_suffix(":00Z").map_or(text.clone(), |minutes| format!("{minutes}Z"))
}
