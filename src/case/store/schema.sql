-- Times are Unix milliseconds where a column ends in _at, Unix seconds otherwise.

-- One message of which at least one recipient was deferred. Queue IDs are reused: only the three together name it.
CREATE TABLE cases (
    -- Random: links name cases by it, and after a database was lost or restored no old link may open another case.
    id          INTEGER PRIMARY KEY,
    queue_id    TEXT NOT NULL,
    sender      TEXT NOT NULL,            -- '' is the null sender
    arrival     INTEGER NOT NULL,
    subject     TEXT NOT NULL,
    message_id  TEXT,
    retry_until INTEGER,
    state       TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    claimed_at  INTEGER,                  -- a process is sending the notification since then
    notified_at INTEGER,
    UNIQUE (queue_id, arrival, sender)
) STRICT;
CREATE INDEX cases_by_state ON cases (state, id);

CREATE TABLE recipients (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    case_id  INTEGER NOT NULL REFERENCES cases (id),
    number   INTEGER NOT NULL,
    address  TEXT NOT NULL,
    failure  TEXT NOT NULL,
    status   TEXT NOT NULL,
    detail   TEXT NOT NULL,
    may_send INTEGER NOT NULL,
    state    TEXT NOT NULL,
    UNIQUE (case_id, number),
    UNIQUE (case_id, address)
) STRICT;

-- Everything that was ever chosen. A send or a delete is final: the first one for a recipient wins.
CREATE TABLE decisions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    recipient_id INTEGER NOT NULL REFERENCES recipients (id),
    action       TEXT NOT NULL,
    actor        TEXT NOT NULL,
    client       TEXT NOT NULL,           -- address that the decision came from
    decided_at   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX final_decisions ON decisions (recipient_id) WHERE action <> 'keep';

-- The journal. A move carries out the final decisions of one form; `step` is what is known to be on disk.
CREATE TABLE moves (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    case_id     INTEGER NOT NULL REFERENCES cases (id),
    step        TEXT NOT NULL,
    held_before INTEGER,                  -- was the message on hold before PostTLS came? NULL: not looked at yet
    copy_name   TEXT,                     -- queue file in the may instance's hold queue
    begun_at    INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX moves_unfinished ON moves (id) WHERE step NOT IN ('done', 'conflict');

CREATE TABLE move_recipients (
    move_id      INTEGER NOT NULL REFERENCES moves (id),
    recipient_id INTEGER NOT NULL REFERENCES recipients (id),
    action       TEXT NOT NULL,
    outcome      TEXT,
    PRIMARY KEY (move_id, recipient_id)
) STRICT, WITHOUT ROWID;

-- What happened, for the admin. Rows are added and never changed.
CREATE TABLE events (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,           -- Unix milliseconds
    case_id   INTEGER REFERENCES cases (id),
    queue_id  TEXT NOT NULL,
    recipient TEXT NOT NULL,              -- '' is the message as a whole
    what      TEXT NOT NULL,
    detail    TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_case ON events (case_id, id);
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

-- Notices that posttls-pipe did not understand or did not trust, whole, for the admin.
CREATE TABLE odd_notices (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    queue_id TEXT NOT NULL,               -- of the notice itself
    why      TEXT NOT NULL,
    raw      BLOB NOT NULL
) STRICT;
