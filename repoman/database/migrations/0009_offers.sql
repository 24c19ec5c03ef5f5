-- Images that their owners offer to other users.  Whoever owns the image has made the offer: it
-- ends with a change of owner, so that nobody accepts from whom the image no longer is.
CREATE TABLE offer (
    image_id      bigint PRIMARY KEY REFERENCES image ON DELETE CASCADE,
    recipient_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    made          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX offer_recipient ON offer (recipient_id, made);
