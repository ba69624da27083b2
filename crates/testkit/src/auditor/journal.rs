//! What an auditor says who has nothing but a journal: each entry is what was done, and whether it might be, what it was
//! counted in and what came out of which grant is worked out again.

use super::{
    Asked, Book,
    holds::Settles,
    sessions::{Charged, session_in},
};
use domain::{
    catalog::Catalog,
    decision::Code,
    entry::{Cause, Effect, Entry, Profile},
    hold::{Hold, HoldId, Settlement},
    op::{Charge, Movement},
    session::{CloseReason, Session},
    time::WindowKind,
};

/// Reads a tenant's journal from its beginning. Clocks went on by steps of `step_ms`, perhaps while something was decided.
///
/// # Errors
/// What should not have been done, or not so.
pub fn read(entries: &[Entry], catalog: &Catalog, step_ms: i64) -> Result<Book, String> {
    let first = entries.first().ok_or("nothing happened")?;
    let profile = profile_of(first).ok_or("nobody made the tenant")?;
    let mut book = Book::new(profile.plan.clone(), profile.anchor.ms());
    (book.windows, book.patience_ms) = ([(0, 0); 5], i64::MAX);
    for (place, entry) in entries.iter().enumerate() {
        let read = next(&mut book, entry, catalog, step_ms);
        read.map_err(|wrong| format!("entry {}, {entry:?}: {wrong}", place + 1))?;
    }
    Ok(book)
}

fn next(book: &mut Book, entry: &Entry, catalog: &Catalog, step_ms: i64) -> Result<(), String> {
    book.turn(entry.at.ms());
    if let Some(profile) = profile_of(entry) {
        configure(book, profile);
        return Ok(());
    }
    for effect in &entry.effects {
        match effect {
            Effect::Grant(grant) => book.granted(grant),
            Effect::GrantRevoked { id } if !book.revoked(*id) => return Err("there was no such grant".to_owned()),
            Effect::Denied { meter, amount, open, closed } if open.has(WindowKind::Period) || closed.is_empty() => {
                book.denied_in(&entry.user, meter, *amount, book.windows[0].0);
            }
            // Counted in memory, and written down after the period had ended.
            Effect::Denied { meter, amount, closed, .. } => {
                let period = closed.iter().find(|late| late.kind == WindowKind::Period);
                let period = period.ok_or("demand of no period")?.window.start;
                book.denied_in(&entry.user, meter, *amount, period.ms());
            }
            _ => {}
        }
    }
    match entry.cause {
        Cause::Check => charge(book, entry, catalog),
        Cause::Hold => settle_or_lapse(book, entry, catalog),
        Cause::Session => session(book, entry, catalog, step_ms),
        Cause::Event => {
            let at_ms = entry.at.ms();
            let used = uses(entry).into_iter();
            used.for_each(|Charge { meter, amount }| {
                book.record(&entry.user, &meter, Movement::Add(amount), (at_ms, at_ms), catalog);
            });
            Ok(())
        }
        _ if uses(entry).is_empty() => Ok(()),
        cause => Err(format!("{cause:?} charges nothing")),
    }
}

fn profile_of(entry: &Entry) -> Option<&Profile> {
    entry.effects.iter().find_map(|effect| match effect {
        Effect::Profile(profile) => Some(&**profile),
        _ => None,
    })
}

/// What an entry charges of counters.
pub fn uses(entry: &Entry) -> Vec<Charge> {
    let used = |effect: &Effect| match effect {
        Effect::Use { meter, amount, .. } => Some(Charge { meter: meter.clone(), amount: *amount }),
        _ => None,
    };
    entry.effects.iter().filter_map(used).collect()
}

fn hold_of(entry: &Entry) -> Option<&Hold> {
    entry.effects.iter().find_map(|effect| match effect {
        Effect::Hold(hold) => Some(&**hold),
        _ => None,
    })
}

fn configure(book: &mut Book, profile: &Profile) {
    (book.plan, book.status, book.enforce) = (profile.plan.clone(), profile.status, profile.enforce);
    book.shares.clone_from(&profile.shares);
    book.reframe(book.now_ms, profile.anchor.ms(), book.offset_ms);
}

