-- One batch of what was charged under leases. Each part is a tenant's entries under one lease; it is written whole or not
-- at all. The tenant's row is waited for, in order of tenant; its newest version says whether the lease lasts and what
-- was written under it last, and gives the entries their places.
WITH in_force AS MATERIALIZED (
    SELECT catalog_version FROM tidegate.meta
    -- Behind a pooler no session could bring the limit along.
    WHERE one AND CASE WHEN set_config('lock_timeout', '2s', true) = '2s' THEN
        pg_advisory_xact_lock_shared(1413958724, 'tidegate.meta'::regclass::oid::integer) IS NOT NULL END
    FOR SHARE
), part AS MATERIALIZED (
    SELECT p.ord, p.tenant, p.epoch, p.follows, p.entries, p.token
    FROM in_force, unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::bigint[])
        WITH ORDINALITY AS p(tenant, epoch, follows, entries, catalog, token, ord)
    WHERE p.catalog >= in_force.catalog_version
), locked AS MATERIALIZED (
    SELECT p.ord, t.place
    FROM part p CROSS JOIN LATERAL (
        SELECT array_position(t.lease_epochs, p.epoch) AS place FROM tidegate.tenants t
        WHERE t.tenant = p.tenant AND t.lease_entries[array_position(t.lease_epochs, p.epoch)] = p.follows
        FOR NO KEY UPDATE
    ) t
), bound AS MATERIALIZED (
    SELECT i.ord, i.id, d.seq
    FROM unnest($7::bigint[], $8::uuid[]) AS i(ord, id) JOIN part p ON p.ord = i.ord
    CROSS JOIN LATERAL (SELECT d.seq FROM tidegate.ids d WHERE d.tenant = p.tenant AND d.id = i.id LIMIT 1) d
), clear AS MATERIALIZED (
    SELECT p.ord, p.tenant, p.follows, p.entries, p.token, l.place FROM part p JOIN locked l ON l.ord = p.ord
    WHERE p.ord NOT IN (SELECT ord FROM bound)
), written AS (
    UPDATE tidegate.tenants t
    SET version = t.version + c.entries, lease_entries[c.place] = c.follows + c.entries
    -- The array has the rows looked up by their key, whatever else the planner makes of the join.
    FROM clear c WHERE t.tenant = c.tenant AND t.tenant = ANY(ARRAY(SELECT tenant FROM clear))
    RETURNING c.ord, t.tenant, t.version - c.entries AS before, c.token
), entry AS (
    INSERT INTO tidegate.entries (tenant, seq, token, at_ms, body)
    SELECT w.tenant, w.before + e.number, w.token, e.at_ms, e.body
    FROM unnest($9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
        WITH ORDINALITY AS e(ord, number, at_ms, body, place) JOIN written w ON w.ord = e.ord
    ORDER BY e.place
), id AS (
    INSERT INTO tidegate.ids (tenant, id, seq, arrived_hour)
    SELECT w.tenant, i.id, w.before + i.number, i.arrived_hour
    FROM unnest($7::bigint[], $8::uuid[], $13::bigint[], $14::integer[]) AS i(ord, id, number, arrived_hour)
    JOIN written w ON w.ord = i.ord
)
SELECT (SELECT catalog_version FROM in_force),
    (SELECT array_agg(ord ORDER BY ord) FROM written), (SELECT array_agg(before ORDER BY ord) FROM written),
    (SELECT array_agg(ord) FROM bound), (SELECT array_agg(id) FROM bound), (SELECT array_agg(seq) FROM bound)
