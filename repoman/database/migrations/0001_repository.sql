-- The whole repository: names, accounts, images, blobs.

-- Which repository this is: the blob store carries the same id, so that a
-- wrong mount or a wrong database is noticed before it does harm.
CREATE TABLE repository (
    only_one       boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    repository_id  text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created        timestamptz NOT NULL DEFAULT now()
);
INSERT INTO repository DEFAULT VALUES;

-- One namespace for users and hypervisors: /api/images/raw/{word}/{image}
-- has exactly one reading.
CREATE TABLE word (
    word  text PRIMARY KEY,
    kind  text NOT NULL CHECK (kind IN ('user', 'hypervisor', 'reserved')),
    UNIQUE (word, kind)
);
INSERT INTO word VALUES
    ('raw', 'reserved'), ('share', 'reserved'), ('any', 'reserved'),
    ('uploads', 'reserved'), ('default', 'reserved'), ('__hypervisor__', 'reserved'),
    ('xen', 'hypervisor'), ('kvm', 'hypervisor'), ('qemu', 'hypervisor'),
    ('vmware', 'hypervisor'), ('esxi', 'hypervisor'), ('hyperv', 'hypervisor'),
    ('virtualbox', 'hypervisor'), ('lxc', 'hypervisor'), ('openvz', 'hypervisor'),
    ('bare', 'hypervisor');

