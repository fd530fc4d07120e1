//! The statements of a batch and of the lane, prepared once for each of the writer's connections.
//!
//! Placeholders for lists are arrays, so that a batch of any size is the same statement.

use tokio_postgres::Statement;

use super::{epochs::append_lock, failure::Failure, session::Session};

/// Begins a batch. From here on the segment and the incarnations stay as they are: who changes them
/// holds the same lock alone. Its own statement, so that the next one's snapshot is taken after it.
pub(super) const BEGIN: &str =
    concat!("BEGIN; SELECT pg_advisory_xact_lock_shared", append_lock!());

/// Without a time-out of the server's: where a synchronous replica is waited for, it would end the
/// wait and pass as success.
pub(super) const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Advances the lane, if it is still ours: its row stays locked until the transaction ends, so that
/// positions become visible in their order. What holds for all logs comes along.
const ADVANCE_LANE: &str = "
    UPDATE lanes SET pos = pos + $3,
        published_to = greatest(published_to, $4),
        wrote_at = greatest(wrote_at, $5),
        lease_until = clock_timestamp() + $6 * interval '1 millisecond'
    WHERE lane = $1 AND owner = $2
    RETURNING pos - $3 AS base, (SELECT segment FROM state WHERE one),
        (SELECT incarnations FROM state WHERE one), (SELECT forgotten FROM state WHERE one)";

const RENEW_LANE: &str = "
    UPDATE lanes SET published_to = greatest(published_to, $3),
        lease_until = clock_timestamp() + $4 * interval '1 millisecond'
    WHERE lane = $1 AND owner = $2";

/// Locks the logs in one order for all, so that no two batches wait for each other. A row that has
/// changed while it was waited for is returned as it is now.
const LOCK_CHANNELS: &str = "
    SELECT uuid, no, head, at, floor, epochs, epoch_starts, sent, gone FROM channels
    WHERE uuid = ANY($1) ORDER BY uuid FOR UPDATE";

/// In the order of the locks; another's that is not yet committed is waited for.
const ADD_CHANNELS: &str = "
    INSERT INTO channels (uuid) SELECT new FROM unnest($1::uuid[]) new ORDER BY new
    ON CONFLICT (uuid) DO NOTHING";

/// Takes back those that no event came into.
const DROP_CHANNELS: &str = "DELETE FROM channels WHERE no = ANY($1) AND epoch = 0";

/// What is known of senders' keys, with the events if they are still there. To be asked after the
/// logs are locked, and by a statement of its own: its snapshot has all that was stored before.
/// `OFFSET 0` makes the server look for channel and key together, where a plan made while the table
/// was small would go through all keys of a channel.
const FIND_KEYS: &str = "
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
const KEY_ROOM: &str = "
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

const INSERT_EVENTS: &str = "
    INSERT INTO log (channel_no, seq, pos, at, event, sum, segment, lane, upto, stored)
    SELECT channel_no, seq, pos, at, event, sum, $7, $8, upto, now()
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::integer[],
        $9::bigint[]) new (channel_no, seq, pos, at, event, sum, upto)";

/// A log that begins or has come into a new epoch brings its list of epochs; others keep theirs.
const UPDATE_CHANNELS: &str = "
    UPDATE channels c SET head = new.head, at = new.at, sent = new.sent,
        epoch = coalesce(new.epoch, c.epoch),
        epochs = coalesce(new.epochs::bigint[], c.epochs),
        epoch_starts = coalesce(new.starts::bigint[], c.epoch_starts)
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
        $7::bigint[]) new (no, head, at, epoch, epochs, starts, sent)
    WHERE c.no = new.no";

/// Keys that are too old, found again before retention came by, and the oldest that make room.
/// Another's that is at the same is not waited for.
const FORGET_KEYS: &str = "
    DELETE FROM sender_keys WHERE n = ANY($1 || ARRAY(
        SELECT n FROM sender_keys ORDER BY n LIMIT $2 FOR UPDATE SKIP LOCKED))";

