-- The due index: items of queues, each with the time at which it is handed out next.

CREATE TABLE {t}due (
    namespace     text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    queue         text COLLATE "C" NOT NULL, -- the id of the queue's key
    item          text COLLATE "C" NOT NULL,
    -- Milliseconds since 1970: when it was scheduled for, and when it is handed out next.
    due_at_ms     bigint NOT NULL,
    visible_at_ms bigint NOT NULL CHECK (visible_at_ms >= 0),
    -- How often it was handed out, and the token of the last claim; null before the first.
    attempt       bigint NOT NULL,
    claim         uuid,
    payload       bytea NOT NULL,
    PRIMARY KEY (namespace, tenant, kind, queue, item)
) WITH (
    -- No room is left on the pages: each update changes the order, hence an index, and cannot stay on its page in any case.
    -- What is claimed leaves dead entries at the front of the order, where the next claim begins, so vacuum comes early.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_cost_delay = 0
);

-- Claims walk this from the front of a queue. The condition always holds. It keeps the planner from using this index for what looks
-- for one item: while the table is empty both indexes look alike to it, and a plan made then would walk the whole queue later.
CREATE INDEX ON {t}due (namespace, tenant, kind, queue, visible_at_ms, item) WHERE visible_at_ms >= 0;

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
    FOR r IN
        SELECT u.* FROM unnest(namespaces, tenants, kinds, queues, items, ops, times_ms, claims, payloads)
            AS u (namespace, tenant, kind, queue, item, op, time_ms, claim, payload)
    LOOP
        IF r.op IN (1, 2) THEN
            IF r.op = 2 THEN
                r.time_ms := CASE WHEN r.time_ms = 0 THEN {t}now_us() / 1000 ELSE {t}after_ms({t}now_us(), r.time_ms) END;
            END IF;
            INSERT INTO {t}due AS d
                   (namespace, tenant, kind, queue, item, due_at_ms, visible_at_ms, attempt, claim, payload)
            VALUES (r.namespace, r.tenant, r.kind, r.queue, r.item, r.time_ms, r.time_ms, 0, NULL, r.payload)
                ON CONFLICT (namespace, tenant, kind, queue, item) DO UPDATE
               SET due_at_ms = excluded.due_at_ms, visible_at_ms = excluded.visible_at_ms, attempt = 0, claim = NULL,
                   payload = excluded.payload
            -- A row that was just inserted has nobody who replaced or locked it.
            RETURNING d.xmax = 0 INTO is_done;
        ELSIF r.op IN (3, 4) THEN
            DELETE FROM {t}due d
             WHERE d.namespace = r.namespace AND d.tenant = r.tenant AND d.kind = r.kind AND d.queue = r.queue
               AND d.item = r.item AND (r.op = 3 OR d.claim = r.claim);
            is_done := FOUND;
        ELSE
            UPDATE {t}due d
               SET visible_at_ms = {t}after_ms({t}now_us(), r.time_ms)
             WHERE d.namespace = r.namespace AND d.tenant = r.tenant AND d.kind = r.kind AND d.queue = r.queue
               AND d.item = r.item AND d.claim = r.claim;
            is_done := FOUND;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Claims due items of a queue, the earliest first, for visibility_ms. Items that others are just claiming are passed over, so any
-- number of workers claim at once without waiting for each other.
--
-- Returns a row for each item and then one without an item, which says in how many microseconds the next one of the queue is
-- due or visible again: null when the queue is empty.
CREATE FUNCTION {t}due_claim(
    in_namespace text, in_tenant text, in_kind text, in_queue text,
    items_max integer, visibility_ms bigint, token uuid
) RETURNS TABLE (o_item text, o_due_at_ms bigint, o_attempt bigint, o_payload bytea, o_next_us bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
DECLARE
    r record;
    clock_us bigint := {t}now_us();
    places tid[] := '{}';
    last_visible_at_ms bigint;
    last_item text;
    changed bigint;
BEGIN
    PERFORM {t}durability(false);
    FOR r IN
        SELECT d.ctid, d.item, d.due_at_ms, d.visible_at_ms, d.attempt, d.payload
          FROM {t}due d
         WHERE d.namespace = in_namespace AND d.tenant = in_tenant AND d.kind = in_kind AND d.queue = in_queue
           AND d.visible_at_ms BETWEEN 0 AND clock_us / 1000
         ORDER BY d.visible_at_ms, d.item
         LIMIT items_max
           FOR UPDATE SKIP LOCKED
    LOOP
        places := places || r.ctid;
        last_visible_at_ms := r.visible_at_ms;
        last_item := r.item;
        o_item := r.item;
        o_due_at_ms := r.due_at_ms;
        o_attempt := least(r.attempt + 1, 4294967295);
        o_payload := r.payload;
        RETURN NEXT;
    END LOOP;
    -- The time of the claim, which both its end and the time until then count from.
    clock_us := {t}now_us();
    -- By their places, which cannot change while they are locked: no second search, and no choice of a plan.
    UPDATE {t}due d
       SET visible_at_ms = {t}after_ms(clock_us, visibility_ms), attempt = least(d.attempt + 1, 4294967295), claim = token
     WHERE d.ctid = ANY (places);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> cardinality(places) THEN
        RAISE EXCEPTION '% of % locked items were found', changed, cardinality(places);
    END IF;

    -- With a backlog the answer is right behind the last one. The front of the order is best not looked at again: the entries of
    -- what was claimed stay there until a vacuum removes them, and a transaction that is open for long keeps it from that.
    IF cardinality(places) = items_max THEN
        SELECT 0 INTO o_next_us
          FROM {t}due d
         WHERE d.namespace = in_namespace AND d.tenant = in_tenant AND d.kind = in_kind AND d.queue = in_queue
           AND (d.visible_at_ms, d.item) > (last_visible_at_ms, last_item)
           AND d.visible_at_ms BETWEEN 0 AND clock_us / 1000
         ORDER BY d.visible_at_ms, d.item
         LIMIT 1;
    END IF;
    IF o_next_us IS NULL THEN
        SELECT greatest(d.visible_at_ms * 1000 - clock_us, 0) INTO o_next_us
          FROM {t}due d
         WHERE d.namespace = in_namespace AND d.tenant = in_tenant AND d.kind = in_kind AND d.queue = in_queue
           AND d.visible_at_ms >= 0
         ORDER BY d.visible_at_ms, d.item
         LIMIT 1;
    END IF;
    o_item := NULL; o_due_at_ms := NULL; o_attempt := NULL; o_payload := NULL;
    RETURN NEXT;
END
$$;
