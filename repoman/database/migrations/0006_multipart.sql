-- For stores that are object stores.  In which multipart upload a blob arrives: stored before its
-- first part is sent, so that any daemon can find the parts again.
ALTER TABLE blob ADD COLUMN multipart text;

-- Since when nobody may get a blob any more: who began before may read it for a while longer.
-- Kept by the database, so that no statement can forget it; what nobody ever could has no such time.
ALTER TABLE blob ADD COLUMN gone_since timestamptz;
CREATE FUNCTION note_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.gone_since := now();
    RETURN NEW;
END $$;
CREATE TRIGGER blob_gone BEFORE UPDATE OF state ON blob
    FOR EACH ROW WHEN (NEW.state = 'deleting' AND OLD.state IN ('present', 'damaged'))
    EXECUTE FUNCTION note_gone();
