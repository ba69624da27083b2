//! What a session ran, and in which windows: pure arithmetic.

use super::Session;
use crate::{
    account::Accounts,
    catalog::{LimitWindow, Mode, Scope},
    decision::LimitState,
    entry::Effect,
    id::MeterKey,
    limits::room,
    tenant::{Tenant, User, Windows},
    time::{Instant, WindowKind},
};

/// A stretch of time that ends now.
pub(super) struct Ran<'a> {
    pub(super) from: Instant,
    pub(super) ran_ms: i64,
    /// The windows that are open now.
    pub(super) windows: &'a Windows,
}

/// A piece of it that lies in one window of each kind that matters.
struct Piece {
    ms: i64,
    windows: Windows,
}

impl Tenant {
    /// The charges of the first `charged_ms` of what ran, each in the windows in which it did.
    pub(super) fn time_effects(&self, meter: &MeterKey, ran: &Ran<'_>, charged_ms: i64) -> Vec<Effect> {
        let pieces = self.pieces(ran, (0, charged_ms)).into_iter().filter(|piece| piece.ms > 0);
        pieces
            .map(|piece| {
                let (open, closed) = Tenant::split_windows(&piece.windows, ran.windows);
                Effect::Use { meter: meter.clone(), amount: piece.ms, open, closed }
            })
            .collect()
    }

    /// How much of what ran longer than was held there is room for, from its beginning on.
    pub(super) fn room_for_more(
        &self,
        user: Option<&User>,
        session: &Session,
        ran: &Ran<'_>,
        covered_ms: i64,
        limits: &[LimitState],
    ) -> i64 {
        let mut took = 0_i64;
        let mut before: Vec<Piece> = Vec::new();
        for piece in self.pieces(ran, (covered_ms, ran.ran_ms)) {
            let room_in = |state: &LimitState| {
                let accounts = match state.scope {
                    Scope::Tenant => Some(&self.accounts),
                    Scope::User => user.map(|user| &user.accounts),
                };
                let left = match state.window {
                    LimitWindow::Concurrent | LimitWindow::Level => return i64::MAX,
                    LimitWindow::Session => room(state).map(|room| room - took),
                    LimitWindow::Of(kind) => {
                        let is_same =
                            |other: &&Piece| other.windows[kind.index()].start == piece.windows[kind.index()].start;
                        let taken: i64 = before.iter().filter(is_same).map(|piece| piece.ms).sum();
                        self.room_then(session, accounts, state, kind, &piece.windows, ran).map(|room| room - taken)
                    }
                };
                left.unwrap_or(i64::MAX)
            };
            let bounding = limits.iter().filter(|state| state.mode == Mode::Hard && state.max.is_some());
            let room = bounding.map(room_in).min().unwrap_or(i64::MAX).max(0);
            let part = piece.ms.min(room);
            took += part;
            if part < piece.ms {
                break;
            }
            before.push(piece);
        }
        took
    }

    /// What a limit has room for in a window of which a piece ran; nothing if that has closed and is not known any more.
    fn room_then(
        &self,
        session: &Session,
        accounts: Option<&Accounts>,
        state: &LimitState,
        kind: WindowKind,
        then: &Windows,
        ran: &Ran<'_>,
    ) -> Option<i64> {
        let (then, open) = (then[kind.index()], ran.windows[kind.index()]);
        if then.start == open.start {
            return room(state);
        }
        let known = accounts.and_then(|accounts| accounts.known_use(&state.meter, kind, &then));
        // What is held in it, by this session and by others, is charged there.
        let whose = session.user.as_ref().filter(|_| state.scope == Scope::User);
        let held = self.in_flight.held_then(&state.meter, whose, kind, &then);
        state.max.map(|max| known.map_or(0, |used| max - used - held))
    }

    /// What ran, from one of its milliseconds to another, cut where a window ends that is kept or open.
    fn pieces(&self, ran: &Ran<'_>, (first_ms, last_ms): (i64, i64)) -> Vec<Piece> {
        let (mut from, to) = (ran.from.plus_ms(first_ms), ran.from.plus_ms(last_ms));
        let mut pieces = Vec::new();
        if from == ran.from.plus_ms(first_ms) && first_ms < last_ms && from >= to {
            // At the end of time.
            return pieces;
        }
        while from < to {
            let windows = self.windows_of_past(from, ran.windows);
            let mut next = to;
            for kind in WindowKind::ALL {
                let (then, open) = (windows[kind.index()], ran.windows[kind.index()]);
                if then.start == open.start {
                    continue;
                }
                // Hours and minutes that are over are not kept: where they end does not matter, where this one begins does.
                next = next.min(if kind.is_kept() { then.end } else { open.start });
            }
            let next = next.max(from.plus_ms(1)).min(to);
            pieces.push(Piece { ms: next.ms() - from.ms(), windows });
            from = next;
        }
        pieces
    }
}
