-- Deletion of tenants, filters of keys and of the audit log, remembered answers.

-- +goose Up
ALTER TABLE keys ADD COLUMN lifetime INTEGER NOT NULL DEFAULT 0; -- microseconds
-- The name in lower case as Go's strings.ToLower makes it. NULL stands for
-- lower(name), which is the same for ASCII: that spares most keys a copy, and
-- this migration a row for each.
ALTER TABLE keys ADD COLUMN folded_name TEXT;
-- When the key was used last, or else made.
ALTER TABLE keys ADD COLUMN active_at INTEGER AS (CASE last_used_at WHEN 0 THEN created_at ELSE last_used_at END) VIRTUAL;

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
CREATE INDEX keys_by_end ON keys (expires_at, id) WHERE revoked_at = 0 AND expires_at <> 0;
CREATE INDEX keys_by_organization_and_end ON keys (organization, expires_at, id) WHERE revoked_at = 0 AND expires_at <> 0;
CREATE INDEX keys_by_activity ON keys (active_at, id);
CREATE INDEX keys_by_organization_and_activity ON keys (organization, active_at, id);

-- Who is deleted is looked up among those who may refer to it.
CREATE INDEX grants_by_organization ON grants (organization, space);

CREATE INDEX audit_by_time ON audit (at, id);
CREATE INDEX audit_by_organization ON audit (organization, at, id);
CREATE INDEX audit_by_target ON audit (target, at, id);

-- Answers for clients that ask again.
CREATE TABLE remembered (
    id     TEXT    NOT NULL PRIMARY KEY,
    digest TEXT    NOT NULL,
    answer BLOB    NOT NULL,
    until  INTEGER NOT NULL
) STRICT;
CREATE INDEX remembered_until ON remembered (until);
