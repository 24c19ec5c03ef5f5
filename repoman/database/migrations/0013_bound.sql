-- Since when an address has the bytes that it has: what Last-Modified says.  A date names a whole
-- second, so what replaces other bytes is dated in the next one: later than whatever was fetched.
-- Kept by the database, so that no statement can forget it; null: as before this migration.
ALTER TABLE image_file ADD COLUMN bound timestamptz;    -- by an upload
ALTER TABLE image ADD COLUMN bound timestamptz;         -- otherwise: by a name, an owner, an order
ALTER TABLE account ADD COLUMN bound timestamptz;       -- with all others of a user, by their name

-- When an address below a user's name, or a name itself, was last left by its bytes; or the date
-- that those had, if that was later.  Rows that are gone took their dates with them.
ALTER TABLE account ADD COLUMN freed timestamptz;
ALTER TABLE repository ADD COLUMN freed timestamptz;

CREATE VIEW file_date AS
    SELECT image_id, hypervisor, owner_id,
           greatest(coalesce(f.bound, f.uploaded), i.bound, a.bound) AS date
      FROM image_file f JOIN image i USING (image_id) JOIN account a ON account_id = owner_id;

-- The latest date of an image's addresses.
CREATE FUNCTION date_of(image bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT max(date) FROM file_date WHERE image_id = image
$$;

-- The date for addresses of an image, an owner's, that get other bytes now.  The greatest of all
-- these, also where the clock was set back meanwhile.
CREATE FUNCTION next_date(image bigint, owner bigint) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT date_trunc('second', greatest(clock_timestamp(), date_of(image), a.freed, r.freed))
           + interval '1 s'
      FROM account a, repository r WHERE a.account_id = owner
$$;

-- Where nothing was served within this second, its own date says enough: nobody has to wait for
-- the next one, who fetches what is new.  A fraction of a second says that nothing was served for a
-- minute before, as transactions may end so much later than they are dated: see SEEN in the code.
CREATE FUNCTION bind_file() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner bigint := (SELECT owner_id FROM image WHERE image_id = NEW.image_id);
    latest timestamptz := (
        SELECT greatest(a.freed, r.freed) FROM account a, repository r WHERE a.account_id = owner);
    this_second timestamptz := date_trunc('second', clock_timestamp());
BEGIN
    NEW.bound := CASE
        WHEN latest >= this_second
          OR EXISTS (SELECT FROM image_file WHERE image_id = NEW.image_id)
        THEN next_date(NEW.image_id, owner)
        WHEN latest > this_second - interval '1 min' THEN this_second
        ELSE clock_timestamp() END;
    RETURN NEW;
END $$;
CREATE TRIGGER image_file_bound BEFORE INSERT OR UPDATE OF blob ON image_file
    FOR EACH ROW EXECUTE FUNCTION bind_file();

CREATE FUNCTION leave_addresses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE account SET freed = greatest(freed, bound, clock_timestamp(), last)
      FROM (SELECT owner_id, max(greatest(coalesce(gone.bound, gone.uploaded), i.bound)) AS last
              FROM gone JOIN image i USING (image_id) GROUP BY owner_id) AS left_by
     WHERE account_id = owner_id;
    RETURN NULL;
END $$;
CREATE TRIGGER image_file_gone AFTER DELETE ON image_file
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION leave_addresses();

-- Another name, or another owner.
CREATE FUNCTION bind_image() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last timestamptz := date_of(OLD.image_id);
BEGIN
    IF last IS NOT NULL THEN
        UPDATE account SET freed = greatest(freed, clock_timestamp(), last)
         WHERE account_id = OLD.owner_id;
        NEW.bound := next_date(NEW.image_id, NEW.owner_id);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER image_bound BEFORE UPDATE OF name, owner_id ON image
    FOR EACH ROW WHEN (OLD.name <> NEW.name OR OLD.owner_id <> NEW.owner_id)
    EXECUTE FUNCTION bind_image();

-- Another order of hypervisors: another one may be the first that has a file.
CREATE FUNCTION bind_default() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE image SET bound = next_date(image_id, owner_id)
     WHERE image_id IN (SELECT image_id FROM before JOIN after USING (image_id, hypervisor)
                         WHERE before.position <> after.position)
       AND date_of(image_id) IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER image_hypervisor_order AFTER UPDATE ON image_hypervisor
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION bind_default();

-- Another user of a name.
CREATE FUNCTION leave_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE repository SET freed = greatest(freed, clock_timestamp(), OLD.freed, OLD.bound,
        (SELECT max(date) FROM file_date WHERE owner_id = OLD.account_id));
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.bound := (SELECT date_trunc('second', freed) + interval '1 s' FROM repository);
    RETURN NEW;
END $$;
CREATE TRIGGER account_renamed BEFORE UPDATE OF user_name ON account
    FOR EACH ROW WHEN (OLD.user_name <> NEW.user_name) EXECUTE FUNCTION leave_name();
CREATE TRIGGER account_gone BEFORE DELETE ON account
    FOR EACH ROW EXECUTE FUNCTION leave_name();

-- A hypervisor's word that is free again may become a user's: then a path of two names has another
-- reading.  Otherwise as in 0010.
CREATE OR REPLACE FUNCTION release_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM word
      WHERE kind = 'hypervisor' AND NOT lasting AND word IN (SELECT hypervisor FROM gone)
      ORDER BY word FOR UPDATE;
    IF FOUND THEN
        DELETE FROM word
         WHERE kind = 'hypervisor' AND NOT lasting AND word IN (SELECT hypervisor FROM gone)
           AND NOT EXISTS (SELECT FROM image_hypervisor h WHERE h.hypervisor = word.word);
        IF FOUND THEN
            UPDATE repository SET freed = greatest(freed, clock_timestamp());
        END IF;
    END IF;
    RETURN NULL;
END $$;