const REMEMBER_KEYS: &str = "
    INSERT INTO sender_keys (channel_no, key, fingerprint, id, epoch, seq, kept_at, segment)
    SELECT channel_no, key, fingerprint, id, epoch, seq, $7, $8
    FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::uuid[], $5::bigint[], $6::bigint[])
        new (channel_no, key, fingerprint, id, epoch, seq)";

const PROBE: &str = "UPDATE probe SET filler = convert_to(repeat('x', $1), 'UTF8') WHERE one";

/// A lane whose owner is gone and that has something left to publish.
const FIND_ORPHAN: &str = "
    SELECT lane FROM lanes
    WHERE lane <> $1 AND pos > published_to AND (owner IS NULL OR lease_until < clock_timestamp())
    ORDER BY lane LIMIT 1";

/// Both lanes of a rescue, always in this order.
const LOCK_LANES: &str = "
    SELECT lane, pos, published_to, owner IS NOT DISTINCT FROM $3,
        owner IS NULL OR lease_until < clock_timestamp()
    FROM lanes WHERE lane IN ($1, $2) ORDER BY lane FOR UPDATE";

/// Takes the orphan from its owner for good, and the positions for what is to be moved.
const FENCE: &str = "
    UPDATE lanes SET
        owner = CASE lane WHEN $1 THEN owner END,
        pos = CASE lane WHEN $1 THEN pos + $3 ELSE pos END
    WHERE lane IN ($1, $2)";

/// The oldest of the orphan's events, `$3` of at most `$4` bytes together, or one. The channel is
/// looked up for each: a join would be planned for a tenth of the log, which is what a limit that is
/// not known beforehand counts as.
const OLDEST_OF_ORPHAN: &str = "
    SELECT segment, channel_no, seq, pos, at, event,
        (SELECT uuid FROM channels c WHERE c.no = counted.channel_no AND c.floor < counted.seq),
        checksum
    FROM (SELECT *, row_number() OVER (ORDER BY pos) AS place,
            sum(octet_length(event)) OVER (ORDER BY pos) AS bytes
          FROM (SELECT *, log.sum AS checksum FROM log WHERE lane = $1 AND pos > $2 ORDER BY pos LIMIT $3) first) counted
    WHERE bytes <= $4 OR place = 1
    ORDER BY pos";

/// Gives them their new places. What retention has removed in the meantime is not there to be moved.
const MOVE_EVENTS: &str = "
    UPDATE log l SET lane = $1, pos = moved.pos
    FROM unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
        moved (segment, channel_no, seq, pos)
    WHERE l.segment = moved.segment AND l.channel_no = moved.channel_no AND l.seq = moved.seq";

/// Notes how far the orphan is empty.
const NOTE_MOVED: &str =
    "UPDATE lanes SET published_to = greatest(published_to, $2) WHERE lane = $1";

macro_rules! statements {
    ($($name:ident: $sql:ident),+ $(,)?) => {
        pub(super) struct Statements { $(pub(super) $name: Statement),+ }

        impl Statements {
            pub(super) async fn prepare(session: &Session) -> Result<Self, Failure> {
                let ($($name),+) = tokio::try_join!($(session.prepare($sql)),+)?;
                Ok(Self { $($name),+ })
            }
        }
    };
}

statements! {
    advance_lane: ADVANCE_LANE,
    renew_lane: RENEW_LANE,
    lock_channels: LOCK_CHANNELS,
    add_channels: ADD_CHANNELS,
    drop_channels: DROP_CHANNELS,
    find_keys: FIND_KEYS,
    key_room: KEY_ROOM,
    insert_events: INSERT_EVENTS,
    update_channels: UPDATE_CHANNELS,
    forget_keys: FORGET_KEYS,
    remember_keys: REMEMBER_KEYS,
    probe: PROBE,
    find_orphan: FIND_ORPHAN,
    lock_lanes: LOCK_LANES,
    fence: FENCE,
    oldest_of_orphan: OLDEST_OF_ORPHAN,
    move_events: MOVE_EVENTS,
    note_moved: NOTE_MOVED,
}
