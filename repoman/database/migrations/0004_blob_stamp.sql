-- Under which stamp of the store a blob's bytes were last known to be right; unknown for old ones,
-- which are read once more when somebody asks for them.
ALTER TABLE blob ADD COLUMN stamp text;
