-- Marks the file as fleet's: "flet" in ASCII.
PRAGMA application_id = 0x666c6574;

-- Instances are (host, name), instants are RFC 3339 in UTC with nine digits of fraction, so that text order is time
-- order. Booleans are 0 and 1.

-- The plan stands apart from what changes, so that an ordinary append touches neither.
CREATE TABLE updates (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    created_at    TEXT    NOT NULL,
    boot_id       TEXT    NOT NULL,
    outcome       TEXT,
    volumes_dirty INTEGER NOT NULL DEFAULT 0 CHECK (volumes_dirty IN (0, 1)),
    closed        INTEGER NOT NULL DEFAULT 0 CHECK (closed IN (0, 1))
) STRICT;
CREATE INDEX updates_open ON updates (seq) WHERE closed = 0;

CREATE TABLE update_plans (
    update_seq INTEGER PRIMARY KEY REFERENCES updates (seq) ON DELETE CASCADE,
    saga       INTEGER NOT NULL,
    plan       TEXT    NOT NULL
) STRICT;

CREATE TABLE update_members (
    update_seq INTEGER NOT NULL REFERENCES updates (seq) ON DELETE CASCADE,
    member     INTEGER NOT NULL,
    host       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    live       INTEGER NOT NULL CHECK (live IN (0, 1)),
    PRIMARY KEY (update_seq, member)
) STRICT, WITHOUT ROWID;
-- The database itself enforces one live update per instance.
CREATE UNIQUE INDEX update_members_live ON update_members (host, name) WHERE live = 1;
CREATE INDEX update_members_instance ON update_members (host, name, update_seq);

-- Append-only; numbers start at 0 and have no gap.
CREATE TABLE update_steps (
    update_seq INTEGER NOT NULL REFERENCES updates (seq) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    at         TEXT    NOT NULL,
    member     INTEGER NOT NULL,
    phase      TEXT    NOT NULL,
    step       TEXT,
    payload    TEXT,
    PRIMARY KEY (update_seq, seq)
) STRICT, WITHOUT ROWID;

-- Numbers are never used twice, even after the oldest events were dropped.
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    at        TEXT NOT NULL,
    kind      TEXT NOT NULL,
    actor     TEXT NOT NULL,
    tenant    TEXT,
    host      TEXT,
    name      TEXT,
    rollout   TEXT,
    update_id TEXT,
    data      TEXT,
    CHECK ((host IS NULL) = (name IS NULL))
) STRICT;
CREATE INDEX events_tenant ON events (tenant) WHERE tenant IS NOT NULL;
CREATE INDEX events_instance ON events (name, host) WHERE name IS NOT NULL;

CREATE TABLE quarantine (
    host   TEXT NOT NULL,
    name   TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    at     TEXT NOT NULL,
    PRIMARY KEY (host, name, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployed (
    host     TEXT NOT NULL,
    name     TEXT NOT NULL,
    image    TEXT NOT NULL,
    digest   TEXT NOT NULL,
    image_id TEXT NOT NULL,
    at       TEXT NOT NULL,
    PRIMARY KEY (host, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant_configs (
    tenant             TEXT    PRIMARY KEY,
    mode               TEXT    NOT NULL,
    preferred_hour_utc INTEGER NOT NULL CHECK (preferred_hour_utc BETWEEN 0 AND 23),
    windows            TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_settings (
    only         INTEGER PRIMARY KEY CHECK (only = 1),
    mode         TEXT NOT NULL,
    pause_by     TEXT,
    pause_reason TEXT,
    pause_since  TEXT,
    CHECK ((pause_by IS NULL) = (pause_since IS NULL) AND (pause_by IS NULL) = (pause_reason IS NULL))
) STRICT;

CREATE TABLE setting_values (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- seen_digest and first_seen outlive a look at which the registry could not say.
CREATE TABLE availability (
    host        TEXT NOT NULL,
    name        TEXT NOT NULL,
    image       TEXT NOT NULL,
    digest      TEXT,
    behind      INTEGER CHECK (behind IN (0, 1)),
    note        TEXT,
    seen_digest TEXT,
    first_seen  TEXT NOT NULL,
    checked_at  TEXT NOT NULL,
    PRIMARY KEY (host, name)
) STRICT, WITHOUT ROWID;

-- Who may write. A writer whose epoch is no longer the newest is refused.
CREATE TABLE lease (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    epoch  INTEGER NOT NULL,
    holder TEXT    NOT NULL
) STRICT;
