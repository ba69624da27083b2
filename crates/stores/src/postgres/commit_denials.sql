, denial AS (
    INSERT INTO tidegate.denials AS known
        (tenant, id, user_id, code, shadow, meter, count, amount, first_at_ms, last_at_ms, body)
    SELECT w.tenant, d.id, d.user_id, d.code, d.shadow, d.meter, d.count, d.amount, d.first_at_ms, d.last_at_ms, d.body
    FROM unnest($17::bigint[], $18::uuid[], $19::text[], $20::text[], $21::boolean[], $22::text[], $23::bigint[],
        $24::bigint[], $25::bigint[], $26::bigint[], $27::bytea[])
        AS d(ord, id, user_id, code, shadow, meter, count, amount, first_at_ms, last_at_ms, body)
    JOIN written w ON w.ord = d.ord
    ON CONFLICT (tenant, id) DO UPDATE SET
        count = least(known.count::numeric + excluded.count, 9223372036854775807)::bigint,
        amount = least(known.amount::numeric + excluded.amount, 9223372036854775807)::bigint,
        first_at_ms = least(known.first_at_ms, excluded.first_at_ms),
        last_at_ms = greatest(known.last_at_ms, excluded.last_at_ms)
)
