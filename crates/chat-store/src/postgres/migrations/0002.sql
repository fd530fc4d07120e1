-- The event's checksum (checksum.rs); null where it was stored before there was one.
ALTER TABLE log ADD COLUMN sum integer;
