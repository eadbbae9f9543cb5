-- Removing what has expired. To every operation it is absent anyway: this only gives its space back.
--
-- There is no index on the time of expiry. It would have to be changed with each write, which would cost every write more
-- than the sweep costs, and updates could not stay on their page. The sweep walks the pages of a table instead.

-- Whose turn it is to sweep: one row.
CREATE TABLE {t}sweeper (
    is_it    boolean PRIMARY KEY DEFAULT true CHECK (is_it),
    node     uuid NOT NULL,
    until_us bigint NOT NULL
);

-- Takes or keeps the turn for the given time. Returns whether it is the node's.
CREATE FUNCTION {t}sweep_turn(new_node uuid, for_us bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
BEGIN
    PERFORM {t}durability(true);
    -- A look first: those whose turn it is not write nothing.
    IF EXISTS (SELECT FROM {t}sweeper s WHERE s.node <> new_node AND s.until_us > {t}now_us()) THEN
        RETURN false;
    END IF;
    INSERT INTO {t}sweeper AS s (node, until_us) VALUES (new_node, {t}now_us() + for_us)
        ON CONFLICT (is_it) DO UPDATE SET node = excluded.node, until_us = excluded.until_us
     WHERE s.node = new_node OR s.until_us <= {t}now_us();
    RETURN FOUND;
END
$$;

-- Removes at most rows_max expired rows from the pages [first_page, first_page + pages_max) of a table that has expires_at_us.
-- Rows that are locked are passed over: the next round finds them, unless whoever is there has renewed them.
--
-- next_page  where to go on; null at the end of the table
CREATE FUNCTION {t}sweep(target regclass, first_page bigint, pages_max bigint, rows_max integer)
RETURNS TABLE (removed integer, next_page bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict error
DECLARE
    pages bigint := pg_relation_size(target) / current_setting('block_size')::bigint;
    end_page bigint := least(first_page + pages_max, pages);
    places tid[];
BEGIN
    removed := 0;
    IF first_page < end_page THEN
        -- Whatever is lost in a crash is swept again.
        PERFORM {t}durability(true);
        -- Planned anew each time, since the plan depends on the range. A row that was renewed while we looked is looked at
        -- again when it is locked, and left alone.
        EXECUTE format(
            'SELECT array_agg(p.ctid) FROM (
                 SELECT t.ctid FROM %s t
                  WHERE t.ctid >= $1 AND t.ctid < $2 AND t.expires_at_us <= $3
                  LIMIT $4 FOR UPDATE SKIP LOCKED) p', target)
           INTO places
          USING format('(%s,0)', first_page)::tid, format('(%s,0)', end_page)::tid, {t}now_us(), rows_max;
        IF places IS NOT NULL THEN
            EXECUTE format('DELETE FROM %s t WHERE t.ctid = ANY ($1)', target) USING places;
            removed := cardinality(places);
        END IF;
    END IF;
    next_page := CASE
        -- The range may hold more, from the page of the last one on.
        WHEN removed = rows_max THEN
            least(greatest((places[removed]::text::point)[0]::bigint, first_page), end_page - 1)
        WHEN end_page < pages THEN end_page
    END;
    RETURN NEXT;
END
$$;
