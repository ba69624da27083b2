//! Sealed openings: the state as of the position behind which the journal was cut.
//!
//! They are made by folding the entries that are cut into the openings before, never by copying folds: so a fold that
//! went wrong can't become truth. The seal is a sum of hashes, one for each row, so that it is kept up as rows change.

use super::{
    checkpoint::{read_tenant_row, read_user_row, tenant_row, user_row},
    closed::{self, Place, Table},
    errors::{OrDamaged, damaged_row},
    reads::{JournalRow, seq_and_body},
    recover::CUT_THROUGH,
    schema,
};
use domain::{
    id::{TenantId, UserId},
    tenant::{ClosedTotal, Tenant, User},
};
use engine::ports::{ClosedRow, LedgerError, Seq, Stored};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashMap;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

const SEAL_SUM: &str = "seal_sum";
const SEAL_ROWS: &str = "seal_rows";
const SEALED_AT_MS: &str = "sealed_at_ms";

/// What is sealed: how many rows, and the sum of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seal {
    pub(super) rows: i64,
    pub(super) sum: u128,
}

impl Seal {
    /// The seal in the file.
    pub(super) fn read(conn: &Connection) -> Result<Self, LedgerError> {
        let sum: Option<[u8; 16]> = conn
            .query_row("SELECT value FROM meta WHERE key = ?1", [SEAL_SUM], |row| row.get(0))
            .optional()
            .or_damaged()?;
        let rows = schema::number(conn, SEAL_ROWS).or_damaged()?;
        Ok(Self { rows, sum: sum.map_or(0, u128::from_be_bytes) })
    }

    pub(super) fn write(self, conn: &Connection, cut: Seq, at_ms: i64) -> rusqlite::Result<()> {
        schema::set_number(conn, CUT_THROUGH, cut as i64)?;
        schema::set_number(conn, SEAL_ROWS, self.rows)?;
        schema::set_number(conn, SEALED_AT_MS, at_ms)?;
        conn.prepare_cached(
            "INSERT INTO meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![SEAL_SUM, self.sum.to_be_bytes()])
        .map(|_| ())
    }

    /// The seal of what is in the tables. A total that can't be read is told, and left out.
    pub(super) fn of(conn: &Connection, unreadable: &mut dyn FnMut(String)) -> Result<Self, LedgerError> {
        let mut found = Self::default();
        {
            let mut statement = conn.prepare("SELECT tenant, user, seq, body FROM openings").or_damaged()?;
            let mut rows = statement.query([]).or_damaged()?;
            while let Some(row) = rows.next().or_damaged()? {
                let (tenant, user): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
                let (seq, body) = seq_and_body(row, 2)?;
                found.add_state(&tenant, &user, seq, body);
            }
        }
        let sql = "SELECT tenant, user, start_ms, kind, meter, end_ms, used, denied, checksum FROM opening_closed";
        let mut statement = conn.prepare(sql).or_damaged()?;
        let mut rows = statement.query([]).or_damaged()?;
        while let Some(row) = rows.next().or_damaged()? {
            let (tenant, user): (String, String) = (row.get(0).or_damaged()?, row.get(1).or_damaged()?);
            match closed::read(&tenant, &user, row, 2) {
                Ok(total) => {
                    let place =
                        Place { tenant: &tenant, user: &user, meter: total.meter.as_str(), closed: total.closed };
                    found.add_closed(&place, total.used, total.denied);
                }
                Err(error) => unreadable(format!("opening of {tenant:?}: {error}")),
            }
        }
        Ok(found)
    }

    fn replace(&mut self, old: Option<u128>, new: u128) {
        match old {
            Some(old) => self.sum = self.sum.wrapping_sub(old),
            None => self.rows += 1,
        }
        self.sum = self.sum.wrapping_add(new);
    }

    /// Counts a state in.
    fn add_state(&mut self, tenant: &str, user: &str, seq: i64, body: &[u8]) {
        self.replace(None, hash_state(tenant, user, seq, body));
    }

    /// Counts a total in.
    fn add_closed(&mut self, place: &Place<'_>, used: i64, denied: i64) {
        self.replace(None, hash_closed(place, used, denied));
    }
}

fn hash(tag: u8, texts: [&str; 3], numbers: [i64; 5], bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(b"tidegate opening");
    hasher.write_u8(tag);
    for text in texts {
        hasher.write_u32(text.len() as u32);
        hasher.write(text.as_bytes());
    }
    numbers.into_iter().for_each(|number| hasher.write_i64(number));
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

fn hash_state(tenant: &str, user: &str, seq: i64, body: &[u8]) -> u128 {
    hash(1, [tenant, user, ""], [seq, 0, 0, 0, 0], body)
}

fn hash_closed(place: &Place<'_>, used: i64, denied: i64) -> u128 {
    let window = place.closed.window;
    let numbers = [window.start.ms(), window.end.ms(), place.closed.kind.index() as i64, used, denied];
    hash(2, [place.tenant, place.user, place.meter], numbers, &[])
}

/// A state and the hash of the row it came from.
struct Opened<T> {
    stored: Stored<T>,
    old: Option<u128>,
}

/// Openings that are being moved forward.
pub(super) struct Openings<'a> {
    conn: &'a Connection,
    seal: Seal,
    tenants: FxHashMap<TenantId, Opened<Tenant>>,
    users: FxHashMap<(TenantId, UserId), Opened<User>>,
}

impl<'a> Openings<'a> {
    pub(super) fn new(conn: &'a Connection) -> Result<Self, LedgerError> {
        let seal = Seal::read(conn)?;
        Ok(Self { conn, seal, tenants: FxHashMap::default(), users: FxHashMap::default() })
    }

