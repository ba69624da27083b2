//! Admission. Only an [`Admitted`] request can be forwarded, and only this module makes one: after the engine said
//! yes, or because the catalog declares the request unmetered.

use crate::{
    afterwards::Afterwards,
    answer,
    body::ResponseBody,
    gateway::Running,
    hold::{self, Taken},
    identity::Identity,
    rules::Demand,
    session::{self, Opened, SessionDemand, SessionGuard},
    settle::{Measure, Pledge},
};
use domain::{catalog::Catalog, decision::Decision, op::OpError};
use engine::{
    ports::{Commit, LedgerError},
    requests::{Ack, Admission, EngineError},
};
use http::Response;
use std::sync::Arc;
use wire::catalog::Reading;

/// A request that may go on, with what it owes.
pub(crate) struct Admitted<T> {
    request: T,
    ticket: Ticket,
}

/// What an admitted request carries along.
pub(crate) struct Ticket {
    /// Who it is from, if that was verified.
    pub(crate) identity: Option<Identity>,
    /// `None` for what is declared unmetered.
    pub(crate) metered: Option<Metered>,
}

/// What a metered request carries along.
pub(crate) struct Metered {
    pub(crate) decision: Decision,
    /// Whether it was decided while the ledger could not be written.
    pub(crate) outage: bool,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) pledge: Pledge,
    /// Resolves when the response head may go out.
    pub(crate) commit: Option<Commit>,
    /// Whether it may not even be forwarded before.
    pub(crate) commit_first: bool,
    pub(crate) request_measure: Option<Arc<Measure>>,
    pub(crate) afterwards: Option<Box<Afterwards>>,
    pub(crate) reading: Reading,
    /// Whether the client did not ask for the usage that the answer will report.
    pub(crate) strips_usage: bool,
    /// What it runs in.
    pub(crate) session: Option<Box<SessionGuard>>,
}

impl Metered {
    /// Whether the request may reach the upstream from here on. Then what is charged for reaching it stands.
    pub(crate) fn on_its_way(&mut self, on_its_way: bool) {
        self.pledge.on_its_way(on_its_way);
        let stands = on_its_way && !self.pledge.is_for_success();
        if let Some(afterwards) = &mut self.afterwards {
            afterwards.stands(stands);
        }
    }

    /// Nothing of it is charged or measured any more.
    pub(crate) fn cancel_measures(&mut self) {
        if let Some(measure) = &self.request_measure {
            measure.cancel();
        }
        if let Some(afterwards) = &mut self.afterwards {
            afterwards.stands(false);
        }
    }
}

impl<T> Admitted<T> {
    /// A request that its route (or the lack of one) declares unmetered.
    pub(crate) fn unmetered(request: T, identity: Option<Identity>) -> Self {
        Self { request, ticket: Ticket { identity, metered: None } }
    }

    /// The request and its ticket, to be forwarded.
    pub(crate) fn into_parts(self) -> (T, Ticket) {
        (self.request, self.ticket)
    }
}

/// Asks the engine.
///
/// # Errors
/// The answer to a refusal or a failure: the request goes no further.
pub(crate) async fn admit<T>(
    running: &Running,
    request: T,
    identity: Identity,
    mut demand: Demand,
    catalog: Arc<Catalog>,
) -> Result<Admitted<T>, Box<Response<ResponseBody>>> {
    let decided = match demand.asks_for_nothing() {
        true => None,
        false => match decide(running, &demand).await {
            Ok(decided) if !decided.taken.admission.decision.allowed => {
                return Err(refusal(running, decided.taken.admission, demand.asked(), None, catalog).await);
            }
            Ok(decided) => Some(decided),
            Err(error) => return Err(Box::new(failure(running, &error))),
        },
    };
    let prepaid = decided.as_ref().is_some_and(|decided| decided.prepaid);
    // Who goes away from here on is given back what was charged.
    let taken = decided.map(|decided| decided.taken);
    let (taken, session) = match (taken, demand.session.clone()) {
        (Some(taken), None) => (taken, None),
        (taken, asked) => join(running, &demand, taken, asked, catalog.clone()).await?,
    };
    let Taken { admission, reserve, pledge } = taken;
    let catalog = catalog_of(running, &admission, catalog).await;
    if prepaid {
        demand.first_unit_was_taken();
    }
    let Demand { request_meters, owed, reading, commit_first, .. } = demand;
    let metered = Metered {
        request_measure: Measure::new(&running.settler, &admission, request_meters, prepaid),
        afterwards: Afterwards::new(reserve, owed),
        reading,
        strips_usage: false,
        session,
        decision: admission.decision,
        outage: admission.outage,
        catalog,
        pledge,
        commit: Some(admission.commit),
        commit_first,
    };
    Ok(Admitted { request, ticket: Ticket { identity: Some(identity), metered: Some(metered) } })
}

/// The answer to a refusal.
async fn refusal(
    running: &Running,
    mut admission: Admission,
    asked: Option<(&str, i64)>,
    conversation: Option<&str>,
    catalog: Arc<Catalog>,
) -> Box<Response<ResponseBody>> {
    // What the answer explains must be there to be asked about.
    let noted = std::mem::replace(&mut admission.commit, Commit::Done).wait().await;
    Box::new(match noted {
        Ok(()) => {
            let catalog = catalog_of(running, &admission, catalog).await;
            answer::denial(&admission, asked, conversation, &catalog)
        }
        Err(error) => outage(running, &error),
    })
}

