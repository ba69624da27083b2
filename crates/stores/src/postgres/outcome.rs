//! What became of the parts of a batch.

use super::{
    batch::Part,
    errors::Done,
    pool::Conn,
    queue::Queue,
    statement::{self, Locked, Reply},
};
use engine::ports::LedgerError;

/// Gives every part that was not sent before a token.
pub(super) fn stamp(parts: &mut [Part], mut random: impl FnMut() -> u64) {
    for part in parts.iter_mut().filter(|part| part.token == 0) {
        // 0 stands for none.
        part.token = (random() >> 1) as i64 | 1;
    }
}

/// Sends parts, and looks for those that an earlier try may have written. Gives, for each part, what became of it.
pub(super) async fn send(
    conn: &mut Conn,
    queue: &Queue,
    parts: &mut [Part],
    locked: Locked,
) -> Done<Vec<Result<(), LedgerError>>> {
    let was_uncertain: Vec<bool> = parts.iter().map(|part| part.uncertain).collect();
    let reply = match statement::send(conn, parts, locked).await {
        Ok(reply) => reply,
        Err(failure) => {
            if matches!(failure, super::errors::Failure::Lost(_)) {
                parts.iter_mut().for_each(|part| part.uncertain = true);
            }
            return Err(failure);
        }
    };
    let doubtful = was_uncertain.iter().zip(&reply.written).any(|(uncertain, written)| *uncertain && !written);
    let earlier = match doubtful {
        true => statement::find_tokens(conn, parts).await?,
        false => vec![false; parts.len()],
    };
    for (index, id, seq) in &reply.bound {
        if let Some(part) = parts.get(*index).filter(|_| !earlier[*index]) {
            queue.remember(&part.tenant, *id, *seq);
        }
    }
    let judge = |index: usize| verdict(&reply, index, earlier[index], &parts[index]);
    Ok((0..parts.len()).map(judge).collect())
}

fn verdict(reply: &Reply, index: usize, earlier: bool, part: &Part) -> Result<(), LedgerError> {
    let is_behind = part.appends.iter().any(|queued| queued.catalog < reply.in_force);
    match reply.written[index] || earlier {
        true => Ok(()),
        false if is_behind => Err(LedgerError::CatalogBehind { in_force: reply.in_force }),
        false => Err(LedgerError::Stale),
    }
}

/// Tells everybody who waits for the parts.
pub(super) fn tell(queue: &Queue, parts: Vec<Part>, verdicts: Vec<Result<(), LedgerError>>) {
    for (part, verdict) in parts.into_iter().zip(verdicts) {
        match verdict {
            Ok(()) => queue.succeed(part),
            Err(error) => queue.fail(part, &error),
        }
    }
}
