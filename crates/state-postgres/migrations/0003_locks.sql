-- Locks: lease rows, the one function that changes them, and the rows that transactions queue at.
--
-- The function follows `LockRecord` of the contract crate step by step. As with values, it locks a row, then reads the
-- clock, then decides: a request that waited for the row is judged by the time at which it got it.

-- One who holds a lock.
CREATE TYPE {t}holder AS (
    owner         uuid,
    mode          smallint,     -- 1 exclusive, 2 shared, 3 permit
    permits       integer,
    token         bigint,
    expires_at_us bigint,
    since_us      bigint,
    meta          text
);

CREATE TABLE {t}locks (
    namespace       text COLLATE "C" NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    -- The newest token that was granted. The row outlives its holders, so that tokens go on rising.
    last_token      bigint NOT NULL,
    -- Who released last: refused if it asks again, see `LockRecord`.
    last_release    uuid,
    -- In order of their grants; may contain holders whose lease has ended. At most a thousand.
    holders         {t}holder[] NOT NULL,
    -- Until when somebody waits who wants to be told of a release.
    waited_until_us bigint NOT NULL,
    -- When the row may be swept: the end of the last lease plus the retention.
    expires_at_us   bigint NOT NULL,
    PRIMARY KEY (namespace, tenant, kind, id)
) WITH (
    -- A lock that is used once is a row that is inserted and updated once: half of each page stays free for the second
    -- version, which then is on the same page and touches no index (HOT). A lock that is used often changes twice per use;
    -- its dead versions are removed by whoever comes to the page next, without waiting for a vacuum.
    fillfactor = 50,
    -- As for entries: locks with unique names, such as one per action, are swept soon, and their space is wanted again.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

-- Applies operations on locks, which must be sorted by key. Returns a row for each, in their order.
--
-- ops      1 acquire, 2 extend, 3 release, 4 withdraw, 5 release by force
-- modes    of an acquisition: 1 exclusive, 2 shared, 3 permit; permits: how many may hold it at a time
-- waits_us of an acquisition: how long it waits to be told of a release; 0 if it does not
--
-- status   acquire: 1 granted (o_token), 0 busy, 2 refused because its own release came before it, -3 tokens have run out;
--          busy and refused: o_token is the newest among the holders, o_retry_us the time until the first of their leases ends
--          extend: 1 extended, 0 it is not the owner's any more
--          release, withdraw: 1 done (a repeated release too), 0 there was nothing to end
--          by force: 1, with the number of leases that ended in o_count
-- o_notify somebody who waits should be told
CREATE FUNCTION {t}lock(
    namespaces text[], tenants text[], kinds text[], ids text[],
    ops smallint[], owners uuid[], modes smallint[], permits integer[], leases_us bigint[], metas text[],
    waits_us bigint[], retention_us bigint
) RETURNS TABLE (status smallint, o_token bigint, o_retry_us bigint, o_count integer, o_notify boolean)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    token_limit CONSTANT bigint := 9007199254740992;   -- 2^53: every language can hold a smaller number exactly
    -- A mark is renewed when less than this is left of it. A waiter asks again at least every 1.25 s.
    mark_left_us CONSTANT bigint := 2000000;
    mark_min_us CONSTANT bigint := 5000000;
    mark_max_us CONSTANT bigint := 60000000;
    op record;
    e {t}locks;           -- the present lock, as the operations so far have made it
    holders {t}holder[];
    h {t}holder;
    is_loaded boolean := false;
    is_stored boolean;    -- there is a row, and it is locked
    is_changed boolean;   -- and it has to be written
    is_marked boolean;    -- or only the mark of a waiter
    is_durable boolean := false;
    is_relaxed boolean := false;
    at_us bigint;
    live integer;         -- holders whose lease lasts
    place integer;        -- of the owner among them; 0 if it holds nothing
    same_mode boolean;
    newest bigint;
    first_end_us bigint;
    last_end_us bigint;
BEGIN
    FOR op IN
        SELECT * FROM unnest(namespaces, tenants, kinds, ids, ops, owners, modes, permits, leases_us, metas, waits_us)
            AS u (namespace, tenant, kind, id, op, owner, mode, permits, lease_us, meta, wait_us)
    LOOP
        IF is_loaded AND (op.id <> e.id OR op.kind <> e.kind OR op.tenant <> e.tenant OR op.namespace <> e.namespace) THEN
            -- On to the next lock: what was made of this one is written once, however many operations it had.
            IF is_changed OR is_marked THEN
                UPDATE {t}locks t
                   SET last_token = e.last_token, last_release = e.last_release, holders = e.holders,
                       waited_until_us = e.waited_until_us, expires_at_us = e.expires_at_us
                 WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
            END IF;
            is_loaded := false;
        END IF;

        LOOP
            IF NOT is_loaded THEN
                SELECT * INTO e FROM {t}locks t
                 WHERE t.namespace = op.namespace AND t.tenant = op.tenant AND t.kind = op.kind AND t.id = op.id
                   FOR UPDATE;
                is_stored := FOUND;
                is_changed := false;
                is_marked := false;
                is_loaded := true;
                IF NOT is_stored THEN
                    e.namespace := op.namespace; e.tenant := op.tenant; e.kind := op.kind; e.id := op.id;
                    e.last_token := 0; e.last_release := NULL; e.holders := '{}'; e.waited_until_us := 0;
                END IF;
            END IF;
            -- After the row was granted, however long that took.
            at_us := {t}now_us();
            live := 0; place := 0; same_mode := true; newest := NULL; first_end_us := NULL; last_end_us := at_us;
            holders := e.holders;
            FOREACH h IN ARRAY holders LOOP
                IF h.expires_at_us > at_us THEN
                    live := live + 1;
                    IF h.owner = op.owner THEN
                        place := live;
                    END IF;
                    same_mode := same_mode AND h.mode = op.mode;
                    newest := greatest(newest, h.token);
                    first_end_us := least(first_end_us, h.expires_at_us);
                    last_end_us := greatest(last_end_us, h.expires_at_us);
                END IF;
            END LOOP;
            IF live = 0 THEN
                holders := '{}';
            ELSIF live < cardinality(holders) THEN
                holders := ARRAY(SELECT ROW(u.owner, u.mode, u.permits, u.token, u.expires_at_us, u.since_us, u.meta)::{t}holder
                                   FROM unnest(holders) WITH ORDINALITY
                                     AS u (owner, mode, permits, token, expires_at_us, since_us, meta, n)
                                  WHERE u.expires_at_us > at_us ORDER BY u.n);
            END IF;
            status := 0; o_token := NULL; o_retry_us := NULL; o_count := NULL; o_notify := false;

            IF op.op = 1 AND place = 0 THEN
                IF e.last_release = op.owner THEN
                    status := 2;
                ELSIF live >= op.permits OR op.mode = 1 AND live > 0 OR NOT same_mode THEN
                    status := 0;
                    -- Tells whoever releases that somebody waits. Written seldom, however often waiters ask.
                    IF op.wait_us > 0 AND e.waited_until_us < at_us + least(op.wait_us, mark_left_us) THEN
                        e.waited_until_us := at_us + least(greatest(op.wait_us, mark_min_us), mark_max_us);
                        is_marked := true;
                        is_relaxed := true;
                    END IF;
                ELSE
                    o_token := greatest(e.last_token + 1, at_us);
                    status := CASE WHEN o_token < token_limit THEN 1 ELSE -3 END;
                END IF;
                IF status = 1 THEN
                    e.last_token := o_token;
                    h := ROW(op.owner, op.mode, op.permits, o_token, at_us + op.lease_us, at_us, op.meta);
                    e.holders := holders || h;
                    e.expires_at_us := greatest(last_end_us, at_us + op.lease_us) + retention_us;
                    IF is_stored THEN
                        is_changed := true;
                    ELSE
                        INSERT INTO {t}locks
                               (namespace, tenant, kind, id, last_token, last_release, holders, waited_until_us, expires_at_us)
                        VALUES (e.namespace, e.tenant, e.kind, e.id, e.last_token, NULL, e.holders, 0, e.expires_at_us)
                            ON CONFLICT DO NOTHING;
                        is_loaded := FOUND;
                        -- Somebody was faster. Look again.
                        CONTINUE WHEN NOT is_loaded;
                        is_stored := true;
                    END IF;
                    is_durable := true;
                ELSIF status >= 0 THEN
                    o_token := newest;
                    o_retry_us := coalesce(first_end_us, at_us) - at_us;
                END IF;
            ELSIF op.op IN (1, 2) AND place > 0 THEN
                -- An extension, or a repeated acquisition: it keeps its token, and its lease begins anew.
                h := holders[place];
                h.expires_at_us := at_us + op.lease_us;
                holders[place] := h;
                e.holders := holders;
                -- Perhaps later than needed, if it was the last lease that became shorter.
                e.expires_at_us := greatest(last_end_us, h.expires_at_us) + retention_us;
                is_changed := true;
                is_durable := true;
                status := 1;
                o_token := h.token;
            ELSIF op.op = 3 AND e.last_release = op.owner THEN
                status := 1;
            ELSIF op.op IN (3, 4) AND place > 0 OR op.op = 5 AND live > 0 THEN
                IF op.op = 5 OR live = 1 THEN
                    e.holders := '{}';
                ELSE
                    e.holders := holders[:place - 1] || holders[place + 1:];
                END IF;
                IF op.op = 3 THEN
                    e.last_release := op.owner;
                END IF;
                e.expires_at_us := CASE WHEN e.holders = '{}' THEN at_us ELSE last_end_us END + retention_us;
                is_changed := true;
                is_durable := true;
                status := 1;
                o_count := live;
                o_notify := e.waited_until_us > at_us;
            ELSIF op.op = 5 THEN
                status := 1;
                o_count := 0;
            END IF;
            EXIT;
        END LOOP;
        RETURN NEXT;
    END LOOP;

    IF is_loaded AND (is_changed OR is_marked) THEN
        UPDATE {t}locks t
           SET last_token = e.last_token, last_release = e.last_release, holders = e.holders,
               waited_until_us = e.waited_until_us, expires_at_us = e.expires_at_us
         WHERE t.namespace = e.namespace AND t.tenant = e.tenant AND t.kind = e.kind AND t.id = e.id;
    END IF;
    -- Counts at the commit. A grant that the disk forgot would be granted again with the same token; a mark that it forgot
    -- makes a waiter slower.
    IF is_durable OR is_relaxed THEN
        PERFORM {t}durability(NOT is_durable);
    END IF;
END
$$;

-- Where transactions queue that run the caller's own statements under a lock. What is locked is the row, until the end of
-- the transaction: nothing else is kept in it, and nothing is lost with it.
CREATE TABLE {t}tx_locks (
    namespace     text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    -- When the row may be swept. Whoever waits for it then makes a new one.
    expires_at_us bigint NOT NULL,
    PRIMARY KEY (namespace, tenant, kind, id)
) WITH (
    -- As for locks.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

-- Locks a name for the rest of the transaction. Fails with 55P03 (lock_not_available) after `wait_ms`, which must not be 0.
-- Afterwards, the timeouts are what the session has. Unlike the others it runs in sessions with the caller's own search path.
CREATE FUNCTION {t}tx_lock(
    v_namespace text, v_tenant text, v_kind text, v_id text, wait_ms integer, retention_us bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM {t}durability(false);
    PERFORM set_config('lock_timeout', wait_ms::text, true);
    INSERT INTO {t}tx_locks AS t (namespace, tenant, kind, id, expires_at_us)
    VALUES (v_namespace, v_tenant, v_kind, v_id, {t}now_us() + retention_us)
        ON CONFLICT (namespace, tenant, kind, id) DO UPDATE SET expires_at_us = EXCLUDED.expires_at_us;
    SET LOCAL lock_timeout TO DEFAULT;
    SET LOCAL statement_timeout TO DEFAULT;
END
$$;