/// Opens the session of a request whose charges are made. If it is refused, they are given back.
async fn join(
    running: &Running,
    demand: &Demand,
    taken: Option<Taken>,
    asked: Option<SessionDemand>,
    catalog: Arc<Catalog>,
) -> Result<(Taken, Option<Box<SessionGuard>>), Box<Response<ResponseBody>>> {
    let conversation = asked.as_ref().and_then(|asked| asked.key.clone());
    let opened = match asked {
        Some(asked) => session::open(&running.keeper, asked).await,
        None => Err(EngineError::Op(OpError::Empty)),
    };
    let mut open = match opened {
        Ok(Opened::Open(open)) => open,
        Ok(Opened::Refused(refused)) => {
            if let Some(mut taken) = taken {
                taken.pledge.give_back().await;
            }
            return Err(refusal(running, *refused, None, conversation.as_deref(), catalog).await);
        }
        Err(error) => {
            if let Some(mut taken) = taken {
                taken.pledge.give_back().await;
            }
            return Err(Box::new(failure(running, &error)));
        }
    };
    let Some(mut taken) = taken else {
        let admission = in_session(demand, &mut open);
        let taken = Taken::new(&running.settler, admission, &demand.check, demand.charge_when);
        return Ok((taken, Some(Box::new(open.guard))));
    };
    // Both have one decision, and one commit: what was charged before is written before.
    let limits = &mut taken.admission.decision.limits;
    let more: Vec<_> =
        open.decision.limits.drain(..).filter(|more| !limits.iter().any(|l| l.name == more.name)).collect();
    limits.extend(more);
    if let commit @ Commit::Waiting(_) = std::mem::replace(&mut open.commit, Commit::Done) {
        taken.admission.commit = commit;
    }
    Ok((taken, Some(Box::new(open.guard))))
}

/// What is admitted where nothing is asked for but the session.
fn in_session(demand: &Demand, open: &mut session::Running) -> Admission {
    Admission {
        tenant: demand.check.tenant.clone(),
        user: demand.check.user.clone(),
        decision: open.decision.clone(),
        denial_id: None,
        repeated: false,
        outage: false,
        hold: None,
        charged: None,
        dimensions: demand.check.dimensions.clone(),
        leased: false,
        catalog_pin: open.catalog_pin,
        commit: std::mem::replace(&mut open.commit, Commit::Done),
    }
}

/// The catalog that decided. (It is at hand; where it no longer is, the one in force has the words.)
async fn catalog_of(running: &Running, admission: &Admission, in_force: Arc<Catalog>) -> Arc<Catalog> {
    match admission.catalog_pin {
        None => in_force,
        Some(version) => running.settler.engine.catalog_at(version).await.unwrap_or(in_force),
    }
}

/// A decision that was made, with what it took.
struct Decided {
    taken: Taken,
    /// Whether one unit of what is measured afterwards was charged.
    prepaid: bool,
}

/// Where an amount is known only afterwards, a limit that is full already must refuse all the same; so one unit is
/// asked for first, without charging, and with charging where that is (or would have been) refused, so that it is
/// counted.
async fn decide(running: &Running, demand: &Demand) -> Result<Decided, EngineError> {
    let take = |check| hold::take(&running.settler, check, demand.expects(), demand.charge_when);
    if demand.is_open_ended() {
        let mut first_units = demand.with_a_first_unit();
        first_units.consume = false;
        let foreseen = running.settler.engine.admit(&first_units, Ack::Disk).await?.decision;
        if !foreseen.allowed || foreseen.shadow.is_some() {
            first_units.consume = true;
            return Ok(Decided { taken: take(&first_units).await?, prepaid: true });
        }
    }
    Ok(Decided { taken: take(&demand.check).await?, prepaid: false })
}

/// The answer when the engine can't decide. It fails closed.
pub(crate) fn failure(running: &Running, error: &EngineError) -> Response<ResponseBody> {
    match error {
        EngineError::Ledger(error) => outage(running, error),
        EngineError::UnknownTenant(_) => answer::unknown_tenant(error),
        // Amounts may come from the client; what is charged and required comes from the catalog.
        EngineError::Op(OpError::NegativeAmount(_) | OpError::AmountTooLarge(_) | OpError::Overflow(_)) => {
            answer::problem(&wire::rescue::problem_of(error))
        }
        EngineError::Op(error @ OpError::TooManyInFlight(_)) => answer::problem(&wire::rescue::problem_of_op(error)),
        EngineError::Op(error) => {
            tracing::error!(%error, "the route asks for what the catalog does not have that decides for the tenant");
            answer::of(wire::rescue::INTERNAL, "The gateway's rules and the catalog in force do not fit together.")
        }
        _ => answer::problem(&wire::rescue::problem_of(error)),
    }
}

/// The answer when the ledger can't write.
pub(crate) fn outage(running: &Running, error: &LedgerError) -> Response<ResponseBody> {
    running.observer.refused_by_outage();
    tracing::warn!(%error, "refused: the ledger is not available");
    answer::problem(&wire::rescue::problem_of_ledger(error))
}
