//! What became of the parts of a batch.

use super::{
    batch::Part,
    errors::Done,
    pool::Conn,
    queue::Queue,
    statement::{self, Locked, Reply},
};
use engine::ports::{LedgerError, Seq};

/// What became of a part: the position that its entries follow, or why it was not written.
pub(super) type Verdict = Result<Seq, LedgerError>;

/// Gives every part that was not sent before a token.
pub(super) fn stamp(parts: &mut [Part], mut random: impl FnMut() -> u64) {
    for part in parts.iter_mut().filter(|part| part.token == 0) {
        // 0 stands for none.
        part.token = (random() >> 1) as i64 | 1;
    }
}

/// Sends parts, and looks for those that an earlier try may have written. Gives, for each part, what became of it.
pub(super) async fn send(conn: &mut Conn, queue: &Queue, parts: &mut [Part], locked: Locked) -> Done<Vec<Verdict>> {
    let was_uncertain: Vec<bool> = parts.iter().map(|part| part.uncertain).collect();
    let sent = match locked {
        Locked::Leased => statement::send_leased(conn, parts).await,
        locked => statement::send(conn, parts, locked).await,
    };
    let reply = match sent {
        Ok(reply) => reply,
        Err(failure) => {
            if matches!(failure, super::errors::Failure::Lost(_)) {
                parts.iter_mut().for_each(|part| part.uncertain = true);
            }
            return Err(failure);
        }
    };
    let doubtful = was_uncertain.iter().zip(&reply.written).any(|(uncertain, written)| *uncertain && written.is_none());
    let earlier = match doubtful {
        true => statement::find_tokens(conn, parts).await?,
        false => vec![None; parts.len()],
    };
    for (index, id, seq) in &reply.bound {
        if let Some(part) = parts.get(*index).filter(|_| earlier[*index].is_none()) {
            queue.remember(&part.tenant, *id, *seq);
        }
    }
    let judge = |index: usize| verdict(&reply, index, earlier[index], &parts[index]);
    Ok((0..parts.len()).map(judge).collect())
}

fn verdict(reply: &Reply, index: usize, earlier: Option<Seq>, part: &Part) -> Verdict {
    let is_behind = part.appends.iter().any(|queued| queued.catalog < reply.in_force);
    match reply.written[index].or(earlier) {
        Some(follows) => Ok(follows),
        None if is_behind => Err(LedgerError::CatalogBehind { in_force: reply.in_force }),
        None => Err(LedgerError::Stale),
    }
}

/// Tells everybody who waits for the parts.
pub(super) fn tell(queue: &Queue, parts: Vec<Part>, verdicts: Vec<Verdict>) {
    for (part, verdict) in parts.into_iter().zip(verdicts) {
        match verdict {
            Ok(follows) => queue.succeed(part, follows),
            Err(error) => queue.fail(part, &error),
        }
    }
}
