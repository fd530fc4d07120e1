-- What takes several statements that nothing else depends on is a function: one round trip, one transaction. Names
-- that are both a column and a variable mean the column.

-- READING AROUND DAMAGE. A page of a table or an index that is broken fails every statement that meets it.

-- The rows of one segment with `low` to `high` in the column `number`, for one value of the column `by`: `most` of them
-- at least, if there are so many. What is damaged is left out by halves, until `grain` numbers are given up together.
CREATE FUNCTION readable_part(
    n integer, by text, value bigint, number text, low bigint, high bigint, grain bigint, most bigint
) RETURNS SETOF log LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE part log[];
BEGIN
    EXECUTE format('SELECT ARRAY(SELECT l FROM hark.log l WHERE segment = %s AND %I = $1
        AND %I BETWEEN $2 AND $3 ORDER BY %3$I LIMIT $4)', n, by, number)
        INTO part USING value, low, high, most;
    RETURN QUERY SELECT * FROM unnest(part);
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    IF high - low >= grain THEN
        RETURN QUERY SELECT * FROM readable_part(n, by, value, number, low, (low + high) / 2, grain, most);
        RETURN QUERY SELECT * FROM readable_part(n, by, value, number, (low + high) / 2 + 1, high, grain, most);
    END IF;
END $$;

-- The numbers of a channel from `low` to `high` that can be read, in all segments from `first` on.
CREATE FUNCTION readable_events(first integer, channel bigint, low bigint, high bigint, grain bigint)
RETURNS SETOF log LANGUAGE sql STABLE STRICT AS $$
    SELECT r.* FROM segments s, readable_part(
        s.n, 'channel_no', channel, 'seq', low, high, grain, 9223372036854775807) r
    WHERE s.n >= first
$$;

-- The next rows of a lane that can be read, `most` at most; none only if there are none up to its end. Where much is
-- lost at once, less is told apart: history has it.
CREATE FUNCTION readable_after(of_lane integer, after bigint, most bigint) RETURNS SETOF log
LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    reached bigint := after;
    last bigint := (SELECT pos FROM lanes WHERE lane = of_lane);
    width bigint := 64;
BEGIN
    WHILE reached < last LOOP
        RETURN QUERY SELECT r.* FROM segments s, readable_part(
            s.n, 'lane', of_lane, 'pos', reached + 1, least(last, reached + width), width / 64, most) r
            ORDER BY r.pos LIMIT most;
        EXIT WHEN FOUND;
        reached := reached + width;
        width := width * 2;
    END LOOP;
END $$;

-- Whose event it is, unless it has expired or nobody can tell.
CREATE FUNCTION readable_owner(channel bigint, number bigint) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT uuid FROM channels WHERE no = channel AND floor < number);
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    RETURN NULL;
END $$;

-- The row of a channel, if it has one; one that makes no sense if it cannot be read.
CREATE FUNCTION readable_channel(asked uuid) RETURNS SETOF channels LANGUAGE plpgsql STABLE AS $$
DECLARE channel channels;
BEGIN
    SELECT * INTO channel FROM channels WHERE uuid = asked;
    IF FOUND THEN RETURN NEXT channel; END IF;
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    channel.head := -1;
    channel.floor := 0;
    RETURN NEXT channel;
END $$;

-- EPOCHS OF ALL LOGS

-- Gives all logs a new epoch, while no append is under way: `fresh`, or one later than any that there was (an epoch's
-- lowest 13 bits are random). Of 64, the oldest goes. It takes no longer for many channels.
CREATE FUNCTION begin_epoch(fresh bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('hark'), hashtext('append'));
    UPDATE state SET incarnations = (incarnations || greatest(fresh, 8192 + greatest(forgotten,
            (SELECT max(epoch) FROM channels), (SELECT max(epoch) FROM unnest(incarnations) epoch)))
        )[greatest(1, cardinality(incarnations) - 62):];
END $$;

