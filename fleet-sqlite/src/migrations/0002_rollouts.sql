-- Plans never change and stand apart. What each member is doing stands in rows of its own, so that a change of one
-- member of a large rollout writes one row and not all.
CREATE TABLE rollouts (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    terminal   INTEGER NOT NULL CHECK (terminal IN (0, 1)),
    state      TEXT    NOT NULL
) STRICT;
CREATE INDEX rollouts_active ON rollouts (seq) WHERE terminal = 0;

CREATE TABLE rollout_plans (
    rollout_seq INTEGER PRIMARY KEY REFERENCES rollouts (seq) ON DELETE CASCADE,
    plan        TEXT NOT NULL
) STRICT;

CREATE TABLE rollout_members (
    rollout_seq INTEGER NOT NULL REFERENCES rollouts (seq) ON DELETE CASCADE,
    place       INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    PRIMARY KEY (rollout_seq, place)
) STRICT, WITHOUT ROWID;
