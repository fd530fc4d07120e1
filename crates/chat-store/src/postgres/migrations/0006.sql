
-- RETENTION. One process at a time does the chores that concern all channels; the others pass. What is waited for is not
-- waited for long: others would wait behind it.

CREATE FUNCTION begin_chore() RETURNS boolean LANGUAGE sql AS $$
    SELECT set_config('lock_timeout', '200', true);
    SELECT pg_try_advisory_xact_lock(hashtext('hark'), hashtext('keep'))
$$;

-- Begins a new segment if the one that is written to has grown older than `part_age`, larger than `part_bytes`, or has
-- expired; or if it is `broken`, so that nothing can be added to it. Whether it did.
--
-- Whoever appends holds the lock of the appends (shared) until it has committed: when we have it alone, all that goes into
-- the old segment is there, and whoever comes after us sees the new one. So no channel ever has an event in an older
-- segment than one before it.
CREATE FUNCTION turn_segment(reading bigint, max_age bigint, part_age bigint, part_bytes bigint, broken integer)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    old segments;
    name text;
BEGIN
    IF NOT begin_chore() THEN RETURN false; END IF;
    SELECT segments.* INTO old FROM state JOIN segments ON n = segment;
    name := format('hark.log_%s', old.n);
    IF broken IS NOT NULL THEN
        IF broken <> old.n THEN RETURN false; END IF;
    ELSIF reading - part_age < old.created AND pg_total_relation_size(name::regclass) <= part_bytes
        AND reading - max_age < (SELECT coalesce(max(wrote_at), 0) FROM lanes)
        -- Asked of the file: of the whole log somebody may hold another part, and a page may be damaged.
        OR pg_relation_size(name::regclass) = 0
    THEN
        RETURN false;
    END IF;
    PERFORM add_segment(old.n + 1, reading);
    -- Last: while it is waited for, all posts wait behind it.
    PERFORM set_config('lock_timeout', '2000', true);
    PERFORM pg_advisory_xact_lock(hashtext('hark'), hashtext('append'));
    UPDATE segments SET newest = (SELECT max(wrote_at) FROM lanes) WHERE n = old.n;
    UPDATE state SET segment = old.n + 1;
    RETURN true;
END $$;

-- The segments of which all is too old, or which are too much with all later ones, the oldest first; and whether some of
-- it is younger than `early` and goes for want of room. One that somebody lets nobody read counts as empty while that
-- lasts. One that is hidden already is among them as long as its table is there.
CREATE FUNCTION expired_segments(reading bigint, max_age bigint, max_bytes bigint, early bigint)
RETURNS TABLE (n integer, is_early boolean) LANGUAGE sql STABLE AS $$
    SELECT n, reading - max_age < newest AND reading - early < newest
    FROM (SELECT s.n, s.n < state.segment AS is_done,
            -- Known of a segment that is no longer written to; if it were not, it would stay.
            coalesce(s.newest, reading) AS newest,
            sum(CASE WHEN EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock'
                        AND relation = to_regclass(format('hark.log_%s', s.n))) THEN 0
                ELSE coalesce(pg_total_relation_size(to_regclass(format('hark.log_%s', s.n))), 0)
                END) OVER (ORDER BY s.n DESC) AS bytes
          FROM segments s, state) sized
    WHERE is_done AND (reading - max_age >= newest OR bytes > max_bytes) ORDER BY n
$$;

-- Raises the floors of `most` channels with numbers after `after` over what a segment holds of them. `last` is the last of
-- them, if there may be more; `busy` are those that somebody holds, if it does not wait for them; no row: another process
-- is at it. `raised` counts the events that nobody sees any more.
--
-- Nobody writes to the segment any more, so its index tells all channels that it holds: from one to the next, whatever
-- number of events lies in between. With `care`, what lies before the later events of every channel, as far as those can
-- be read; a channel that cannot be read is passed over.
CREATE FUNCTION hide_segment(old integer, after bigint, most bigint, waits boolean, care boolean, reading bigint)
RETURNS TABLE (raised bigint, last bigint, busy bigint[]) LANGUAGE plpgsql AS $$
DECLARE
    part text := format('hark.log_%s', old);
    met bigint := 0;
    channel channels;
    one record;
