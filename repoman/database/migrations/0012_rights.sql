-- Whose expiry was set by somebody who may not remove files is no longer served then, but keeps them.
ALTER TABLE image ADD COLUMN keeps_files boolean NOT NULL DEFAULT false;

-- The DNs of the file of administrators that were looked at once, for ever: whoever was removed, or
-- is no administrator any more, does not come back at the next start.  The audit knows of some.
CREATE TABLE admin_line (
    subject  text PRIMARY KEY,
    since    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO admin_line (subject)
SELECT DISTINCT jsonb_path_query(detail, '$.client_dns[*]') #>> '{}' FROM audit
 WHERE action = 'user.create' AND outcome = 'done'
   AND jsonb_path_exists(detail, '$.groups[*] ? (@ == "admins")')
ON CONFLICT DO NOTHING;

-- Addresses that users set themselves are unique no more: a refusal told who is registered.
ALTER TABLE account ADD COLUMN own_email boolean NOT NULL DEFAULT false;
ALTER TABLE account DROP CONSTRAINT account_email_taken;
CREATE UNIQUE INDEX account_email_taken ON account (email) WHERE NOT own_email;
