//! A tenant in memory, made of what is stored of it and of the entries that came after.

use crate::{
    engine::Engine,
    live::{Book, LiveUser},
    ports::{LedgerError, Seq, Stored},
    requests::EngineError,
};
use domain::{
    entry::Entry,
    id::{TenantId, UserId},
    tenant::{Tenant, User},
};

impl Engine {
    /// A tenant as its fold and what came after it; `None` if there is neither.
    pub(crate) async fn book_of(
        &self,
        id: &TenantId,
        fold: Option<Stored<Tenant>>,
        after: &[(Seq, Entry)],
    ) -> Result<Option<Box<Book>>, EngineError> {
        let (known, folded) = fold.map_or((None, 0), |Stored { state, seq }| (Some(state), seq));
        let tenant = match (known, after.first()) {
            (Some(known), _) => known,
            (None, Some((_, first))) => Tenant::born(id.clone(), first).ok_or_else(|| {
                LedgerError::Damaged(format!("the first entry of tenant {id} gives it no profile").into())
            })?,
            (None, None) => return Ok(None),
        };
        let mut book = Box::new(Book::new(tenant, folded));
        for (seq, entry) in after {
            if let Some(user) = entry.user.as_ref().filter(|user| !book.users.contains_key(*user)) {
                let stored = self.ledger.load_user(id, user).await?;
                book.users.insert(user.clone(), Box::new(live_user(user, stored)));
            }
            add(&mut book, *seq, entry);
        }
        book.basis.made_durable(book.seq);
        if self.ledger.shared().is_some() && book.users.values().any(|live| live.seq > book.seq) {
            // Another node has written, and folded, since the tenant was loaded.
            book.basis.outdate();
        }
        Ok(Some(book))
    }
}

fn live_user(id: &UserId, stored: Option<Stored<User>>) -> LiveUser {
    let (user, seq) = stored.map_or_else(|| (User::new(id.clone()), 0), |stored| (stored.state, stored.seq));
    LiveUser { user, seq, saved: seq }
}

/// Folds an entry into a book that has its user at hand. A user's row may be ahead of the tenant's when another node
/// wrote in between: what it holds is not folded into it twice.
fn add(book: &mut Book, seq: Seq, entry: &Entry) {
    let Book { tenant, users, .. } = book;
    let mut live = entry.user.as_ref().and_then(|user| users.get_mut(user));
    let mut ahead = live.as_deref().filter(|live| live.seq >= seq).map(|live| live.user.clone());
    match &mut ahead {
        Some(copy) => tenant.fold(Some(copy), entry),
        None => {
            tenant.fold(live.as_deref_mut().map(|live| &mut live.user), entry);
            if let Some(live) = live {
                live.seq = seq;
            }
        }
    }
    book.seq = seq;
}
