-- What one user can make grow has a bound.

-- A hypervisor's word is a name that no user can have.  So it is kept only while an image lists
-- it, unless it was known from the start; by the database, so that no statement can forget it.
ALTER TABLE word ADD COLUMN lasting boolean NOT NULL DEFAULT false;
UPDATE word SET lasting = true
 WHERE kind = 'reserved'
    OR (kind = 'hypervisor' AND word IN ('xen', 'kvm', 'qemu', 'vmware', 'esxi', 'hyperv',
                                         'virtualbox', 'lxc', 'openvz', 'bare'));
DELETE FROM word
 WHERE kind = 'hypervisor' AND NOT lasting
   AND NOT EXISTS (SELECT FROM image_hypervisor h WHERE h.hypervisor = word.word);

CREATE FUNCTION release_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Locked first, so that nobody begins to use one meanwhile, then looked at anew: each
    -- statement sees what was committed before it.
    PERFORM 1 FROM word
      WHERE kind = 'hypervisor' AND NOT lasting AND word IN (SELECT hypervisor FROM gone)
      ORDER BY word FOR UPDATE;
    IF FOUND THEN
        DELETE FROM word
         WHERE kind = 'hypervisor' AND NOT lasting AND word IN (SELECT hypervisor FROM gone)
           AND NOT EXISTS (SELECT FROM image_hypervisor h WHERE h.hypervisor = word.word);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER image_hypervisor_gone AFTER DELETE ON image_hypervisor
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION release_words();

-- An upload without a byte is kept for an hour, no longer for days.
UPDATE blob SET keep_until = least(keep_until, now() + interval '1 h')
 WHERE state = 'receiving' AND resumable AND durable = 0;