-- Gives all logs a new epoch if this is not where they were last written: a row if so.
CREATE FUNCTION check_origin(fresh bigint) RETURNS TABLE (before text, here text) LANGUAGE plpgsql AS $$
BEGIN
    here := format('%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8), to_regclass('hark.state')::oid);
    IF here IS DISTINCT FROM (SELECT origin FROM state) THEN
        PERFORM pg_advisory_xact_lock(hashtext('hark'), hashtext('append'));
        SELECT origin INTO before FROM state;
        IF before IS DISTINCT FROM here THEN
            IF before IS NOT NULL THEN
                PERFORM begin_epoch(fresh);
            END IF;
            UPDATE state SET origin = here;
            RETURN NEXT;
        END IF;
    END IF;
END $$;

-- LANES

-- Goes on in the lane `mine` if it is still `us` who owns it; or takes one that nobody owns any more, first one with
-- something left to publish, or makes one. A row that is locked belongs to someone who is at work on it. No position that
-- was seen of a lane is handed out in it again. `newest` is the position of the newest event, or of the last one handed
-- out where that cannot be read.
CREATE FUNCTION enter_lane(mine integer, us uuid, lease double precision, seen_lanes integer[], seen_to bigint[])
RETURNS TABLE (lane integer, pos bigint, published_to bigint, newest bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    until timestamptz := clock_timestamp() + lease * interval '1 millisecond';
    taken integer;
    last bigint;
BEGIN
    UPDATE lanes SET lease_until = until WHERE lane = mine AND owner = us RETURNING lane INTO taken;
    IF taken IS NULL THEN
        UPDATE lanes SET owner = us, lease_until = until WHERE lane = (
            SELECT lane FROM lanes WHERE owner IS NULL OR lease_until < clock_timestamp()
            ORDER BY pos > published_to DESC, lane LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING lane INTO taken;
    END IF;
    IF taken IS NULL THEN
        INSERT INTO lanes (owner, lease_until) VALUES (us, until) RETURNING lane INTO taken;
    END IF;
    UPDATE lanes SET pos = seen.pos FROM unnest(seen_lanes, seen_to) seen (lane, pos)
        WHERE lanes.lane = taken AND seen.lane = taken AND lanes.pos < seen.pos;
    BEGIN
        SELECT coalesce(max(l.pos), 0) INTO last FROM log l WHERE l.lane = taken;
    EXCEPTION WHEN data_corrupted OR index_corrupted THEN
        SELECT l.pos INTO last FROM lanes l WHERE l.lane = taken;
    END;
    RETURN QUERY SELECT l.lane, l.pos, l.published_to, greatest(l.published_to, last) FROM lanes l WHERE l.lane = taken;
END $$;

-- What became of a batch whose COMMIT was not answered: whether it was stored, or null if nobody can tell. One of its events
-- is given. It waits for the end of that transaction, which holds the lane's row.
CREATE FUNCTION judge_batch(of_lane integer, us uuid, last_pos bigint, channel uuid, number bigint, stored bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE met lanes;
BEGIN
    SELECT * INTO met FROM lanes WHERE lane = of_lane FOR UPDATE;
    -- The batch's own transaction has advanced the lane, which never goes back. One that is not there, on a server that took
    -- over, was made by what was lost with it.
    IF met IS NULL OR met.pos < last_pos THEN RETURN false; END IF;
    IF met.owner = us THEN RETURN true; END IF;
    -- Others have used the lane since, and may have advanced it. The event tells, unless retention was faster.
    IF EXISTS (SELECT FROM log WHERE channel_no = (SELECT no FROM channels WHERE uuid = channel)
        AND seq = number AND event = stored)
    THEN
        RETURN true;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    RETURN NULL;
END $$;

-- Moves the oldest events of a lane whose owner is gone into the lane `ours`, which is to be owned by `us`: `most` of at
-- most `most_bytes` together, or one. The first row says only up to where our lane is handed out then, or nothing if it is
-- another's; there is no row if there is nothing to move. With `care` 1 it goes around damage; with 2 it passes over what
-- cannot be moved, for history has it.
CREATE FUNCTION rescue(ours integer, us uuid, care integer, most bigint, most_bytes bigint)
RETURNS TABLE (raised bigint, pos bigint, at bigint, event bytea, uuid uuid, seq bigint, sum integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    orphan lanes;
    base bigint;
    oldest refcursor;
    one log;
    last bigint;
    moved bigint := 0;
    bytes bigint := 0;
BEGIN
    SELECT * INTO orphan FROM lanes WHERE lane <> ours AND pos > published_to
        AND (owner IS NULL OR lease_until < clock_timestamp()) ORDER BY lane LIMIT 1;
    IF orphan IS NULL THEN RETURN; END IF;
    -- Not for long: posts wait, and a lock means that somebody is at work there. Always in this order.
    PERFORM set_config('lock_timeout', '200', true);
    PERFORM FROM lanes WHERE lane IN (ours, orphan.lane) ORDER BY lane FOR UPDATE;
    SELECT pos INTO base FROM lanes WHERE lane = ours AND owner = us;
    IF base IS NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    -- Its owner may be back, or another may have taken it over.
    SELECT * INTO orphan FROM lanes WHERE lane = orphan.lane AND (owner IS NULL OR lease_until < clock_timestamp());
    IF orphan IS NULL THEN RETURN; END IF;
    raised := base + most;
    RETURN NEXT;
    IF care = 0 THEN
        OPEN oldest FOR SELECT * FROM log WHERE lane = orphan.lane AND pos > orphan.published_to ORDER BY pos LIMIT most;
    ELSE
        OPEN oldest FOR SELECT * FROM readable_after(orphan.lane, orphan.published_to, most);
    END IF;
    LOOP
        FETCH oldest INTO one;
        bytes := bytes + octet_length(one.event);
        EXIT WHEN one IS NULL OR (bytes > most_bytes AND moved > 0);
        moved := moved + 1;
        last := one.pos;
        CONTINUE WHEN care = 2;
        UPDATE log SET lane = ours, pos = base + moved
            WHERE segment = one.segment AND channel_no = one.channel_no AND seq = one.seq;
        SELECT base + moved, one.at, one.event, readable_owner(one.channel_no, one.seq), one.seq, one.sum
            INTO pos, at, event, uuid, seq, sum;
        RETURN NEXT;
    END LOOP;
    UPDATE lanes SET pos = base + most WHERE lane = ours;
    -- Holes at the end of a lane are published as well.
    UPDATE lanes SET owner = NULL, published_to = greatest(published_to, coalesce(last, pos)) WHERE lane = orphan.lane;
END $$;

-- BATCHES

-- Advances a lane by as many positions as there are posts, if it is ours (no row if not): its row stays locked until the
-- transaction ends, so that positions become visible in their order. What holds for all logs comes along, and each channel,
-- new or not, locked in one order for all. Rows are added before any is locked, and in the same order, so that nobody who
-- holds one waits for somebody who adds.
CREATE FUNCTION begin_batch(
    our_lane integer, us uuid, posts bigint, published bigint, reading bigint, lease double precision, asked uuid[]
) RETURNS TABLE (
    base bigint, current_segment integer, incarnations bigint[], forgotten bigint,
    uuid uuid, no bigint, head bigint, at bigint, floor bigint, sent bigint, gone bigint,
    epochs bigint[], epoch_starts bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    whole state;
    last bigint;
BEGIN
    -- From here on the segment and the incarnations stay as they are: who changes them holds the same lock alone.
    PERFORM pg_advisory_xact_lock_shared(hashtext('hark'), hashtext('append'));
    UPDATE lanes SET pos = pos + posts, published_to = greatest(published_to, published),
        wrote_at = greatest(wrote_at, reading), lease_until = clock_timestamp() + lease * interval '1 millisecond'
        WHERE lane = our_lane AND owner = us RETURNING pos INTO last;
    IF last IS NULL THEN RETURN; END IF;
    SELECT * INTO whole FROM state WHERE one;
    INSERT INTO channels (uuid)
        -- Not a join, which might be planned to go through all channels.
        SELECT new FROM unnest(asked) new WHERE (SELECT no FROM channels WHERE uuid = new) IS NULL ORDER BY new
        ON CONFLICT DO NOTHING;
    -- A row that has changed while it was waited for is returned as it is then.
    RETURN QUERY SELECT last - posts, whole.segment, whole.incarnations, whole.forgotten,
        c.uuid, c.no, c.head, c.at, c.floor, c.sent, c.gone, c.epochs, c.epoch_starts
        FROM channels c WHERE c.uuid = ANY(asked) ORDER BY c.uuid FOR UPDATE;
END $$;

-- What is known of senders' keys, with the events if they are still there. `OFFSET 0` makes the server look for channel and
-- key together, where a plan made while the table was small would go through all keys of a channel.
CREATE FUNCTION find_keys(uuids uuid[], keys bytea[]) RETURNS TABLE (
    uuid uuid, key bytea, n bigint, fingerprint bytea, id uuid, epoch bigint, seq bigint, kept_at bigint, event bytea,
    sum integer
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT c.uuid, k.key, k.n, k.fingerprint, k.id, k.epoch, k.seq, k.kept_at, l.event, l.sum
    FROM unnest(uuids, keys) asked (uuid, key)
    JOIN channels c ON c.uuid = asked.uuid
    CROSS JOIN LATERAL (
        SELECT * FROM sender_keys k WHERE k.channel_no = c.no AND k.key = asked.key OFFSET 0) k
    LEFT JOIN log l ON l.segment = k.segment AND l.channel_no = k.channel_no AND l.seq = k.seq AND l.seq > c.floor;
END $$;

-- How many keys there are at most (numbers may be missing), when the oldest came that would have to make room for `fresh`
-- more if `most` is the bound, and how many came after the reading `old`. These are only looked for where shares count, by
-- halving: the numbers are in the order of the readings.
CREATE FUNCTION key_room(fresh bigint, most bigint, old bigint)
RETURNS TABLE (count bigint, oldest bigint[], young bigint) LANGUAGE plpgsql AS $$
DECLARE
    first bigint := (SELECT min(n) FROM sender_keys);
    last bigint := (SELECT max(n) FROM sender_keys);
    low bigint := first;
    high bigint := last + 1;
BEGIN
    count := coalesce(last - first + 1, 0);
    young := 0;
    IF (count + fresh) * 2 >= most - 1 AND count > 0 THEN
        WHILE low < high LOOP
            IF (SELECT kept_at > old FROM sender_keys WHERE n >= (low + high) / 2 ORDER BY n LIMIT 1) THEN
                high := (low + high) / 2;
            ELSE
                low := (low + high) / 2 + 1;
            END IF;
        END LOOP;
        young := last + 1 - low;
    END IF;
    IF count + fresh > most THEN
        oldest := ARRAY(SELECT kept_at FROM sender_keys ORDER BY n LIMIT fresh);
    END IF;
    RETURN NEXT;
END $$;
