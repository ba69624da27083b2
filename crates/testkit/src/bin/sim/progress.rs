//! How far a run is, told on stderr: a terminal has one line that is drawn anew, whatever else is there a line each tenth.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

/// How often the line of a terminal is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Back to the start of the line, and nothing on it.
const CLEAR: &str = "\r\u{1b}[K";

pub struct Progress {
    total: u64,
    done: u64,
    began: Instant,
    is_terminal: bool,
    drawn_at: Option<Instant>,
}

impl Progress {
    pub fn of(total: u64) -> Self {
        Self { total, done: 0, began: Instant::now(), is_terminal: stderr().is_terminal(), drawn_at: None }
    }

    /// One more seed is done.
    pub fn step(&mut self) {
        let tenth = |done: u64| done.saturating_mul(10) / self.total.max(1);
        let is_next_tenth = tenth(self.done) < tenth(self.done + 1);
        self.done += 1;
        if self.done >= self.total {
            return;
        }
        if !self.is_terminal {
            if is_next_tenth {
                let _ = writeln!(stderr(), "{}", self.line());
            }
        } else if self.drawn_at.is_none_or(|at| at.elapsed() >= DRAW_EVERY) {
            self.drawn_at = Some(Instant::now());
            // A terminal that is gone must not end the run.
            let _ = write!(stderr(), "{CLEAR}{}", self.line());
        }
    }

    fn line(&self) -> String {
        let left_s = self.began.elapsed().as_secs_f64() / self.done as f64 * (self.total - self.done) as f64;
        format!("{} of {} seeds, {left_s:.0} s left", self.done, self.total)
    }
}

/// What is told next has the line for itself.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn_at.is_some() {
            let _ = write!(stderr(), "{CLEAR}");
        }
    }
}
