-- One batch. Each part is a tenant's entries; it is written whole or not at all, whatever becomes of the others.
WITH in_force AS MATERIALIZED (
    SELECT catalog_version FROM tidegate.meta
    -- Behind a pooler no session could bring the limit along.
    WHERE one AND CASE WHEN set_config('lock_timeout', '2s', true) = '2s' THEN
        pg_advisory_xact_lock_shared(1413958724, 'tidegate.meta'::regclass::oid::integer) IS NOT NULL END
    FOR SHARE
), part AS MATERIALIZED (
    SELECT p.ord, p.tenant, p.follows, p.last, p.plan, p.token, p.lease_epochs, p.lease_entries
    FROM in_force, unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::text[], $8::bigint[], $15::text[],
        $16::text[])
        WITH ORDINALITY AS p(tenant, follows, last, catalog, plan, token, lease_epochs, lease_entries, ord)
    WHERE p.catalog >= in_force.catalog_version
), locked AS MATERIALIZED (
    SELECT p.ord, p.last, p.plan, p.token, p.lease_epochs, p.lease_entries, t.place
    FROM part p CROSS JOIN LATERAL (
        SELECT t.ctid AS place FROM tidegate.tenants t WHERE t.tenant = p.tenant AND t.version = p.follows
        FOR NO KEY UPDATE /*wait*/
    ) t
), bound AS MATERIALIZED (
    SELECT i.ord, i.id, d.seq
    FROM unnest($6::bigint[], $7::uuid[]) AS i(ord, id) JOIN part p ON p.ord = i.ord
    CROSS JOIN LATERAL (SELECT d.seq FROM tidegate.ids d WHERE d.tenant = p.tenant AND d.id = i.id LIMIT 1) d
), moved AS (
    UPDATE tidegate.tenants t SET version = l.last, plan = coalesce(l.plan, t.plan),
        lease_epochs = coalesce(l.lease_epochs::bigint[], t.lease_epochs),
        lease_entries = coalesce(l.lease_entries::bigint[], t.lease_entries)
    FROM locked l
    WHERE t.ctid = l.place AND l.ord NOT IN (SELECT ord FROM bound)
    RETURNING l.ord, t.tenant, l.token
), born AS (
    INSERT INTO tidegate.tenants (tenant, version, plan, lease_epochs, lease_entries)
    SELECT tenant, last, plan, coalesce(lease_epochs, '{}')::bigint[], coalesce(lease_entries, '{}')::bigint[] FROM part
    WHERE follows = 0 AND ord NOT IN (SELECT ord FROM bound) AND (SELECT count(*) FROM locked) >= 0
    ORDER BY tenant
    ON CONFLICT (tenant) DO NOTHING
    RETURNING tenant
), written AS MATERIALIZED (
    SELECT ord, tenant, token FROM moved
    UNION ALL SELECT p.ord, p.tenant, p.token FROM born JOIN part p ON p.tenant = born.tenant
), entry AS (
    INSERT INTO tidegate.entries (tenant, seq, token, at_ms, body)
    SELECT w.tenant, e.seq, w.token, e.at_ms, e.body
    FROM unnest($9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
        WITH ORDINALITY AS e(ord, seq, at_ms, body, place) JOIN written w ON w.ord = e.ord
    ORDER BY e.place
), id AS (
    INSERT INTO tidegate.ids (tenant, id, seq, arrived_hour)
    SELECT w.tenant, i.id, i.seq, i.arrived_hour
    FROM unnest($6::bigint[], $7::uuid[], $13::bigint[], $14::integer[]) AS i(ord, id, seq, arrived_hour)
    JOIN written w ON w.ord = i.ord
) /*denials*/
SELECT (SELECT catalog_version FROM in_force),
    (SELECT array_agg(ord) FROM written),
    (SELECT array_agg(ord) FROM bound), (SELECT array_agg(id) FROM bound), (SELECT array_agg(seq) FROM bound)
