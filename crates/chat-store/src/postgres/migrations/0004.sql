-- When the last event of a channel expired, by the expiry clock; null while that is not known. Meaningless
-- while there are events.
ALTER TABLE channels ADD COLUMN emptied bigint;
-- The newest epoch of all channels whose rows are gone, as nothing was left of them: one that comes back
-- begins a later one.
ALTER TABLE state ADD COLUMN forgotten bigint NOT NULL DEFAULT 0;
-- Bytes of all events that a channel ever had, and of those that have expired; the rest is what it keeps.
-- With each event what they were behind it, by which the one is found at which enough is gone. Null where
-- it was stored before this was counted.
ALTER TABLE channels ADD COLUMN sent bigint NOT NULL DEFAULT 0, ADD COLUMN gone bigint NOT NULL DEFAULT 0;
ALTER TABLE log ADD COLUMN upto bigint;