    /// Folds an entry that is about to be cut.
    pub(super) fn fold(&mut self, row: &JournalRow<'_>) -> Result<(), LedgerError> {
        let entry = row.entry()?;
        let id = TenantId::trusted(row.tenant);
        if !self.tenants.contains_key(&id) {
            let opened = match tenant(self.conn, &id)? {
                Some(opened) => opened,
                None => {
                    let state = Tenant::born(id.clone(), &entry).ok_or_else(|| {
                        damaged_row(format_args!("entry {}", row.seq), "it is its tenant's first and gives no profile")
                    })?;
                    Opened { stored: Stored { state, seq: 0 }, old: None }
                }
            };
            self.tenants.insert(id.clone(), opened);
        }
        let Some(tenant) = self.tenants.get_mut(&id) else { return Ok(()) };
        tenant.stored.seq = row.seq;
        let Some(user_id) = &entry.user else {
            tenant.stored.state.fold(None, &entry);
            return Ok(());
        };
        let key = (id, user_id.clone());
        if !self.users.contains_key(&key) {
            let fresh = || Opened { stored: Stored { state: User::new(user_id.clone()), seq: 0 }, old: None };
            let opened = user(self.conn, &key.0, user_id)?.unwrap_or_else(fresh);
            self.users.insert(key.clone(), opened);
        }
        let Some(user) = self.users.get_mut(&key) else { return Ok(()) };
        user.stored.seq = row.seq;
        tenant.stored.state.fold(Some(&mut user.stored.state), &entry);
        Ok(())
    }

    /// How many states are held.
    pub(super) fn len(&self) -> usize {
        self.tenants.len() + self.users.len()
    }

