//! The rows of a copy as they are written to PostgreSQL.

use super::{
    batch::DenialColumns,
    buckets,
    errors::damaged_row,
    forecasts,
    moving::{PostgresSide, totals_table},
    queued::hour_of,
    reads::checked_entry,
    small, snapshots,
    values::{Bits, Params, first, get},
};
use crate::{
    codec,
    copy::{EntryRow, Small, StateRow, States, TotalRow, Totals},
    denials::{RunFold, Runs},
    rows::{HistoryRow, listed_plan},
};
use domain::{entry::Effect, history::Rows, id::TenantId, time::Instant};
use engine::ports::{ForecastScore, HistoryState, LedgerError, Snapshot, StoredDenial};
use rustc_hash::FxHashMap;
use tokio_postgres::types::Type;

type Done<T> = Result<T, LedgerError>;

impl PostgresSide {
    pub(crate) async fn put_entries(&mut self, _: u64, rows: &[EntryRow]) -> Done<()> {
        let tenants: Vec<&str> = rows.iter().map(|row| &*row.tenant).collect();
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        let at_ms: Vec<i64> = rows.iter().map(|row| row.at_ms).collect();
        let mut bodies = Vec::with_capacity(rows.len());
        // One statement may change a row but once: of an id that was bound again after its time, the last counts.
        let mut ids: FxHashMap<(&str, u128), (i64, i32)> = FxHashMap::default();
        for row in rows {
            let mut body = row.body.clone();
            codec::seal(&[&row.tenant], &[row.seq, row.at_ms], &mut body);
            bodies.push(body);
            let binding = codec::decode_binding(&row.body)
                .map_err(|why| damaged_row(format_args!("entry {} of {:?}", row.seq, row.tenant), why))?;
            if let Some(binding) = binding {
                ids.insert((&row.tenant, binding.id), (row.seq, hour_of(row.at_ms)));
            }
        }
        self.conn.begin("SET LOCAL synchronous_commit = on").await?;
        let sql = "INSERT INTO tidegate.entries (tenant, seq, token, at_ms, body)
                   SELECT e.tenant, e.seq, 0, e.at_ms, e.body
                   FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[]) WITH ORDINALITY
                       AS e(tenant, seq, at_ms, body, place) ORDER BY e.place";
        let columns: Params<'_> = &[
            (&tenants, Type::TEXT_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&at_ms, Type::INT8_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
        ];
        self.conn.rows(sql, columns).await?;
        let tenants: Vec<&str> = ids.keys().map(|(tenant, _)| *tenant).collect();
        let bits: Vec<Bits> = ids.keys().map(|(_, id)| Bits(*id)).collect();
        let seqs: Vec<i64> = ids.values().map(|(seq, _)| *seq).collect();
        let hours: Vec<i32> = ids.values().map(|(_, hour)| *hour).collect();
        let sql = "INSERT INTO tidegate.ids (tenant, id, seq, arrived_hour)
                   SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::integer[])
                   ON CONFLICT (tenant, id) DO UPDATE SET seq = excluded.seq, arrived_hour = excluded.arrived_hour";
        let columns: Params<'_> = &[
            (&tenants, Type::TEXT_ARRAY),
            (&bits, Type::UUID_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&hours, Type::INT4_ARRAY),
        ];
        self.conn.rows(sql, columns).await?;
        Ok(self.conn.commit().await?)
    }

    pub(crate) async fn begin_folds(&mut self) -> Done<()> {
        let sql = "TRUNCATE tidegate.tenants, tidegate.folds, tidegate.user_folds, tidegate.closed, tidegate.denials,
                       tidegate.openings, tidegate.opening_closed, tidegate.snapshots, tidegate.snapshot_runs,
                       tidegate.forecasts, tidegate.forecasts_kept, tidegate.forecast_scores, tidegate.forecast_growth,
                       tidegate.history,
                       tidegate.catalogs, tidegate.api_keys";
        Ok(self.conn.run(sql).await?)
    }

    pub(crate) async fn put_states(&mut self, table: States, rows: &[StateRow]) -> Done<()> {
        let tenants: Vec<&str> = rows.iter().map(|row| &*row.tenant).collect();
        let users: Vec<&str> = rows.iter().map(|row| &*row.user).collect();
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        let sealed = |row: &StateRow| {
            let (names, mut body) = ([&*row.tenant, &*row.user], row.body.clone());
            codec::seal(if row.user.is_empty() { &names[..1] } else { &names[..] }, &[row.seq], &mut body);
            body
        };
        let states: Vec<Vec<u8>> = rows.iter().map(sealed).collect();
        let sql = match table {
            States::Tenants => {
                "INSERT INTO tidegate.folds (tenant, seq, state) SELECT tenant, seq, state
                 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[]) AS s(tenant, user_id, seq, state)"
            }
            States::Users => {
                "INSERT INTO tidegate.user_folds (tenant, user_id, seq, state)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])"
            }
            States::Openings => {
                "INSERT INTO tidegate.openings (tenant, user_id, seq, state)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])"
            }
        };
        let columns: Params<'_> = &[
            (&tenants, Type::TEXT_ARRAY),
            (&users, Type::TEXT_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&states, Type::BYTEA_ARRAY),
        ];
        self.conn.rows(sql, columns).await?;
        if table == States::Tenants { self.put_tenants(&tenants, &seqs, rows).await } else { Ok(()) }
    }

    /// Tenants' rows as of their folds.
    async fn put_tenants(&mut self, tenants: &[&str], seqs: &[i64], rows: &[StateRow]) -> Done<()> {
        let mut plans = Vec::with_capacity(rows.len());
        for row in rows {
            let state = codec::decode_tenant(TenantId::trusted(&row.tenant), &row.body)
                .map_err(|why| damaged_row(format_args!("tenant {:?}", row.tenant), why))?;
            plans.push(listed_plan(&state.profile).as_str().to_owned());
        }
        let sql = "INSERT INTO tidegate.tenants (tenant, version, plan)
                   SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])";
        let columns: Params<'_> =
            &[(&tenants, Type::TEXT_ARRAY), (&seqs, Type::INT8_ARRAY), (&plans, Type::TEXT_ARRAY)];
        self.conn.rows(sql, columns).await?;
        Ok(())
    }

    pub(crate) async fn put_totals(&mut self, table: Totals, rows: &[TotalRow]) -> Done<()> {
        let name = totals_table(table);
        let sql = format!(
            "INSERT INTO {name} (tenant, user_id, start_ms, kind, meter, end_ms, used, denied)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[], $6::bigint[],
                 $7::bigint[], $8::bigint[])"
        );
        let texts = |of: fn(&TotalRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let numbers = |of: fn(&TotalRow) -> i64| rows.iter().map(of).collect::<Vec<_>>();
        let kinds: Vec<i16> = rows.iter().map(|row| row.kind).collect();
        let columns: Params<'_> = &[
            (&texts(|row| &row.tenant), Type::TEXT_ARRAY),
            (&texts(|row| &row.user), Type::TEXT_ARRAY),
            (&numbers(|row| row.start_ms), Type::INT8_ARRAY),
            (&kinds, Type::INT2_ARRAY),
            (&texts(|row| &row.meter), Type::TEXT_ARRAY),
            (&numbers(|row| row.end_ms), Type::INT8_ARRAY),
            (&numbers(|row| row.used), Type::INT8_ARRAY),
            (&numbers(|row| row.denied), Type::INT8_ARRAY),
        ];
        self.conn.rows(&sql, columns).await?;
        Ok(())
    }

    pub(crate) async fn put_denials(&mut self, rows: &[StoredDenial]) -> Done<()> {
        let mut runs = Runs::default();
        for row in rows {
            let fold = RunFold { tenant: row.tenant.clone(), run: row.run.clone(), first_seq: 0, seq: 0 };
            runs.insert(row.id, fold);
        }
        // They are in order of id, as columns are.
        let tenants: Vec<&str> = rows.iter().map(|row| row.tenant.as_str()).collect();
        let mut columns = DenialColumns::default();
        columns.take(1, &runs);
        let sql = "INSERT INTO tidegate.denials
                       (tenant, id, user_id, code, shadow, meter, count, amount, first_at_ms, last_at_ms, body)
                   SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::text[],
                       $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[])";
        let columns: Params<'_> = &[
            (&tenants, Type::TEXT_ARRAY),
            (&columns.ids, Type::UUID_ARRAY),
            (&columns.users, Type::TEXT_ARRAY),
            (&columns.codes, Type::TEXT_ARRAY),
            (&columns.shadows, Type::BOOL_ARRAY),
            (&columns.meters, Type::TEXT_ARRAY),
            (&columns.counts, Type::INT8_ARRAY),
            (&columns.amounts, Type::INT8_ARRAY),
            (&columns.first_at_ms, Type::INT8_ARRAY),
            (&columns.last_at_ms, Type::INT8_ARRAY),
            (&columns.bodies, Type::BYTEA_ARRAY),
        ];
        self.conn.rows(sql, columns).await?;
        Ok(())
    }

    pub(crate) async fn put_snapshots(&mut self, rows: &[Snapshot]) -> Done<()> {
        Ok(snapshots::put(&mut self.conn, rows).await?)
    }

    pub(crate) async fn put_history(&mut self, rows: &[HistoryRow]) -> Done<()> {
        let mut sums = Rows::new();
        for row in rows {
            let (resolution, place) = row.place().map_err(|why| damaged_row("history", why))?;
            sums.insert((resolution, place), row.amounts);
        }
        Ok(buckets::put(&mut self.conn, &sums).await?)
    }

    pub(crate) async fn put_small(&mut self, small: &Small) -> Done<()> {
        for catalog in &small.catalogs {
            let sql = "INSERT INTO tidegate.catalogs (version, text, applied_at_ms) VALUES ($1, $2, $3)";
            let version = i32::try_from(catalog.version).unwrap_or(i32::MAX);
            let at_ms = catalog.applied_at.ms();
            let text: &str = &catalog.text;
            self.conn.rows(sql, &[(&version, Type::INT4), (&text, Type::TEXT), (&at_ms, Type::INT8)]).await?;
        }
        let sql = "UPDATE tidegate.meta
                   SET catalog_version = (SELECT coalesce(max(version), 0) FROM tidegate.catalogs)";
        self.conn.run(sql).await?;
        for key in &small.keys {
            small::put_key(&mut self.conn, key).await?;
        }
        for run in &small.runs {
            snapshots::put_run(&mut self.conn, run).await?;
        }
        let counts = |score: &ForecastScore| score.counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let sums = small.scores.iter().map(|score| ((score.meter.as_str(), score.plan.as_str()), counts(score)));
        forecasts::add_scores(&mut self.conn, &sums.collect()).await?;
        forecasts::add_growth(&mut self.conn, &small.growth).await?;
        let through = match i64::try_from(small.history.entries).unwrap_or(i64::MAX) {
            0 => 0,
            entries => {
                let sql = "SELECT position FROM tidegate.entries ORDER BY position OFFSET $1 LIMIT 1";
                first::<i64>(&self.conn.rows(sql, &[(&(entries - 1), Type::INT8)]).await?)?.unwrap_or(0)
            }
        };
        let state = HistoryState { through: through as u64, at: small.history.at, kept: small.history.kept };
        Ok(buckets::set_state(&mut self.conn, &state).await?)
    }

    /// Brings tenants' rows to their last positions, and to the plans they are on as of those.
    pub(crate) async fn end_folds(&mut self) -> Done<()> {
        let sql = "INSERT INTO tidegate.tenants AS known (tenant, version)
                   SELECT tenant, max(seq) FROM (
                       SELECT tenant, max(seq) AS seq FROM tidegate.entries GROUP BY tenant
                       UNION ALL SELECT tenant, seq FROM tidegate.openings WHERE user_id = ''
                   ) last GROUP BY tenant
                   ON CONFLICT (tenant) DO UPDATE SET version = excluded.version WHERE known.version <> excluded.version";
        self.conn.run(sql).await?;
        self.plans_of_tails().await?;
        // What is not there was dropped by retention; nothing older is looked for.
        let sql = "UPDATE tidegate.kept SET
                       denials_from_ms = (SELECT coalesce(min(last_at_ms), 0) FROM tidegate.denials),
                       history_from_ms = (SELECT coalesce(min(end_ms), 0) FROM tidegate.closed)";
        self.conn.run(sql).await?;
        Ok(self.conn.run("ANALYZE").await?)
    }

    async fn set_plan(&mut self, tenant: &str, plan: &str) -> Done<()> {
        let sql = "UPDATE tidegate.tenants SET plan = $2 WHERE tenant = $1";
        self.conn.rows(sql, &[(&tenant, Type::TEXT), (&plan, Type::TEXT)]).await?;
        Ok(())
    }

    /// What is not folded yet may have changed a plan.
    async fn plans_of_tails(&mut self) -> Done<()> {
        let sql = "SELECT t.tenant, e.seq, e.at_ms, e.body FROM tidegate.tenants t
                   LEFT JOIN tidegate.folds f ON f.tenant = t.tenant
                   JOIN tidegate.entries e ON e.tenant = t.tenant AND e.seq > coalesce(f.seq, 0)
                   WHERE t.version > coalesce(f.seq, 0) ORDER BY t.tenant, e.seq";
        for row in self.conn.rows(sql, &[]).await? {
            let (tenant, seq, at_ms): (&str, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
            let entry = checked_entry(tenant, seq, at_ms, get(&row, 3)?)
                .and_then(|body| codec::decode_entry(Instant::from_ms(at_ms), body))
                .map_err(|why| damaged_row(format_args!("entry {seq} of tenant {tenant:?}"), why))?;
            for effect in &entry.effects {
                if let Effect::Profile(profile) = effect {
                    self.set_plan(tenant, listed_plan(profile).as_str()).await?;
                }
            }
        }
        Ok(())
    }
}
