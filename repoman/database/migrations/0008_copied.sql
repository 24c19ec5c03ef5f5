-- Which blobs copy-store has brought to which other store, and the stamp that each copy has there:
-- the bytes under it were verified, so that a change of the store is not taken for a change of bytes.
CREATE TABLE copied (
    blob   text NOT NULL REFERENCES blob ON DELETE CASCADE,
    store  text NOT NULL,
    stamp  text NOT NULL,
    PRIMARY KEY (blob, store)
);
