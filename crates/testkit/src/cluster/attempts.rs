//! What clients did, and what they were told.

use super::{
    nodes::Node,
    script::{Ask, plans_of},
};
use crate::world::admit;
use domain::{catalog::Catalog, grant::GrantId, view::Usage};
use engine::{
    Engine, Settled,
    ports::{Commit, Ledger, LedgerError},
    requests::{Admission, EngineError, EventOutcome, TenantCard},
    session::{SessionAnswer, SessionTouch, Touched},
};
use std::{future::Future, sync::Arc};

/// What a client was told.
#[derive(Debug)]
pub enum Answer {
    /// A decision.
    Admission(Box<Admission>),
    /// What became of each event.
    Recorded(Vec<EventOutcome>),
    /// Whether the correction had been made before.
    Adjusted(bool),
    /// Whether the tenant was created.
    Put(bool),
    /// What was used.
    Usage(Box<(TenantCard, Usage)>),
    /// How a hold was settled.
    Settled(Settled),
    /// How a session stands that was to be opened.
    Session(Box<SessionAnswer>),
    /// What became of a session.
    Touched(Touched),
    /// A grant, and whether it was given before.
    Granted(GrantId, bool),
    /// It is done.
    Done,
    /// It went wrong.
    Failed(EngineError),
}

/// How an attempt ended.
#[derive(Debug)]
pub struct End {
    /// When.
    pub tick: u64,
    /// When, by the database's clock.
    pub at_ms: i64,
    /// The catalog that the node decided by then.
    pub catalog: u32,
    /// What the client was told; nothing if the node or the client was gone.
    pub answer: Option<Answer>,
}

/// One call of one client.
#[derive(Debug)]
pub struct Attempt {
    /// Its number, from 1 on.
    pub number: u64,
    /// The step of the script that it is an attempt at.
    pub step: usize,
    /// Whether the payload was changed.
    pub changed: bool,
    /// What was asked.
    pub ask: Ask,
    /// Of which node.
    pub node: usize,
    /// Which life of that node.
    pub sender: u64,
    /// When.
    pub tick: u64,
    /// When, by the database's clock.
    pub at_ms: i64,
    /// The catalog that the node decided by then.
    pub catalog: u32,
    /// How it ended.
    pub end: Option<End>,
}

impl Attempt {
    /// What the client was told.
    pub fn answer(&self) -> Option<&Answer> {
        self.end.as_ref()?.answer.as_ref()
    }

    /// Whether the client does not know what became of it.
    pub fn is_open(&self) -> bool {
        matches!(self.answer(), None | Some(Answer::Failed(EngineError::Ledger(_))))
    }
}

/// Asks a node.
pub(super) fn perform(node: &Node, ask: Ask, catalogs: &[(String, Catalog)]) -> impl Future<Output = Answer> + 'static {
    let (engine, ledger, follower) = (node.engine.clone(), node.ledger.clone(), node.follower.clone());
    let publication = match &ask {
        Ask::Publish(number) => catalogs.get(*number).cloned(),
        _ => None,
    };
    async move {
        let done = match ask {
            Ask::Signals => signals(&engine, &*follower).await,
            Ask::Publish(_) => {
                let Some((text, catalog)) = publication else { return Answer::Done };
                let Some(shared) = ledger.shared() else { return Answer::Done };
                let published = shared.publish(&text, engine.now(), &plans_of(&catalog)).await;
                published.map(|_| Answer::Done).map_err(Into::into)
            }
            ask => of_tenant(&engine, ask).await,
        };
        done.unwrap_or_else(Answer::Failed)
    }
}

async fn signals(engine: &Arc<Engine>, follower: &dyn engine::ports::Follower) -> Result<Answer, EngineError> {
    if let Some(signals) = engine.signals().await?
        && signals.catalog_version > engine.catalog().version
    {
        follower.follow(signals.catalog_version).await;
        if engine.catalog().version < signals.catalog_version {
            return Err(LedgerError::Unwritable("the catalog can't be had now".into()).into());
        }
    }
    Ok(Answer::Done)
}

async fn of_tenant(engine: &Arc<Engine>, ask: Ask) -> Result<Answer, EngineError> {
    Ok(match ask {
        Ask::Check(check) => Answer::Admission(Box::new(admit(engine, &check).await?)),
        Ask::Events(events) => Answer::Recorded(engine.record(events).await?),
        Ask::Adjust(tenant, user, adjustment, id) => {
            Answer::Adjusted(engine.adjust(&tenant, user.as_ref(), adjustment, id, "test", "because").await?)
        }
        Ask::Put(tenant, change, _) => Answer::Put(engine.put_tenant(&tenant, &change, "test").await?.1),
        Ask::Usage(tenant, user) => Answer::Usage(Box::new(engine.usage(&tenant, user.as_ref()).await?)),
        Ask::Measured(tenant, user, charge) => {
            settled(engine.measured(&tenant, user.as_ref(), vec![charge], Vec::new()).await?).await?
        }
        Ask::Refund(tenant, user, charged, _) => {
            settled(engine.refund(&tenant, user.as_ref(), &charged).await?).await?
        }
        Ask::Settle(tenant, id, how) => Answer::Settled(engine.settle(&tenant, id, &how).await?),
        Ask::Open(ask) => {
            let mut answer = engine.open_session(&ask).await?;
            std::mem::replace(&mut answer.commit, Commit::Done).wait().await?;
            Answer::Session(Box::new(answer))
        }
        Ask::Touch(tenant, id, close) => {
            let mut touched = engine.touch_session(&tenant, SessionTouch { id, close, enforce: None }).await?;
            if let Touched::Now(answer) = &mut touched {
                std::mem::replace(&mut answer.commit, Commit::Done).wait().await?;
            }
            Answer::Touched(touched)
        }
        Ask::Grant(tenant, grant, id) => {
            let fresh = grant.id.0;
            let (id, repeated) = engine.put_grant(&tenant, grant, (id, fresh), "test").await?;
            Answer::Granted(id, repeated)
        }
        Ask::Revoke(tenant, id) => {
            engine.revoke_grant(&tenant, id, "test").await?;
            Answer::Done
        }
        Ask::Upkeep => {
            engine.upkeep().await?;
            Answer::Done
        }
        Ask::Drain => {
            engine.drain().await?;
            Answer::Done
        }
        Ask::RefundOldest(_)
        | Ask::SettleAny(..)
        | Ask::TouchAny(..)
        | Ask::RevokeAny(..)
        | Ask::Signals
        | Ask::Publish(_) => Answer::Done,
    })
}

async fn settled(commit: Commit) -> Result<Answer, EngineError> {
    commit.wait().await?;
    Ok(Answer::Done)
}
