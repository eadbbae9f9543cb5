-- Values and counters: the table, and the one function that changes it.
--
-- Every write is a call of `apply`: one statement, hence one round trip and one transaction, for one operation or for
-- hundreds. Under READ COMMITTED each statement inside of a volatile function sees what was committed before it began, so
-- the function can lock a row, look at it, and decide, whatever others did while it waited for the lock.
--
-- A released function keeps its arguments and its meaning for ever, since nodes of different versions work on one database
-- during an upgrade. What has to change gets a new name.

CREATE TABLE {t}entries (
    -- COLLATE "C": ids are listed in byte order by walking the primary key, and the index does not depend on the
    -- operating system's collation, whose updates corrupt indexes.
    namespace     text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    -- Of a value; null for a counter.
    value         bytea,
    version       uuid,
    -- The highest fencing token that the value was written with.
    fence         bigint,
    -- Of a counter; null for a value.
    counter       bigint,
    -- Microseconds since 1970 by this server's clock; null: never.
    expires_at_us bigint,
    PRIMARY KEY (namespace, tenant, kind, id),
    CHECK (CASE WHEN counter IS NULL THEN value IS NOT NULL AND version IS NOT NULL
                ELSE value IS NULL AND version IS NULL AND fence IS NULL END)
) WITH (
    -- Room on each page for new versions of its rows. No index covers what an update changes (in particular none covers
    -- expires_at_us), so updates stay on the page (HOT) and touch no index.
    fillfactor = 75,
    -- Entries are short-lived. The default, a fifth of the table, would let a large table grow by a fifth before the space
    -- of swept entries is used again; this is two per cent, looked at each minute (autovacuum_naptime).
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    -- Without pauses: a vacuum that falls behind costs more than one that reads a little faster.
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_cost_delay = 0
);

