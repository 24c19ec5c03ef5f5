-- Uploads that outlive their connection, their proxy and the daemon.
ALTER TABLE blob
    ADD COLUMN resumable   boolean NOT NULL DEFAULT false,
    ADD COLUMN announced   bigint,                      -- the whole length, in bytes, if known
    ADD COLUMN durable     bigint NOT NULL DEFAULT 0,   -- bytes that survive a power cut
    ADD COLUMN keep_until  timestamptz;                 -- a paused one is given up then

-- A plain upload has a lease while it runs; a resumable one also lives without, paused.
ALTER TABLE blob
    ADD CHECK (state <> 'receiving' OR lease IS NOT NULL OR (resumable AND keep_until IS NOT NULL));
