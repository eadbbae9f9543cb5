-- Rate limits: a row for each limit, and for sliding windows a log of what was allowed.
--
-- A request that is refused writes nothing: it is decided by a look without a lock. That is exact, since what others do
-- meanwhile only adds to what is used. A storm of requests against an exhausted limit therefore costs no disk.

CREATE TABLE {t}rates (
    namespace     text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    algorithm     smallint NOT NULL, -- 1 fixed window, 2 sliding window, 3 GCRA
    -- Names the limit in the log. Never used again, so what is left in the log of a limit that was swept cannot be mistaken
    -- for its successor's.
    limiter       bigint GENERATED ALWAYS AS IDENTITY,
    -- Fixed: counted in this window. Sliding: counted ever.
    used          bigint NOT NULL,
    -- Sliding: the time of the newest in the log, and up to which the log was cleared.
    newest_us     bigint NOT NULL,
    cleared_us    bigint NOT NULL,
    -- Microseconds since 1970. Fixed: when the window ends. Sliding: when the newest leaves. GCRA: the theoretical arrival time.
    expires_at_us bigint NOT NULL,
    PRIMARY KEY (namespace, tenant, kind, id, algorithm)
) WITH (
    -- As of the entries: room for updates on the page, which touch no index, and a vacuum that keeps up with short lives.
    fillfactor = 75,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

-- What was allowed in sliding windows.
--
-- `through` counts what was allowed up to and including this row, since the limit began. The difference of two rows is what was
-- allowed between them: nothing is ever added up, and rows that have left the window can be removed at any time, by anybody.
CREATE TABLE {t}rate_log (
    limiter       bigint NOT NULL,
    -- Rises from row to row of one limit; where the clock does not, by a microsecond.
    at_us         bigint NOT NULL,
    through       bigint NOT NULL,
    expires_at_us bigint NOT NULL,
    operation     uuid NOT NULL,
    cost          integer NOT NULL,
    -- A repeated request is recognised by this.
    PRIMARY KEY (limiter, operation)
) WITH (
    -- Rows are written once.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

-- The condition always holds. It keeps the planner from using this index for what looks for an operation: while a table is empty
-- both indexes look alike to it, and a plan made then would walk the whole log later.
CREATE INDEX ON {t}rate_log (limiter, at_us) WHERE at_us > 0;

-- Decides requests, which must be sorted by key and algorithm. Returns a row for each, in their order. Each takes a few
-- look-ups by index, however high its limit is; many on one limit read and write its row once.
--
-- limits      the limit; of GCRA: the tolerance in microseconds
-- windows_us  the window; of GCRA: the emission interval
-- used        after the decision; of GCRA: how much of the tolerance, in microseconds
-- reset_us    until all is available again
-- retry_us    until a refused request would be allowed
CREATE FUNCTION {t}rate(
    relaxed boolean,
    namespaces text[], tenants text[], kinds text[], ids text[], algorithms smallint[],
    limits bigint[], windows_us bigint[], costs bigint[], operations uuid[]
) RETURNS TABLE (allowed boolean, used bigint, reset_us bigint, retry_us bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
DECLARE
    r record;
    h {t}rates;            -- the present limit, as the requests so far have made it
    is_loaded boolean := false;
    is_locked boolean;
    is_live boolean;
    is_repeated boolean;
    added bigint;          -- rows that the present limit's log has gained
    clock_us bigint;
    next_us bigint;
    -- Of the log: for which window it was looked at, the oldest that is inside, and how much had been allowed before that one.
    seen_window_us bigint;
    oldest_us bigint;
    oldest_through bigint;
    left_before bigint;
    same_us bigint;        -- when the same operation was allowed
    -- Of the search for the time of a retry.
    needed bigint;
    low_us bigint;
    high_us bigint;
    middle_us bigint;
    probe record;
BEGIN
    PERFORM {t}durability(relaxed);
    FOR r IN
        SELECT u.* FROM unnest(namespaces, tenants, kinds, ids, algorithms, limits, windows_us, costs, operations)
            AS u (namespace, tenant, kind, id, algorithm, most, window_us, cost, operation)
        -- After the last request, so that the last limit is written, too.
        UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    LOOP
        IF is_loaded AND (r.id, r.algorithm, r.kind, r.tenant, r.namespace)
            IS DISTINCT FROM (h.id, h.algorithm, h.kind, h.tenant, h.namespace)
        THEN
            IF added > 0 AND h.algorithm = 2 THEN
                -- Twice as many as were added, so the log stays as short as its window. What is left over is swept. It begins
                -- where the last clearing ended: the index still has the rows before that, until a vacuum comes by.
                WITH departed AS (
                    DELETE FROM {t}rate_log d
                     WHERE d.ctid = ANY (ARRAY (
                               SELECT l.ctid FROM {t}rate_log l
                                WHERE l.limiter = h.limiter AND l.at_us > 0 AND l.at_us > h.cleared_us
                                  AND l.at_us <= clock_us - seen_window_us
                                ORDER BY l.at_us LIMIT 2 * added + 10))
                    RETURNING d.at_us
                )
                SELECT coalesce(max(departed.at_us), h.cleared_us) INTO h.cleared_us FROM departed;
            END IF;
            IF added > 0 THEN
                UPDATE {t}rates t
                   SET used = h.used, newest_us = h.newest_us, cleared_us = h.cleared_us, expires_at_us = h.expires_at_us
                 WHERE t.namespace = h.namespace AND t.tenant = h.tenant AND t.kind = h.kind AND t.id = h.id
                   AND t.algorithm = h.algorithm;
            END IF;
            is_loaded := false;
        END IF;
        EXIT WHEN r.id IS NULL;

        LOOP
            IF NOT is_loaded THEN
                SELECT t.* INTO h FROM {t}rates t
                 WHERE t.namespace = r.namespace AND t.tenant = r.tenant AND t.kind = r.kind AND t.id = r.id
                   AND t.algorithm = r.algorithm;
                is_loaded := true;
                is_locked := false;
                added := 0;
                seen_window_us := NULL;
                -- After the look: what was used then is used now, unless its time has passed.
                clock_us := {t}now_us();
                IF h.id IS NULL THEN
                    h.namespace := r.namespace; h.tenant := r.tenant; h.kind := r.kind; h.id := r.id;
                    h.algorithm := r.algorithm; h.used := 0; h.expires_at_us := 0;
                END IF;
            END IF;

            is_live := h.expires_at_us > clock_us;
            is_repeated := false;
            IF r.algorithm = 1 THEN
                used := CASE WHEN is_live THEN h.used ELSE 0 END;
                next_us := CASE WHEN is_live THEN h.expires_at_us ELSE clock_us + r.window_us END;
                allowed := used + r.cost <= r.most;
                retry_us := next_us - clock_us;
            ELSIF r.algorithm = 3 THEN
                used := greatest(h.expires_at_us - clock_us, 0);
                next_us := clock_us + used + r.window_us * r.cost;
                retry_us := next_us - r.most - clock_us;
                allowed := retry_us <= 0;
            ELSE
                IF seen_window_us IS DISTINCT FROM r.window_us THEN
                    oldest_us := NULL;
                    IF is_live THEN
                        SELECT l.at_us, l.through, l.through - l.cost INTO oldest_us, oldest_through, left_before
                          FROM {t}rate_log l
                         WHERE l.limiter = h.limiter AND l.at_us > 0 AND l.at_us > clock_us - r.window_us
                         ORDER BY l.at_us LIMIT 1;
                    END IF;
                    IF oldest_us IS NULL THEN
                        left_before := h.used;
                    END IF;
                    seen_window_us := r.window_us;
                END IF;
                used := h.used - left_before;
                IF oldest_us IS NOT NULL THEN
                    -- By the operation alone, so that nothing but the primary key comes into question.
                    SELECT l.at_us INTO same_us FROM {t}rate_log l
                     WHERE l.limiter = h.limiter AND l.operation = r.operation;
                    is_repeated := coalesce(same_us >= oldest_us, false);
                END IF;
                allowed := is_repeated OR used + r.cost <= r.most;
                next_us := greatest(clock_us, h.newest_us + 1) + r.window_us;
                IF NOT allowed THEN
                    -- It fits once so much has left that its cost is free: look for the row that brings it, first the oldest.
                    needed := left_before + used + r.cost - r.most;
                    low_us := oldest_us;
                    high_us := CASE WHEN oldest_through >= needed THEN oldest_us ELSE h.newest_us END;
                    WHILE high_us - low_us > 1 LOOP
                        middle_us := low_us + (high_us - low_us) / 2;
                        SELECT l.at_us, l.through INTO probe FROM {t}rate_log l
                         WHERE l.limiter = h.limiter AND l.at_us > 0 AND l.at_us > low_us AND l.at_us <= middle_us
                         ORDER BY l.at_us DESC LIMIT 1;
                        IF probe.through >= needed THEN
                            high_us := probe.at_us;
                        ELSE
                            low_us := middle_us;
                        END IF;
                    END LOOP;
                    retry_us := high_us + r.window_us - clock_us;
                END IF;
            END IF;
            EXIT WHEN is_locked OR is_repeated OR NOT allowed;

            -- It will be written: lock the limit, and decide again by what it is then.
            SELECT t.* INTO h FROM {t}rates t
             WHERE t.namespace = r.namespace AND t.tenant = r.tenant AND t.kind = r.kind AND t.id = r.id
               AND t.algorithm = r.algorithm
               FOR UPDATE;
            WHILE NOT FOUND LOOP
                INSERT INTO {t}rates AS t (namespace, tenant, kind, id, algorithm, used, newest_us, cleared_us, expires_at_us)
                VALUES (r.namespace, r.tenant, r.kind, r.id, r.algorithm, 0, 0, 0, 0)
                    ON CONFLICT DO NOTHING
                RETURNING t.* INTO h;
                IF NOT FOUND THEN
                    SELECT t.* INTO h FROM {t}rates t
                     WHERE t.namespace = r.namespace AND t.tenant = r.tenant AND t.kind = r.kind AND t.id = r.id
                       AND t.algorithm = r.algorithm
                       FOR UPDATE;
                END IF;
            END LOOP;
            is_locked := true;
            seen_window_us := NULL;
            -- After the lock was granted, however long that took.
            clock_us := {t}now_us();
        END LOOP;

        IF allowed THEN
            retry_us := NULL;
        END IF;
        IF allowed AND NOT is_repeated THEN
            added := added + 1;
            h.expires_at_us := next_us;
            IF r.algorithm = 1 THEN
                used := used + r.cost;
                h.used := used;
            ELSIF r.algorithm = 2 THEN
                used := used + r.cost;
                h.used := h.used + r.cost;
                h.newest_us := next_us - r.window_us;
                IF oldest_us IS NULL THEN
                    oldest_us := h.newest_us;
                    oldest_through := h.used;
                END IF;
                INSERT INTO {t}rate_log AS l (limiter, operation, at_us, through, cost, expires_at_us)
                VALUES (h.limiter, r.operation, h.newest_us, h.used, r.cost, next_us)
                    -- The same operation, after it has left the window.
                    ON CONFLICT (limiter, operation) DO UPDATE
                   SET at_us = excluded.at_us, through = excluded.through, cost = excluded.cost,
                       expires_at_us = excluded.expires_at_us;
            ELSE
                used := next_us - clock_us;
            END IF;
        END IF;
        reset_us := greatest(h.expires_at_us - clock_us, 0);
        RETURN NEXT;
    END LOOP;
END
$$;
