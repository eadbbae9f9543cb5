-- The due index: items of queues, each with the time at which it is handed out next.
--
-- An item is claimed and acknowledged once, as a rule, and both should cost as little as two changes of a row can. So a claim
-- changes nothing that is in an index: the new version of the row stays on its page (HOT), and the item stays at its place in
-- the order of the queue. Those who look for due items pass over the ones that somebody works on. An item gets another place when
-- that is needed: when its claim has run out, and it is in order again by that time; or when so many items are being worked on that
-- passing over them takes long.

CREATE TABLE {t}due (
    namespace     text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    queue         text COLLATE "C" NOT NULL, -- the id of the queue's key
    item          text COLLATE "C" NOT NULL,
    -- Milliseconds since 1970: when it was scheduled for, and when it is handed out next.
    due_at_ms     bigint NOT NULL,
    visible_at_ms bigint NOT NULL CHECK (visible_at_ms >= place_ms),
    -- Where it stands in the order of its queue: when it is handed out next, or earlier than that.
    place_ms      bigint NOT NULL CHECK (place_ms >= 0),
    -- How often it was handed out, and the token of the last claim; null before the first.
    attempt       bigint NOT NULL,
    claim         uuid,
    payload       bytea NOT NULL,
    PRIMARY KEY (namespace, tenant, kind, queue, item)
) WITH (
    -- A claim writes a second version of each row of a page at once, and needs room for it there.
    fillfactor = 50,
    -- What is acknowledged leaves dead entries at the front of the order, where the next claim begins, so vacuum comes early.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_cost_delay = 0
);

-- Claims walk this from the front of a queue, or from where the last one has ended. The condition always holds: it is the latest time
-- that there is. It keeps the planner from using this index for what looks for one item: while the table is empty both indexes look alike
-- to it, and a plan made then would walk the whole queue later.
CREATE INDEX ON {t}due (namespace, tenant, kind, queue, place_ms, item) WHERE place_ms <= 9007199254740991;

