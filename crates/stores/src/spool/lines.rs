//! Lines as rows. What passed is written as the ledger writes an entry, with the charges as its effects.

use crate::{
    codec,
    sqlite::errors::{OrDamaged, damaged_row},
};
use domain::{
    entry::{Cause, Effect, Entry, KindSet},
    id::TenantId,
    op::Charge,
    outage::Passed,
    time::Instant,
};
use engine::ports::{LedgerError, SpoolLine};
use rusqlite::{Connection, params};

/// Writes a line.
pub(super) fn insert(conn: &Connection, number: u64, line: &SpoolLine) -> rusqlite::Result<()> {
    let mut body = Vec::with_capacity(96);
    let (tenant, at_ms, given_back) = match line {
        SpoolLine::Passed(tenant, passed) => {
            codec::encode_entry(&entry_of(passed), &mut body);
            codec::seal(&[tenant.as_str()], &[number as i64, passed.at.ms()], &mut body);
            (tenant.as_str(), passed.at.ms(), false)
        }
        SpoolLine::GivenBack(id) => {
            body.extend_from_slice(&id.to_le_bytes());
            ("", 0, true)
        }
    };
    conn.prepare_cached("INSERT INTO lines(number, tenant, at_ms, given_back, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![number as i64, tenant, at_ms, given_back, body])
        .map(|_| ())
}

/// Every line that was not set aside, in order.
pub(super) fn read(conn: &Connection) -> Result<Vec<(u64, SpoolLine)>, LedgerError> {
    let sql = "SELECT number, tenant, at_ms, given_back, body FROM lines WHERE set_aside IS NULL ORDER BY number";
    let mut statement = conn.prepare(sql).or_damaged()?;
    let mut rows = statement.query([]).or_damaged()?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next().or_damaged()? {
        let number: i64 = row.get(0).or_damaged()?;
        let (tenant, at_ms): (String, i64) = (row.get(1).or_damaged()?, row.get(2).or_damaged()?);
        let (given_back, body): (bool, Vec<u8>) = (row.get(3).or_damaged()?, row.get(4).or_damaged()?);
        let line = if given_back { back_of(&body) } else { passed_of(&tenant, number, at_ms, &body) };
        let line = line.map_err(|why| damaged_row(format_args!("line {number} of the spool"), why))?;
        lines.push((number as u64, line));
    }
    Ok(lines)
}

fn back_of(body: &[u8]) -> Result<SpoolLine, String> {
    let id: [u8; 16] = body.try_into().map_err(|_| "its id is not one".to_owned())?;
    Ok(SpoolLine::GivenBack(u128::from_le_bytes(id)))
}

fn passed_of(tenant: &str, number: i64, at_ms: i64, body: &[u8]) -> Result<SpoolLine, String> {
    let at = Instant::from_ms(at_ms);
    let bytes = codec::checked(&[tenant], &[number, at_ms], body).map_err(|malformed| malformed.0.to_owned())?;
    let entry = codec::decode_entry(at, bytes).map_err(|malformed| malformed.0.to_owned())?;
    let binding = entry.binding.ok_or_else(|| "it has no id".to_owned())?;
    let charge = |effect| match effect {
        Effect::Use { meter, amount, .. } => Some(Charge { meter, amount }),
        _ => None,
    };
    let charges = entry.effects.into_iter().filter_map(charge).collect();
    let passed = Passed { user: entry.user, charges, at, dimensions: entry.dimensions, binding };
    Ok(SpoolLine::Passed(TenantId::trusted(tenant), passed))
}

fn entry_of(passed: &Passed) -> Entry {
    let effect = |charge: &Charge| Effect::Use {
        meter: charge.meter.clone(),
        amount: charge.amount,
        open: KindSet::NONE,
        closed: Vec::new(),
    };
    Entry {
        at: passed.at,
        catalog: 0,
        cause: Cause::Event,
        binding: Some(passed.binding),
        user: passed.user.clone(),
        dimensions: passed.dimensions.clone(),
        note: None,
        effects: passed.charges.iter().map(effect).collect(),
    }
}
