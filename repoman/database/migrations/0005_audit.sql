-- Who changed what, when and from where: each row's digest covers the one before.
CREATE TABLE audit (
    number      bigint PRIMARY KEY,
    moment      timestamptz NOT NULL,
    user_name   text NOT NULL,          -- no references: rows outlive users and images
    dn          text NOT NULL,
    address     text NOT NULL,
    request_id  text NOT NULL,
    action      text NOT NULL,
    subject     text NOT NULL,
    outcome     text NOT NULL,
    detail      jsonb NOT NULL,
    digest      text NOT NULL
);
CREATE INDEX audit_by_user ON audit (user_name, number);
CREATE INDEX audit_by_action ON audit (action, number);
CREATE INDEX audit_by_subject ON audit (subject, number);
CREATE INDEX audit_by_moment ON audit (moment);

-- The ends of the chain: the last row that was pruned, and the newest one.
CREATE TABLE audit_chain (
    only_one       boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    pruned         bigint NOT NULL DEFAULT 0,
    pruned_digest  text NOT NULL DEFAULT '',
    newest         bigint NOT NULL DEFAULT 0,
    newest_digest  text NOT NULL DEFAULT ''
);
INSERT INTO audit_chain DEFAULT VALUES;
