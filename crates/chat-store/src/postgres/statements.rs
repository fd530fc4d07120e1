//! The statements of a batch, and what else the writer often asks.
//!
//! Placeholders for lists are arrays, so that a batch of any size is the same statement.

/// What became of a batch whose COMMIT was not answered; see `migrations/0005.sql`.
pub(super) const JUDGE: &str = "SELECT judge_batch($1, $2, $3, $4, $5, $6)";

/// Goes on in a lane if it is still ours, or in another; see `migrations/0005.sql`.
pub(super) const ENTER: &str = "SELECT * FROM enter_lane($1, $2, $3, $4, $5)";

/// Prolongs the lease and saves the watermark; no row if the lane was taken away.
pub(super) const RENEW: &str = "
    UPDATE lanes SET published_to = greatest(published_to, $4),
        lease_until = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE lane = $1 AND owner = $2 RETURNING lane";

/// Gives the lane up in good order.
pub(super) const LEAVE: &str = "
    UPDATE lanes SET owner = NULL, published_to = greatest(published_to, $3)
    WHERE lane = $1 AND owner = $2";

pub(super) const BEGIN: &str = "BEGIN";

/// Without a time-out of the server's: where a synchronous replica is waited for, it would end the
/// wait and pass as success.
pub(super) const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Advances the lane, if it is ours, and locks the channels; see `migrations/0005.sql`.
pub(super) const BEGIN_BATCH: &str = "SELECT * FROM begin_batch($1, $2, $3, $4, $5, $6, $7)";

/// Takes back those that no event came into.
pub(super) const DROP_CHANNELS: &str = "DELETE FROM channels WHERE no = ANY($1) AND epoch = 0";

/// What is known of senders' keys, with the events if they are still there. To be asked after the
/// logs are locked, and by a statement of its own: its snapshot has all that was stored before.
/// `OFFSET 0` makes the server look for channel and key together, where a plan made while the table
/// was small would go through all keys of a channel.
pub(super) const FIND_KEYS: &str = "
    SELECT c.uuid, k.key, k.n, k.fingerprint, k.id, k.epoch, k.seq, k.kept_at, l.event, l.sum
    FROM unnest($1::uuid[], $2::bytea[]) asked (uuid, key)
    JOIN channels c ON c.uuid = asked.uuid
    CROSS JOIN LATERAL (
        SELECT * FROM sender_keys k WHERE k.channel_no = c.no AND k.key = asked.key OFFSET 0) k
    LEFT JOIN log l ON l.segment = k.segment AND l.channel_no = k.channel_no AND l.seq = k.seq
        AND l.seq > c.floor";

/// How many keys there are at most (numbers may be missing), when the oldest came that would have to
/// make room for `$1` more if `$2` is the bound, and how many came after the reading `$3`. These are
/// only looked for where shares count, by halving: the numbers are in the order of the readings.
pub(super) const KEY_ROOM: &str = "
    WITH RECURSIVE ends AS MATERIALIZED (
        SELECT (SELECT min(n) FROM sender_keys) AS first, (SELECT max(n) FROM sender_keys) AS last),
    search (low, high) AS (
        SELECT first, last + 1 FROM ends WHERE (last - first + 1 + $1) * 2 >= $2::bigint - 1
        UNION ALL
        SELECT CASE WHEN young THEN low ELSE middle + 1 END,
            CASE WHEN young THEN middle ELSE high END
        FROM (SELECT low, high, (low + high) / 2 AS middle,
                (SELECT kept_at > $3 FROM sender_keys WHERE n >= (low + high) / 2
                 ORDER BY n LIMIT 1) AS young
              FROM search WHERE low < high) halves)
    SELECT coalesce(last - first + 1, 0) AS count,
        (SELECT array_agg(kept_at ORDER BY n) FROM (
            SELECT n, kept_at FROM sender_keys ORDER BY n
            LIMIT CASE WHEN last - first + 1 + $1 > $2 THEN $1 ELSE 0 END) oldest) AS oldest,
        coalesce(last + 1 - (SELECT max(low) FROM search), 0) AS young
    FROM ends";

pub(super) const INSERT_EVENTS: &str = "
    INSERT INTO log (channel_no, seq, pos, at, event, sum, segment, lane, upto, stored)
    SELECT channel_no, seq, pos, at, event, sum, $7, $8, upto, now()
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::integer[],
        $9::bigint[]) new (channel_no, seq, pos, at, event, sum, upto)";

/// A log that begins or has come into a new epoch brings its list of epochs; others keep theirs.
pub(super) const UPDATE_CHANNELS: &str = "
    UPDATE channels c SET head = new.head, at = new.at, sent = new.sent,
        epoch = coalesce(new.epoch, c.epoch),
        epochs = coalesce(new.epochs::bigint[], c.epochs),
        epoch_starts = coalesce(new.starts::bigint[], c.epoch_starts)
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
        $7::bigint[]) new (no, head, at, epoch, epochs, starts, sent)
    WHERE c.no = new.no";

/// Keys that are too old, found again before retention came by, and the oldest that make room.
/// Another's that is at the same is not waited for.
pub(super) const FORGET_KEYS: &str = "
    DELETE FROM sender_keys WHERE n = ANY($1 || ARRAY(
        SELECT n FROM sender_keys ORDER BY n LIMIT $2 FOR UPDATE SKIP LOCKED))";

pub(super) const REMEMBER_KEYS: &str = "
    INSERT INTO sender_keys (channel_no, key, fingerprint, id, epoch, seq, kept_at, segment)
    SELECT channel_no, key, fingerprint, id, epoch, seq, $7, $8
    FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::uuid[], $5::bigint[], $6::bigint[])
        new (channel_no, key, fingerprint, id, epoch, seq)";

pub(super) const PROBE: &str =
    "UPDATE probe SET filler = convert_to(repeat('x', $1), 'UTF8') WHERE one";

/// Takes over what a process that is gone has left unpublished; see `migrations/0005.sql`.
pub(super) const RESCUE: &str = "SELECT * FROM rescue($1, $2, $3, $4, $5)";

/// Begins a new segment if it is time; see `migrations/0006.sql`.
pub(super) const TURN: &str = "SELECT turn_segment($1, $2, $3, $4, $5)";

/// What the writer's connection is often asked.
pub(super) const OFTEN: [&str; 11] = [
    RENEW,
    BEGIN_BATCH,
    DROP_CHANNELS,
    FIND_KEYS,
    KEY_ROOM,
    INSERT_EVENTS,
    UPDATE_CHANNELS,
    FORGET_KEYS,
    REMEMBER_KEYS,
    PROBE,
    RESCUE,
];
