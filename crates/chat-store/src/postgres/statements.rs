//! The statements of a batch, and what else the writer often asks.
//!
//! Placeholders for lists are arrays, so that a batch of any size is the same statement.

/// What became of a batch whose COMMIT was not answered; see `migrations/0005.sql`.
pub(super) const JUDGE: &str = "SELECT judge_batch($1, $2, $3, $4, $5, $6)";

/// Goes on in a lane if it is still ours, or in another; see `migrations/0005.sql`. With what was saved
/// of the expiry clock.
pub(super) const ENTER: &str = "
    SELECT entered.*, expiry_clock, expiry_saved_at,
        (SELECT coalesce(max(wrote_at), 0) FROM lanes) AS wrote_at
    FROM enter_lane($1, $2, $3, $4, $5) entered, state";

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

/// What is known of senders' keys; see `migrations/0005.sql`. To be asked after the logs are locked, and by
/// a statement of its own: its snapshot has all that was stored before.
pub(super) const FIND_KEYS: &str = "SELECT * FROM find_keys($1, $2)";

/// How much room there is for senders' keys; see `migrations/0005.sql`.
pub(super) const KEY_ROOM: &str = "SELECT * FROM key_room($1, $2, $3)";

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
