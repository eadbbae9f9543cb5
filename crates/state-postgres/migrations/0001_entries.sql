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
    -- No CHECK that a row is either a value or a counter: its expression would be parsed anew for every statement that
    -- writes, a tenth of the whole work. `apply` writes nothing else, and whoever reads a row makes sure of it.
    PRIMARY KEY (namespace, tenant, kind, id)
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
    -- The entry of the present key, as the operations so far have made it.
    e_namespace text; e_tenant text; e_kind text; e_id text;
    e_value bytea; e_version uuid; e_fence bigint; e_counter bigint; e_expires_us bigint;
    place tid;            -- of its row, which cannot move while we have it locked
    is_loaded boolean := false;
    is_stored boolean;    -- there is a row, and it is locked
    is_live boolean;      -- and it is an entry that has not expired
    is_changed boolean;   -- and it has to be written
    is_kept boolean;      -- but its value is the one in the row
    has_value boolean;
    writes boolean;
    met boolean;
    at_us bigint;
    exact numeric;
    bound bigint;
    -- Rows that have to be written: they are locked one by one, and written together at the end, by one statement.
    places tid[] := '{}'; new_kept boolean[] := '{}'; new_values bytea[] := '{}'; new_versions uuid[] := '{}';
    new_fences bigint[] := '{}'; new_counters bigint[] := '{}'; new_expires_us bigint[] := '{}';
    places_left tid[] := '{}';
    written bigint;
