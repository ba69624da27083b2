//! Openings: the state of a tenant as of the position behind which its journal was cut. They are made by folding what
//! is cut into the openings before, never by copying folds: so a fold that went wrong can't become truth.

use super::{
    errors::{Done, damaged_row},
    folds::{Totals, add_totals},
    pool::Conn,
    values::get,
};
use crate::{
    codec::Malformed,
    rows::{read_tenant_row, read_user_row, tenant_row, user_row},
};
use domain::{
    entry::Entry,
    id::{TenantId, UserId},
    tenant::{Tenant, User},
};
use engine::ports::{Seq, Stored};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// The opening of one tenant and of those of its users that are touched.
pub(super) struct Opening {
    id: TenantId,
    tenant: Option<Stored<Tenant>>,
    users: BTreeMap<UserId, Stored<User>>,
}

impl Opening {
    /// Reads the opening of a tenant and locks it.
    pub(super) async fn read(conn: &mut Conn, id: &TenantId, touched: &[&str]) -> Done<Self> {
        let sql = "SELECT user_id, seq, state FROM tidegate.openings
                   WHERE tenant = $1 AND (user_id = '' OR user_id = ANY($2)) ORDER BY user_id FOR UPDATE";
        let mut opening = Self { id: id.clone(), tenant: None, users: BTreeMap::new() };
        for row in conn.rows(sql, &[(&id.as_str(), Type::TEXT), (&touched, Type::TEXT_ARRAY)]).await? {
            let (user, seq, state): (&str, i64, &[u8]) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
            let damaged = |why| damaged_row(format_args!("the opening of {user:?} of tenant {id:?}"), why);
            if user.is_empty() {
                opening.tenant = Some(read_tenant_row(id, seq, state).map_err(damaged)?);
            } else {
                let user_id = UserId::trusted(user);
                opening.users.insert(user_id.clone(), read_user_row(id, &user_id, seq, state).map_err(damaged)?);
            }
        }
        Ok(opening)
    }

    /// Folds an entry that is about to be cut.
    pub(super) fn fold(&mut self, seq: Seq, entry: &Entry) -> Done<()> {
        let damaged = |why| damaged_row(format_args!("entry {seq} of tenant {:?}", self.id), Malformed(why));
        if self.tenant.is_none() {
            let state = Tenant::born(self.id.clone(), entry);
            let state = state.ok_or_else(|| damaged("it is its tenant's first and gives no profile"))?;
            self.tenant = Some(Stored { state, seq: 0 });
        }
        let Some(tenant) = &mut self.tenant else { return Ok(()) };
        if tenant.seq + 1 != seq {
            return Err(damaged("it does not follow the opening"));
        }
        tenant.seq = seq;
        let user = entry.user.as_ref().map(|id| {
            let fresh = || Stored { state: User::new(id.clone()), seq: 0 };
            let user = self.users.entry(id.clone()).or_insert_with(fresh);
            user.seq = seq;
            &mut user.state
        });
        tenant.state.fold(user, entry);
        Ok(())
    }

    /// Writes what changed.
    pub(super) async fn write(self, conn: &mut Conn) -> Done<()> {
        let Some(tenant) = &self.tenant else { return Ok(()) };
        let mut totals = Totals::new();
        add_totals(&mut totals, None, tenant.state.accounts.closed());
        let (mut users, mut seqs, mut states) = (vec![""], vec![tenant.seq as i64], vec![tenant_row(tenant)]);
        for (id, user) in &self.users {
            add_totals(&mut totals, Some(id), user.state.accounts.closed());
            users.push(id.as_str());
            seqs.push(user.seq as i64);
            states.push(user_row(&self.id, user));
        }
        let sql = "INSERT INTO tidegate.openings (tenant, user_id, seq, state)
                   SELECT $1, o.user_id, o.seq, o.state
                   FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS o(user_id, seq, state)
                   ON CONFLICT (tenant, user_id) DO UPDATE SET seq = excluded.seq, state = excluded.state";
        let whose = (&self.id.as_str() as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT);
        let columns =
            [(&users as _, Type::TEXT_ARRAY), (&seqs as _, Type::INT8_ARRAY), (&states as _, Type::BYTEA_ARRAY)];
        let [users, seqs, states] = columns;
        conn.rows(sql, &[whose, users, seqs, states]).await?;
        write_totals(conn, &self.id, &totals).await
    }
}

async fn write_totals(conn: &mut Conn, id: &TenantId, totals: &Totals<'_>) -> Done<()> {
    let users: Vec<&str> = totals.keys().map(|key| key.0).collect();
    let starts: Vec<i64> = totals.keys().map(|key| key.1.ms()).collect();
    let kinds: Vec<i16> = totals.keys().map(|key| key.2 as i16).collect();
    let meters: Vec<&str> = totals.keys().map(|key| key.3.as_str()).collect();
    let ends: Vec<i64> = totals.values().map(|sums| sums.0.ms()).collect();
    let used: Vec<i64> = totals.values().map(|sums| sums.1).collect();
    let denied: Vec<i64> = totals.values().map(|sums| sums.2).collect();
    let sql = "INSERT INTO tidegate.opening_closed AS known (tenant, user_id, start_ms, kind, meter, end_ms, used, denied)
               SELECT $1, c.user_id, c.start_ms, c.kind, c.meter, c.end_ms, c.used, c.denied
               FROM unnest($2::text[], $3::bigint[], $4::smallint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
                   AS c(user_id, start_ms, kind, meter, end_ms, used, denied)
               ON CONFLICT (tenant, user_id, start_ms, kind, meter) DO UPDATE SET
                   end_ms = excluded.end_ms,
                   used = greatest(least(known.used::numeric + excluded.used, 9223372036854775807),
                                   -9223372036854775808)::bigint,
                   denied = least(known.denied::numeric + excluded.denied, 9223372036854775807)::bigint";
    conn.rows(
        sql,
        &[
            (&id.as_str(), Type::TEXT),
            (&users, Type::TEXT_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&kinds, Type::INT2_ARRAY),
            (&meters, Type::TEXT_ARRAY),
            (&ends, Type::INT8_ARRAY),
            (&used, Type::INT8_ARRAY),
            (&denied, Type::INT8_ARRAY),
        ],
    )
    .await?;
    Ok(())
}
