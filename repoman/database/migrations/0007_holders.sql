-- Many daemons on one repository: nothing that matters lives in a process.

-- In whose hands an upload is.
ALTER TABLE blob
    ADD COLUMN holder      text,        -- the process that writes its bytes, or wrote the last ones
    ADD COLUMN held_until  timestamptz, -- nobody else may before; null: it has let go
    ADD COLUMN wanted      boolean NOT NULL DEFAULT false;  -- another process asks for it

-- Who does what only one may do at a time: the sweeper's work, and the like.
CREATE TABLE chores (
    only_one    boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    holder      text,
    held_until  timestamptz,
    since       timestamptz,                        -- it was elected, and never late since then
    sweep       boolean NOT NULL DEFAULT false      -- another process has work for the sweeper
);
INSERT INTO chores DEFAULT VALUES;

-- What the processes tell of themselves every other second: nothing that a crash may not forget.
CREATE UNLOGGED TABLE daemon (
    holder     text PRIMARY KEY,
    name       text NOT NULL,
    moment     timestamptz NOT NULL,
    transfers  jsonb NOT NULL
);

-- What seals the pages' forms: one daemon must know those that another has made.
ALTER TABLE repository
    ADD COLUMN secret bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