-- In milliseconds since 1970, rounded up: what lasts from then on never ends early.
CREATE FUNCTION {t}after_ms(clock_us bigint, after_ms bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$ SELECT least((clock_us + 999) / 1000 + after_ms, 9007199254740991) $$;

-- Applies operations on items, which must be sorted by queue and item. Returns a row for each, in their order.
--
-- ops       1 schedule at times_ms, 2 schedule after times_ms (0 is due now), 3 cancel, 4 acknowledge the claim,
--           5 extend the claim by times_ms
-- is_done   the item is new (1, 2), was there (3), was claimed by this token (4, 5)
CREATE FUNCTION {t}due_apply(
    namespaces text[], tenants text[], kinds text[], queues text[], items text[],
    ops smallint[], times_ms bigint[], claims uuid[], payloads bytea[]
) RETURNS TABLE (is_done boolean)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
DECLARE
    r record;
BEGIN
    PERFORM {t}durability(false);
    -- One by one also where all are of one kind: so rows are locked in the order of the operations, which all processes share, and found by
    -- their keys, whatever the table looked like when plans were made.
    FOR r IN
        SELECT u.* FROM unnest(namespaces, tenants, kinds, queues, items, ops, times_ms, claims, payloads)
            AS u (namespace, tenant, kind, queue, item, op, time_ms, claim, payload)
    LOOP
        IF r.op IN (1, 2) THEN
            IF r.op = 2 THEN
                r.time_ms := CASE WHEN r.time_ms = 0 THEN {t}now_us() / 1000 ELSE {t}after_ms({t}now_us(), r.time_ms) END;
            END IF;
            INSERT INTO {t}due AS d
                   (namespace, tenant, kind, queue, item, due_at_ms, visible_at_ms, place_ms, attempt, claim, payload)
            VALUES (r.namespace, r.tenant, r.kind, r.queue, r.item, r.time_ms, r.time_ms, r.time_ms, 0, NULL, r.payload)
                ON CONFLICT (namespace, tenant, kind, queue, item) DO UPDATE
               SET due_at_ms = excluded.due_at_ms, visible_at_ms = excluded.visible_at_ms, place_ms = excluded.place_ms,
                   attempt = 0, claim = NULL, payload = excluded.payload
            -- A row that was just inserted has nobody who replaced or locked it.
            RETURNING d.xmax = 0 INTO is_done;
        ELSIF r.op IN (3, 4) THEN
            DELETE FROM {t}due d
             WHERE d.namespace = r.namespace AND d.tenant = r.tenant AND d.kind = r.kind AND d.queue = r.queue
               AND d.item = r.item AND (r.op = 3 OR d.claim = r.claim);
            is_done := FOUND;
        ELSE
            r.time_ms := {t}after_ms({t}now_us(), r.time_ms);
            -- It may become visible earlier than before, and then stands earlier in the order.
            UPDATE {t}due d
               SET visible_at_ms = r.time_ms, place_ms = least(d.place_ms, r.time_ms)
             WHERE d.namespace = r.namespace AND d.tenant = r.tenant AND d.kind = r.kind AND d.queue = r.queue
               AND d.item = r.item AND d.claim = r.claim;
            is_done := FOUND;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Claims due items for several callers at once, the earliest first. Items that others are just claiming are passed over, so any
-- number of workers claim at the same time without waiting for each other. Claims must be sorted by queue; those of one queue are
-- served one after the other.
--
-- limits, visibilities_ms, tokens   of each claim: how many items at most, for how long, under which token
-- from_ms, from_items               where to begin in the order of the queue, taken from its first claim; null: at the front. Should too
--                                   few be found from there on, it is looked from the front after all.
--
-- Returns rows of two kinds, with the position of the claim in o_claim. With o_item: an item that was claimed, and where it stood. Items of
-- a claim are in order by o_number. Without: in how many microseconds the next one of the queue is due or visible again, which is null
-- when the queue is empty, for all of its claims; with how long it took to look from the front, if that was done; and with where the next
-- claim may begin, if as many as possible were claimed and nothing before that place was left.
CREATE FUNCTION {t}due_claim(
    namespaces text[], tenants text[], kinds text[], queues text[],
    limits integer[], visibilities_ms bigint[], tokens uuid[], from_ms bigint[], from_items text[]
) RETURNS TABLE (
    o_claim integer, o_number bigint, o_item text, o_due_at_ms bigint, o_attempt bigint, o_payload bytea,
    o_next_us bigint, o_look_us bigint, o_end_ms bigint, o_end_item text)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
DECLARE
    -- With more items than this being worked on, a tenth of them is moved out of the way, within bounds: a move takes some 30 us.
    crowd_min CONSTANT integer := 1000;
    crowd_moves_min CONSTANT integer := 200;
    crowd_moves_max CONSTANT integer := 5000;
    -- So many items of all queues may yet be put in order by when their claims have run out. Beyond, when the claims of many workers run
    -- out at once, they are handed out by their old places: late as they are, nobody is to wait for all of them to be moved.
    late_moves_left integer := 1000;
    first_claim integer := 1;
    last_claim integer;
    starts integer[];     -- the number of the first item of each claim
    items_max integer;
    from_front boolean;
    start_ms bigint;
    start_item text;
    clock_us bigint;
    look_us bigint;       -- how long the look from the front took
    places tid[];         -- what is claimed
    is_late boolean;      -- whether claims have run out
    found tid[];          -- what is due, when claims have run out, with when it became so
    found_ms bigint[];
    found_items text[];
    in_order integer;
    is_all boolean;       -- whether all were found that may be earlier than those
    rest tid[];           -- what was found and is not claimed
    last_ms bigint;
    last_item text;
    next_ms bigint;
    passed integer;
    changed bigint;
    r record;
BEGIN
    PERFORM {t}durability(false);
    WHILE first_claim <= cardinality(queues) LOOP
        last_claim := first_claim;
        starts := '{1}';
        items_max := limits[first_claim];
        WHILE last_claim < cardinality(queues) AND queues[last_claim + 1] = queues[first_claim]
              AND kinds[last_claim + 1] = kinds[first_claim] AND tenants[last_claim + 1] = tenants[first_claim]
              AND namespaces[last_claim + 1] = namespaces[first_claim] LOOP
            last_claim := last_claim + 1;
            starts := starts || (items_max + 1);
            items_max := items_max + limits[last_claim];
        END LOOP;

        from_front := from_ms[first_claim] IS NULL;
        start_ms := coalesce(from_ms[first_claim], 0);
        start_item := coalesce(from_items[first_claim], '');
        LOOP
            clock_us := {t}now_us();
            SELECT array_agg(p.ctid), bool_or(p.place_ms < p.visible_at_ms),
                   (array_agg(p.place_ms))[count(*)], (array_agg(p.item))[count(*)]
              INTO places, is_late, last_ms, last_item
              FROM (SELECT d.ctid, d.item, d.place_ms, d.visible_at_ms
                      FROM {t}due d
                     WHERE d.namespace = namespaces[first_claim] AND d.tenant = tenants[first_claim]
                       AND d.kind = kinds[first_claim] AND d.queue = queues[first_claim]
                       AND (d.place_ms, d.item) >= (start_ms, start_item)
                       AND d.place_ms <= clock_us / 1000 AND d.place_ms <= 9007199254740991
                       AND d.visible_at_ms <= clock_us / 1000
                     ORDER BY d.place_ms, d.item
                     LIMIT items_max
                       FOR UPDATE SKIP LOCKED) p;
            is_all := true;
            rest := NULL;
            IF is_late THEN
                -- Claims have run out. Their items are in order by that time, and perhaps not among the earliest then. They are walked over
                -- once, until enough items are found that are in order where they stand: what follows becomes visible later than those.
                found := '{}'; found_ms := '{}'; found_items := '{}';
                in_order := 0;
                FOR r IN
                    SELECT d.ctid, d.item, d.place_ms, d.visible_at_ms
                      FROM {t}due d
                     WHERE d.namespace = namespaces[first_claim] AND d.tenant = tenants[first_claim]
                       AND d.kind = kinds[first_claim] AND d.queue = queues[first_claim]
                       AND (d.place_ms, d.item) >= (start_ms, start_item)
                       AND d.place_ms <= clock_us / 1000 AND d.place_ms <= 9007199254740991
                       AND d.visible_at_ms <= clock_us / 1000
                     ORDER BY d.place_ms, d.item
                     LIMIT items_max + late_moves_left
                       FOR UPDATE SKIP LOCKED
                LOOP
                    found := found || r.ctid;
                    found_ms := found_ms || r.visible_at_ms;
                    found_items := found_items || r.item;
                    last_ms := r.place_ms;
                    last_item := r.item;
                    in_order := in_order + (r.place_ms = r.visible_at_ms)::integer;
                    EXIT WHEN in_order = items_max;
                END LOOP;
                is_all := in_order = items_max OR cardinality(found) < items_max + late_moves_left;
                SELECT array_agg(f.place ORDER BY f.n) FILTER (WHERE f.n <= items_max),
                       array_agg(f.place) FILTER (WHERE f.n > items_max),
                       CASE WHEN is_all THEN max(f.ms) FILTER (WHERE f.n = items_max) ELSE last_ms END,
                       CASE WHEN is_all THEN max(f.item) FILTER (WHERE f.n = items_max) ELSE last_item END
                  INTO places, rest, last_ms, last_item
                  FROM (SELECT u.place, u.ms, u.item, row_number() OVER (ORDER BY u.ms, u.item COLLATE "C") AS n
                          FROM unnest(found, found_ms, found_items) AS u (place, ms, item)) f;
                -- What is claimed stays where it is. The next claim is not to walk over the others again.
                UPDATE {t}due d SET place_ms = d.visible_at_ms WHERE d.ctid = ANY (rest) AND d.place_ms < d.visible_at_ms;
                GET DIAGNOSTICS changed = ROW_COUNT;
                late_moves_left := late_moves_left - changed;
            END IF;
            EXIT WHEN from_front OR cardinality(places) = items_max;
            from_front := true;
            start_ms := 0;
            start_item := '';
        END LOOP;
        look_us := CASE WHEN from_front THEN {t}now_us() - clock_us END;

        IF places IS NOT NULL THEN
            -- The time of the claim, which both its end and the time until then count from.
            clock_us := {t}now_us();
            -- By their places, which cannot change while they are locked: no second search, and no choice of a plan.
            RETURN QUERY
            UPDATE {t}due d
               SET visible_at_ms = u.visible_at_ms, attempt = least(d.attempt + 1, 4294967295), claim = tokens[u.claim],
                   -- Earlier only if the clock was set back since the look.
                   place_ms = least(d.place_ms, u.visible_at_ms)
              FROM (SELECT c.place, c.n, c.claim, {t}after_ms(clock_us, visibilities_ms[c.claim]) AS visible_at_ms
                      FROM (SELECT p.place, p.n, width_bucket(p.n::integer, starts) + first_claim - 1 AS claim
                              FROM unnest(places) WITH ORDINALITY AS p (place, n)) c) u
             WHERE d.ctid = u.place
            RETURNING u.claim, u.n, d.item, d.due_at_ms, d.attempt, d.payload, NULL::bigint, NULL::bigint, NULL::bigint, NULL::text;
            GET DIAGNOSTICS changed = ROW_COUNT;
            IF changed <> cardinality(places) THEN
                RAISE EXCEPTION '% of % locked items were found', changed, cardinality(places);
            END IF;
        END IF;

        next_ms := NULL;
        IF rest IS NOT NULL THEN
            next_ms := 0;
        ELSIF cardinality(places) = items_max THEN
            -- With a backlog the answer is right behind the last one.
            SELECT 0 INTO next_ms
              FROM {t}due d
             WHERE d.namespace = namespaces[first_claim] AND d.tenant = tenants[first_claim]
               AND d.kind = kinds[first_claim] AND d.queue = queues[first_claim]
               AND (d.place_ms, d.item) > (last_ms, last_item)
               AND d.place_ms <= clock_us / 1000 AND d.place_ms <= 9007199254740991
               AND d.visible_at_ms <= clock_us / 1000
             ORDER BY d.place_ms, d.item
             LIMIT 1;
        END IF;
        o_end_ms := NULL; o_end_item := NULL;
        IF is_all AND cardinality(places) = items_max THEN
            o_end_ms := last_ms; o_end_item := last_item;
        END IF;
        IF next_ms IS NULL THEN
            passed := 0;
            FOR r IN
                SELECT d.place_ms, d.visible_at_ms
                  FROM {t}due d
                 WHERE d.namespace = namespaces[first_claim] AND d.tenant = tenants[first_claim]
                   AND d.kind = kinds[first_claim] AND d.queue = queues[first_claim]
                   AND d.place_ms <= 9007199254740991
                 ORDER BY d.place_ms, d.item
            LOOP
                EXIT WHEN next_ms <= r.place_ms;
                next_ms := least(next_ms, r.visible_at_ms);
                passed := passed + 1;
            END LOOP;
            IF passed > crowd_min THEN
                UPDATE {t}due d SET place_ms = d.visible_at_ms
                  FROM (SELECT c.ctid
                          FROM {t}due c
                         WHERE c.namespace = namespaces[first_claim] AND c.tenant = tenants[first_claim]
                           AND c.kind = kinds[first_claim] AND c.queue = queues[first_claim]
                           AND c.place_ms <= clock_us / 1000 AND c.place_ms <= 9007199254740991
                           AND c.visible_at_ms > clock_us / 1000
                         ORDER BY c.place_ms, c.item
                         LIMIT least(greatest(passed / 10, crowd_moves_min), crowd_moves_max)
                           FOR UPDATE SKIP LOCKED) m
                 WHERE d.ctid = m.ctid;
            END IF;
        END IF;
        o_number := NULL; o_item := NULL; o_due_at_ms := NULL; o_attempt := NULL; o_payload := NULL;
        o_next_us := CASE WHEN next_ms IS NOT NULL THEN greatest(next_ms * 1000 - clock_us, 0) END;
        o_look_us := look_us;
        FOR claim IN first_claim .. last_claim LOOP
            o_claim := claim;
            RETURN NEXT;
        END LOOP;
        first_claim := last_claim + 1;
    END LOOP;
END
$$;
