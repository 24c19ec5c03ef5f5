-- A CA outside the CA directory is known by the one inside that it hangs from: any trusted CA can
-- give its name to a sub-CA.  Who was bound before gets the anchor at the next login, as an issuer
-- is bound at the first: nothing here tells which it was.
ALTER TABLE login ADD COLUMN anchor text;
