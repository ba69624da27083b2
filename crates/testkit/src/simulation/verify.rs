//! Comparing books.

use super::Simulation;
use crate::{
    auditor::{
        Book, Who, kept_kinds,
        warnings::{self, Used},
    },
    world::{World, tenant, user},
};
use domain::{
    catalog::{LimitWindow, MeterKind, Scope},
    decision::LimitState,
    entry::Entry,
    history::Resolution,
    id::{MeterKey, TenantId},
    time::{Instant, Window, WindowKind},
};
use engine::{
    Engine, HistoryKept,
    ports::{HistoryQuery, Ledger},
};
use std::{collections::BTreeMap, sync::Arc};

/// History is not dropped here.
pub(super) const FOREVER: HistoryKept = HistoryKept { minutes_ms: i64::MAX, quarters_ms: i64::MAX, days_ms: i64::MAX };

/// Whether unmet demand must agree as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Exactly.
    Agrees,
    /// Some may not be written down.
    MayBeLess,
}

fn everybody() -> [Who; 4] {
    [None, Some(user("al")), Some(user("bo")), Some(user("cy"))]
}

/// What the engine says about a tenant, against what a book says.
///
/// # Errors
/// Where they differ.
pub async fn compare(engine: &Engine, name: &str, book: &Book, demand: Demand) -> Result<(), String> {
    for who in everybody() {
        let (card, usage) =
            engine.usage(&tenant(name), who.as_ref()).await.map_err(|error| format!("usage: {error}"))?;
        let profile = &card.profile;
        let own = (&book.plan, book.status, book.enforce, book.anchor_ms, book.overrides.len(), &book.shares);
        let (overrides, shares) = (profile.overrides.len(), &profile.shares);
        let its = (&profile.plan, profile.status, profile.enforce, profile.anchor.ms(), overrides, shares);
        if own != its {
            return Err(format!("{name} is {its:?}, and should be {own:?}"));
        }
        if (usage.period.start.ms(), usage.period.end.ms()) != book.windows[0] {
            return Err(format!("{name}: the period is {:?}, not {:?}", usage.period, book.windows[0]));
        }
        for meter in &usage.meters {
            let key = &meter.meter.key;
            let window = (meter.meter.kind != MeterKind::Gauge).then_some(WindowKind::Period);
            let at = format!("{name}, {who:?}, {key}");
            let expected = book.used(&who, key, window);
            let held = book.held(&who, key, window);
            if !are_used_and_held(book, (&who, key), (meter.used, meter.held), (expected, held)) {
                let is = (meter.used, meter.held);
                return Err(format!("{at}: used and held {is:?} in the period, not {expected} and {held}"));
            }
            let denied = book.denied.get(&(who.clone(), key.clone(), book.windows[0].0)).copied().unwrap_or(0);
            let agrees = demand == Demand::Agrees && meter.denied == denied;
            if !agrees && (demand == Demand::Agrees || meter.denied > denied) {
                return Err(format!("{at}: denied {}, not {denied}", meter.denied));
            }
            if let Some(wrong) = limits_differ(book, &who, &meter.limits) {
                return Err(format!("{at}: {wrong}"));
            }
        }
    }
    let grants = engine.grants(&tenant(name)).await.map_err(|error| format!("grants: {error}"))?;
    let is: Vec<_> = grants.iter().map(|grant| (grant.id, grant.left)).collect();
    match book.grants().eq(is.iter().copied()) {
        true => Ok(()),
        false => Err(format!("{name}: its grants are {is:?}, not {:?}", book.grants().collect::<Vec<_>>())),
    }
}

/// Whether both say the same, but for what lapsed and may be shown as held until that is written down.
pub(crate) fn are_used_and_held(
    book: &Book,
    (who, meter): (&Who, &MeterKey),
    is: (i64, i64),
    should: (i64, i64),
) -> bool {
    let unwritten = book.unwritten(who, meter);
    is.0 + is.1 == should.0 + should.1 && (should.0 - unwritten..=should.0).contains(&is.0)
}

/// The limits of an answer against a book that is turned to its instant.
pub(crate) fn limits_differ(book: &Book, who: &Who, limits: &[LimitState]) -> Option<String> {
    let of_windows = limits.iter().filter(|limit| limit.window != LimitWindow::Session);
    of_windows.into_iter().find_map(|limit| {
        let account = if limit.scope == Scope::User { who } else { &None };
        let held = match limit.window {
            LimitWindow::Concurrent => 0,
            window => book.held(account, &limit.meter, window.kind()),
        };
        let (is, should) = ((limit.used, limit.held), (book.used_against(account, limit), held));
        let agrees = are_used_and_held(book, (account, &limit.meter), is, should);
        (!agrees).then(|| format!("{} has used and held {is:?}, not {should:?}", limit.name))
    })
}

impl Simulation {
    /// Everything that was ever answered agrees with the books.
    pub(super) async fn verify(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms();
        for customer in &mut self.accounts {
            customer.book_mut().turn(now_ms);
            compare(&self.world.engine, &customer.name, customer.book(), Demand::Agrees).await?;
        }
        Ok(())
    }