    /// Writes what changed, and the seal of everything through `cut`.
    pub(super) fn seal(mut self, cut: Seq, at_ms: i64) -> rusqlite::Result<()> {
        for (id, mut opened) in std::mem::take(&mut self.tenants) {
            let gained = opened.stored.state.accounts.take_closed();
            self.add_closed(&id, None, &gained)?;
            let body = tenant_row(&opened.stored);
            self.put(id.as_str(), "", opened.stored.seq, &body, opened.old)?;
        }
        for ((tenant, id), mut opened) in std::mem::take(&mut self.users) {
            let gained = opened.stored.state.accounts.take_closed();
            self.add_closed(&tenant, Some(&id), &gained)?;
            let body = user_row(&tenant, &opened.stored);
            self.put(tenant.as_str(), id.as_str(), opened.stored.seq, &body, opened.old)?;
        }
        self.seal.write(self.conn, cut, at_ms)
    }

    fn put(&mut self, tenant: &str, user: &str, seq: Seq, body: &[u8], old: Option<u128>) -> rusqlite::Result<()> {
        self.seal.replace(old, hash_state(tenant, user, seq as i64, body));
        put_state(self.conn, tenant, user, seq as i64, body)
    }

    fn add_closed(&mut self, tenant: &TenantId, user: Option<&UserId>, gained: &[ClosedTotal]) -> rusqlite::Result<()> {
        for total in gained {
            let place = Place {
                tenant: tenant.as_str(),
                user: user.map_or("", UserId::as_str),
                meter: total.meter.as_str(),
                closed: total.closed,
            };
            let known = closed::get(self.conn, Table::Opening, &place)?;
            let old = known.map(|known| hash_closed(&known.place(&place), known.used, known.denied));
            let (used, denied) = known.map_or((0, 0), |known| (known.used, known.denied));
            let (used, denied) = (used.saturating_add(total.used), denied.saturating_add(total.denied));
            closed::put(self.conn, Table::Opening, &place, used, denied)?;
            self.seal.replace(old, hash_closed(&place, used, denied));
        }
        Ok(())
    }
}

/// Writes an opening as it is.
pub(super) fn put_state(conn: &Connection, tenant: &str, user: &str, seq: i64, body: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO openings(tenant, user, seq, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(tenant, user) DO UPDATE SET seq = excluded.seq, body = excluded.body",
    )?
    .execute(params![tenant, user, seq, body])
    .map(|_| ())
}

const SELECT_ONE: &str = "SELECT seq, body FROM openings WHERE tenant = ?1 AND user = ?2";

fn tenant(conn: &Connection, id: &TenantId) -> Result<Option<Opened<Tenant>>, LedgerError> {
    let mut statement = conn.prepare_cached(SELECT_ONE).or_damaged()?;
    let mut rows = statement.query(params![id.as_str(), ""]).or_damaged()?;
    let Some(row) = rows.next().or_damaged()? else { return Ok(None) };
    let (seq, body) = seq_and_body(row, 0)?;
    let stored = read_tenant_row(id, seq, body)
        .map_err(|why| damaged_row(format_args!("the opening of tenant {id:?}"), why.0))?;
    Ok(Some(Opened { stored, old: Some(hash_state(id.as_str(), "", seq, body)) }))
}

fn user(conn: &Connection, tenant: &TenantId, id: &UserId) -> Result<Option<Opened<User>>, LedgerError> {
    let mut statement = conn.prepare_cached(SELECT_ONE).or_damaged()?;
    let mut rows = statement.query(params![tenant.as_str(), id.as_str()]).or_damaged()?;
    let Some(row) = rows.next().or_damaged()? else { return Ok(None) };
    let (seq, body) = seq_and_body(row, 0)?;
    let stored = read_user_row(tenant, id, seq, body)
        .map_err(|why| damaged_row(format_args!("the opening of user {id:?} of {tenant:?}"), why.0))?;
    Ok(Some(Opened { stored, old: Some(hash_state(tenant.as_str(), id.as_str(), seq, body)) }))
}

/// The totals of an account as of the seal.
pub(super) fn closed_of(conn: &Connection, tenant: &str, user: &str) -> Result<Vec<ClosedRow>, LedgerError> {
    closed::of_account(conn, Table::Opening, tenant, user)
}