BEGIN
    PERFORM {t}durability(relaxed);
    -- After the last operation comes one row without a key, which finishes the last key.
    FOR op IN
        SELECT * FROM unnest(namespaces, tenants, kinds, ids || NULL::text, ops, conditions, expected, fences, values_, versions,
                             ttls, ttls_us, deltas, mins, maxs, clamps)
            AS u (namespace, tenant, kind, id, op, condition, expect, fence, value, version, ttl, ttl_us, delta, min, max, clamp)
    LOOP
        IF is_loaded AND (op.id IS NULL OR op.id <> e_id OR op.kind <> e_kind OR op.tenant <> e_tenant
                          OR op.namespace <> e_namespace) THEN
            -- On to the next key: what was made of this one is written once, however many operations it had.
            IF is_changed AND is_live THEN
                places := array_append(places, place);
                new_kept := array_append(new_kept, is_kept);
                new_values := array_append(new_values, CASE WHEN NOT is_kept THEN e_value END);
                new_versions := array_append(new_versions, e_version);
                new_fences := array_append(new_fences, e_fence);
                new_counters := array_append(new_counters, e_counter);
                new_expires_us := array_append(new_expires_us, e_expires_us);
            ELSIF is_changed THEN
                places_left := array_append(places_left, place);
            END IF;
            is_loaded := false;
        END IF;
        EXIT WHEN op.id IS NULL;

        LOOP
            IF NOT is_loaded AND op.op = 2 AND op.condition = 1 AND NOT hold THEN
                -- It is seldom there: the first attempt goes without a look.
                INSERT INTO {t}entries AS t (namespace, tenant, kind, id, value, version, expires_at_us)
                VALUES (op.namespace, op.tenant, op.kind, op.id, op.value, op.version,
                        CASE WHEN op.ttl = 2 THEN {t}now_us() + op.ttl_us END)
                    ON CONFLICT DO NOTHING
                RETURNING t.ctid, t.expires_at_us INTO place, e_expires_us;
                IF FOUND THEN
                    e_namespace := op.namespace; e_tenant := op.tenant; e_kind := op.kind; e_id := op.id;
                    e_value := op.value; e_version := op.version; e_fence := NULL; e_counter := NULL;
                    is_loaded := true; is_stored := true; is_live := true; is_changed := false; is_kept := true;
                    status := 1; o_value := NULL; o_version := NULL; o_fence := NULL; o_counter := NULL; o_ttl_us := NULL;
                    EXIT;
                END IF;
            END IF;
            WHILE NOT is_loaded LOOP
                SELECT t.ctid, t.value, t.version, t.fence, t.counter, t.expires_at_us
                  INTO place, e_value, e_version, e_fence, e_counter, e_expires_us
                  FROM {t}entries t
                 WHERE t.namespace = op.namespace AND t.tenant = op.tenant AND t.kind = op.kind AND t.id = op.id
                   FOR UPDATE;
                is_stored := FOUND;
                is_changed := false;
                is_kept := true;
                is_loaded := true;
                e_namespace := op.namespace; e_tenant := op.tenant; e_kind := op.kind; e_id := op.id;
                IF NOT is_stored THEN
                    e_expires_us := 0;
                    IF hold THEN
                        -- Nobody else can insert the key before we are done. Unless it becomes an entry, it goes again.
                        INSERT INTO {t}entries AS t (namespace, tenant, kind, id, counter, expires_at_us)
                        VALUES (op.namespace, op.tenant, op.kind, op.id, 0, 0)
                            ON CONFLICT DO NOTHING
                        RETURNING t.ctid INTO place;
                        is_loaded := FOUND;
                        is_stored := true;
                        is_changed := true;
                    END IF;
                END IF;
            END LOOP;
            -- After the lock was granted, however long that took.
            at_us := {t}now_us();
            is_live := is_stored AND (e_expires_us IS NULL OR e_expires_us > at_us);
            IF NOT is_live THEN
                e_value := NULL; e_version := NULL; e_fence := NULL; e_counter := NULL;
                is_kept := false;
            END IF;
            has_value := is_live AND e_counter IS NULL;
            writes := false;
            o_value := NULL; o_version := NULL; o_fence := NULL; o_counter := NULL; o_ttl_us := NULL;

            -- What the condition says. Null where it cannot be asked of a counter.
            met := CASE op.condition
                WHEN 1 THEN NOT is_live
                WHEN 2 THEN is_live
                WHEN 3 THEN CASE WHEN is_live AND NOT has_value THEN NULL ELSE is_live AND e_version = op.expect END
                WHEN 4 THEN CASE WHEN is_live AND NOT has_value THEN NULL
                                 ELSE NOT is_live OR e_fence IS NULL OR e_fence <= op.fence END
                ELSE true
            END;

            IF op.op = 2 AND has_value AND e_version = op.version THEN
                status := 4;
            ELSIF op.op = 3 AND NOT is_live OR op.op IN (1, 4, 5) AND NOT is_live THEN
                status := 3;
            ELSIF met IS NULL THEN
                status := -1;
            ELSIF NOT met THEN
                status := 0;
                o_value := e_value; o_version := e_version; o_fence := e_fence; o_counter := e_counter;
            ELSIF op.op = 6 THEN
                IF has_value THEN
                    status := -1;
                ELSE
                    exact := coalesce(e_counter, 0)::numeric + op.delta;
                    bound := CASE
                        WHEN op.delta > 0 AND exact > op.max THEN greatest(op.max, coalesce(e_counter, 0))
                        WHEN op.delta < 0 AND exact < op.min THEN least(op.min, coalesce(e_counter, 0))
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
                            e_expires_us := CASE WHEN op.ttl > 0 THEN at_us + op.ttl_us END;
                        END IF;
                        e_counter := CASE WHEN status = 2 THEN bound ELSE exact END;
                    END IF;
                    IF status >= 0 THEN
                        o_counter := e_counter;
                        o_ttl_us := CASE WHEN is_live OR writes THEN e_expires_us - at_us END;
                    END IF;
                END IF;
            ELSE
                status := 1;
                IF op.op = 2 THEN
                    writes := true;
                    e_expires_us := CASE op.ttl WHEN 2 THEN at_us + op.ttl_us
                                                   WHEN 1 THEN CASE WHEN is_live THEN e_expires_us END END;
                    e_fence := CASE WHEN op.condition = 4 THEN op.fence ELSE e_fence END;
                    e_value := op.value; e_version := op.version; e_counter := NULL;
                    is_kept := false;
                ELSIF op.op IN (1, 4) THEN
                    o_value := e_value; o_version := e_version; o_fence := e_fence; o_counter := e_counter;
                    o_ttl_us := e_expires_us - at_us;
                ELSIF op.op = 5 AND op.ttl <> 1 THEN
                    writes := true;
                    e_expires_us := CASE WHEN op.ttl = 2 THEN at_us + op.ttl_us END;
                END IF;
                IF op.op IN (3, 4, 8) AND is_live THEN
                    is_changed := true;
                    is_live := false;
                    e_expires_us := 0;
                END IF;
            END IF;

            IF writes AND NOT is_stored THEN
                INSERT INTO {t}entries AS t (namespace, tenant, kind, id, value, version, fence, counter, expires_at_us)
                VALUES (op.namespace, op.tenant, op.kind, op.id, e_value, e_version, e_fence, e_counter, e_expires_us)
                    ON CONFLICT DO NOTHING
                RETURNING t.ctid INTO place;
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

    -- A value that is kept is taken from its row: one that is stored apart (TOAST) then stays where it is.
    written := 0;
    IF cardinality(places) = 1 THEN
        UPDATE {t}entries t
           SET value = CASE WHEN new_kept[1] THEN t.value ELSE new_values[1] END,
               version = new_versions[1], fence = new_fences[1], counter = new_counters[1], expires_at_us = new_expires_us[1]
         WHERE t.ctid = places[1];
        GET DIAGNOSTICS written = ROW_COUNT;
    ELSIF cardinality(places) > 1 THEN
        UPDATE {t}entries t
           SET value = CASE WHEN u.is_kept THEN t.value ELSE u.value END,
               version = u.version, fence = u.fence, counter = u.counter, expires_at_us = u.expires_us
          FROM unnest(places, new_kept, new_values, new_versions, new_fences, new_counters, new_expires_us)
            AS u (place, is_kept, value, version, fence, counter, expires_us)
         WHERE t.ctid = u.place;
        GET DIAGNOSTICS written = ROW_COUNT;
    END IF;
    IF written = cardinality(places) AND cardinality(places_left) > 0 THEN
        DELETE FROM {t}entries t WHERE t.ctid = ANY (places_left);
        GET DIAGNOSTICS written = ROW_COUNT;
        written := written + cardinality(places);
    END IF;
    IF written <> cardinality(places) + cardinality(places_left) THEN
        RAISE EXCEPTION 'rows that are locked were not found';
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