CREATE TABLE account (
    account_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_name   text NOT NULL CONSTRAINT account_user_name_taken UNIQUE,
    kind        text NOT NULL DEFAULT 'user' CHECK (kind = 'user'),
    full_name   text,
    email       text CONSTRAINT account_email_taken UNIQUE,
    suspended   boolean NOT NULL DEFAULT false,
    created     timestamptz NOT NULL DEFAULT now(),
    quota       bigint CHECK (quota >= 0),          -- bytes; null: the configured one
    used        bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved    bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    CONSTRAINT account_word FOREIGN KEY (user_name, kind)
        REFERENCES word (word, kind) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- Who logs in as whom.  The issuer is bound at creation or at the first login.
CREATE TABLE login (
    subject     text PRIMARY KEY,
    issuer      text,
    account_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    position    integer NOT NULL DEFAULT 0
);
CREATE INDEX login_account ON login (account_id, position);

CREATE TABLE user_group (
    group_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CONSTRAINT user_group_name_taken UNIQUE,
    protected  boolean NOT NULL DEFAULT false,
    created    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE group_permission (
    group_id    bigint NOT NULL REFERENCES user_group ON DELETE CASCADE,
    permission  text NOT NULL,
    PRIMARY KEY (group_id, permission)
);

CREATE TABLE membership (
    group_id    bigint NOT NULL REFERENCES user_group ON DELETE CASCADE,
    account_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    PRIMARY KEY (group_id, account_id)
);
CREATE INDEX membership_account ON membership (account_id);

INSERT INTO user_group (name, protected) VALUES ('admins', true), ('users', true);
INSERT INTO group_permission
    SELECT group_id, permission
    FROM user_group, unnest(ARRAY[
        'user_create', 'user_modify', 'user_delete', 'user_modify_self',
        'group_create', 'group_modify', 'group_delete',
        'group_modify_membership', 'group_modify_permissions',
        'image_create', 'image_modify', 'image_delete',
        'image_modify_group', 'image_delete_group']) AS permission
    WHERE name = 'admins' OR permission IN ('user_modify_self', 'image_create');

CREATE TABLE image (
    image_id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid                    text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', '') UNIQUE,
    owner_id                bigint NOT NULL REFERENCES account,
    name                    text NOT NULL,
    created                 timestamptz NOT NULL DEFAULT now(),
    modified                timestamptz NOT NULL DEFAULT now(),
    uploaded                timestamptz,
    expires                 timestamptz,
    description             text,
    os_variant              text,
    os_type                 text,
    os_arch                 text,
    read_only               boolean NOT NULL DEFAULT false,
    unauthenticated_access  boolean NOT NULL DEFAULT false,
    version                 integer NOT NULL DEFAULT 0,
    default_size            bigint NOT NULL DEFAULT -1,     -- bytes; -1: no file (see below)
    CONSTRAINT image_name_taken UNIQUE (owner_id, name)
);
CREATE INDEX image_by_name ON image (name, image_id);
CREATE INDEX image_by_modified ON image (modified, image_id);
CREATE INDEX image_by_size ON image (default_size, image_id);
CREATE INDEX image_by_expiry ON image (expires) WHERE expires IS NOT NULL;

CREATE TABLE image_hypervisor (
    image_id    bigint NOT NULL REFERENCES image ON DELETE CASCADE,
    position    integer NOT NULL,
    hypervisor  text NOT NULL,
    kind        text NOT NULL DEFAULT 'hypervisor' CHECK (kind = 'hypervisor'),
    PRIMARY KEY (image_id, hypervisor),
    CONSTRAINT image_hypervisor_word FOREIGN KEY (hypervisor, kind) REFERENCES word (word, kind)
);
CREATE INDEX image_hypervisor_word ON image_hypervisor (hypervisor);

-- Bytes under a random key that is never used again.
--   receiving  on their way in; reserved bytes are held on the payer's account
--   present    durable, and an image points to them
--   deleting   nobody may get them any more; the sweeper removes them, then the row
--   damaged    lost or changed in the store; never removed by itself
CREATE TABLE blob (
    blob         text PRIMARY KEY,
    state        text NOT NULL DEFAULT 'receiving'
                 CHECK (state IN ('receiving', 'present', 'deleting', 'damaged')),
    payer_id     bigint REFERENCES account ON DELETE SET NULL,
    uploader_id  bigint REFERENCES account ON DELETE SET NULL,
    image_id     bigint REFERENCES image ON DELETE SET NULL,
    hypervisor   text,
    reserved     bigint NOT NULL DEFAULT 0,
    lease        timestamptz,
    created      timestamptz NOT NULL DEFAULT now(),
    size         bigint,
    sha256       text,
    sha512       text,
    md5          text,
    adler32      text,
    CHECK (state <> 'present' OR (size IS NOT NULL AND sha256 IS NOT NULL))
);
CREATE INDEX blob_unfinished ON blob (state, lease) WHERE state <> 'present';
CREATE INDEX blob_payer ON blob (payer_id);
CREATE INDEX blob_uploader ON blob (uploader_id) WHERE state = 'receiving';
CREATE INDEX blob_image ON blob (image_id);

CREATE TABLE image_file (
    image_id    bigint NOT NULL,
    hypervisor  text NOT NULL,
    blob        text NOT NULL UNIQUE REFERENCES blob,
    uploaded    timestamptz NOT NULL DEFAULT now(),
    version     integer NOT NULL DEFAULT 1,
    PRIMARY KEY (image_id, hypervisor),
    FOREIGN KEY (image_id, hypervisor) REFERENCES image_hypervisor ON DELETE CASCADE
);

-- The size of the file of the first listed hypervisor that has one, for lists to be
-- sorted by: kept by the database, so that no statement can forget it.
CREATE FUNCTION note_default_size() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE image SET default_size = coalesce((
        SELECT b.size FROM image_hypervisor h
          JOIN image_file f USING (image_id, hypervisor) JOIN blob b USING (blob)
         WHERE h.image_id = image.image_id ORDER BY h.position LIMIT 1), -1)
     WHERE image_id = coalesce(NEW.image_id, OLD.image_id);
    RETURN NULL;
END $$;
CREATE TRIGGER image_file_size AFTER INSERT OR UPDATE OR DELETE ON image_file
    FOR EACH ROW EXECUTE FUNCTION note_default_size();
CREATE TRIGGER image_hypervisor_size AFTER UPDATE ON image_hypervisor
    FOR EACH ROW WHEN (OLD.position <> NEW.position) EXECUTE FUNCTION note_default_size();

CREATE TABLE image_shared_with_user (
    image_id    bigint NOT NULL REFERENCES image ON DELETE CASCADE,
    account_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    PRIMARY KEY (image_id, account_id)
);
CREATE INDEX image_shared_with_user_account ON image_shared_with_user (account_id);

CREATE TABLE image_shared_with_group (
    image_id  bigint NOT NULL REFERENCES image ON DELETE CASCADE,
    group_id  bigint NOT NULL REFERENCES user_group ON DELETE CASCADE,
    PRIMARY KEY (image_id, group_id)
);
CREATE INDEX image_shared_with_group_group ON image_shared_with_group (group_id);
