-- What concerns the store as a whole.
CREATE TABLE state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- The server, timeline and table that the logs were last written in; another one may lack their
    -- newest events. Null until the first writer comes.
    origin text,
    -- Epochs given to all logs, ascending; a log that is older than the last begins it after its head.
    incarnations bigint[] NOT NULL DEFAULT '{}',
    -- The segment that is written to.
    segment integer NOT NULL DEFAULT 1,
    -- The clock by which events and keys expire, in milliseconds, and the time of day when it was
    -- saved, in milliseconds since 1970.
    expiry_clock bigint NOT NULL DEFAULT 0,
    expiry_saved_at bigint NOT NULL DEFAULT 0
);
INSERT INTO state DEFAULT VALUES;

-- Half of a page is left free, so that the new head of a log lies in the page of the old one and no
-- index changes with it.
CREATE TABLE channels (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid uuid NOT NULL UNIQUE,
    -- The number of the newest event and its time, in milliseconds since 1970.
    head bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL DEFAULT 0,
    -- The highest number that has expired. What lies at or below it is no longer shown.
    floor bigint NOT NULL DEFAULT 0,
    -- The newest epoch that an event was stored in, 0 before the first event.
    epoch bigint NOT NULL DEFAULT 0,
    -- All of them, ascending, and the number with which each began.
    epochs bigint[] NOT NULL DEFAULT '{}',
    epoch_starts bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE INDEX channels_by_epoch ON channels (epoch);

-- One row for each process that writes, or has: rows are used again. Few to a page, so that each
-- writer finds its own in a page of its own.
CREATE TABLE lanes (
    lane integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner uuid,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    -- The highest position handed out.
    pos bigint NOT NULL DEFAULT 0,
    -- Everything up to here is published.
    published_to bigint NOT NULL DEFAULT 0,
    -- The expiry clock when something was last stored.
    wrote_at bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- The events, in segments that expire as a whole. `created` and `newest` are readings of the expiry
-- clock; `newest` is known when the segment is no longer written to.
CREATE TABLE segments (
    n integer PRIMARY KEY,
    created bigint NOT NULL,
    newest bigint
);
CREATE TABLE log (
    channel_no bigint NOT NULL,
    seq bigint NOT NULL,
    pos bigint NOT NULL,
    at bigint NOT NULL,
    segment integer NOT NULL,
    lane integer NOT NULL,
    event bytea NOT NULL
) PARTITION BY LIST (segment);

-- Attached, not created as a partition: that would lock out everyone from the whole log.
CREATE FUNCTION add_segment(n integer, reading bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TABLE hark.log_%s (
            LIKE hark.log, CHECK (segment = %s), PRIMARY KEY (channel_no, seq), UNIQUE (lane, pos))',
        n, n);
    EXECUTE format('ALTER TABLE hark.log ATTACH PARTITION hark.log_%s FOR VALUES IN (%s)', n, n);
    INSERT INTO hark.segments (n, created) VALUES (add_segment.n, reading);
END $$;
SELECT add_segment(1, 0);

-- The ids and keys that senders chose, in the order in which they came.
CREATE TABLE sender_keys (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_no bigint NOT NULL,
    key bytea NOT NULL,
    fingerprint bytea NOT NULL,
    id uuid NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    kept_at bigint NOT NULL,
    segment integer NOT NULL,
    UNIQUE (channel_no, key)
);

-- Written to find out whether the disk has room, with bytes that are not made smaller.
CREATE TABLE probe (one boolean PRIMARY KEY DEFAULT true CHECK (one), filler bytea NOT NULL);
ALTER TABLE probe ALTER COLUMN filler SET STORAGE EXTERNAL;
INSERT INTO probe VALUES (true, '');
