//! The tail of the journal in as little memory as it takes: there may be a million entries, most of which nobody asks
//! for soon.

use crate::ports::{LedgerError, Line, Seq};
use domain::{entry::Entry, id::TenantId, time::Instant};
use rustc_hash::FxHashMap;
use std::fmt;

/// Reads what a ledger wrote of an entry, or says why it can't.
pub type Decode = fn(Instant, &[u8]) -> Result<Entry, &'static str>;

/// Entries as the ledger keeps them, one position after the other, each knowing the one before it of the same tenant.
pub struct TailLines {
    after: Seq,
    decode: Decode,
    places: Vec<Place>,
    bytes: Vec<u8>,
    /// The last line of each tenant.
    pub(crate) last_of: FxHashMap<TenantId, u32>,
}

#[derive(Clone, Copy)]
struct Place {
    at: Instant,
    /// Where its bytes begin.
    begin: usize,
    /// The line before it of the same tenant; its own number if there is none.
    before: u32,
}

impl TailLines {
    /// Nothing, after this position.
    pub fn new(after: Seq, decode: Decode) -> Self {
        Self { after, decode, places: Vec::new(), bytes: Vec::new(), last_of: FxHashMap::default() }
    }

    /// Adds the entry at the next position.
    pub fn push(&mut self, tenant: &str, at: Instant, body: &[u8]) {
        let number = self.places.len() as u32;
        let before = match self.last_of.get_mut(tenant) {
            Some(last) => std::mem::replace(last, number),
            None => {
                self.last_of.insert(TenantId::trusted(tenant), number);
                number
            }
        };
        self.places.push(Place { at, begin: self.bytes.len(), before });
        self.bytes.extend_from_slice(body);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every entry, in order.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where one can't be read.
    pub fn entries(&self) -> Result<Vec<Line>, LedgerError> {
        let mut lines = Vec::with_capacity(self.len());
        for (tenant, last) in &self.last_of {
            for number in self.numbers(*last) {
                lines.push((self.seq(number), tenant.clone(), self.entry(number)?));
            }
        }
        lines.sort_unstable_by_key(|(seq, ..)| *seq);
        Ok(lines)
    }

    /// The lines of a tenant, the last first.
    pub(crate) fn numbers(&self, last: u32) -> impl Iterator<Item = u32> {
        let before = |number: &u32| {
            let before = self.places[*number as usize].before;
            (before != *number).then_some(before)
        };
        std::iter::successors(Some(last), before)
    }

    pub(crate) fn seq(&self, number: u32) -> Seq {
        self.after + 1 + Seq::from(number)
    }

    pub(crate) fn entry(&self, number: u32) -> Result<Entry, LedgerError> {
        let seq = self.seq(number);
        let number = number as usize;
        let Place { at, begin, .. } = self.places[number];
        let end = self.places.get(number + 1).map_or(self.bytes.len(), |next| next.begin);
        (self.decode)(at, &self.bytes[begin..end])
            .map_err(|why| LedgerError::Damaged(format!("entry {seq}: {why}").into()))
    }
}

impl Default for TailLines {
    /// What a ledger has whose rows are never behind its journal.
    fn default() -> Self {
        Self::new(0, |_, _| Err("there is no tail"))
    }
}

impl fmt::Debug for TailLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries after {}", self.len(), self.after)
    }
}
