-- Strangers list public images, and are to pay for no others: what everybody may fetch is found
-- without a look at the rest, by name and by owner.
CREATE INDEX image_public_by_name ON image (name, image_id) WHERE unauthenticated_access;
CREATE INDEX image_public_by_owner ON image (owner_id, name) WHERE unauthenticated_access;