BEGIN
    IF NOT begin_chore() OR NOT EXISTS (SELECT FROM segments WHERE n = old) THEN RETURN; END IF;
    raised := 0;
    busy := '{}';
    IF care THEN
        FOR one IN SELECT no FROM generate_series(after + 1, least(after + most, (SELECT last_value FROM channels_no_seq))) no LOOP
            met := met + 1;
            last := one.no;
            BEGIN
                SELECT * INTO channel FROM channels WHERE no = one.no FOR UPDATE;
                CONTINUE WHEN channel IS NULL;
                raised := raised + raise_floor(channel, coalesce((
                    SELECT min(seq) FROM readable_events(old + 1, one.no, channel.floor + 1, channel.head,
                        1 + (channel.head - channel.floor) / 64)) - 1, channel.head), NULL, reading);
            EXCEPTION WHEN data_corrupted OR index_corrupted THEN NULL;
            END;
        END LOOP;
    ELSE
        FOR one IN EXECUTE format('
            WITH RECURSIVE held (no) AS (
                (SELECT channel_no FROM %1$s WHERE channel_no > $1 ORDER BY channel_no LIMIT 1)
                UNION ALL
                SELECT (SELECT channel_no FROM %1$s WHERE channel_no > held.no ORDER BY channel_no LIMIT 1)
                FROM held WHERE held.no IS NOT NULL)
            SELECT no, newest.* FROM held, LATERAL (
                SELECT seq, upto FROM %1$s WHERE channel_no = held.no ORDER BY seq DESC LIMIT 1) newest
            LIMIT $2', part) USING after, most
        LOOP
            met := met + 1;
            last := one.no;
            IF waits THEN
                SELECT * INTO channel FROM channels WHERE no = one.no FOR UPDATE;
            ELSE
                SELECT * INTO channel FROM channels WHERE no = one.no FOR UPDATE SKIP LOCKED;
            END IF;
            IF channel IS NULL THEN
                busy := busy || one.no;
            ELSE
                raised := raised + raise_floor(channel, one.seq, one.upto, reading);
            END IF;
        END LOOP;
    END IF;
    IF met < most THEN last := NULL; END IF;
    RETURN NEXT;
END $$;

-- Raises the floor of a channel whose row is locked; returns how many events that hides.
CREATE FUNCTION raise_floor(channel channels, seq bigint, upto bigint, reading bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF seq <= channel.floor THEN RETURN 0; END IF;
    UPDATE channels SET floor = seq, gone = greatest(gone, upto), emptied = CASE WHEN head = seq THEN reading END
        WHERE no = channel.no;
    RETURN seq - channel.floor;
END $$;

-- Drops the table of a segment whose floors are raised; null if somebody holds it for long, false if another process is at
-- it.
--
-- The whole log is locked for it, which would wait for the batches and pages under way and let later ones wait. So those that
-- are there now are waited for without a lock, `patience` milliseconds; they are soon over, but for a dump. What came since is
-- waited for, not for long.
CREATE FUNCTION drop_segment(old integer, patience double precision) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + patience * interval '1 millisecond';
    holders text[];
BEGIN
    IF NOT begin_chore() THEN RETURN false; END IF;
    LOOP
        SELECT array_agg(virtualtransaction) INTO holders FROM pg_locks
            WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND relation IN ('hark.log'::regclass, to_regclass(format('hark.log_%s', old)))
                AND (holders IS NULL OR virtualtransaction = ANY(holders));
        EXIT WHEN holders IS NULL;
        IF clock_timestamp() >= until THEN RETURN NULL; END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
    EXECUTE format('DROP TABLE IF EXISTS hark.log_%s', old);
    DELETE FROM segments WHERE n = old;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    -- Somebody came in between.
    RETURN NULL;
END $$;

-- Notes what the expiry clock shows, and returns how many bytes all tables take. Of several processes the one whose clock
-- shows most: it saw the most time pass.
CREATE FUNCTION keep_clock(reading bigint, now_is bigint) RETURNS bigint LANGUAGE sql AS $$
    UPDATE state SET expiry_clock = reading, expiry_saved_at = now_is WHERE expiry_clock <= reading;
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
        WHERE relnamespace = 'hark'::regnamespace AND relkind = 'r'
$$;

-- Forgets `step` senders' keys that were kept at or before `cutoff`; whether there may be more. One that a post is renewing is
-- not waited for.
CREATE FUNCTION expire_keys(cutoff bigint, step bigint) RETURNS boolean LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM sender_keys WHERE n = ANY(ARRAY(
        SELECT n FROM (SELECT n, kept_at FROM sender_keys ORDER BY n LIMIT step FOR UPDATE SKIP LOCKED) oldest
        WHERE kept_at <= cutoff)) RETURNING 1)
    SELECT count(*) >= step FROM gone
$$;

-- Removes the oldest events of a channel, `step` at most, while it keeps more than `most` or more than `most_bytes`. `early`
-- are those younger than `young` that went for their bytes. Where they cannot be removed they are hidden, and go with
-- their segment; `damage` says so.
CREATE FUNCTION shorten(
    of_channel bigint, most bigint, most_bytes bigint, step bigint, young double precision
) RETURNS TABLE (removed bigint, early bigint, owner uuid, more boolean, damage text) LANGUAGE plpgsql AS $$
DECLARE
    channel channels;
    by_number bigint;
    reach bigint;
    goal bigint;
    enough bigint;
    furthest bigint;
    bytes bigint;
BEGIN
    -- So that the floor and what lies above it change together.
    SELECT * INTO channel FROM channels WHERE no = of_channel FOR UPDATE;
    IF channel IS NULL THEN RETURN; END IF;
    by_number := greatest(channel.head - most, 0);
    reach := channel.floor + step;
    goal := greatest(least(by_number, reach), channel.floor);
    more := goal < by_number;
    IF channel.sent - channel.gone > most_bytes THEN
        -- The newest stays, whatever its size.
        SELECT min(seq) FILTER (WHERE channel.sent - coalesce(upto, 0) <= most_bytes), max(seq) INTO enough, furthest
            FROM log WHERE channel_no = of_channel AND seq > channel.floor AND seq <= least(reach, channel.head - 1);
        more := more OR (enough IS NULL AND furthest = reach);
        goal := greatest(goal, coalesce(enough, furthest));
    END IF;
    IF goal <= channel.floor THEN RETURN; END IF;
    WITH gone AS (
        DELETE FROM log WHERE channel_no = of_channel AND seq > channel.floor AND seq <= goal
        RETURNING seq, upto, stored)
    SELECT max(upto), count(*) FILTER (WHERE seq > by_number AND stored > now() - young * interval '1 second')
        INTO bytes, early FROM gone;
    UPDATE channels SET floor = goal, gone = greatest(gone, bytes) WHERE no = of_channel;
    removed := goal - channel.floor;
    owner := channel.uuid;
    RETURN NEXT;
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    GET STACKED DIAGNOSTICS damage = MESSAGE_TEXT;
    SELECT * INTO channel FROM channels WHERE no = of_channel FOR UPDATE;
    UPDATE channels SET floor = head - most WHERE no = of_channel AND floor < head - most;
    removed := greatest(channel.head - most - channel.floor, 0);
    more := false;
    RETURN NEXT;
END $$;

-- Looks at the `step` channels after `after`: which keep too much, and removes the rows of those of which nothing is left,
-- no event and no sender's key, and has not been since `long_ago`. Since when they are empty is noted where it is not
-- known. One that is locked is not empty for long. `empty` are those without events and keys that stay.
CREATE FUNCTION sweep(after bigint, step bigint, most bigint, most_bytes bigint, long_ago bigint, reading bigint)
RETURNS TABLE (last bigint, too_long bigint[], empty bigint, forgotten bigint, damage text) LANGUAGE plpgsql AS $$
DECLARE
    without_events bigint[];
    locked bigint[];
    newest bigint;
BEGIN
    empty := 0;
    forgotten := 0;
    SELECT max(no), array_agg(no) FILTER (
                WHERE head - floor > most OR (sent - gone > most_bytes AND head - floor > 1)),
            array_agg(no) FILTER (WHERE head = floor)
        INTO last, too_long, without_events
        FROM (SELECT * FROM channels WHERE no > after ORDER BY no LIMIT step) part;
    IF without_events IS NOT NULL THEN
        locked := ARRAY(SELECT no FROM channels WHERE no = ANY(without_events) AND head = floor
            AND (emptied <= long_ago OR emptied IS NULL) ORDER BY uuid FOR UPDATE SKIP LOCKED);
        UPDATE channels SET emptied = reading WHERE no = ANY(locked) AND emptied IS NULL;
        SELECT count(*) INTO empty FROM unnest(without_events) no
            -- Not a join, which might be planned to go through all keys.
            WHERE (SELECT n FROM sender_keys WHERE channel_no = no LIMIT 1) IS NULL;
        WITH gone AS (
            DELETE FROM channels c WHERE no = ANY(locked) AND emptied <= long_ago
                AND (SELECT n FROM sender_keys WHERE channel_no = c.no LIMIT 1) IS NULL
            RETURNING epoch)
        SELECT count(*), max(epoch) INTO forgotten, newest FROM gone;
        UPDATE state SET forgotten = greatest(state.forgotten, newest, (SELECT max(epoch) FROM unnest(incarnations) epoch))
            WHERE newest IS NOT NULL;
        empty := empty - sweep.forgotten;
    END IF;
    RETURN NEXT;
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    -- One of them cannot be read, or not be forgotten: the sweep goes on with those behind.
    GET STACKED DIAGNOSTICS damage = MESSAGE_TEXT;
    last := coalesce(last, after + step);
    forgotten := 0;
    RETURN NEXT;
END $$;
