-- Strangers list public images, and are to pay for no others: what everybody may fetch is found
-- without a look at the rest, by name and by owner.
CREATE INDEX image_public_by_name ON image (name, image_id) WHERE unauthenticated_access;
CREATE INDEX image_public_by_owner ON image (owner_id, name) WHERE unauthenticated_access;

-- Beside an image is the address of its checksum, which has the image's date; unless another image
-- is called so.  Where that one comes, goes or is hidden, the address has other bytes.
CREATE FUNCTION summed(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(name FROM '^(.+)\.(?:sha256|sha512|md5)$')
$$;

CREATE FUNCTION bind_sums() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE image SET bound = next_date(image_id, owner_id)
     WHERE owner_id = OLD.owner_id AND name = summed(OLD.name) AND date_of(image_id) IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER image_sums_gone AFTER DELETE OR UPDATE OF name, owner_id, unauthenticated_access
    ON image FOR EACH ROW WHEN (summed(OLD.name) IS NOT NULL) EXECUTE FUNCTION bind_sums();

CREATE FUNCTION bind_like_sums() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF date_of(NEW.image_id) IS NOT NULL THEN
        NEW.bound := next_date(NEW.image_id, NEW.owner_id);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER image_like_sums BEFORE UPDATE OF unauthenticated_access ON image
    FOR EACH ROW WHEN (NEW.unauthenticated_access AND NOT OLD.unauthenticated_access
                       AND summed(NEW.name) IS NOT NULL)
    EXECUTE FUNCTION bind_like_sums();