/// Something was charged or held: it might be.
fn charge(book: &mut Book, entry: &Entry, catalog: &Catalog) -> Result<(), String> {
    let at_ms = entry.at.ms();
    let held = hold_of(entry);
    let part = |part: &domain::hold::HeldCharge| Charge { meter: part.meter.clone(), amount: part.amount };
    let charges = held.map_or_else(|| uses(entry), |hold| hold.charges.iter().map(part).collect());
    let asked = Asked { who: &entry.user, charges: &charges, features: &[], consume: true };
    let code = match held {
        Some(_) => book.hold(&asked, at_ms, catalog),
        None => book.spend(&asked, at_ms, catalog, None).0,
    };
    if code != Code::Allowed {
        return Err(format!("it should have been refused with {code:?}"));
    }
    if let Some(hold) = held {
        book.held_as(hold.id, &asked, (hold.expires_at.ms() - at_ms, hold.excess), catalog);
    }
    Ok(())
}

fn settle_or_lapse(book: &mut Book, entry: &Entry, catalog: &Catalog) -> Result<(), String> {
    if let Some(hold) = hold_of(entry) {
        let charged = book.lapse_written(hold.id)?;
        return if charged == uses(entry) { Ok(()) } else { Err(format!("{charged:?} are charged then")) };
    }
    let settled = |effect: &Effect| match effect {
        Effect::HoldSettled { id } => Some(*id),
        _ => None,
    };
    let id: HoldId = entry.effects.iter().find_map(settled).ok_or("nothing is settled")?;
    // What nothing is said of took nothing.
    let took = book.parts_of(id).into_iter().map(|part| Charge { amount: took_of(entry, &part), ..part }).collect();
    match book.settle(id, &Settlement::Commit(took), entry.at.ms(), catalog) {
        Settles::Yes => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn took_of(entry: &Entry, part: &Charge) -> i64 {
    uses(entry).iter().filter(|charge| charge.meter == part.meter).map(|charge| charge.amount).sum()
}

fn session(book: &mut Book, entry: &Entry, catalog: &Catalog, step_ms: i64) -> Result<(), String> {
    let touched: Vec<&Session> = entry
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Session(session) => Some(&**session),
            _ => None,
        })
        .collect();
    if let Some(session) = &session_in(entry) {
        match book.touched_ms(session.id) {
            None => {
                let code = book.session_code(&session.user, &session.meter, None, catalog);
                if code != Code::Allowed {
                    return Err(format!("it should have been refused with {code:?}"));
                }
                book.opened(session, catalog)?;
            }
            Some(touched_ms) => {
                let by_clock_ms = entry.at.ms() - touched_ms;
                let may_have_run_ms: Vec<i64> =
                    [0, -1, 1, -2, 2, -3, 3].map(|steps| by_clock_ms + steps * step_ms).into();
                let charged = Charged {
                    accrued_ms: session.accrued_ms,
                    overage_ms: session.overage_ms,
                    may_have_run_ms: &may_have_run_ms,
                    in_open: Some(in_open(entry, session)),
                };
                book.ran(session.id, &charged, catalog)?;
            }
        }
    }
    for effect in &entry.effects {
        let Effect::SessionClosed(end) = effect else { continue };
        if end.reason == CloseReason::Idle && book.is_open(end.id) || !book.ended(end.id) {
            return Err("it ends early, or again".to_owned());
        }
        return Ok(());
    }
    touched.last().map_or(Ok(()), |session| book.goes_on(session, catalog))
}

fn in_open(entry: &Entry, session: &Session) -> [i64; 5] {
    let mut sums = [0; 5];
    for effect in &entry.effects {
        let Effect::Use { meter, amount, open, .. } = effect else { continue };
        for kind in WindowKind::ALL.into_iter().filter(|kind| *meter == session.meter && open.has(*kind)) {
            sums[kind.index()] += amount;
        }
    }
    sums
}
