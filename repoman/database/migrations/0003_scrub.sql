-- When the bytes of a blob were last read and found to be what was stored.
ALTER TABLE blob ADD COLUMN scrubbed timestamptz;
CREATE INDEX blob_scrubbed ON blob (scrubbed NULLS FIRST) WHERE state = 'present';
