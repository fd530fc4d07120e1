-- When the last event of a channel expired, by the expiry clock; null while that is not known. Meaningless
-- while there are events.
ALTER TABLE channels ADD COLUMN emptied bigint;
-- The newest epoch of all channels whose rows are gone, as nothing was left of them: one that comes back
-- begins a later one.
ALTER TABLE state ADD COLUMN forgotten bigint NOT NULL DEFAULT 0;
