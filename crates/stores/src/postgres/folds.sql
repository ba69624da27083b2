-- A slice of a checkpoint. Each fold is written whole, with its users and what their closed windows gained, or not at
-- all: only if it goes on from the fold that is stored, and what it is a fold of is committed.
WITH fold AS MATERIALIZED (
    SELECT f.ord, f.tenant, f.base, f.seq, f.state
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[])
        WITH ORDINALITY AS f(tenant, base, seq, state, ord)
    CROSS JOIN LATERAL (
        SELECT FROM tidegate.tenants t WHERE t.tenant = f.tenant AND t.version >= f.seq LIMIT 1
    ) t
), locked AS MATERIALIZED (
    SELECT f.ord, f.seq, f.state, k.place
    FROM fold f CROSS JOIN LATERAL (
        SELECT k.ctid AS place FROM tidegate.folds k WHERE k.tenant = f.tenant AND k.seq = f.base FOR NO KEY UPDATE
    ) k
    WHERE f.base > 0
), moved AS (
    UPDATE tidegate.folds k SET seq = l.seq, state = l.state FROM locked l
    WHERE k.ctid = l.place
    RETURNING l.ord, k.tenant
), born AS (
    INSERT INTO tidegate.folds (tenant, seq, state)
    SELECT tenant, seq, state FROM fold WHERE base = 0 AND (SELECT count(*) FROM locked) >= 0 ORDER BY tenant
    ON CONFLICT (tenant) DO NOTHING
    RETURNING tenant
), written AS MATERIALIZED (
    SELECT ord, tenant FROM moved
    UNION ALL SELECT f.ord, f.tenant FROM born JOIN fold f ON f.tenant = born.tenant
), users AS (
    INSERT INTO tidegate.user_folds AS known (tenant, user_id, seq, state)
    SELECT w.tenant, u.user_id, u.seq, u.state
    FROM unnest($5::bigint[], $6::text[], $7::bigint[], $8::bytea[]) AS u(ord, user_id, seq, state)
    JOIN written w ON w.ord = u.ord
    ON CONFLICT (tenant, user_id) DO UPDATE SET seq = excluded.seq, state = excluded.state
    WHERE known.seq < excluded.seq
), closed AS (
    INSERT INTO tidegate.closed AS known (tenant, user_id, start_ms, kind, meter, end_ms, used, denied)
    SELECT w.tenant, c.user_id, c.start_ms, c.kind, c.meter, c.end_ms, c.used, c.denied
    FROM unnest($9::bigint[], $10::text[], $11::bigint[], $12::smallint[], $13::text[], $14::bigint[], $15::bigint[],
        $16::bigint[]) AS c(ord, user_id, start_ms, kind, meter, end_ms, used, denied)
    JOIN written w ON w.ord = c.ord
    ON CONFLICT (tenant, user_id, start_ms, kind, meter) DO UPDATE SET
        end_ms = excluded.end_ms,
        used = greatest(least(known.used::numeric + excluded.used, 9223372036854775807), -9223372036854775808)::bigint,
        denied = least(known.denied::numeric + excluded.denied, 9223372036854775807)::bigint
)
SELECT ord FROM written
