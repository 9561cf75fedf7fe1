-- Deletion of tenants, filters of keys and of the audit log, remembered answers.
-- An index ends with the row's number, which tells equal entries apart.

-- +goose Up
ALTER TABLE keys ADD COLUMN lifetime INTEGER NOT NULL DEFAULT 0; -- microseconds

CREATE INDEX keys_by_account ON keys (account, id);
CREATE INDEX keys_by_space ON keys (organization, space, id) WHERE space IS NOT NULL;
CREATE INDEX keys_paused ON keys (id) WHERE revoked_at = 0 AND paused_at <> 0;
CREATE INDEX keys_paused_by_organization ON keys (organization, id) WHERE revoked_at = 0 AND paused_at <> 0;
CREATE INDEX keys_revoked ON keys (id) WHERE revoked_at <> 0;
CREATE INDEX keys_revoked_by_organization ON keys (organization, id) WHERE revoked_at <> 0;
-- Keys that end, newest first: those that have ended are among them.
CREATE INDEX keys_ending ON keys (id, expires_at) WHERE revoked_at = 0 AND expires_at <> 0;
CREATE INDEX keys_ending_by_organization ON keys (organization, id, expires_at) WHERE revoked_at = 0 AND expires_at <> 0;
-- The same, soonest first.
CREATE INDEX keys_by_end ON keys (expires_at) WHERE revoked_at = 0 AND expires_at <> 0;
CREATE INDEX keys_by_organization_and_end ON keys (organization, expires_at) WHERE revoked_at = 0 AND expires_at <> 0;
-- When a key was used last, or else made.
CREATE INDEX keys_by_activity ON keys (CASE last_used_at WHEN 0 THEN created_at ELSE last_used_at END);
CREATE INDEX keys_by_organization_and_activity ON keys (organization, CASE last_used_at WHEN 0 THEN created_at ELSE last_used_at END);

-- Who is to be deleted is looked for among those who may refer to it.
CREATE INDEX grants_by_organization ON grants (organization, space);

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_organization ON audit (organization, at);
CREATE INDEX audit_by_target ON audit (target, at);

-- Answers for clients that ask again.
CREATE TABLE remembered (
    id     TEXT    NOT NULL PRIMARY KEY,
    digest TEXT    NOT NULL,
    answer BLOB    NOT NULL,
    until  INTEGER NOT NULL
) STRICT;
CREATE INDEX remembered_until ON remembered (until);
