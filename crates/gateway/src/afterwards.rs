//! What a response owes, known when it is over: read from its head and from its bytes as they pass, and settled on
//! drop, whoever ended it.

use crate::{
    reserve::{Reserve, Settled},
    rules::{Owed, OwedFor},
    tap::{Tap, Usage},
};
use domain::{catalog::AMOUNT_MAX, cost::Rate};
use http::{HeaderMap, HeaderName};
use std::time::Instant;
use wire::catalog::{Reported, UsageField};

/// Watches one response, and settles what was taken before it with what it reports.
pub(crate) struct Afterwards {
    reserve: Reserve,
    owed: Vec<Owed>,
    /// What the head said, one for each charge.
    said: Vec<Option<i64>>,
    started: Instant,
    bytes: u64,
    tap: Option<Tap>,
    stands: bool,
}

impl Afterwards {
    /// `None` where nothing is known only afterwards.
    pub(crate) fn new(reserve: Reserve, owed: Vec<Owed>) -> Option<Box<Self>> {
        (!owed.is_empty()).then(|| {
            let said = vec![None; owed.len()];
            Box::new(Self { reserve, owed, said, started: Instant::now(), bytes: 0, tap: None, stands: false })
        })
    }

    /// Whether what is owed is owed if it ended now. What was taken before is not given back by this.
    pub(crate) fn stands(&mut self, stands: bool) {
        self.stands = stands;
    }

    /// The head of the response.
    pub(crate) fn head(&mut self, headers: &HeaderMap) {
        for (owed, said) in self.owed.iter().zip(&mut self.said) {
            if let OwedFor::Reported(Reported::Header(name)) = &owed.what {
                *said = header_amount(headers, name);
            }
        }
        let is_usage = |owed: &Owed| matches!(owed.what, OwedFor::Reported(Reported::Usage(_)) | OwedFor::Cost(_));
        if self.owed.iter().any(is_usage) {
            self.tap = Tap::of(headers);
        }
    }

    /// The next bytes of the body, as the upstream sent them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        if let Some(tap) = &mut self.tap {
            tap.feed(bytes);
        }
    }

    /// So many bytes passed that nothing is read from.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn settled(&mut self) -> Vec<Settled> {
        let usage = self.tap.as_mut().and_then(|tap| tap.usage(true));
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let bytes = self.bytes;
        let told = |owed: &Owed, said: Option<i64>| match &owed.what {
            OwedFor::Bytes => Some(bounded(bytes)),
            OwedFor::Reported(Reported::Duration) => Some(bounded(elapsed_ms)),
            OwedFor::Reported(Reported::Header(_)) => said,
            OwedFor::Reported(Reported::Usage(field)) => usage.and_then(|usage| tokens(&usage, *field)),
            OwedFor::Cost(rate) => usage.and_then(|usage| cost(&usage, rate)),
        };
        let owed = self.owed.drain(..).zip(self.said.drain(..));
        owed.map(|(owed, said)| Settled { amount: told(&owed, said), taken: owed.taken, meter: owed.meter }).collect()
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        if self.stands {
            let settled = self.settled();
            self.reserve.settle(settled);
        }
    }
}

fn bounded(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX).min(AMOUNT_MAX)
}

fn tokens(usage: &Usage, field: UsageField) -> Option<i64> {
    match field {
        UsageField::Total => usage.total(),
        UsageField::Prompt => usage.prompt_tokens,
        UsageField::Completion => usage.completion_tokens,
    }
}

/// What the tokens cost; `None` where nothing is reported that has a price, or an amount that can't be.
fn cost(usage: &Usage, rate: &Rate) -> Option<i64> {
    let reported = |name: &str| UsageField::from_word(name).and_then(|field| tokens(usage, field));
    rate.quantities().find_map(reported)?;
    rate.amount(reported).ok().map(|charge| charge.amount)
}

/// What is missing, given twice or no amount reports nothing.
fn header_amount(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let mut values = headers.get_all(name).iter();
    let text = values.next()?.to_str().ok().filter(|_| values.next().is_none())?.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|amount| digits && *amount <= AMOUNT_MAX)
}
