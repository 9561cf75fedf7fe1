-- Times are microseconds since 1970 in UTC; 0 stands for no time.
-- A reference to nothing is NULL, which foreign keys skip; other empty text is ''.

-- +goose Up
CREATE TABLE organizations (
    id         TEXT    NOT NULL PRIMARY KEY,
    slug       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    plan       TEXT    NOT NULL,
    overrides  TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE spaces (
    id           TEXT    NOT NULL PRIMARY KEY,
    organization TEXT    NOT NULL REFERENCES organizations (id),
    slug         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (organization, slug),
    UNIQUE (organization, id) -- what keys and grants refer to, so that a space is never another customer's
) STRICT;

CREATE TABLE accounts (
    id           TEXT    NOT NULL PRIMARY KEY,
    organization TEXT    REFERENCES organizations (id),
    name         TEXT    NOT NULL,
    email        TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX accounts_by_organization ON accounts (organization, id);

CREATE TABLE grants (
    id           TEXT    NOT NULL PRIMARY KEY,
    account      TEXT    NOT NULL REFERENCES accounts (id),
    organization TEXT    REFERENCES organizations (id),
    space        TEXT,
    role         TEXT    NOT NULL,
    permission   TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    FOREIGN KEY (organization, space) REFERENCES spaces (organization, id)
) STRICT;
CREATE INDEX grants_by_account ON grants (account, id);

CREATE TABLE keys (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    description   TEXT    NOT NULL,
    organization  TEXT    REFERENCES organizations (id),
    space         TEXT,
    account       TEXT    NOT NULL REFERENCES accounts (id),
    permissions   TEXT    NOT NULL, -- JSON array
    allowed_cidrs TEXT    NOT NULL, -- JSON array
    plan          TEXT    NOT NULL,
    overrides     TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    paused_at     INTEGER NOT NULL,
    revoked_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    rotated_at    INTEGER NOT NULL,
    FOREIGN KEY (organization, space) REFERENCES spaces (organization, id)
) STRICT;
CREATE INDEX keys_by_organization ON keys (organization, id);
CREATE INDEX keys_by_name ON keys (name, id);
CREATE INDEX keys_by_organization_and_name ON keys (organization, name, id);
-- Counts what a plan's number of keys bounds: neither revoked nor expired.
CREATE INDEX keys_in_force ON keys (organization, expires_at) WHERE revoked_at = 0;

CREATE TABLE secrets (
    hash         BLOB    NOT NULL PRIMARY KEY, -- SHA-256
    key          TEXT    NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
    position     INTEGER NOT NULL, -- 0 is the present secret
    prefix       TEXT    NOT NULL,
    last_four    TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    ends_at      INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    imported     INTEGER NOT NULL -- 0 or 1
) STRICT, WITHOUT ROWID;
CREATE INDEX secrets_by_key ON secrets (key, position);

CREATE TABLE settings (
    name    TEXT    NOT NULL PRIMARY KEY,
    value   TEXT    NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    id            TEXT    NOT NULL PRIMARY KEY,
    at            INTEGER NOT NULL,
    action        TEXT    NOT NULL,
    actor         TEXT    NOT NULL,
    actor_account TEXT    NOT NULL,
    address       TEXT    NOT NULL,
    request_id    TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    organization  TEXT    NOT NULL,
    before        BLOB    NOT NULL,
    after         BLOB    NOT NULL
) STRICT;
-- +goose StatementBegin
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- +goose StatementEnd

-- AUTOINCREMENT: a number is never used again, though its entry is trimmed.
CREATE TABLE changes (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    organization TEXT    NOT NULL,
    version      INTEGER NOT NULL
) STRICT;
CREATE TABLE policies (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT    NOT NULL,
    at     INTEGER NOT NULL
) STRICT;