-- The server's time in microseconds since 1970. Never now(), which stands still while a transaction waits for a row.
CREATE FUNCTION {t}now_us() RETURNS bigint
LANGUAGE sql VOLATILE
AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- Sets for the rest of the transaction whether its commit waits for the disk. What must be durable is, even where the role
-- or the database has it off; a stricter setting (remote_apply) is kept.
CREATE FUNCTION {t}durability(relaxed boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- Applies operations on values and counters, which must be sorted by key. Returns a row for each, in their order.
--
-- ops         1 get, 2 put, 3 delete, 4 take, 5 touch, 6 increment, 7 check, 8 check and delete
-- conditions  0 always, 1 absent, 2 present, 3 version (expected), 4 fence (fences)
-- ttls        what happens to the time to live: 0 clear, 1 keep, 2 ends after ttls_us;
--             of an increment: 0 unlimited, 1 a new counter ends after ttls_us, 2 ends after ttls_us
-- hold        keeps keys that are absent locked until the end of the transaction, too
--
-- status      1 done, 0 the condition or the bound does not hold, 2 clamped, 3 there is no entry, 4 done by the same put before,
--             -1 wrong type, -3 overflow
-- The other columns are the entry: the current one where the status is 0, the counter after an increment.
CREATE FUNCTION {t}apply(
    relaxed boolean, hold boolean,
    namespaces text[], tenants text[], kinds text[], ids text[],
    ops smallint[], conditions smallint[], expected uuid[], fences bigint[],
    values_ bytea[], versions uuid[], ttls smallint[], ttls_us bigint[],
    deltas bigint[], mins bigint[], maxs bigint[], clamps boolean[]
) RETURNS TABLE (status smallint, o_value bytea, o_version uuid, o_fence bigint, o_counter bigint, o_ttl_us bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    op record;
    e {t}entries;         -- the entry of the present key, as the operations so far have made it
    is_loaded boolean := false;
    is_stored boolean;    -- there is a row, and it is locked
    is_live boolean;      -- and it is an entry that has not expired
    is_changed boolean;   -- and it has to be written
    has_value boolean;
    writes boolean;
    met boolean;
    at_us bigint;
    exact numeric;
    bound bigint;
BEGIN
    PERFORM {t}durability(relaxed);
    FOR op IN
        SELECT * FROM unnest(namespaces, tenants, kinds, ids, ops, conditions, expected, fences, values_, versions,
                             ttls, ttls_us, deltas, mins, maxs, clamps)
            AS u (namespace, tenant, kind, id, op, condition, expect, fence, value, version, ttl, ttl_us, delta, min, max, clamp)
    LOOP
        IF is_loaded AND (op.id <> e.id OR op.kind <> e.kind OR op.tenant <> e.tenant OR op.namespace <> e.namespace) THEN
            -- On to the next key: what was made of this one is written once, however many operations it had.
            IF is_changed AND is_live THEN
                UPDATE {t}entries t
                   SET value = e.value, version = e.version, fence = e.fence, counter = e.counter, expires_at_us = e.expires_at_us
                 WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
            ELSIF is_changed THEN
                DELETE FROM {t}entries t
                 WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
            END IF;
            is_loaded := false;
        END IF;

        LOOP
            WHILE NOT is_loaded LOOP
                SELECT * INTO e FROM {t}entries t
                 WHERE t.namespace = op.namespace AND t.tenant = op.tenant AND t.kind = op.kind AND t.id = op.id
                   FOR UPDATE;
                is_stored := FOUND;
                is_changed := false;
                is_loaded := true;
                IF NOT is_stored THEN
                    e.namespace := op.namespace; e.tenant := op.tenant; e.kind := op.kind; e.id := op.id;
                    e.expires_at_us := 0;
                    IF hold THEN
                        -- Nobody else can insert the key before we are done. Unless it becomes an entry, it goes again.
                        INSERT INTO {t}entries (namespace, tenant, kind, id, counter, expires_at_us)
                        VALUES (op.namespace, op.tenant, op.kind, op.id, 0, 0)
                            ON CONFLICT DO NOTHING;
                        is_loaded := FOUND;
                        is_stored := true;
                        is_changed := true;
                    END IF;
                END IF;
            END LOOP;
            -- After the lock was granted, however long that took.
            at_us := {t}now_us();
            is_live := is_stored AND (e.expires_at_us IS NULL OR e.expires_at_us > at_us);
            IF NOT is_live THEN
                e.value := NULL; e.version := NULL; e.fence := NULL; e.counter := NULL;
            END IF;
            has_value := is_live AND e.counter IS NULL;
            writes := false;
            o_value := NULL; o_version := NULL; o_fence := NULL; o_counter := NULL; o_ttl_us := NULL;

            -- What the condition says. Null where it cannot be asked of a counter.
            met := CASE op.condition
                WHEN 1 THEN NOT is_live
                WHEN 2 THEN is_live
                WHEN 3 THEN CASE WHEN is_live AND NOT has_value THEN NULL ELSE is_live AND e.version = op.expect END
                WHEN 4 THEN CASE WHEN is_live AND NOT has_value THEN NULL
                                 ELSE NOT is_live OR e.fence IS NULL OR e.fence <= op.fence END
                ELSE true
            END;

            IF op.op = 2 AND has_value AND e.version = op.version THEN
                status := 4;
            ELSIF op.op = 3 AND NOT is_live OR op.op IN (1, 4, 5) AND NOT is_live THEN
                status := 3;
            ELSIF met IS NULL THEN
                status := -1;
            ELSIF NOT met THEN
                status := 0;
                o_value := e.value; o_version := e.version; o_fence := e.fence; o_counter := e.counter;
            ELSIF op.op = 6 THEN
                IF has_value THEN
                    status := -1;
                ELSE
                    exact := coalesce(e.counter, 0)::numeric + op.delta;
                    bound := CASE
                        WHEN op.delta > 0 AND exact > op.max THEN greatest(op.max, coalesce(e.counter, 0))
                        WHEN op.delta < 0 AND exact < op.min THEN least(op.min, coalesce(e.counter, 0))
                    END;
                    status := CASE
                        WHEN bound IS NOT NULL AND op.clamp THEN 2
                        WHEN bound IS NOT NULL THEN 0
                        WHEN exact NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN -3
                        ELSE 1
                    END;
                    IF status > 0 THEN
                        writes := true;
                        IF op.ttl = 2 OR NOT is_live THEN
                            e.expires_at_us := CASE WHEN op.ttl > 0 THEN at_us + op.ttl_us END;
                        END IF;
                        e.counter := CASE WHEN status = 2 THEN bound ELSE exact END;
                    END IF;
                    IF status >= 0 THEN
                        o_counter := e.counter;
                        o_ttl_us := CASE WHEN is_live OR writes THEN e.expires_at_us - at_us END;
                    END IF;
                END IF;
            ELSE
                status := 1;
                IF op.op = 2 THEN
                    writes := true;
                    e.expires_at_us := CASE op.ttl WHEN 2 THEN at_us + op.ttl_us
                                                   WHEN 1 THEN CASE WHEN is_live THEN e.expires_at_us END END;
                    e.fence := CASE WHEN op.condition = 4 THEN op.fence ELSE e.fence END;
                    e.value := op.value; e.version := op.version; e.counter := NULL;
                ELSIF op.op IN (1, 4) THEN
                    o_value := e.value; o_version := e.version; o_fence := e.fence; o_counter := e.counter;
                    o_ttl_us := e.expires_at_us - at_us;
                ELSIF op.op = 5 AND op.ttl <> 1 THEN
                    writes := true;
                    e.expires_at_us := CASE WHEN op.ttl = 2 THEN at_us + op.ttl_us END;
                END IF;
                IF op.op IN (3, 4, 8) AND is_live THEN
                    is_changed := true;
                    is_live := false;
                    e.expires_at_us := 0;
                END IF;
            END IF;

            IF writes AND NOT is_stored THEN
                INSERT INTO {t}entries (namespace, tenant, kind, id, value, version, fence, counter, expires_at_us)
                VALUES (e.namespace, e.tenant, e.kind, e.id, e.value, e.version, e.fence, e.counter, e.expires_at_us)
                    ON CONFLICT DO NOTHING;
                IF NOT FOUND THEN
                    -- Somebody was faster. Look again.
                    is_loaded := false;
                    CONTINUE;
                END IF;
                is_stored := true;
                is_live := true;
            ELSIF writes THEN
                is_changed := true;
                is_live := true;
            END IF;
            EXIT;
        END LOOP;
        RETURN NEXT;
    END LOOP;

    IF is_loaded AND is_changed AND is_live THEN
        UPDATE {t}entries t
           SET value = e.value, version = e.version, fence = e.fence, counter = e.counter, expires_at_us = e.expires_at_us
         WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
    ELSIF is_loaded AND is_changed THEN
        DELETE FROM {t}entries t
         WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
    END IF;
END
$$;

-- Applies all operations, or none. They must be sorted by key, each key once; `positions` says where each stood in the request.
--
-- status  1 applied, 4 applied by the same request before; otherwise as of `apply`, with the position of the first operation
--         that does not hold and the entry of its key
CREATE FUNCTION {t}transact(
    relaxed boolean, positions integer[],
    namespaces text[], tenants text[], kinds text[], ids text[],
    ops smallint[], conditions smallint[], expected uuid[], fences bigint[],
    values_ bytea[], versions uuid[], ttls smallint[], ttls_us bigint[],
    deltas bigint[], mins bigint[], maxs bigint[], clamps boolean[]
) RETURNS TABLE (status smallint, o_position integer, o_value bytea, o_version uuid, o_fence bigint, o_counter bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    r record;
BEGIN
    status := 1;
    -- Leaving the inner block by an error undoes all that was done in it, and keeps the variables.
    BEGIN
        FOR r IN
            SELECT a.*, positions[a.ordinality] AS at
              FROM {t}apply(relaxed, true, namespaces, tenants, kinds, ids, ops, conditions, expected, fences, values_,
                            versions, ttls, ttls_us, deltas, mins, maxs, clamps)
                   WITH ORDINALITY AS a (status, value, version, fence, counter, ttl_us, ordinality)
        LOOP
            IF r.status = 4 THEN
                status := 4; o_position := r.at;
                o_value := NULL; o_version := NULL; o_fence := NULL; o_counter := NULL;
                EXIT;
            ELSIF r.status <= 0 AND (status = 1 OR r.at < o_position) THEN
                status := r.status; o_position := r.at;
                o_value := r.value; o_version := r.version; o_fence := r.fence; o_counter := r.counter;
            END IF;
        END LOOP;
        IF status <> 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'AC001', MESSAGE = 'the transaction is taken back';
        END IF;
    EXCEPTION WHEN SQLSTATE 'AC001' THEN
        NULL;
    END;
    RETURN NEXT;
END
$$;