    /// After a failure: the engine comes back by itself, to a state that may be.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        self.world.recover().await;
        self.reconcile().await
    }

    /// Finds for each tenant the state that is durable among those that may be.
    pub(super) async fn reconcile(&mut self) -> Result<(), String> {
        self.waiting.clear();
        let now_ms = self.now_ms();
        for index in 0..self.accounts.len() {
            let mut fitting: Vec<(u64, Book)> = Vec::new();
            let mut misfit = String::new();
            for (operation, book) in &self.accounts[index].books {
                let mut book = book.clone();
                book.turn(now_ms);
                match compare(&self.world.engine, &self.accounts[index].name, &book, Demand::MayBeLess).await {
                    Ok(()) => fitting.push((*operation, book)),
                    Err(wrong) => misfit = wrong,
                }
            }
            let Some((operation, mut book)) = fitting.pop() else {
                let states = self.accounts[index].books.len();
                return Err(format!("none of {states} possible states fits; of the last: {misfit}"));
            };
            adopt_denied(&self.world, &self.accounts[index].name, &mut book).await;
            if !fitting.iter().all(|(_, other)| other.agrees_but_for_demand(&book)) {
                // Which of two states it is can't be seen from outside, and may show later: another tenant goes on.
                self.accounts[index] = self.new_customer().await;
                continue;
            }
            // An operation that changed nothing that shows may be there or not.
            let certain = fitting.first().map_or(operation, |(first, _)| *first);
            let customer = &mut self.accounts[index];
            customer.books = [(operation, book)].into();
            customer.keep(certain);
        }
        Ok(())
    }

    pub(super) async fn end(&mut self) -> Result<(), String> {
        self.world.ledger.let_go().await;
        self.held = false;
        self.poll_commits()?;
        self.verify().await?;
        self.world.engine.drain().await.map_err(|error| format!("drain: {error}"))?;
        self.restart().await?;
        self.verify().await?;
        self.touch_everything().await?;
        self.world.engine.drain().await.map_err(|error| format!("drain: {error}"))?;
        for customer in &self.accounts {
            check_history(&self.world.engine, &customer.name, customer.book()).await?;
            check_days(&self.world.engine, &customer.name, customer.book()).await?;
        }
        self.check_warnings().await
    }

    /// What the journal says was told is what was to be told, each once.
    async fn check_warnings(&self) -> Result<(), String> {
        let catalogs = self.world.ledger.catalogs().await.map_err(|error| format!("catalogs: {error}"))?;
        let by_version = |version: u32| {
            let stored = catalogs.iter().find(|stored| stored.version == version)?;
            self.catalogs.get(&*stored.text)
        };
        let mut entries: BTreeMap<TenantId, Vec<Entry>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let lines = self.world.ledger.journal(after, 1_000).await.map_err(|error| format!("journal: {error}"))?;
            let Some((last, ..)) = lines.last() else { break };
            after = *last;
            lines.into_iter().for_each(|(_, tenant, entry)| entries.entry(tenant).or_default().push(entry));
        }
        for (tenant, entries) in &entries {
            warnings::judge(tenant, entries, by_version, Used::Exactly)?;
        }
        Ok(())
    }
}

/// What is in closed windows and in open ones is together all that was ever used: no fold loses a closed window or adds
/// it twice.
///
/// # Errors
/// Where that is not so.
pub async fn check_history(engine: &Engine, name: &str, book: &Book) -> Result<(), String> {
    if book.is_overdrawn {
        return Ok(());
    }
    for who in everybody() {
        let rows = engine.closed(&tenant(name), who.as_ref()).await;
        let rows = rows.map_err(|error| format!("closed: {error}"))?;
        for ((account, meter, kind), ever) in book.ever.iter().filter(|((account, ..), _)| *account == who) {
            let Some(kind) = kept_kinds().find(|kept| kept.index() == *kind) else { continue };
            let of_kind = rows.iter().filter(|row| row.closed.kind == kind && row.meter == *meter);
            let closed: i64 = of_kind.map(|row| row.used).sum();
            let open = book.used(account, meter, Some(kind));
            let unwritten = book.unwritten(account, meter);
            if !(*ever - unwritten..=*ever).contains(&(closed + open)) {
                return Err(format!(
                    "{name}, {who:?}, {meter} by {}: {closed} in closed windows and {open} in the open one, of {ever}",
                    kind.word()
                ));
            }
        }
    }
    Ok(())
}

/// All days of history together are all that was ever recorded: no entry is folded twice, and none is forgotten.
async fn check_days(engine: &Arc<Engine>, name: &str, book: &Book) -> Result<(), String> {
    while engine.fold_history(FOREVER).await.map_err(|error| format!("history: {error}"))?.more {}
    for who in everybody() {
        let window = Window { start: Instant::EPOCH, end: engine.now().plus_ms(1) };
        let (tenant, parts, user) = (tenant(name), who.is_some(), who.clone());
        let resolution = Resolution::Day;
        let query =
            HistoryQuery { tenant: tenant.clone(), resolution, window, parts, user, after: None, limit: usize::MAX };
        let days = engine.history(tenant).rows(&query).await.map_err(|error| format!("history: {error}"))?;
        for ((account, meter), recorded) in book.recorded.iter().filter(|((account, _), _)| *account == who) {
            let of_meter = days.rows.iter().filter(|(place, _)| place.meter == *meter);
            let found: i64 = of_meter.map(|(_, amounts)| amounts.used).sum();
            let unwritten = book.unwritten(account, meter);
            if !(*recorded - unwritten..=*recorded).contains(&found) {
                return Err(format!("{name}, {account:?}, {meter}: {found} in the days of history, of {recorded}"));
            }
        }
    }
    Ok(())
}

async fn adopt_denied(world: &World, name: &str, book: &mut Book) {
    for who in everybody() {
        let (_, usage) = world.engine.usage(&tenant(name), who.as_ref()).await.expect("it was there a moment ago");
        for meter in usage.meters {
            book.denied.insert((who.clone(), meter.meter.key.clone(), book.windows[0].0), meter.denied);
        }
    }
}
