-- When the event was stored, by the server's clock; null where it was stored before this was kept.
ALTER TABLE log ADD COLUMN stored timestamptz;
